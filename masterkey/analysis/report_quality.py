"""The page's sections on quality, and its atlas."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import count
from typing import Any

import torch

from ..atlas import draw_atlas, encode_png
from .collection import Collection, Grouping
from .findings import COPY, SEARCHED, FindingLog, is_searched
from .page import Column, LazyRows, Picture, Row, Section, Table
from .plots import png_bytes, quality_over_depth
from .quality import DEGENERATE, FEWEST, LOW_DIVERSITY, MOSTLY_SPARSE, LayerQuality, judge
from .report_groups import DRAWN as GROUPS
from .report_groups import drawable, listed, selected
from .stream import Filters
from .survey import NEAR_ZERO

ATLASES = 12  # banks that get an atlas
DRAWN = 100_000  # filters of a bank up to which it gets one

LAYER_COLUMNS = (
    Column("bank", "bank", "text"),
    Column("layer", "layer", "text"),
    Column("kernel", "kernel", "text"),
    Column("filters", "filters", "count"),
    Column("depth", "depth"),
    Column("sparse_filters", "near zero", "count"),
    Column("sparsity", "S", "share"),
    Column("entropy", "H"),
    Column("entropy_about_zero", "H about zero"),
    Column("threshold", "T_H(n)"),
    Column("verdict", "verdict", "text"),
)
_LONGEST_NAME = 100  # of a picture's file
_RULES = (
    f"A filter is near zero if all its weights are within {NEAR_ZERO:.0%} of the layer's largest; a layer is sparse if "
    f"more than {MOSTLY_SPARSE:.0%} of its filters are. A layer is of low diversity if its variance entropy H, or that "
    f"about zero, is below {LOW_DIVERSITY:.2f}, less than two equally strong components have; random if H exceeds "
    f"T_H(n); not assessable with fewer than {FEWEST} filters for each weight of a kernel, or fewer than 3 weights."
)


def layer_row(layer: LayerQuality) -> dict[str, Any]:
    """Return a layer's figures under the names of ``LAYER_COLUMNS``."""
    return {**asdict(layer), "kernel": f"{layer.kernel[0]}x{layer.kernel[1]}"}


def quality_section(
    collection: Collection, layers: Sequence[LayerQuality], found: FindingLog, by: Grouping | None = None
) -> Section:
    """Return the verdicts on banks, layers and filters, and S and H over depth.

    Args:
        collection: the banks.
        layers: the verdicts on all their layers, in order.
        found: the degenerate filters of all of them.
        by: grouping of S and H over depth; None: banks, or model families if there are more than eight.
    """
    by_bank: dict[str, list[LayerQuality]] = {filters.label: [] for filters in collection.banks}
    for layer in layers:
        by_bank[layer.bank].append(layer)
    rows = [_bank_row(bank, of, found) for bank, of in by_bank.items()]
    banks = Table(
        "banks",
        "Banks",
        (
            Column("bank", "bank", "text"),
            Column("filters", "filters", "count"),
            Column("layers", "layers", "count"),
            *(Column(kind.replace(" ", "_"), kind, "count") for kind in ("good", *DEGENERATE, "not assessable")),
            Column("near_zero", "filters near zero", "count"),
            Column("copies", "near copies", "count"),
            Column("gate", "gate", "text"),
        ),
        rows,
    )
    every = LazyRows(len(layers), lambda: map(layer_row, layers))
    tables = [
        Table("quality", "Every layer", LAYER_COLUMNS, every, _RULES, len(layers) > 40),
        _findings_table(collection, found),
    ]
    by = by or ("bank" if len(by_bank) <= 8 else "family")
    infos = [info for filters in collection.banks for info in filters.layers]
    groups, left_out = drawable(collection.groups(infos, by), by, "Quality over depth")
    drawn = quality_over_depth({label: [layers[at] for at in of] for label, of in groups.items()}, "Quality over depth")
    picture = Picture("quality", "Sparsity and variance entropy of every layer over depth", png_bytes(drawn))
    said = [str(row["said"]) for row in rows[:GROUPS]]
    if len(rows) > GROUPS:
        said.append(f"And {len(rows) - GROUPS:,} more banks, in the table.")
    said += [*selected(collection.banks), *left_out]
    return Section("quality-section", "Quality", said, [banks, picture, *tables])


def _findings_table(collection: Collection, found: FindingLog) -> Table:
    def rows() -> Iterator[Row]:
        return (vars(each) for each in found)

    note = f"Near copies have a cosine of at least {COPY} in size."
    infos = [info for filters in collection.banks for info in filters.layers if not is_searched(info)]
    if infos:
        names = listed([f"{info.bank}: {info.name}" for info in infos])
        note += f" They were not looked for in layers of more than {SEARCHED:,} weights: {names}."
    columns = (
        Column("bank", "bank", "text"),
        Column("layer", "layer", "text"),
        Column("index", "index", "count"),
        Column("kind", "kind", "text"),
        Column("copy_of", "copy of", "count"),
    )
    return Table("findings", "Degenerate filters", columns, LazyRows(len(found), rows), note, folded=True)


def atlas_section(collection: Collection) -> Section:
    """Return the atlas of every bank, up to limits that are stated."""
    shown = [each for each in collection.banks if sum(info.filters for info in each.layers) <= DRAWN][:ATLASES]
    left_out = [each.label for each in collection.banks if each not in shown]
    said = ["Every layer of every bank; red is positive, blue negative."]
    if left_out:
        said = [f"Not drawn ({ATLASES} banks of up to {DRAWN:,} filters are): {listed(left_out)}."]
    names = _file_names([each.label for each in shown])
    pictures = [
        Picture(
            name,
            f"Every filter of {each.label}, one panel a layer",
            encode_png(draw_atlas(_tensors(each), each.label)),
            wide=True,
        )
        for each, name in zip(shown, names, strict=True)
    ]
    return Section("atlas", "Atlas", said, pictures)


def _file_names(labels: Sequence[str]) -> list[str]:
    """Return a name for the atlas of each bank: of a length that any file may have, and no two alike."""
    names: list[str] = []
    for label in labels:
        plain = f"atlas-{label.replace('/', '-')}"[:_LONGEST_NAME]
        number = next(n for n in count(1) if (plain if n == 1 else f"{plain}-{n}") not in names)
        names.append(plain if number == 1 else f"{plain}-{number}")
    return names


def _bank_row(bank: str, layers: Sequence[LayerQuality], found: FindingLog) -> dict[str, Any]:
    verdict = judge(layers)
    counts = Counter(layer.verdict for layer in layers)
    return {
        "bank": bank,
        "filters": sum(layer.filters for layer in layers),
        "layers": len(layers),
        **{kind.replace(" ", "_"): counts[kind] for kind in ("good", *DEGENERATE, "not assessable")},
        "near_zero": sum(layer.sparse_filters for layer in layers),
        "copies": found.counts[bank, "low diversity"],
        "gate": "passed" if verdict.passed else "refused",
        "said": f"{bank}: {verdict.sentence}.",
    }


def _tensors(filters: Filters) -> dict[str, torch.Tensor]:
    return {
        info.name: torch.cat(list(filters.read(info.position))).view(-1, 1, *info.kernel) for info in filters.layers
    }
