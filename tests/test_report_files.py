"""A report replaces its own files, removes what only an earlier one had, and touches nothing else."""

import pytest
from samples import make_bank

from masterkey.analysis.collection import open_collection
from masterkey.analysis.report import write_analysis
from masterkey.errors import SaveError
from masterkey.report_files import files_mark, write_report_files

pytest.importorskip("matplotlib", reason="needs masterkey[analysis]")


@pytest.fixture
def bank(tmp_path):
    return make_bank("one").save_pretrained(tmp_path / "one")


def write(bank, folder, **options):
    return {path.name for path in write_analysis(open_collection([bank]), folder, keys=0, **options)}


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_a_report_is_written_again(bank, tmp_path):
    folder = tmp_path / "report"
    first = write(bank, folder, families=True)
    (folder / "notes.csv").write_text("my own")
    second = write(bank, folder, families=False)
    assert second < first
    assert names(folder) == {*second, "notes.csv"}


@pytest.mark.parametrize("name", ["report.html", "banks.csv"])
def test_what_belongs_to_no_report_is_not_replaced(bank, tmp_path, name):
    folder = tmp_path / "mine"
    assert name in write(bank, tmp_path / "elsewhere", families=False)
    folder.mkdir()
    (folder / name).write_text("years of work")
    with pytest.raises(SaveError, match=f"it holds {name}, which no report there has written"):
        write(bank, folder, families=False)
    assert names(folder) == {name} and (folder / name).read_text() == "years of work"


def test_a_file_that_came_later_is_not_replaced(tmp_path):
    page = f"<head>{files_mark([])}".encode()
    write_report_files(tmp_path, {"report.html": page})
    (tmp_path / "a.csv").write_text("mine")
    with pytest.raises(SaveError, match=r"a\.csv"):
        write_report_files(tmp_path, {"a.csv": b"x", "report.html": page})
    assert (tmp_path / "a.csv").read_text() == "mine" and (tmp_path / "report.html").read_bytes() == page


def test_a_page_from_elsewhere_has_nothing_else_removed(tmp_path):
    """Only files beside it, and of the kinds that reports have."""
    folder = tmp_path / "report"
    folder.mkdir()
    (tmp_path / "a.csv").touch()
    (folder / "model.safetensors").touch()
    (folder / "a&b.csv").touch()
    (folder / "report.html").write_text(files_mark(["../a.csv", "model.safetensors", "a&b.csv"]))
    write_report_files(folder, {"report.html": b"new"})
    assert names(folder) == {"report.html", "model.safetensors"} and (tmp_path / "a.csv").exists()
