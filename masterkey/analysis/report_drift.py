"""The page's section on one kernel: structure, drift between groups, distributions."""

from collections.abc import Mapping, Sequence
from typing import get_args

import numpy as np

from ..metadata import Kernel
from .collection import Collection, Grouping, without_degenerate
from .moments import Array
from .page import Column, Picture, Section, Table, Value
from .phenotypes import phenotype
from .plots import basis_picture, component_box, decile_box, drift_map, phenotype_scatter, png_bytes, ridges
from .quality import LayerQuality
from .report_groups import DRAWN, PAIRED, Comparison, drawable, size_of, word, words
from .report_pairs import Drifts, Levelled, components_table, largest_drift, levelled, of_pairs, pairs_table
from .sample import sample_coefficients
from .structure import Structure, Surveyed, measure

Groupings = dict[Grouping, dict[str, list[int]]]


def kernel_section(
    collection: Collection,
    read: Sequence[Surveyed],
    layers: Sequence[LayerQuality],
    kernel: Kernel,
    how: Comparison | None = None,
) -> Section:
    """Return what there is to say and see of all filters of one kernel."""
    how = how or Comparison()
    structure = measure(read, kernel)
    size = size_of(kernel)
    groupings = _groupings(collection, structure, how.by)
    main: Grouping = how.by or ("bank" if "bank" in groupings else "decile")
    groups = groupings.get(main) or collection.groups(structure.layers, main)
    drifts = {by: levelled(how.drift(structure, of)) for by, of in groupings.items() if len(of) <= PAIRED}
    spared = _ablation(collection, read, layers, kernel, how, drifts)
    shown, left_out = drawable(groups, main, "Densities, and the first two components")
    said = [_sentence(structure, drifts.get(main)), *how.said, *_alone(collection, structure, groups, main)]
    said += [*_not_compared(groupings), *left_out]
    pictures = [Picture(f"basis-{size}", f"Principal components of {size}", png_bytes(basis_picture(structure)))]
    for by, of in drifts.items():
        if len(of.drift.labels) <= DRAWN:
            drawn = drift_map(of.drift, f"Drift D by {word(by)}", of.chance)
            pictures.append(Picture(f"drift-{by}-{size}", f"Drift between groups by {by}", png_bytes(drawn)))
    pictures.append(Picture(f"ridges-{size}", "Density along each component", png_bytes(ridges(structure, shown))))
    if main in drifts and len(drifts[main].drift.labels) > 2:
        drawn = component_box(drifts[main].drift)
        pictures.append(Picture(f"components-{size}", "Divergence along each component", png_bytes(drawn)))
    deciles = _drift_by_decile(collection, structure, main, how) if main in drifts else {}
    if deciles:
        title = f"Drift between {words(main, len(groups))} within each depth decile, {size}"
        by_chance = {decile: float(of_pairs(of.chance.mean).mean()) for decile, of in deciles.items() if of.chance}
        drawn = decile_box({decile: of_pairs(of.drift.total) for decile, of in deciles.items()}, title, by_chance)
        pictures.append(Picture(f"deciles-{size}", "Drift between groups per depth decile", png_bytes(drawn)))
    drawn = phenotype_scatter(structure, shown, sample_coefficients(structure, read, shown))
    pictures.append(Picture(f"scatter-{size}", "Two first components and phenotype", png_bytes(drawn)))
    tables = [pairs_table(drifts, spared, size), components_table(drifts, size), _phenotypes(structure, groups, size)]
    content: list[Table | Picture] = [*pictures[:1], _explained(structure, size), *pictures[1:]]
    return Section(f"kernel-{size}", f"{size} filters", said, [*content, *(table for table in tables if table.rows)])


def _groupings(collection: Collection, structure: Structure, chosen: Grouping | None) -> Groupings:
    """Every way of grouping with two groups or more that differs from those before it; the chosen one comes first."""
    found: Groupings = {}
    for by in sorted(get_args(Grouping), key=lambda by: by != chosen):
        groups = collection.groups(structure.layers, by)
        known = [sorted(other.values()) for other in found.values()]
        # a layer is a group of its own: as many pairs as the square of layers, so only for one small bank
        if by == "layer" != chosen and (len(collection.banks) > 1 or len(groups) > DRAWN):
            continue
        if len(groups) > 1 and sorted(groups.values()) not in known:
            found[by] = groups
    return found


def _alone(
    collection: Collection, structure: Structure, groups: Mapping[str, Sequence[int]], main: Grouping
) -> list[str]:
    """What to say where nothing is there to compare."""
    banks = {info.bank for info in structure.layers}
    said = []
    if len(banks) == 1 < len(collection.banks):
        said.append(f"Only {next(iter(banks))} has such filters, so they are not compared with those of other banks.")
    if len(groups) == 1 and main != "decile":
        said.append(f"All of them belong to one {word(main)}, {next(iter(groups))}.")
    return said


def _not_compared(groupings: Groupings) -> list[str]:
    """What to say of groupings of so many groups that their pairs are not drawn, or not compared."""
    many = [words(by, len(of)) for by, of in groupings.items() if len(of) > PAIRED]
    mapped = [words(by, len(of)) for by, of in groupings.items() if DRAWN < len(of) <= PAIRED]
    said = []
    if many:
        said.append(f"No drift between the pairs of {' and of '.join(many)}: {PAIRED} groups are compared at most.")
    if mapped:
        said.append(
            f"No heat map of {' and of '.join(mapped)}, and no level of chance for every pair: that is for {DRAWN} "
            "groups at most."
        )
    return said


def _ablation(
    collection: Collection,
    read: Sequence[Surveyed],
    layers: Sequence[LayerQuality],
    kernel: Kernel,
    how: Comparison,
    drifts: Drifts,
) -> dict[Grouping, Levelled]:
    """The drifts once degenerate layers are left out; empty where there are none, or nothing else is left."""
    kept = without_degenerate(read, layers)
    left = [layer.info for of in kept for layer in of.sums if layer.info.kernel == kernel]
    if not left or len(left) == sum(layer.info.kernel == kernel for of in read for layer in of.sums):
        return {}
    structure = measure(kept, kernel)
    return {by: levelled(how.drift(structure, collection.groups(structure.layers, by))) for by in drifts}


def _drift_by_decile(
    collection: Collection, structure: Structure, by: Grouping, how: Comparison
) -> dict[str, Levelled]:
    """The drift between groups within each depth decile; empty where the groups are depths themselves."""
    if by in ("layer", "decile"):
        return {}
    found = {}
    for label, layers in collection.groups(structure.layers, "decile").items():
        within = collection.groups([structure.layers[index] for index in layers], by)
        groups = {group: [layers[index] for index in of] for group, of in within.items()}
        if len(groups) > 1:
            found[label.split()[-1]] = levelled(how.drift(structure, groups))
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


def _sentence(structure: Structure, between: Levelled | None) -> str:
    summed: Array = np.cumsum(structure.explained)
    enough = int((summed < 0.9).sum()) + 1
    count = sum(info.filters for info in structure.layers)
    said = f"{count:,} filters in {len(structure.layers):,} layers; "
    if summed[-1] > 0:
        said += f"{enough} of {len(summed)} principal components explain 90 % of the variance of the scaled filters."
    else:
        said += "the scaled filters do not vary."
    return f"{said} {largest_drift(between)}" if between and len(between.drift.labels) > 1 else said
