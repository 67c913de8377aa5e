"""The page's section on one kernel: structure, drift between groups, distributions."""

from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

import numpy as np

from ..metadata import Kernel
from .collection import Collection, Grouping, without_degenerate
from .drift import Drift, drift
from .moments import Array
from .page import Column, Picture, Section, Table, Value
from .phenotypes import phenotype
from .plots import basis_picture, component_box, decile_box, drift_map, phenotype_scatter, png_bytes, ridges
from .quality import LayerQuality
from .sample import sample_coefficients
from .structure import Structure, Surveyed, measure

MAPPED = 40  # groups up to which a heat map can be read
_PAIR_COLUMNS = (
    Column("grouping", "grouping", "text"),
    Column("first", "first", "text"),
    Column("second", "second", "text"),
    Column("drift", "D"),
    Column("drift_without_degenerate", "D without degenerate layers"),
)


def kernel_section(
    collection: Collection, read: Sequence[Surveyed], layers: Sequence[LayerQuality], kernel: Kernel
) -> Section:
    """Return what there is to say and see of all filters of one kernel."""
    structure = measure(read, kernel)
    size = f"{kernel[0]}x{kernel[1]}"
    groupings = _groupings(collection, structure)
    main: Grouping = "bank" if "bank" in groupings else "decile"
    groups = groupings.get(main) or collection.groups(structure.layers, main)
    drifts = {by: drift(structure, of) for by, of in groupings.items()}
    spared = _ablation(collection, read, layers, kernel, groupings)
    pictures = [Picture(f"basis-{size}", f"Principal components of {size}", png_bytes(basis_picture(structure)))]
    for by, of in drifts.items():
        if len(of.labels) <= MAPPED:
            drawn = drift_map(of, f"Drift D by {_WORDS[by]}")
            pictures.append(Picture(f"drift-{by}-{size}", f"Drift between groups by {by}", png_bytes(drawn)))
    pictures.append(Picture(f"ridges-{size}", "Density along each component", png_bytes(ridges(structure, groups))))
    if main in drifts and len(drifts[main].labels) > 2:
        drawn = component_box(drifts[main])
        pictures.append(Picture(f"components-{size}", "Divergence along each component", png_bytes(drawn)))
    deciles = _model_drift_by_decile(collection, structure) if main == "bank" else {}
    if deciles:
        drawn = decile_box(deciles, f"Drift between banks within each depth decile, {size}")
        pictures.append(Picture(f"deciles-{size}", "Drift between banks per depth decile", png_bytes(drawn)))
    drawn = phenotype_scatter(structure, groups, sample_coefficients(structure, read, groups))
    pictures.append(Picture(f"scatter-{size}", "Two first components and phenotype", png_bytes(drawn)))
    content: list[Table | Picture] = [
        *pictures[:1],
        _explained(structure, size),
        *pictures[1:],
        _pairs(drifts, spared, size),
        _components(drifts, size),
        _phenotypes(structure, groups, size),
    ]
    said = [_sentence(structure, drifts.get(main))]
    return Section(f"kernel-{size}", f"{size} filters", said, content)


_WORDS = {"bank": "bank", "model": "model", "family": "family", "task": "task", "dataset": "data set"}
_WORDS |= {"layer": "layer", "decile": "depth decile"}


def _groupings(collection: Collection, structure: Structure) -> dict[Grouping, dict[str, list[int]]]:
    """Every way of grouping with two groups or more that differs from those before it."""
    found: dict[Grouping, dict[str, list[int]]] = {}
    for by in get_args(Grouping):
        groups = collection.groups(structure.layers, by)
        known = [sorted(other.values()) for other in found.values()]
        # a layer is a group of its own: as many pairs as the square of layers, so only for one small bank
        if by == "layer" and (len(collection.banks) > 1 or len(groups) > MAPPED):
            continue
        if len(groups) > 1 and sorted(groups.values()) not in known:
            found[by] = groups
    return found


