"""How clusterable filters are, against the same filters with their pixels shuffled (arXiv:2401.14469).

The seed clusters filters and counts those whose cosine with their cluster's pattern reaches a threshold; networks with
higher accuracy and more training data had more of them. It does not say which clusters another network has, so here
each network gets its own: k-means with 8 centres on the sphere, after 2509.11711's number of keys, signs free. That,
and the silhouette beside it, is this project's choice. Eight centres fit few filters, and small kernels, better than
many and large ones; the control, the same filters with their pixels shuffled, has the same number and size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..distill.lloyd import kmeans
from ..errors import MasterkeyError
from ..host import on_host
from ..shapes import permuted_pixels, shapes_of
from ..whole import whole_number
from .families import check_threshold

CENTRES = 8
THRESHOLD = 0.85
MOST = 2000  # filters that are clustered; of more, so many are drawn


@dataclass(frozen=True)
class Clusterability:
    """Figures of the filters, and of the same filters with their pixels shuffled (mean of the draws).

    Attributes:
        filters: how many were clustered.
        assigned, control_assigned: share whose |cosine| with the nearest centre reaches the threshold.
        explained, control_explained: mean squared cosine with the nearest centre, the share of variance it explains.
        silhouette, control_silhouette: mean of (b - a) / max(a, b), where a and b are 1 - |cosine| with the nearest
            and the second nearest centre; 0 to 1.
    """

    filters: int
    assigned: float
    control_assigned: float
    explained: float
    control_explained: float
    silhouette: float
    control_silhouette: float

    @property
    def gain(self) -> float:
        """Variance explained beyond that of shuffled pixels: the figure to compare networks by."""
        return self.explained - self.control_explained


@on_host()
def clusterability(
    filters: Tensor, centres: int = CENTRES, threshold: float = THRESHOLD, seed: int = 0, draws: int = 3
) -> Clusterability:
    """Cluster filters (n, kh, kw) of one kernel; constant ones are left out.

    Args:
        filters: of one network; near-dead filters should have been pruned.
        centres: number of clusters.
        threshold: of |cosine| with the nearest centre.
        seed: of the drawing of filters, the beginnings of k-means and the shuffling.
        draws: how many times pixels are shuffled.

    Raises:
        MasterkeyError: not (n, kh, kw), not more filters than centres, fewer than two centres, no draw, or a threshold
            that is no |cosine|.
    """
    # the silhouette needs a second centre
    centres, draws = whole_number(centres, "a number of centres", 2), whole_number(draws, "a number of draws", 1)
    check_threshold(threshold)
    if filters.ndim != 3:
        raise MasterkeyError(f"clusterability is of filters (n, kh, kw), not {[*filters.shape]}")
    generator = torch.Generator().manual_seed(seed)
    unit = shapes_of(filters).unit
    unit = unit[unit.norm(dim=1) > 0]
    if len(unit) > MOST:
        unit = unit[torch.randperm(len(unit), generator=generator)[:MOST]]
    if len(unit) <= centres:
        raise MasterkeyError(f"{len(unit)} filters that are not constant cannot be told from {centres} clusters")
    real = _figures(unit, centres, threshold, seed)
    shuffled = [_figures(permuted_pixels(unit, generator), centres, threshold, seed + draw) for draw in range(draws)]
    control = torch.tensor(shuffled, dtype=torch.float64).mean(0).tolist()
    return Clusterability(len(unit), *(figure for pair in zip(real, control, strict=True) for figure in pair))


def _figures(unit: Tensor, centres: int, threshold: float, seed: int) -> tuple[float, float, float]:
    found = kmeans(unit, seed)(centres)
    two = (unit @ found.T).abs().double().topk(2, dim=1).values.clamp(max=1)
    nearest, second = two.unbind(1)
    a, b = 1 - nearest, 1 - second
    silhouette = torch.where(b > 0, (b - a) / torch.where(b > 0, b, 1.0), 0.0)
    return (
        float((nearest >= threshold).double().mean()),
        float(nearest.square().mean()),
        float(silhouette.mean()),
    )
