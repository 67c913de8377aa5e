"""Which pictures of a part are used: parts for the test and for validation carved out of train, fewer a class.

Every choice depends on the labels and a seed alone. ``RandomState`` draws, because NumPy promises that its numbers
never change, which it does not of ``default_rng``.
"""

import numpy as np

# what a choice is for; apart, or a class's last pictures by one choice would be the last by the other
_CARVE, _LIMIT, _TEST = 0, 1, 2
_TEST_SHARE = 0.2


def carve(labels: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Divide a part into one to learn from and one to validate on, class by class.

    Of a class with n pictures, round(share * n) are for validation, but at least one and at most n - 1; a single
    picture stays in train. A smaller share is a part of a larger one with the same seed.

    Args:
        labels: int64 (n,).
        share: between 0 and 1.
        seed: from 0 to 2**32 - 1.

    Returns:
        The rows of either part, ascending.
    """
    return _divide(labels, share, seed, _CARVE)


def set_test_aside(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Divide a set that has no test part into one to learn from and a fifth of each class to test on.

    As ``carve``, but never with another share or seed: a test part that can be chosen is none.
    """
    return _divide(labels, _TEST_SHARE, 0, _TEST)


def limit(labels: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Return at most ``per_class`` rows of each class, ascending; fewer are a part of more with the same seed."""
    classes, counts = np.unique(labels, return_counts=True)
    return _first_of_each_class(labels, classes, np.minimum(counts, per_class), seed, _LIMIT)


def _divide(labels: np.ndarray, share: float, seed: int, purpose: int) -> tuple[np.ndarray, np.ndarray]:
    classes, counts = np.unique(labels, return_counts=True)
    wanted = np.clip(np.floor(counts * share + 0.5).astype(np.int64), 1, None)
    held_out = _first_of_each_class(labels, classes, np.minimum(wanted, counts - 1), seed, purpose)
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out


def _first_of_each_class(
    labels: np.ndarray, classes: np.ndarray, wanted: np.ndarray, seed: int, purpose: int
) -> np.ndarray:
    draws = np.random.RandomState([seed, purpose]).random_sample(len(labels))
    order = np.lexsort((draws, labels))
    first = np.searchsorted(labels[order], classes)
    chosen = [order[start : start + count] for start, count in zip(first, wanted, strict=True)]
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, dtype=np.int64)
