"""Many filters to few keys: pruning, then one of three ways to choose them (docs/distill.md)."""

from .assignment import Assignment
from .distillation import Prepared, distill, most_keys, prepare
from .kernels import by_kernel, distill_kernels
from .keys import METHODS, explained
from .match import match, mean_match
from .pruning import Pruning, prune
from .result import Distilled

__all__ = [
    "METHODS",
    "Assignment",
    "Distilled",
    "Prepared",
    "Pruning",
    "by_kernel",
    "distill",
    "distill_kernels",
    "explained",
    "match",
    "mean_match",
    "most_keys",
    "prepare",
    "prune",
]
