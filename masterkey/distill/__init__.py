"""Many filters to few keys: pruning, then one of three ways to choose them (docs/distill.md)."""

from .assignment import Assignment
from .distill import Prepared, distill, prepare
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
    "distill",
    "explained",
    "match",
    "mean_match",
    "prepare",
    "prune",
]
