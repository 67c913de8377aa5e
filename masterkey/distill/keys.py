"""Ways to choose keys: each takes shapes and a seed and returns the function from K to K keys."""

from collections.abc import Callable

from torch import Tensor

from ..host import on_host
from . import greedy, lloyd

KeysOf = Callable[[int], Tensor]
Method = Callable[[Tensor, int], KeysOf]

METHODS: dict[str, Method] = {"greedy": greedy.keys_of, "kmeans": lloyd.kmeans, "medoids": lloyd.medoids}


@on_host()
def explained(unit: Tensor, keys: Tensor) -> float:
    """Share of variance that ``keys`` explain of shapes: the mean of the largest squared cosine.

    For f = a * key + b with a and b free this is 1 - |f - a * key - b|^2 / |f - mean(f)|^2, and every filter counts
    the same.

    Args:
        unit: (n, d) shapes, rows of mean 0 and norm 1.
        keys: (K, d), the same.
    """
    return sum(float((part @ keys.T).square().amax(1).double().sum()) for part in unit.split(8192)) / len(unit)
