"""Recipes whose source is a file behind a URL: pinned by their filters' hash, and kept under it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hub_server import HubServer

import masterkey
from masterkey import Bank
from masterkey.build import build_bank, build_folder
from masterkey.catalog import published_recipes, recipes
from masterkey.cli.main import run
from masterkey.errors import BankFormatError, HubError, UnknownNameError
from masterkey.extract import from_state_dict
from masterkey.index import index

KEYS = "convnextv2-tiny.8-published-keys"
FILES = {
    KEYS: "convnextv2_tiny_8_master_key_filters.txt",
    "mcunet-320kb-1mb.in1k": "mcunet-320kb-1mb_imagenet.pth",
    "proxylessnas-w0.3.in1k": "proxyless-w0.3-r176_imagenet.pth",
}
NAMES = sorted(FILES)


def test_these_are_all_and_every_one_is_pinned():
    assert sorted(recipe.name for recipe in published_recipes() if recipe.is_url) == NAMES
    for name in NAMES:
        recipe, known = recipes()[name], index()[name]
        assert recipe.source.startswith("https://") and recipe.model is None and not recipe.steps
        assert known.sha256 and known.layers and known.revision is None
        assert recipe.origin == "read from its authors' file"


@pytest.mark.parametrize("name", NAMES)
def test_the_authors_files_are_those_that_the_index_pins(name, data_dir, tmp_path):
    bank = build_folder(recipes()[name], tmp_path, source=data_dir / "checkpoints" / FILES[name])
    assert bank.sha256 == index()[name].sha256 and bank.name == name
    assert tuple(bank.metadata.layers) == index()[name].layers
    assert (bank.metadata.licence, bank.metadata.order) == (recipes()[name].licence, "forward")
    assert bank.counts() == index()[name].counts()
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert all(figure in card for figure in recipes()[name].figures.values())


@pytest.mark.parametrize("name", NAMES)
def test_another_file_is_refused(name, data_dir):
    other = next(file for file in FILES.values() if file != FILES[name])
    with pytest.raises(masterkey.MasterkeyError, match=f"is not the source of {name}: layer"):
        build_bank(recipes()[name], source=data_dir / "checkpoints" / other)


def keys_text(keys: torch.Tensor) -> bytes:
    """Keys (n, 7, 7) as their authors write them down, line ends included."""
    blocks = [
        f"Filter {number}:\r\n" + "\r\n".join(" ".join(f"{weight:.6f}" for weight in row) for row in key.tolist())
        for number, key in enumerate(keys, 1)
    ]
    return "\r\n\r\n".join(blocks).encode()


@pytest.fixture
def served(monkeypatch):
    """A server that has a file of keys where the recipe's URL leads, with the index pinned to them."""
    keys = torch.randn(8, 7, 7, generator=torch.Generator().manual_seed(0)).mul(1e6).round().div(1e6)
    bank = from_state_dict({"keys.weight": keys[:, None]}, name=KEYS)
    with HubServer() as hub:
        recipe = replace(recipes()[KEYS], source=hub.put("8Filters.txt", keys_text(keys)))
        monkeypatch.setitem(recipes(), KEYS, recipe)
        monkeypatch.setitem(index(), KEYS, replace(index()[KEYS], sha256=bank.sha256))
        yield hub, keys


def test_a_name_fetches_the_file_once_and_is_there_without_a_network(served, tmp_path):
    hub, keys = served
    first = Bank.from_pretrained(KEYS, cache_dir=tmp_path)
    assert torch.equal(first.layers["keys.weight"][:, 0], keys) and first.name == KEYS
    assert first.metadata.source.kind == "url" and first.metadata.licence == "CC-BY-4.0"
    hub.clear()
    again = Bank.from_pretrained(KEYS, cache_dir=str(tmp_path), local_files_only=True)
    assert again.sha256 == first.sha256 and again.metadata == first.metadata and hub.requests == []
    model = masterkey.create_model("test_convnext", bank=again)
    assert masterkey.verify(model) == []


def test_what_was_not_fetched_is_named_without_a_network(served, tmp_path):
    with pytest.raises(HubError, match=f"only local files were asked for.*masterkey download {KEYS}"):
        Bank.from_pretrained(KEYS, cache_dir=tmp_path, local_files_only=True)
    assert not list(tmp_path.iterdir())


def test_a_file_that_changed_is_refused_and_not_kept(served, tmp_path):
    hub, keys = served
    hub.put("8Filters.txt", keys_text(keys.flip(0)))
    with pytest.raises(BankFormatError, match=r"is expected; its source .*8Filters\.txt has changed or is damaged"):
        Bank.from_pretrained(KEYS, cache_dir=tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))
    hub.put("8Filters.txt", keys_text(keys))
    assert Bank.from_pretrained(KEYS, cache_dir=tmp_path).sha256 == index()[KEYS].sha256


def test_a_url_has_no_revisions(served, tmp_path):
    with pytest.raises(UnknownNameError, match="has no revisions"):
        Bank.from_pretrained(KEYS, revision="v1", cache_dir=tmp_path)


def test_commands_show_the_url_and_no_revision(capfd):
    assert run(["info", KEYS, "--json"]) == 0
    facts = json.loads(capfd.readouterr().out)
    assert facts["source"].endswith("8Filters.txt") and facts["sha256"] == index()[KEYS].sha256
    assert "revision" not in facts and facts["filters"] == {"7x7": 8}
    assert run(["info", KEYS, "--revision", "v9"]) == 1
    assert f"'{KEYS}' has no revisions" in capfd.readouterr().err
    assert run(["info", "convnext-tiny.in1k", "--revision", "v9", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["revision"] == "v9"


def test_a_server_that_is_not_there_is_one_sentence(tmp_path: Path):
    with HubServer() as hub:  # whose processes reach no other machine
        done = hub.run("download", KEYS, home=tmp_path)
    assert done.returncode == 1 and done.stderr.startswith("masterkey: ") and "8Filters.txt" in done.stderr
    assert "Traceback" not in done.stderr
