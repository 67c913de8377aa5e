"""Threads that each work on a layer or a bank of their own."""

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager

import torch


@contextmanager
def workers() -> Iterator[Executor]:
    """Open a pool of as many threads as torch may use, and let torch itself use one in each of them.

    Within a chunk every step is short: threads that share it wait for each other longer than they work, and on a busy
    machine many times longer.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)
