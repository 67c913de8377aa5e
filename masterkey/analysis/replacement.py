"""What a family of filters is worth to a network: replace its filters, and see what is lost (arXiv:2401.14469).

The seed asks what the families do for a trained network; replacing a family by noise answers by what breaks. Noise has
each filter's mean and its norm about that mean, so that only the shape is gone. What else breaks then has to be known
too: the same number of filters drawn at random from the same layers is the control for "how many, and where".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import MasterkeyError
from ..shapes import near_dead, permuted_pixels, shapes_of
from .families import FAMILIES, LABELS, THRESHOLD, classify

Replacement = Literal["noise", "mean", "pixels"]
GROUPS = (*FAMILIES, "none", "dead")
DEAD = 0.1  # of its layer's median norm: below, a filter counts as dead, as in ``Bank.pruned``


@dataclass(frozen=True)
class Census:
    """Every spatial filter of some layers, N in all, layer after layer.

    Attributes:
        layers: their names in order, and how many filters each has (outputs times inputs per group).
        kernel: (N,) the larger side of each filter's kernel.
        label: (N,) number in ``families.LABELS``.
        group: (N,) number in ``GROUPS``: the family whatever its direction, "none", or "dead" whatever its shape.
    """

    layers: Mapping[str, int]
    kernel: Tensor
    label: Tensor
    group: Tensor

    def members(self, group: str, kernel: int | None = None) -> Tensor:
        """Mask (N,) of a group's filters, of one kernel size where that is given.

        Raises:
            MasterkeyError: no such group.
        """
        if group not in GROUPS:
            raise MasterkeyError(f"no group {group!r}; there are {', '.join(GROUPS)}")
        mask = self.group == GROUPS.index(group)
        return mask if kernel is None else mask & (self.kernel == kernel)

    def as_many(self, chosen: Tensor, seed: int) -> Tensor:
        """Mask (N,) of filters drawn at random: in every layer as many as ``chosen`` has there, dead ones left out."""
        generator = torch.Generator().manual_seed(seed)
        rank = torch.rand(len(self.group), generator=generator) + 2.0 * (self.group == GROUPS.index("dead"))
        drawn = torch.zeros_like(chosen)
        start = 0
        for size in self.layers.values():
            part = slice(start, start + size)
            drawn[start + rank[part].argsort()[: int(chosen[part].sum())]] = True
            start += size
        return drawn


def census(layers: Mapping[str, Tensor], threshold: float = THRESHOLD) -> Census:
    """Classify every spatial filter of layers name -> (out, in per group, kh, kw), sides of 3 or more.

    Raises:
        MasterkeyError: no layer, or one whose filters have no family (a side below 3).
    """
    if not layers:
        raise MasterkeyError("no layer whose filters could be classified")
    planes = {name: weight.detach().flatten(0, 1) for name, weight in layers.items()}
    label = torch.cat([classify(each, threshold).label for each in planes.values()])
    family = torch.tensor([GROUPS.index(_family(name)) for name in LABELS])
    norms = [each.double().flatten(1).norm(dim=1) for each in planes.values()]
    dead = torch.cat([near_dead(norm, DEAD) for norm in norms])
    kernel = torch.cat([torch.full((len(each),), max(each.shape[1:])) for each in planes.values()])
    group = torch.where(dead, GROUPS.index("dead"), family[label])
    return Census({name: len(each) for name, each in planes.items()}, kernel, label, group)


def replaced(
    layers: Mapping[str, Tensor], of: Census, chosen: Tensor, how: Replacement, seed: int = 0
) -> dict[str, Tensor]:
    """Replace the chosen filters of all layers and return new weights of the same shapes.

    Args:
        layers: name -> (out, in per group, kh, kw), those that ``of`` was made of.
        of: their census.
        chosen: (N,) which filters.
        how: ``noise``: white noise; ``mean``: the mean shape of the chosen filters of the same label and kernel, each
            with the sign that fits it; both with each filter's own mean and norm about the mean. ``pixels``: the
            filter's own weights at other places.
        seed: of noise and places.

    Raises:
        MasterkeyError: an unknown way.
    """
    if how not in ("noise", "mean", "pixels"):
        raise MasterkeyError(f"filters are replaced by noise, mean or pixels, not by {how!r}")
    generator = torch.Generator().manual_seed(seed)
    parts = dict(zip(of.layers, chosen.split([*of.layers.values()]), strict=True))
    labels = dict(zip(of.layers, of.label.split([*of.layers.values()]), strict=True))
    means = _mean_shapes(layers, parts, labels) if how == "mean" else {}
    new = {}
    for name, weight in layers.items():
        flat = weight.detach().flatten(2).flatten(0, 1).clone()
        mask = parts[name]
        shapes = shapes_of(flat[mask])
        if how == "pixels":
            flat[mask] = permuted_pixels(flat[mask], generator)
        else:
            if how == "noise":
                unit = shapes_of(torch.randn(shapes.unit.shape, generator=generator)).unit
            else:
                unit = torch.zeros_like(shapes.unit)
                for label in labels[name][mask].unique().tolist():
                    mean = means[label, tuple(weight.shape[2:])]
                    same = labels[name][mask] == label
                    unit[same] = (shapes.unit[same] @ mean).sign()[:, None] * mean
            flat[mask] = (shapes.mean[:, None] + shapes.norm[:, None] * unit.double()).to(flat.dtype)
        new[name] = flat.view_as(weight)
    return new


def _mean_shapes(
    layers: Mapping[str, Tensor], chosen: Mapping[str, Tensor], labels: Mapping[str, Tensor]
) -> dict[tuple[int, tuple[int, ...]], Tensor]:
    """Mean shape (d,) at unit norm of the chosen filters of each label and kernel, signs turned to agree."""
    pools: dict[tuple[int, tuple[int, ...]], list[Tensor]] = {}
    for name, weight in layers.items():
        units = shapes_of(weight.detach().flatten(0, 1)[chosen[name]]).unit
        found = labels[name][chosen[name]]
        for label in found.unique().tolist():
            pools.setdefault((label, tuple(weight.shape[2:])), []).append(units[found == label])
    return {key: _aligned_mean(torch.cat(units)) for key, units in pools.items()}


def _aligned_mean(units: Tensor) -> Tensor:
    leading = torch.linalg.eigh(units.T @ units).eigenvectors[:, -1]
    mean = ((units @ leading).sign()[:, None] * units).mean(0)
    return torch.nn.functional.normalize(mean, dim=0)


def _family(label: str) -> str:
    return label.rsplit(" ", 1)[0] if label.endswith((" x", " y", " oblique")) else label
