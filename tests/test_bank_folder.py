"""Where a bank is written, and what it never replaces."""

import pytest
import torch
from safetensors.torch import save
from samples import make_bank

from masterkey.bank import Bank
from masterkey.errors import SaveError


@pytest.fixture
def bank() -> Bank:
    return make_bank(licence="MIT", base_model="me/net", datasets=("pets",))


@pytest.mark.parametrize("names", [("model.safetensors",), ("README.md",), ("LICENSE", "config.json"), ("atlas.png",)])
def test_files_that_are_no_banks_are_not_replaced(bank, tmp_path, names):
    for name in names:
        (tmp_path / name).write_bytes(save({"w": torch.ones(3)}) if "model" in name else b"mine")
    (tmp_path / "notes.txt").write_text("may stay")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(SaveError, match=rf"its {' and '.join(names)} would be replaced.*nothing was changed"):
        bank.save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_projects_files_beside_the_weights_of_a_bank_are_not_replaced(bank, tmp_path):
    bank.save_pretrained(tmp_path / "bank")
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes((tmp_path / "bank" / "model.safetensors").read_bytes())
    bank.select(layers=1).save_pretrained(folder)  # a bank may be its weights alone
    for name in ("README.md", "LICENSE", "assignment.csv"):
        (folder / name).write_text("mine")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(SaveError, match=r"README.md and LICENSE and .*assignment.csv would be replaced"):
        bank.save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_card_and_a_licence_that_were_edited_stay_with_their_bank(bank, tmp_path):
    bank.save_pretrained(tmp_path)
    for name in ("README.md", "LICENSE"):
        with (tmp_path / name).open("a") as file:
            file.write("\nmy paragraph\n")
    (tmp_path / "atlas.png").unlink()
    bank.save_pretrained(tmp_path)
    assert all((tmp_path / name).read_text().endswith("my paragraph\n") for name in ("README.md", "LICENSE"))
    assert (tmp_path / "atlas.png").exists()
    bank.select(layers=1).save_pretrained(tmp_path)  # another bank has its own
    assert "my paragraph" not in (tmp_path / "README.md").read_text() and not (tmp_path / "LICENSE").exists()


def test_a_bank_is_replaced_even_if_it_is_damaged(bank, tmp_path):
    bank.save_pretrained(tmp_path)
    other = bank.select(layers=1)
    other.save_pretrained(tmp_path)
    assert Bank.from_pretrained(tmp_path).sha256 == other.sha256
    (tmp_path / "model.safetensors").write_bytes(b"half")
    bank.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    bank.save_pretrained(tmp_path)
    assert Bank.from_pretrained(tmp_path).sha256 == bank.sha256
