"""How much memory a run took, how to tell that there was too little, and how not to ask for it again and again."""

import ctypes
import gc
import os
import resource
import sys
from pathlib import Path

import torch

_SIGNS = (
    *("out of memory", "not enough memory", "can't allocate memory"),
    *("ALLOC_FAILED", "ALLOCATION_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED"),  # cuDNN's and cuBLAS' words for a full GPU
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or in the CPU's allocator."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in _SIGNS)


def peak_memory(device: torch.device) -> int:
    """Return bytes: what torch allocated at most on a GPU, or the most this process had resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    # unlike ru_maxrss it begins anew with forget_peak_memory, and knows nothing of the parent process
    since = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return 1024 * (since[0] if since else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def forget_peak_memory() -> None:
    """Let the peak of this process' memory be that of what comes now; where that is not possible nothing happens.

    Otherwise the run that happens to decode a data set, the first one on it, would seem to need the memory for that,
    and a run that follows another in one process the memory of the larger.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:  # what keep_freed_memory kept of a run before
        trim(0)
    counter = Path("/proc/self/clear_refs")
    if os.access(counter, os.W_OK):
        counter.write_text("5")  # as proc_pid_clear_refs(5) has it


def keep_freed_memory() -> None:
    """Let this process keep what it frees, on Linux with glibc; elsewhere nothing happens.

    By default glibc gives the large tensors of a step back to the system and asks for them anew in the next one. For
    convnext_femto at 64 pixels and batch 64 that is 20,000 page faults or 40 ms of 500 in every step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3  # from malloc.h
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_threshold, 2**25)  # the most that is allowed
