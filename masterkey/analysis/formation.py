"""How filters form while a network learns, and whether another seed forms the same ones (001, section 4.2, Fig. 7).

All filters compared share one basis and one range a component, as everywhere (``structure``).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from torch import Tensor

from ..bank import Bank
from ..errors import MasterkeyError
from ..host import on_host
from ..metadata import Kernel
from .drift import Drift, drift
from .moments import Array
from .quality import qualities
from .ridges import Ridges, ridges_of
from .sources import as_filters
from .stream import Filters, LayerInfo
from .structure import Surveyed, kernels, measure, survey_all


@dataclass(frozen=True)
class Formation:
    """T checkpoints of one network with L layers of one kernel, in the order of training.

    Attributes:
        labels: of the checkpoints, T.
        layers: L; ``depth`` runs from 0 (input) to 1 (output).
        sparsity, entropy: S and H of every layer (eq. 6 and 7), (T, L).
        threshold: T_H of every layer (eq. 8), (L,); an entropy above it cannot be told from random weights.
        to_last: drift D (eq. 5) of each layer to the same layer of the last checkpoint, (T, L); 0 in the last row.
        whole_to_last: the same of all layers together, (T,).
        deviations: of the coefficients along each component, all layers together, (T, K).
        explained: variance explained by each component of the pooled basis, (K,).
        ridges: the distributions that ``deviations`` are of.
    """

    labels: tuple[str, ...]
    layers: tuple[LayerInfo, ...]
    sparsity: Array
    entropy: Array
    threshold: Array
    to_last: Array
    whole_to_last: Array
    deviations: Array
    explained: Array
    ridges: Ridges


@dataclass(frozen=True)
class Reproducibility:
    """Drifts D between runs of several models, all on one basis; a run is one training with one seed.

    ``halves`` is the level of chance: the even- against the odd-numbered filters of every layer of one run, which have
    half as many filters as the groups of all other figures, so that theirs is if anything lower.

    Attributes:
        halves: model -> D between the halves of each run.
        seeds: model -> D between every two runs.
        models: D between every run of one model and every run of another.
        same_layer: model -> D between every two runs, layer by layer, (pairs, L).
        other_layer: model -> D between every two layers of each run, (runs * L * (L - 1) / 2,).
    """

    halves: dict[str, list[float]]
    seeds: dict[str, list[float]]
    models: list[float]
    same_layer: dict[str, Array]
    other_layer: dict[str, Array]


class HalfFilters:
    """The even- (``odd`` False) or odd-numbered filters of every layer.

    Raises:
        MasterkeyError: a layer of a single filter.
    """

    def __init__(self, filters: Filters, label: str, odd: bool) -> None:
        self.label, self.metadata = label, filters.metadata
        self._filters, self._odd = filters, odd
        self.layers = tuple(
            replace(info, bank=label, filters=(info.filters + (not odd)) // 2) for info in filters.layers
        )
        if not all(info.filters for info in self.layers):
            raise MasterkeyError(f"{filters.label} has a layer of a single filter, which cannot be halved")

    def read(self, position: int, *, first: bool = False) -> Iterator[Tensor]:
        """Yield half a layer's filters in chunks (n, kh*kw)."""
        start = int(self._odd)
        for chunk in self._filters.read(position, first=first):
            if start < len(chunk):
                yield chunk[start::2]
            start = (start + len(chunk)) % 2


@on_host()
def formation(checkpoints: Mapping[str, Filters | Bank]) -> Formation:
    """Measure how the filters of one network changed over its checkpoints, label -> filters, in order.

    Raises:
        MasterkeyError: fewer than two checkpoints, different layers, or filters of several kernels
            (``formation_by_kernel`` takes each by itself).
    """
    read = _read_checkpoints(checkpoints)
    return _formation(tuple(checkpoints), read, _only_kernel(read))


@on_host()
def formation_by_kernel(checkpoints: Mapping[str, Filters | Bank]) -> dict[Kernel, Formation]:
    """Measure the formation of each spatial kernel's filters by itself, on a basis of its own.

    Raises:
        MasterkeyError: fewer than two checkpoints, different layers, or 1x1 filters alone.
    """
    read = _read_checkpoints(checkpoints)
    return {kernel: _formation(tuple(checkpoints), read, kernel) for kernel in _all_kernels(read)}


def _read_checkpoints(checkpoints: Mapping[str, Filters | Bank]) -> list[Surveyed]:
    if len(checkpoints) < 2:
        raise MasterkeyError("formation needs two checkpoints or more")
    read = survey_all([_labelled(filters, label) for label, filters in checkpoints.items()])
    if len({_layers(of.filters) for of in read}) > 1:
        raise MasterkeyError("the checkpoints do not have the same layers: they are not of one network")
    return read


def _formation(labels: tuple[str, ...], read: Sequence[Surveyed], kernel: Kernel) -> Formation:
    structure = measure(read, kernel)
    quality = [qualities([sums for sums in of.sums if sums.info.kernel == kernel]) for of in read]
    count, last = len(quality[0]), len(read) - 1
    by_layer = [
        drift(structure, {label: [t * count + layer] for t, label in enumerate(labels)}) for layer in range(count)
    ]
    wholes = {label: range(t * count, (t + 1) * count) for t, label in enumerate(labels)}
    ridges = ridges_of(structure, list(wholes.values()))
    return Formation(
        labels=labels,
        layers=structure.layers[last * count :],
        sparsity=np.array([[layer.sparsity for layer in layers] for layers in quality]),
        entropy=np.array([[layer.entropy for layer in layers] for layers in quality]),
        threshold=np.array([layer.threshold for layer in quality[0]]),
        to_last=np.stack([of.total[:, last] for of in by_layer], axis=1),
        whole_to_last=drift(structure, wholes).total[:, last],
        deviations=ridges.deviations,
        explained=structure.explained,
        ridges=ridges,
    )


