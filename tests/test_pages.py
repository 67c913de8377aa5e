"""The pages kept beside the results say what the results say."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from masterkey.benchmarks.config import BenchmarkError
from masterkey.benchmarks.experiment import experiment_names
from masterkey.benchmarks.scripts.pages import INDEX, make_pages, write_pages
from masterkey.benchmarks.store import ResultStore
from masterkey.report_files import PAGE_NAME

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """The runs that are kept, as they are now."""
    folder = tmp_path_factory.mktemp("results")
    shutil.copytree(RESULTS / "runs", folder / "runs")
    return folder


def run(results: Path, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "masterkey.benchmarks.scripts.pages", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={"MASTERKEY_RESULTS": str(results), "PATH": ""})


def test_the_index_leads_to_every_page(results):
    made = make_pages(ResultStore(results))
    index = made[INDEX].decode()
    assert set(re.findall(r"\]\(([^)]+)\)", index)) == made.keys() - {INDEX}
    assert {"arms.md", PAGE_NAME} < made.keys()
    assert {name[:-3] for name in made if name.endswith(".md")} - {"README"} == {
        name for name in experiment_names() if f'<section id="{name}">' in made[PAGE_NAME].decode()
    }


def test_the_pages_are_written_and_checked(results, tmp_path):
    done = run(results, "-o", tmp_path)
    assert done.returncode == 0, done.stderr
    assert run(results, "--check", "-o", tmp_path).returncode == 0
    (tmp_path / "arms.md").write_text("better")
    checked = run(results, "--check", "-o", tmp_path)
    assert checked.returncode == 1 and "is of other runs" in checked.stdout
    assert (tmp_path / "arms.md").read_text() == "better"


def test_a_page_that_is_no_longer_made_goes_and_all_else_stays(results, tmp_path):
    made = make_pages(ResultStore(results))
    gone = next(name for name in ("fig3.md", "fig4.md", "fig5.md") if name not in made)
    for name in (gone, "notes.md", "mine.html"):
        (tmp_path / name).touch()
    write_pages(ResultStore(results), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*made, "notes.md", "mine.html"}


def test_where_there_are_no_runs_nothing_is_touched(tmp_path):
    (tmp_path / "arms.md").write_text("kept")
    with pytest.raises(BenchmarkError, match="holds no experiment with enough runs"):
        write_pages(ResultStore(tmp_path / "none"), tmp_path)
    assert (tmp_path / "arms.md").read_text() == "kept"
