"""Benchmarks: the harness, and in ``scripts`` those whose recorded results back the figures in README."""

from masterkey.errors import MasterkeyError

try:
    import fcntl  # noqa: F401  (a run is held by flock, which the kernel takes back from a process that was killed)
except ImportError:  # on Windows
    raise MasterkeyError("the benchmarks need Linux, macOS or WSL; all else of masterkey does not") from None
