"""The families of one kernel's filters, beside those of filters without structure."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..shapes import shapes_of
from .controls import CONTROLS
from .families import Families, classify
from .families_line import LineFamilies, classify_along, sweep
from .kernel_study import SEED, KernelStudy

LEAST = 3  # side of the smallest kernel that the models are for


@dataclass(frozen=True)
class KernelFamilies:
    """The families of one kernel's filters.

    Attributes:
        study: the filters; dead and constant ones have no family.
        sources: ``real`` and each control -> its fits, the same filter at the same place.
        layer: (n,) number in the study's layers of each real filter that was fitted.
        line: the same filters along the autoencoder's code line, if one was trained.
    """

    study: KernelStudy
    sources: dict[str, Families]
    layer: Tensor
    line: LineFamilies | None

    @property
    def label(self) -> Tensor:
        """Labels (n,) of the real filters by the explicit models."""
        return self.sources["real"].label

    @property
    def swept(self) -> list[dict[str, float]]:
        """The comparison of line and models at every threshold (``families_line.sweep``)."""
        return sweep(self.line, self.label) if self.line else []

    def of_layers(self, layers: Sequence[int]) -> dict[str, Tensor]:
        """Labels of the filters of some layers by source; a layer all of whose filters are dead has none."""
        among = torch.isin(self.layer, torch.tensor(layers))
        return {source: fits.label[among] for source, fits in self.sources.items()}


def find_families(study: KernelStudy) -> KernelFamilies | None:
    """Classify a study's filters, the same with their pixels shuffled, and noise of their norms; None: nothing can be.

    Every filter that is neither dead nor constant counts, whatever else pruning says of it.
    """
    alive = study.alive
    if min(study.kernel) < LEAST or not bool(alive.any()):
        return None
    filters = study.table.filters[alive]
    sources = {"real": classify(filters)}
    sources |= {name: classify(control(filters, SEED)) for name, control in CONTROLS.items()}
    line = classify_along(study.line, shapes_of(filters).unit, study.kernel) if study.line else None
    return KernelFamilies(study, sources, study.table.layer[alive], line)
