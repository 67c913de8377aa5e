"""Threads of an analysis, and torch's own."""

import torch

from masterkey.analysis.workers import workers


def test_pools_that_overlap_leave_torchs_threads_as_they_were():
    """As two analyses in one server: the number is the process', and the second must not take the first's for it."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        first, second = workers(), workers()
        first.__enter__()
        assert len(set(second.__enter__().map(lambda _: torch.get_num_threads(), range(4)))) == 1
        first.__exit__(None, None, None)
        assert torch.get_num_threads() == 1
        second.__exit__(None, None, None)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
