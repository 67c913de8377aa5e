"""An experiment's part of the report: its tables, what they say, and how to make them again."""

import re
from dataclasses import dataclass

from ..experiment import Experiment
from ..store import ResultStore
from .matrix import matrix_sentences, matrix_table, triangles_table
from .pictures import pictures_table
from .results import Results, collect
from .series import retention_table, series_table
from .table import Sentence, Table
from .tables import arms_table, cost_table, curves_table, differences_table, machines_table, runs_table
from .triples import triples_sentences, triples_table
from .words import Verdict, describe, judge, sentences, verdicts_table


@dataclass(frozen=True)
class Section:
    """Everything that is shown of an experiment; ``tables`` by name."""

    results: Results
    verdicts: tuple[Verdict, ...]
    sentences: tuple[Sentence, ...]
    tables: dict[str, Table]
    run_command: str
    report_command: str

    @property
    def experiment(self) -> Experiment:
        """The experiment."""
        return self.results.experiment

    def command(self, table: str) -> str:
        """Return the shell command that makes a table and its figure again, once the runs are there."""
        return f"{self.report_command}  # {table}.csv, report.html#{self.anchor(table)}"

    def anchor(self, table: str) -> str:
        """Return where in the page a table stands."""
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", self.experiment.name)  # a file's name may hold anything
        return f"{name}-{table}" if table else name


def make_section(experiment: Experiment, store: ResultStore, results_option: str | None) -> Section:
    """Read the runs of an experiment and make its tables.

    Args:
        experiment: at its size.
        store: where its runs are.
        results_option: what ``--results`` has to be in the commands that are shown, None if it can be left out.

    Raises:
        BenchmarkError: what :func:`collect` raises.
    """
    results = collect(experiment, store)
    verdicts: list[Verdict] = []
    said: list[Sentence] = []
    for place in results.places:
        verdict = judge(results, *place)
        said += describe(results, *place) if verdict is None else sentences(verdict)
        verdicts += [] if verdict is None else [verdict]
    tables = [verdicts_table(results, verdicts)]
    if experiment.layout == "matrix":
        matrix = matrix_table(results)
        triangles = triangles_table(results, matrix)
        triples = triples_table(results, matrix)
        tables += [matrix, triangles, triples]
        said = [*matrix_sentences(results, matrix, triangles), *triples_sentences(results, triples), *said]
    elif experiment.layout == "curve":
        tables.append(series_table(results))
    elif experiment.layout == "bars":
        tables.append(retention_table(results))
    tables += [arms_table(results), differences_table(results), curves_table(results), cost_table(results)]
    tables += [runs_table(results), pictures_table(results), machines_table(results)]
    if experiment.size == "smoke" and experiment.file is None:
        said.insert(0, ["Size smoke tells whether everything works; its figures mean nothing."])
    options = ["--results", results_option] if results_option else []
    return Section(
        results,
        tuple(verdicts),
        tuple(said),
        {table.name: table for table in tables},
        experiment.command("run", *options, *["--skip-corrupt"] * any(run.skipped for run in results.listed)),
        experiment.command("report", *options, "-o", "report"),
    )


def plain_text(sentence: Sentence) -> str:
    """Return a sentence as text."""
    return "".join(map(str, sentence))
