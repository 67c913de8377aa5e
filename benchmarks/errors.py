"""What the harness refuses."""

from masterkey.errors import MasterkeyError


class BenchmarkError(MasterkeyError):
    """An experiment, data set or result folder that cannot be used as it is."""


class DivergedError(BenchmarkError):
    """A training whose loss is no number any more."""
