"""Threads that each work on a layer or a bank of their own."""

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Lock

import torch

_lock = Lock()
_open: list[int] = []  # for every pool that is open, how many threads torch might use before the first


@contextmanager
def workers() -> Iterator[Executor]:
    """Open a pool of as many threads as torch may use, and let torch itself use one in each of them.

    Within a chunk every step is short: threads that share it wait for each other longer than they work, and on a busy
    machine many times longer. Torch's number is one for the whole process: of pools that overlap the last to close puts
    it back.
    """
    with _lock:
        _open.append(_open[0] if _open else torch.get_num_threads())
        threads = _open[0]
        torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            yield pool
    finally:
        with _lock:
            _open.pop()
            if not _open:
                torch.set_num_threads(threads)
