"""The banks that were trained here and ship in the package."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import save_file

import masterkey
from masterkey import Bank
from masterkey.analysis.quality import gate
from masterkey.build import build_folder
from masterkey.catalog import parse_recipe, recipes
from masterkey.cli.main import run
from masterkey.errors import BankFormatError, RecipeError
from masterkey.index import index
from masterkey.pins import check_pinned

ROOT = Path(__file__).parents[1]
TRAINED = {recipe.name: recipe for recipe in recipes().values() if recipe.rule == "trained"}
every = pytest.mark.parametrize("name", sorted(TRAINED))


def test_they_are_small():
    sizes = [(ROOT / "banks" / f"{name}.safetensors").stat().st_size for name in TRAINED]
    assert len(sizes) >= 2
    assert sum(sizes) < 3_000_000


@every
def test_the_file_is_what_the_index_the_recipe_and_the_run_say(name):
    recipe, bank = TRAINED[name], Bank.from_pretrained(name)
    about = bank.metadata
    assert (about.name, about.licence, about.datasets) == (name, recipe.licence, recipe.datasets)
    assert (about.source.kind, about.source.id) == ("run", recipe.run)
    assert bank.sha256 == index()[name].sha256
    assert {layer.kernel for layer in about.layers} == {(7, 7)}
    assert {round(1 / layer.factor) for layer in about.layers} == {3 if "hornet" in name else 1}
    done = json.loads((ROOT / "benchmarks" / "results" / "runs" / f"{recipe.run}.json").read_text())
    config = done["metrics"]["config"]
    assert config["model"].split("_")[0] == name.split("-")[0]
    assert config["arm"]["bank"] is None
    assert f"{done['metrics']['top1']:.1f} %" in "".join(recipe.figures.values())
    assert gate(bank).passed


@every
def test_it_goes_into_a_network_where_there_is_no_network(name):
    code = (
        "import socket\n"
        "def refuse(*args): raise AssertionError('the network was asked')\n"
        "socket.socket.connect = refuse\n"
        "import masterkey\n"
        f"model = masterkey.create_model('convnext_atto', bank={name!r}, num_classes=3)\n"
        "print(masterkey.verify(model))"
    )
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_commands_know_them(tmp_path, capsys):
    name = sorted(TRAINED)[0]
    assert run(["list", "--json"]) == 0
    rows = {row["bank"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows[name]["where from"] == "in the package"
    assert rows[name]["sha256"] == index()[name].sha256
    assert run(["build", name, "-o", str(tmp_path / "bank")]) == 0
    assert run(["verify", str(tmp_path / "bank")]) == 0
    assert Bank.from_pretrained(tmp_path / "bank").sha256 == index()[name].sha256
    card = (tmp_path / "bank" / "README.md").read_text()
    assert TRAINED[name].card.strip().splitlines()[0] in card


def test_other_filters_than_those_of_the_index_are_refused():
    name = sorted(TRAINED)[0]
    with pytest.raises(BankFormatError, match="is expected"):
        check_pinned(Bank.from_pretrained(name).shuffled(), index()[name])


def test_a_file_that_is_not_the_networks_is_refused(tmp_path):
    name = sorted(TRAINED)[0]
    save_file(dict(Bank.from_model("test_convnext", pretrained=False).layers), tmp_path / "other.safetensors")
    with pytest.raises(RecipeError, match="is not the source of"):
        build_folder(TRAINED[name], tmp_path / "built", source=tmp_path / "other.safetensors")
    assert not (tmp_path / "built").exists()


@pytest.mark.parametrize(("rule", "run_line"), [("trained", ""), ("extracted", 'run = "0123"\nsource = "timm/x"\n')])
def test_a_run_belongs_to_a_trained_bank(rule, run_line):
    text = f'name = "a"\nrule = "{rule}"\nsummary = "s"\nlicence = "MIT"\nreference = "r"\n{run_line}'
    with pytest.raises(RecipeError, match="a trained bank needs a run, and no other has one"):
        parse_recipe(text, "a.toml")


def test_the_bank_is_frozen_and_comes_out_again():
    model = masterkey.create_model("convnext_atto", bank=sorted(TRAINED)[0], num_classes=3)
    assert masterkey.verify(model) == []
    assert not model.stages[0].blocks[0].conv_dw.weight.requires_grad
