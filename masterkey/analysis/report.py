"""The whole analysis of a collection, as CSV files, PNG files and one HTML page (``masterkey analyze``)."""

from collections.abc import Sequence
from pathlib import Path

from ..atomic import write_all_atomically
from ..bank import Bank
from ..distill.greedy import MOST
from ..errors import MasterkeyError
from ..metadata import Kernel
from ..rules import KernelRule
from .collection import Collection
from .findings import Finding, degenerate_filters
from .kernel_study import study
from .known_keys import known_keys
from .page import Picture, Section, Table, csv_bytes, page_bytes
from .quality import LayerQuality, qualities
from .report_drift import kernel_section
from .report_families import families_section
from .report_keys import KEYS, keys_section
from .report_quality import atlas_section, quality_section
from .stream import ResizedFilters
from .structure import Surveyed, kernels

PAGE_NAME = "report.html"


def analyse(
    collection: Collection,
    *,
    resize: Kernel | None = None,
    how: KernelRule = "resample",
    families: bool = True,
    keys: int = KEYS,
    reference: Bank | None = None,
    more: Sequence[Section] = (),
) -> tuple[str, list[str], list[Section]]:
    """Analyse every bank that can be read, and return the page's title, its facts and its sections.

    Args:
        collection: the banks; the broken among them are moved to ``collection.broken``.
        resize: fit all filters to this kernel by the rule ``how`` before structure, drift, families and keys; quality
            is of the filters as they are.
        how: the rule.
        families: tell families apart (of at most 10,000 filters of a kernel, drawn by seed 0).
        keys: how many keys to find among the same filters, up to 50; 0 for none.
        reference: keys to compare those found with, beside ``scale-space-8``.
        more: sections of one's own, put before the atlas.

    Raises:
        MasterkeyError: a plot's library is missing, more than 50 keys are asked for, or ``reference`` fits nothing.
    """
    if not 0 <= keys <= MOST:
        raise MasterkeyError(f"{keys} keys were asked for; the page shows 1 to {MOST}, or with 0 none")
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
    if families or keys:
        sections += _families_and_keys(resized, read, families, keys, reference)
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
    families: bool = True,
    keys: int = KEYS,
    reference: Bank | None = None,
    more: Sequence[Section] = (),
) -> list[Path]:
    """Analyse and write: a CSV file for each table, a PNG file for each picture, and ``report.html``, last.

    Raises:
        SaveError: the folder cannot be written; what it held before is intact.
        MasterkeyError: as for ``analyse``.
    """
    title, facts, sections = analyse(
        collection, resize=resize, how=how, families=families, keys=keys, reference=reference, more=more
    )
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


def _families_and_keys(
    collection: Collection, read: Sequence[Surveyed], families: bool, keys: int, reference: Bank | None
) -> list[Section]:
    found = kernels(read)
    known = known_keys(found, reference) if keys and found else {}  # before what takes long, for it may be refused
    studies = [study(read, kernel) for kernel in found]
    sections = [families_section(collection, studies)] if families and studies else []
    return [*sections, keys_section(studies, known, keys)] if keys and studies else sections
