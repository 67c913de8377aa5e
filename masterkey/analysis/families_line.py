"""Families along an autoencoder's code line (arXiv:2401.14469), and how far they agree with the explicit models.

The line's codes are sampled evenly and decoded; a filter belongs to the sample that reconstructs it with the least
loss, if its cosine with it reaches a threshold. A sample's family is what the explicit models call its decoded shape.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..distill.autoencoder import CodeLine
from ..metadata import Kernel
from .families import LABELS, NONE, classify

SAMPLES = 50
THRESHOLDS = tuple(step / 20 for step in range(8, 20))


@dataclass(frozen=True)
class LineFamilies:
    """Filters assigned to samples of a code line.

    Attributes:
        sample: (n,) number of each filter's sample.
        loss: (n,) its reconstruction loss, |f - decoded|^2 of the unit-norm shape.
        cosine: (n,) with the sample's shape, signed: the line decodes either sign by itself.
        shapes: (samples, d) decoded, at unit norm.
        family: (samples,) number in ``LABELS`` of each sample's shape.
    """

    sample: Tensor
    loss: Tensor
    cosine: Tensor
    shapes: Tensor
    family: Tensor

    def at(self, threshold: float) -> Tensor:
        """Labels (n,) of the filters whose cosine reaches the threshold, "none" for the others."""
        return torch.where(self.cosine >= threshold, self.family[self.sample], NONE)


def classify_along(line: CodeLine, unit: Tensor, kernel: Kernel, samples: int = SAMPLES) -> LineFamilies:
    """Assign shapes (n, d) of one kernel size to ``samples`` even codes of a line trained on them."""
    codes = torch.linspace(0, 1, samples)
    decoded, shapes = line.reconstruct(codes), line.decode(codes)
    # |f - g|^2 = 1 - 2 f.g + |g|^2
    losses = torch.cat([1 - 2 * part @ decoded.T + decoded.square().sum(1) for part in unit.split(8192)])
    loss, sample = losses.min(1)
    cosine = (unit * shapes[sample]).sum(1)
    return LineFamilies(sample, loss, cosine, shapes, classify(shapes.view(-1, *kernel)).label)


def sweep(line: LineFamilies, explicit: Tensor, thresholds: Sequence[float] = THRESHOLDS) -> list[dict[str, float]]:
    """Compare the two ways at several thresholds of the line; ``explicit`` (n,) are the explicit models' labels.

    Each row has, as shares of all filters: ``assigned`` (the line's cosine reaches the threshold), ``both`` (and the
    explicit models name a family too), ``neither``. As shares of those assigned: ``purity``, the filters whose explicit
    label is the most frequent one of their sample. As a share of ``both``: ``agreement``, the same label by both ways.
    """
    rows = []
    for threshold in thresholds:
        taken = line.cosine >= threshold
        counts = torch.zeros(len(line.shapes), len(LABELS))
        counts.index_put_((line.sample[taken], explicit[taken]), torch.ones(int(taken.sum())), accumulate=True)
        both = taken & (explicit != NONE) & (line.family[line.sample] != NONE)
        same = both & (line.family[line.sample] == explicit)
        rows.append(
            {
                "threshold": threshold,
                "assigned": _share(taken),
                "both": _share(both),
                "neither": _share(~taken & (explicit == NONE)),
                "purity": float(counts.amax(1).sum()) / max(1, int(taken.sum())),
                "agreement": int(same.sum()) / max(1, int(both.sum())),
            }
        )
    return rows


def _share(mask: Tensor) -> float:
    return float(mask.double().mean())
