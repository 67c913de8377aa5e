"""Parts of a data set's classes: ImageNet's man-made and natural ones, as Yosinski et al. (2014) divide it."""

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from ..config import BenchmarkError

_WORDNET_ID = re.compile(r"n\d{8}(?!\d)")
_ORDERED = 0.98  # of 1,000 names must be ImageNet's for an order to be ImageNet's: editions differ in a few names


def classes_in_view(classes: Sequence[str], view: str) -> list[int]:
    """Return the numbers of the classes that are in ``view`` (one of ``VIEWS``), ascending.

    Classes are known by a WordNet id at the beginning of their name, or, where a data set has all 1,000 of ImageNet
    by name only, by their order. ``imagenet_views.txt`` is the list and states its rule.

    Raises:
        BenchmarkError: classes that are not ImageNet's, or none of them in the view.
    """
    side = {wordnet_id: side for wordnet_id, (side, _, _) in view_list().items()}
    ids = _wordnet_ids(classes)
    unknown = [name for name, wordnet_id in zip(classes, ids, strict=True) if wordnet_id not in side]
    if unknown:
        raise BenchmarkError(
            f"the view {view} divides the classes of ImageNet-1k, by WordNet id; {len(unknown)} of {len(classes)} "
            f"classes are none of them, such as {', '.join(map(repr, unknown[:3]))}"
        )
    kept = [number for number, wordnet_id in enumerate(ids) if side[wordnet_id] == view]
    if not kept:
        raise BenchmarkError(f"not one of the {len(classes)} classes is in the view {view}")
    return kept


@cache
def view_list() -> dict[str, tuple[str, str, str]]:
    """Return view, branch of WordNet and name of each class of ImageNet-1k by its WordNet id, in ImageNet's order."""
    text = files(__package__).joinpath("imagenet_views.txt").read_text(encoding="utf-8")
    rows = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    return {wordnet_id: (view, branch, name) for wordnet_id, view, branch, name in rows}


def _wordnet_ids(classes: Sequence[str]) -> list[str]:
    listed = view_list()
    if len(classes) == len(listed):
        pairs = zip(classes, listed.values(), strict=True)
        same = sum(_first_word(ours) == _first_word(theirs) for ours, (_, _, theirs) in pairs)
        if same >= _ORDERED * len(listed):
            return list(listed)
    found = [_WORDNET_ID.match(name) for name in classes]
    return [match.group() if match else "" for match in found]


def _first_word(name: str) -> str:
    return name.split(",")[0].strip().lower()
