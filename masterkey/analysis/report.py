"""The whole analysis of a collection, as CSV files, PNG files and one HTML page (``masterkey analyze``)."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypedDict, Unpack

from ..bank import Bank
from ..distill.greedy import MOST
from ..errors import MasterkeyError
from ..metadata import Kernel
from ..report_files import PAGE_NAME, write_report_files
from ..rules import KernelRule
from .collection import Collection, Grouping
from .drift import EPSILON
from .findings import FindingLog
from .kernel_study import study
from .known_keys import known_keys
from .page import Picture, Section, Table, csv_parts, page_bytes
from .quality import LayerQuality, qualities
from .report_drift import kernel_section
from .report_families import families_section
from .report_groups import Comparison, refusal
from .report_keys import KEYS, keys_section
from .report_quality import atlas_section, quality_section
from .stream import ResizedFilters
from .structure import Surveyed, kernels


class Options(TypedDict, total=False):
    """What ``analyse`` can be told, with the defaults in brackets.

    Attributes:
        resize: fit all filters to this kernel (kh, kw), of at most 1,024 weights, by the rule ``how`` before structure,
            drift, families and keys; quality is of the filters as they are (None).
        how: the rule ("resample").
        families: tell families apart, of at most 10,000 filters of a kernel, drawn by seed 0 (True).
        keys: how many keys to find among the same filters, up to 50; 0 for none (8).
        reference: keys to compare those found with, beside ``scale-space-8`` (None).
        by: grouping of the distributions, the divergence along components, and S and H over depth (banks, or of one
            bank depth deciles).
        epsilon, renormalise: as for ``masterkey.analysis.drift.drift``.
        more: sections of one's own, put before the atlas.
    """

    resize: Kernel | None
    how: KernelRule
    families: bool
    keys: int
    reference: Bank | None
    by: Grouping | None
    epsilon: float
    renormalise: bool
    more: Sequence[Section]


def analyse(collection: Collection, **options: Unpack[Options]) -> tuple[str, list[str], list[Section]]:
    """Analyse every bank that can be read, and return the page's title, its facts and its sections.

    Args:
        collection: the banks; the broken among them are moved to ``collection.broken``.
        options: see ``Options``.

    Raises:
        MasterkeyError: a plot's library is missing, more than 50 keys are asked for, ``reference`` fits nothing,
            ``epsilon`` is no probability, or ``resize`` is larger than can be compared.
        SaveError: there is no room for temporary files.
    """
    families, keys = options.get("families", True), options.get("keys", KEYS)
    if not 0 <= keys <= MOST:
        raise MasterkeyError(f"{keys} keys were asked for; the page shows 1 to {MOST}, or with 0 none")
    by = options.get("by")
    comparison = Comparison(by, options.get("epsilon", EPSILON), options.get("renormalise", True))
    read = collection.survey()
    layers: list[LayerQuality] = []
    found = FindingLog()
    for of in read:
        of_bank = qualities(of.sums)
        layers += of_bank
        found.search(of.filters, of_bank)
    sections = [quality_section(collection, layers, found, by)] if read else []
    resize, how = options.get("resize"), options.get("how", "resample")
    resized = collection
    if resize and read:
        banks = [ResizedFilters(filters, resize, how) for filters in collection.banks]
        resized = Collection(list(banks), collection.tags)
        read = resized.survey()
        collection.broken |= resized.broken
    if refused := refusal(read):
        sections.append(Section("not-compared", "Not compared", [f"{refused[:1].upper()}{refused[1:]}."], ()))
    sections += [kernel_section(resized, read, layers, kernel, comparison) for kernel in kernels(read)]
    if families or keys:
        sections += _families_and_keys(resized, read, families, keys, options.get("reference"), found)
    sections += options.get("more", ())
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


def write_analysis(collection: Collection, folder: str | Path, **options: Unpack[Options]) -> list[Path]:
    """Analyse and write: a CSV file for each table, a PNG file for each picture, and ``report.html``, last.

    Files that only an earlier report in the folder had are removed.

    Raises:
        SaveError: the folder cannot be written, or holds files of these names that are no report's; what it held
            before is intact.
        MasterkeyError: as for ``analyse``.
    """
    title, facts, sections = analyse(collection, **options)
    files: dict[str, bytes | Iterable[bytes]] = {}
    for part in (part for section in sections for part in section.content):
        if isinstance(part, Picture):
            files[f"{part.name}.png"] = part.png
        elif isinstance(part, Table):
            files[f"{part.name}.csv"] = csv_parts(part)
    files[PAGE_NAME] = page_bytes(title, facts, sections, files)
    return write_report_files(Path(folder), files)


def _families_and_keys(
    collection: Collection,
    read: Sequence[Surveyed],
    families: bool,
    keys: int,
    reference: Bank | None,
    degenerate: FindingLog,
) -> list[Section]:
    found = kernels(read)
    known = known_keys(found, reference) if keys and found else {}  # before what takes long, for it may be refused
    studies = [study(read, kernel) for kernel in found]
    sections = [families_section(collection, studies, degenerate)] if families and studies else []
    return [*sections, keys_section(studies, known, keys)] if keys and studies else sections