def _ablation(
    collection: Collection,
    read: Sequence[Surveyed],
    layers: Sequence[LayerQuality],
    kernel: Kernel,
    groupings: Iterable[Grouping],
) -> dict[tuple[Grouping, str, str], float]:
    """D of every pair once degenerate layers are left out; empty where there are none, or nothing else is left."""
    kept = without_degenerate(read, layers)
    left = [layer.info for of in kept for layer in of.sums if layer.info.kernel == kernel]
    if not left or len(left) == sum(layer.info.kernel == kernel for of in read for layer in of.sums):
        return {}
    structure = measure(kept, kernel)
    found: dict[tuple[Grouping, str, str], float] = {}
    for by in groupings:
        groups = collection.groups(structure.layers, by)
        if len(groups) > 1:
            found |= {(by, first, second): value for first, second, value, _ in drift(structure, groups).pairs()}
    return found


def _model_drift_by_decile(collection: Collection, structure: Structure) -> dict[str, list[float]]:
    found = {}
    for label, layers in collection.groups(structure.layers, "decile").items():
        banks: dict[str, list[int]] = {}
        for index in layers:
            banks.setdefault(structure.layers[index].bank, []).append(index)
        if len(banks) > 1:
            found[label.split()[-1]] = [value for *_, value, _ in drift(structure, banks).pairs()]
    return found


def _explained(structure: Structure, size: str) -> Table:
    summed = np.cumsum(structure.explained)
    rows = [
        {"component": i + 1, "explained": float(structure.explained[i]), "summed": float(summed[i])}
        for i in range(len(summed))
    ]
    columns = (
        Column("component", "component", "count"),
        Column("explained", "explained variance", "share"),
        Column("summed", "summed", "share"),
    )
    return Table(f"explained-{size}", "Explained variance", columns, rows, folded=True)


def _pairs(drifts: Mapping[Grouping, Drift], spared: Mapping[tuple[Grouping, str, str], float], size: str) -> Table:
    rows: list[dict[str, Value]] = [
        {
            "grouping": _WORDS[by],
            "first": first,
            "second": second,
            "drift": value,
            "drift_without_degenerate": spared.get((by, first, second)),
        }
        for by, of in drifts.items()
        for first, second, value, _ in of.pairs()
    ]
    note = "D depends on the number of filters: bins that only one of two small groups fills weigh heavily."
    return Table(f"drift-{size}", "Drift of every pair", _PAIR_COLUMNS, rows, note, folded=len(rows) > 12)


def _components(drifts: Mapping[Grouping, Drift], size: str) -> Table:
    rows: list[dict[str, Value]] = [
        {
            "grouping": _WORDS[by],
            "first": first,
            "second": second,
            "component": component + 1,
            "weight": float(of.explained[component]),
            "divergence": float(along[component]),
        }
        for by, of in drifts.items()
        for first, second, _, along in of.pairs()
        for component in range(len(along))
    ]
    columns = (
        *_PAIR_COLUMNS[:3],
        Column("component", "component", "count"),
        Column("weight", "explained variance", "share"),
        Column("divergence", "symmetric KL divergence"),
    )
    return Table(f"drift-components-{size}", "Divergence along each component", columns, rows, folded=True)


def _phenotypes(structure: Structure, groups: Mapping[str, Sequence[int]], size: str) -> Table:
    rows: list[dict[str, Value]] = []
    for label, layers in groups.items():
        counts = structure.counts[list(layers)].sum(axis=0)
        kind = phenotype(counts[0], counts[1])
        rows.append({"group": label, "filters": int(counts[0].sum()), "phenotype": kind})
    columns = (Column("group", "group", "text"), Column("filters", "filters", "count"))
    return Table(
        f"phenotypes-{size}",
        "Phenotypes of the first two components",
        (*columns, Column("phenotype", "phenotype", "text")),
        rows,
        folded=len(rows) > 12,
    )


def _sentence(structure: Structure, between: Drift | None) -> str:
    summed: Array = np.cumsum(structure.explained)
    enough = int((summed < 0.9).sum()) + 1
    count = sum(info.filters for info in structure.layers)
    said = (
        f"{count:,} filters in {len(structure.layers):,} layers; {enough} of {len(summed)} principal components "
        "explain 90 % of the variance of the scaled filters."
    )
    if between is None or not between.pairs():
        return said
    first, second, value, _ = max(between.pairs(), key=lambda pair: pair[2])
    return f"{said} The largest drift is D = {value:.3g}, between {first} and {second}."
