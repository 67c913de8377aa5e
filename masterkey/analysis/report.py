"""The whole analysis of a collection, as CSV files, PNG files and one HTML page (``masterkey analyze``)."""

from collections.abc import Sequence
from pathlib import Path

from ..atomic import write_all_atomically
from ..metadata import Kernel
from ..rules import KernelRule
from .collection import Collection
from .findings import Finding, degenerate_filters
from .page import Picture, Section, Table, csv_bytes, page_bytes
from .quality import LayerQuality, qualities
from .report_drift import kernel_section
from .report_quality import atlas_section, quality_section
from .stream import ResizedFilters
from .structure import kernels

PAGE_NAME = "report.html"


def analyse(
    collection: Collection,
    *,
    resize: Kernel | None = None,
    how: KernelRule = "resample",
    more: Sequence[Section] = (),
) -> tuple[str, list[str], list[Section]]:
    """Analyse every bank that can be read, and return the page's title, its facts and its sections.

    Args:
        collection: the banks; the broken among them are moved to ``collection.broken``.
        resize: fit all filters to this kernel by the rule ``how`` before structure and drift; quality is of the
            filters as they are.
        how: the rule.
        more: sections of one's own, put before the atlas.

    Raises:
        MasterkeyError: a plot's library is missing.
    """
    read = collection.survey()
    layers: list[LayerQuality] = []
    found: list[Finding] = []
    for of in read:
        of_bank = qualities(of.sums)
        layers += of_bank
        found += degenerate_filters(of.filters, of_bank)
    sections = [quality_section(collection, layers, found)] if read else []
    resized = collection
    if resize and read:
        banks = [ResizedFilters(filters, resize, how) for filters in collection.banks]
        resized = Collection(list(banks), collection.tags)
        read = resized.survey()
    sections += [kernel_section(resized, read, layers, kernel) for kernel in kernels(read)]
    sections += more
    if read:
        sections.append(atlas_section(collection))
    if collection.broken:
        sentences = [f"{label}: {why}" for label, why in collection.broken.items()]
        sections.insert(0, Section("broken", "Could not be read", sentences, ()))
    count = sum(info.filters for filters in collection.banks for info in filters.layers)
    facts = [
        f"{len(collection.banks)} bank{'s' * (len(collection.banks) != 1)}",
        f"{len(layers):,} layers",
        f"{count:,} filters",
        *([f"resized to {resize[0]}x{resize[1]} ({how})"] if resize else []),
        *([f"{len(collection.broken)} could not be read"] if collection.broken else []),
    ]
    title = collection.banks[0].label if len(collection.banks) == 1 else f"{len(collection.banks)} banks"
    return f"Filters of {title}", facts, sections


def write_analysis(
    collection: Collection,
    folder: str | Path,
    *,
    resize: Kernel | None = None,
    how: KernelRule = "resample",
    more: Sequence[Section] = (),
) -> list[Path]:
    """Analyse and write: a CSV file for each table, a PNG file for each picture, and ``report.html``, last.

    Raises:
        SaveError: the folder cannot be written; what it held before is intact.
        MasterkeyError: as for ``analyse``.
    """
    title, facts, sections = analyse(collection, resize=resize, how=how, more=more)
    folder = Path(folder)
    files: dict[Path, bytes] = {}
    for part in (part for section in sections for part in section.content):
        if isinstance(part, Picture):
            files[folder / f"{part.name}.png"] = part.png
        elif isinstance(part, Table):
            files[folder / f"{part.name}.csv"] = csv_bytes(part)
    files[folder / PAGE_NAME] = page_bytes(title, facts, sections)
    write_all_atomically(files)
    return list(files)
