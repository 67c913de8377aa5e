"""Distilling several kernel sizes, several banks, and from a sample: the library and the command."""

import csv
import json
import sys

import pytest
import torch

from masterkey import Bank, join
from masterkey.cli.main import run
from masterkey.distill import Distilled, by_kernel, distill, distill_kernels, prepare
from masterkey.errors import MasterkeyError
from masterkey.extract import from_state_dict


def bank(sizes: dict[str, tuple[int, int]], seed: int = 0, name: str = "mixed", kind: str = "depthwise") -> Bank:
    """Layers of ``filters`` smooth filters of kernel ``k``: name -> (filters, k)."""
    draw = torch.Generator().manual_seed(seed)
    channels = {"depthwise": 1, "all": 3}[kind]
    state = {key: torch.randn(n, channels, k, k, generator=draw).cumsum(2).cumsum(3) for key, (n, k) in sizes.items()}
    return from_state_dict(state, kind=kind, name=name)


MIXED = bank({"a.weight": (40, 3), "b.weight": (30, 5), "c.weight": (50, 3)})
KMEANS = ["--method", "kmeans", "--keys", "3"]
EXACT = {"random": None, "duplicates": 1.0}


@pytest.fixture
def mixed(tmp_path):
    return MIXED.save_pretrained(tmp_path / "mixed")


def columns(path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_each_kernel_has_its_own_keys_and_assignment():
    found = distill_kernels(MIXED, 3, "kmeans", **EXACT)
    assert list(found) == [(3, 3), (5, 5)]
    for kernel, result in found.items():
        alone = distill(MIXED.select(kernel=kernel), 3, "kmeans", **EXACT)
        assert torch.equal(result.bank.layers["keys.weight"], alone.bank.layers["keys.weight"])
        assert result.assignment.to_csv() == alone.assignment.to_csv()
        assert result.bank.metadata == alone.bank.metadata
    assert [len(result.assignment) for result in found.values()] == [90, 30]


def test_a_bank_of_one_kernel_stays_itself_and_1x1_is_left_out():
    one = MIXED.select(kernel=5)
    assert by_kernel(one)[5, 5] is one
    dense = bank({"a.weight": (9, 1), "b.weight": (9, 3)}, kind="all")
    assert {kernel: list(part.layers) for kernel, part in by_kernel(dense).items()} == {(3, 3): ["b.weight"]}
    with pytest.raises(MasterkeyError, match="1x1 filters, which have no shape"):
        by_kernel(bank({"a.weight": (9, 1)}, kind="all"))


def test_the_command_writes_a_folder_for_each_kernel(mixed, tmp_path, capsys):
    assert run(["distill", str(mixed), "-o", str(tmp_path / "keys"), *KMEANS, "--json"]) == 0
    said = capsys.readouterr()
    assert "filters of 3x3, 5x5; each size goes into a folder of its own" in said.err
    facts = json.loads(said.out)
    assert [each["kernel"] for each in facts] == ["3x3", "5x5"]
    for each in facts:
        result = Distilled.from_pretrained(tmp_path / "keys" / each["kernel"])
        assert (result.bank.sha256, result.explained) == (each["sha256"], each["explained"])
        assert each["explained living"] == round(result.explained_living, 6)
        assert [int(keys) for keys, _ in each["curve"]] == [1, 2, 3, 4, 8, 16, 32][: 6 + (each["kept"] >= 32)]
    assert not (tmp_path / "keys" / "model.safetensors").exists()
    # the same as when that kernel alone is asked for
    assert run(["distill", str(mixed), "-o", str(tmp_path / "five"), *KMEANS, "--kernel", "5"]) == 0
    for name in ("model.safetensors", "assignment.csv", "README.md"):
        assert (tmp_path / "five" / name).read_bytes() == (tmp_path / "keys" / "5x5" / name).read_bytes(), name


def test_a_kernel_that_cannot_be_distilled_is_named_and_the_others_are_written(tmp_path, capsys):
    few = bank({"a.weight": (40, 3), "b.weight": (2, 5)}).save_pretrained(tmp_path / "few")
    assert run(["distill", str(few), "-o", str(tmp_path / "keys"), *KMEANS, "--curve", str(tmp_path / "c.png")]) == 1
    said = capsys.readouterr()
    assert "5x5: bank mixed: 3 keys were asked for; with 2 filters left" in said.err
    assert "1 of 2 kernel sizes were not distilled" in said.err
    assert Distilled.from_pretrained(tmp_path / "keys" / "3x3").bank.counts() == {(3, 3): 3}
    assert not (tmp_path / "keys" / "5x5").exists()
    assert len(columns(tmp_path / "c.csv")) == 32


def test_the_error_over_the_number_of_keys_is_always_there(mixed, tmp_path, capsys, monkeypatch):
    keys = tmp_path / "keys"
    assert run(["distill", str(mixed), "-o", str(keys), *KMEANS, "--kernel", "3"]) == 0
    rows = columns(keys / "curve.csv")
    assert [int(row["keys"]) for row in rows] == [1, 2, 3, 4, 8, 16, 32]
    errors = [float(row["error"]) for row in rows]
    assert errors == sorted(errors, reverse=True)
    assert errors[2] == pytest.approx(1 - Distilled.from_pretrained(keys).explained, abs=1e-6)
    assert (keys / "curve.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # as where the extra is not installed
    bare = tmp_path / "bare"
    assert run(["distill", str(mixed), "-o", str(bare), *KMEANS, "--kernel", "3"]) == 0
    assert "drawing needs the extra analysis" in capsys.readouterr().err
    assert (bare / "curve.csv").read_bytes() == (keys / "curve.csv").read_bytes()
    assert not (bare / "curve.png").exists()
    asked = ["distill", str(mixed), "-o", str(tmp_path / "asked"), *KMEANS, "--curve", str(bare / "c.png")]
    assert run(asked) == 1 and not (tmp_path / "asked").exists()


def test_a_curve_does_not_replace_figures_of_something_else(mixed, tmp_path, capsys):
    results = tmp_path / "results.csv"
    results.write_text("epoch,accuracy\n1,50\n")
    command = ["distill", str(mixed), "-o", str(tmp_path / "keys"), *KMEANS, "--kernel", "3"]
    assert run([*command, "--curve", str(tmp_path / "results.png")]) == 1
    assert "results.csv is no curve and would be replaced" in capsys.readouterr().err
    assert results.read_text() == "epoch,accuracy\n1,50\n" and not (tmp_path / "keys").exists()
    assert [run([*command, "--curve", str(tmp_path / "curve.png")]) for _ in range(2)] == [0, 0]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "curve.csv").write_text("epoch,accuracy\n1,50\n")
    assert run(["distill", str(mixed), "-o", str(tmp_path / "run"), *KMEANS, "--kernel", "3"]) == 1
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["curve.csv"]
    (tmp_path / "parts" / "3x3").mkdir(parents=True)
    (tmp_path / "parts" / "3x3" / "curve.csv").write_text("epoch,accuracy\n1,50\n")
    assert run(["distill", str(mixed), "-o", str(tmp_path / "parts"), *KMEANS]) == 1
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["3x3"]


def test_what_is_distilled_is_not_replaced(mixed, capsys):
    before = {path.name: path.read_bytes() for path in mixed.iterdir()}
    assert run(["distill", str(mixed), "-o", f"{mixed}/", *KMEANS, "--kernel", "3"]) == 1
    assert "is what is distilled" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in mixed.iterdir()} == before