@on_host()
def reproducibility(runs: Mapping[str, Sequence[Filters | Bank]]) -> Reproducibility:
    """Compare runs, model -> its trained filters, one entry a seed.

    Raises:
        MasterkeyError: no run, runs of one model with different layers, a layer of one filter, or filters of several
            kernels (``reproducibility_by_kernel`` takes each by itself).
    """
    read = _read_halves(runs)
    return _reproducibility(runs, read, _only_kernel(read))


@on_host()
def reproducibility_by_kernel(runs: Mapping[str, Sequence[Filters | Bank]]) -> dict[Kernel, Reproducibility]:
    """Compare runs by each spatial kernel's filters alone; a model without that kernel is left out there.

    Raises:
        MasterkeyError: no run, runs of one model with different layers, a layer of one filter, or 1x1 filters alone.
    """
    read = _read_halves(runs)
    with_kernel = {
        kernel: {
            model: several
            for model, several in runs.items()
            if any(kernel in {info.kernel for info in as_filters(filters).layers} for filters in several)
        }
        for kernel in _all_kernels(read)
    }
    return {kernel: _reproducibility(has, read, kernel) for kernel, has in with_kernel.items()}


def _read_halves(runs: Mapping[str, Sequence[Filters | Bank]]) -> list[Surveyed]:
    if not all(runs.values()) or not runs:
        without = [model for model, several in runs.items() if not several]
        raise MasterkeyError(f"there is no run{' of ' * bool(without)}{', '.join(without)} to compare")
    halves: list[Filters] = []
    for model, several in runs.items():
        opened = [as_filters(filters) for filters in several]
        if len({_layers(of) for of in opened}) > 1:
            raise MasterkeyError(f"the runs of {model} do not have the same layers: they are not of one network")
        for number, of in enumerate(opened):
            halves += [HalfFilters(of, f"{model} {number} {half}", half == "odd") for half in ("even", "odd")]
    return survey_all(halves)


def _reproducibility(
    runs: Mapping[str, Sequence[Filters | Bank]], read: Sequence[Surveyed], kernel: Kernel
) -> Reproducibility:
    structure = measure(read, kernel)
    at: dict[str, list[int]] = {}
    for index, info in enumerate(structure.layers):
        at.setdefault(info.bank, []).append(index)
    of_run = {
        (model, number): [at.get(f"{model} {number} {half}", []) for half in ("even", "odd")]
        for model, several in runs.items()
        for number in range(len(several))
    }
    wholes = drift(structure, {f"{model} {number}": [*even, *odd] for (model, number), (even, odd) in of_run.items()})
    parts = drift(structure, at)
    found = Reproducibility({}, {}, [], {}, {})
    for model, several in runs.items():
        mine = [f"{model} {number}" for number in range(len(several))]
        found.halves[model] = [_between(parts, f"{run} even", f"{run} odd") for run in mine]
        found.seeds[model] = [_between(wholes, *pair) for pair in combinations(mine, 2)]
        layers = [list(zip(*of_run[model, number], strict=True)) for number in range(len(several))]
        count = len(layers[0])
        groups = {f"{n} {layer}": layers[n][layer] for n in range(len(several)) for layer in range(count)}
        total = drift(structure, groups).total.reshape(len(several), count, len(several), count)
        found.same_layer[model] = np.array(
            [[total[a, layer, b, layer] for layer in range(count)] for a, b in combinations(range(len(several)), 2)]
        )
        upper = np.triu_indices(count, 1)
        found.other_layer[model] = np.concatenate([total[n, :, n, :][upper] for n in range(len(several))])
    for one, other in combinations(runs, 2):
        for a in range(len(runs[one])):
            found.models.extend(_between(wholes, f"{one} {a}", f"{other} {b}") for b in range(len(runs[other])))
    return found


def _layers(filters: Filters) -> tuple[tuple[str, Kernel, int], ...]:
    return tuple((layer.name, layer.kernel, layer.filters) for layer in filters.layers)


def _labelled(filters: Filters | Bank, label: str) -> Filters:
    if isinstance(filters, Bank):
        return as_filters(filters, label)
    return filters


def _all_kernels(read: Sequence[Surveyed]) -> list[Kernel]:
    if found := kernels(read):
        return found
    raise MasterkeyError("these filters are of 1x1, which have no shape")


def _only_kernel(read: Sequence[Surveyed]) -> Kernel:
    found = kernels(read)
    if len(found) != 1 or any(layer.info.kernel == (1, 1) for of in read for layer in of.sums):
        sizes = ", ".join(f"{kh}x{kw}" for kh, kw in found) or "1x1"
        raise MasterkeyError(
            f"these filters are of {sizes}; formation_by_kernel and reproducibility_by_kernel take each kernel by "
            "itself, and keep the layers' depths in the network"
        )
    return found[0]


def _between(of: Drift, first: str, second: str) -> float:
    return float(of.total[of.labels.index(first), of.labels.index(second)])
