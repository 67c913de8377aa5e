"""The report: what the runs of an experiment say, as a page, as Markdown and as CSV."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from masterkey.report_files import PAGE_NAME, write_report_files

from ..config import BenchmarkError
from ..experiment import Experiment
from ..store import ResultStore
from .markdown import write_markdown
from .page import write_page
from .section import Section, make_section
from .table import write_csv

MARKDOWN = "report.md"


def write_report(
    experiments: Sequence[Experiment], store: ResultStore, folder: Path, *, results_option: str | None = None
) -> list[Path]:
    """Write the report of one or more experiments: ``report.html``, ``report.md``, and a CSV for each table.

    The same results give the same bytes. No file is put in place before all are written, the page last. Files that
    only an earlier report in the folder had are removed; all others there are left alone.

    Args:
        experiments: each at its size.
        store: where their runs are; what is missing is shown as missing.
        folder: where to write; created if needed.
        results_option: what ``--results`` has to be in the commands that the report shows, if it is needed.

    Returns:
        The files, the page first.

    Raises:
        BenchmarkError: an experiment without a finished run, or whose file or results cannot be used; two of a name.
        SaveError: a file cannot be written, or one of its name in the folder is no report's; what was there is
            untouched.
    """
    twice = [name for name, count in Counter(experiment.name for experiment in experiments).items() if count > 1]
    if twice:
        raise BenchmarkError(f"two experiments are named {twice[0]}; rename a file, or report them one by one")
    sections = [make_section(experiment, store, results_option) for experiment in experiments]
    files = _csv_files(sections)
    files[MARKDOWN] = write_markdown(sections)
    files[PAGE_NAME] = write_page(sections, files)
    return [*reversed(write_report_files(folder, files))]


def _csv_files(sections: Sequence[Section]) -> dict[str, bytes]:
    """One file for each kind of table, with the lines of all experiments that have one."""
    lines: dict[str, list[list[str]]] = {}
    for section in sections:
        for name, table in section.tables.items():
            experiment = section.experiment
            lines.setdefault(name, [table.csv_header()]).extend(table.to_csv(experiment.name, experiment.size))
    return {f"{name}.csv": write_csv(rows) for name, rows in lines.items()}
