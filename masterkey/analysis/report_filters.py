"""What is known about every filter by itself: a file of its own, too long for a page."""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..distill.pruning import REASONS
from .families import FAMILIES, LABELS, Families
from .families_line import LineFamilies
from .findings import FindingLog
from .kernel_families import KernelFamilies
from .kernel_study import KernelStudy
from .page import Column, LazyRows, Row, Table, Value
from .report_values import rounded
from .scale_space_fit import fit_scale_space

_PARAMETERS = ("x", "y", "width_x", "width_y", "width", "ratio", "weight", "aspect", "length", "angle")

Columns = dict[str, list[Value]]

_COLUMNS = (
    *(Column(key, key, "text") for key in ("bank", "layer")),
    Column("index", "index", "count"),
    *(Column(key, key, "text") for key in ("kernel", "degenerate", "pruned", "family", "nearest")),
    *(Column(key, key) for key in ("cosine", "residual", *_PARAMETERS)),
    Column("sample", "sample of the code line", "count"),
    Column("sample_family", "its family", "text"),
    Column("sample_cosine", "cosine with it"),
    Column("scale_space_form", "scale-space form", "text"),
    *(Column(key, key) for key in ("sigma_x", "sigma_y", "gamma", "scale_space_cosine", "scale_space_error")),
)


def filters_table(found: Sequence[tuple[KernelStudy, KernelFamilies | None]], degenerate: FindingLog) -> Table:
    """Return one row for each filter that the studies took, with the findings on it."""
    parts = [_columns(study, families, degenerate) for study, families in found]

    def rows() -> Iterator[Row]:
        for part in parts:
            for values in zip(*part.values(), strict=True):
                yield {column.key: None for column in _COLUMNS} | dict(zip(part, values, strict=True))

    note = " ".join(study.drawn.sentence for study, _ in found)
    count = sum(len(study.table.layer) for study, _ in found)
    return Table("families-filters", "Every filter by itself", _COLUMNS, LazyRows(count, rows), note, on_page=False)


def _columns(study: KernelStudy, families: KernelFamilies | None, degenerate: FindingLog) -> Columns:
    """All that is known about the filters of one kernel, by name of the column."""
    infos = [study.drawn.layers[number] for number in study.table.layer.tolist()]
    names = [(info.bank, info.name) for info in infos]
    columns: Columns = {
        "bank": [bank for bank, _ in names],
        "layer": [layer for _, layer in names],
        "index": [*study.drawn.index.tolist()],
        "kernel": [study.size] * len(names),
        "degenerate": [*degenerate.verdicts(names, study.drawn.index.numpy())],
        "pruned": [REASONS[reason] for reason in study.pruning.verdict.tolist()],
    }
    alive = study.alive
    if families:
        columns |= _spread(_family_columns(families.sources["real"]), alive)
        columns |= _spread(_line_columns(families.line), alive) if families.line else {}
    if max(study.kernel) > 1 and bool(alive.any()):
        columns |= _spread(_scale_space_columns(study.table.filters[alive]), alive)
    return columns


def _family_columns(fits: Families) -> Columns:
    cosine = fits.cosines.gather(1, fits.family[:, None])[:, 0]
    columns: Columns = {
        "family": [LABELS[label] for label in fits.label.tolist()],
        "nearest": [FAMILIES[family] for family in fits.family.tolist()],
        "cosine": rounded(cosine),
        "residual": rounded(1 - cosine.square()),
    }
    for parameter in _PARAMETERS:
        values = torch.full_like(cosine, math.nan)
        for number, name in enumerate(FAMILIES):
            if parameter in fits.parameters[name]:
                values = torch.where(fits.family == number, fits.parameters[name][parameter], values)
        columns[parameter] = rounded(values)
    return columns


def _line_columns(line: LineFamilies) -> Columns:
    return {
        "sample": [*line.sample.tolist()],
        "sample_family": [LABELS[label] for label in line.family[line.sample].tolist()],
        "sample_cosine": rounded(line.cosine),
    }


def _scale_space_columns(filters: Tensor) -> Columns:
    fit = fit_scale_space(filters)
    return {
        "scale_space_form": [fit.names[form] for form in fit.form.tolist()],
        "sigma_x": rounded(fit.sigma_x),
        "sigma_y": rounded(fit.sigma_y),
        "gamma": rounded(fit.gamma),
        "scale_space_cosine": rounded(fit.cosine),
        "scale_space_error": rounded(fit.error),
    }


def _spread(columns: Columns, alive: Tensor) -> Columns:
    """Columns of the filters that are alive as columns of all; the others have no value."""
    found: Columns = {}
    places = alive.nonzero()[:, 0].tolist()
    for name, values in columns.items():
        found[name] = [None] * len(alive)
        for place, value in zip(places, values, strict=True):
            found[name][place] = value
    return found