def test_keys_do_not_replace_those_that_they_are_distilled_from(mixed, tmp_path, capsys):
    """Each kernel size has a folder of its own, and a bank may be named in more than one way."""
    keys = tmp_path / "keys"
    assert run(["distill", str(mixed), "-o", str(keys), *KMEANS]) == 0
    before = {path: path.read_bytes() for path in keys.rglob("*") if path.is_file()}
    three, five = str(keys / "3x3"), str(keys / "5x5")
    weights = str(keys / "3x3" / "model.safetensors")
    for sources, output in (
        ([three, five], keys),
        ([weights], keys / "3x3"),
        ([f"shuffled-pixels:{three}"], keys / "3x3"),
        ([f"shuffled-pixels:{weights}"], keys / "3x3"),
    ):
        kernel = ["--kernel", "3"] if len(sources) == 1 else []  # shuffled pixels come at 7x7, too
        assert run(["distill", *sources, "-o", str(output), "--keys", "2", "--method", "kmeans", *kernel]) == 1
        assert "3x3 is what is distilled, and would be replaced by its keys" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in keys.rglob("*") if path.is_file()} == before


def test_a_picture_of_something_else_is_not_replaced_by_a_curve(mixed, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    for picture in (tmp_path / "run" / "curve.png", tmp_path / "mine.png"):
        picture.write_text("mine")
    command = ["distill", str(mixed), *KMEANS, "--kernel", "3"]
    assert run([*command, "-o", str(tmp_path / "run")]) == 1
    assert "curve.png is no curve and would be replaced" in capsys.readouterr().err
    assert run([*command, "-o", str(tmp_path / "keys"), "--curve", str(tmp_path / "mine.png")]) == 1
    assert "mine.png is no curve and would be replaced" in capsys.readouterr().err
    assert not (tmp_path / "keys").exists() and len(list((tmp_path / "run").iterdir())) == 1


@pytest.mark.parametrize("name", ["assignment.png", "atlas.png"])
def test_a_curve_does_not_replace_what_is_written_beside_the_keys(mixed, tmp_path, capsys, name):
    command = ["distill", str(mixed), *KMEANS, "--kernel", "3", "-o", str(tmp_path / "keys")]
    assert run([*command, "--curve", str(tmp_path / "keys" / name)]) == 1
    assert "is the keys' own; give --curve another name" in capsys.readouterr().err
    assert not (tmp_path / "keys").exists()
    (tmp_path / "folder.png").mkdir()
    assert run([*command, "--curve", str(tmp_path / "folder.png")]) == 1
    assert "folder.png is a folder" in capsys.readouterr().err and not (tmp_path / "keys").exists()


def test_what_cannot_end_well_is_refused_before_anything_is_sought(mixed, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("masterkey.distill.prepare", lambda *_, **__: pytest.fail("the keys were sought"))
    assert run(["distill", str(mixed), "-o", str(tmp_path / "keys"), "--keys", "51"]) == 1
    assert "51 keys were asked for; of mixed method greedy can give 50 at most" in capsys.readouterr().err
    own = tmp_path / "mine" / "5x5"
    own.mkdir(parents=True)
    (own / "README.md").write_text("years of work")
    assert run(["distill", str(mixed), "-o", str(tmp_path / "mine"), *KMEANS]) == 1
    assert "its README.md would be replaced" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["5x5"] and not (tmp_path / "keys").exists()


def test_several_banks_are_joined(mixed, tmp_path):
    other = bank({"a.weight": (30, 3)}, seed=1, name="other")
    keys = tmp_path / "keys"
    arguments = ["distill", str(mixed), str(other.save_pretrained(tmp_path / "other")), "-o", str(keys), *KMEANS]
    assert run([*arguments, "--kernel", "3"]) == 0
    result = Distilled.from_pretrained(keys)
    expected = distill(join([MIXED.select(kernel=3), other]), 3, "kmeans")
    assert result.assignment.names == ("0/a.weight", "0/c.weight", "1/a.weight")
    assert result.bank.sha256 == expected.bank.sha256
    assert result.assignment.to_csv() == expected.assignment.to_csv()
    assert result.bank.metadata.source.kind == "joined"


def test_keys_of_a_sample_are_assigned_to_all(mixed, tmp_path, capsys):
    keys = tmp_path / "keys"
    arguments = ["distill", str(mixed), "-o", str(keys), *KMEANS, "--kernel", "3", "--sample", "20", "--seed", "5"]
    assert run([*arguments, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["filters"], facts["kept"], facts["pruned"]["undrawn"]) == (90, 20, 70)
    result = Distilled.from_pretrained(keys)
    assert (result.assignment.key >= 0).all() and len(result.assignment) == 90
    assert result.step["sample"] == 20
    prepared = prepare(MIXED.select(kernel=3), "kmeans", 5, sample=20)
    assert len(prepared.unit) == 20
    drawn = prepared.pruning.kept
    left = (prepared.table.filters - result.assignment.reconstruct(result.bank.layers["keys.weight"])).flatten(1)
    total = prepared.table.filters.flatten(1)
    total = total - total.mean(1, keepdim=True)
    error = left.square().sum(1) / total.square().sum(1)
    assert torch.allclose(error, result.assignment.error, atol=1e-4)  # of those that were not drawn, too
    assert result.explained == pytest.approx(1 - float(error[drawn].mean()), abs=1e-4)
    other = prepare(MIXED.select(kernel=3), "kmeans", 6, sample=20)
    assert not torch.equal(other.pruning.kept, drawn)


def test_a_sample_larger_than_the_bank_changes_nothing_but_the_metadata():
    three = MIXED.select(kernel=3)
    whole, sampled = distill(three, 3, "kmeans"), distill(three, 3, "kmeans", sample=1000)
    assert torch.equal(whole.bank.layers["keys.weight"], sampled.bank.layers["keys.weight"])
    assert whole.assignment.to_csv() == sampled.assignment.to_csv() and whole.pruned == sampled.pruned
    assert "sample" not in whole.step
    with pytest.raises(MasterkeyError, match="a sample of filters is a whole number from 1"):
        distill(three, 3, "kmeans", sample=0)
