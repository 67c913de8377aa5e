"""The quality gate where banks are built and published: degenerate banks need a word, computed ones are not judged."""

import pytest
import torch
from safetensors.torch import save_file
from samples import make_bank

from masterkey.analysis.quality import gate, is_judged, require_quality
from masterkey.build import build_folder
from masterkey.catalog import find_recipe, recipes
from masterkey.cli.main import run
from masterkey.closed_form.scale_space import scale_space_filters
from masterkey.errors import QualityError
from masterkey.extract import from_state_dict
from masterkey.hub.publication import plan_publication
from masterkey.hub.publish import push_files, read_folder
from masterkey.index import index
from masterkey.names import load_bank

OWN = """
name = "mine"
rule = "extracted"
summary = "A bank of one's own"
licence = "MIT"
reference = "nowhere"
source_text = "a file of mine"
"""
SENTENCE = "mine does not pass the quality gate: 2 of 2 assessable layers are degenerate (2 random), with 100% of their"


def state(noise):
    """Two layers of 200 filters of 5x5: pure noise, or smooth filters with some noise."""
    generator = torch.Generator().manual_seed(0)
    keys = scale_space_filters((5, 5))
    planes = keys[torch.randint(8, (400,), generator=generator)] * torch.randn(400, 1, 1, 1, generator=generator)
    mixed = planes * (1 - noise) + noise * torch.randn(400, 1, 5, 5, generator=generator)
    return {"a.weight": mixed[:200].contiguous(), "b.weight": mixed[200:].contiguous()}


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "mine.toml").write_text(OWN)
    save_file(state(1.0), tmp_path / "noise.safetensors")
    save_file(state(0.05), tmp_path / "smooth.safetensors")
    return tmp_path / "mine.toml"


@pytest.fixture
def degenerate(tmp_path):
    return from_state_dict(state(1.0), name="mine", licence="MIT").save_pretrained(tmp_path / "degenerate")


def test_a_degenerate_bank_is_not_built(recipe, tmp_path, capsys):
    arguments = ["build", str(recipe), "--source", str(tmp_path / "noise.safetensors"), "-o", str(tmp_path / "out")]
    assert run(arguments) == 1
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"masterkey: {SENTENCE} filters; ") and "--allow-degenerate" in said and "\n" not in said
    assert not (tmp_path / "out").exists()
    assert run([*arguments, "--allow-degenerate"]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| quality | below the gate: 2 of 2 assessable layers are degenerate (2 random), with 100% of" in card


def test_a_sound_bank_is_built_and_its_card_says_so(recipe, tmp_path):
    bank = build_folder(find_recipe(str(recipe)), tmp_path / "out", source=tmp_path / "smooth.safetensors")
    assert gate(bank).passed
    assert "| quality | 0 of 2 assessable layers are degenerate |" in (tmp_path / "out" / "README.md").read_text()


def test_a_degenerate_bank_is_not_pushed(degenerate, capsys):
    assert run(["push", str(degenerate), "me/mine", "--dry-run"]) == 1
    assert SENTENCE in capsys.readouterr().err
    assert run(["push", str(degenerate), "me/mine", "--dry-run", "--allow-degenerate"]) == 0
    bank, files = read_folder(degenerate, "me/mine", allow_degenerate=True)
    with pytest.raises(QualityError, match=r"allow_degenerate=True\) lets the bank pass"):
        push_files(bank, files, "me/mine")
    with pytest.raises(QualityError, match="2 of 2 assessable layers are degenerate"):
        bank.push_to_hub("me/mine")


def test_a_degenerate_bank_is_refused_among_all(tmp_path):
    recipe = recipes()["starnet-s1.in1k"]
    generator = torch.Generator().manual_seed(0)
    layers = {layer.name: layer for layer in index()[recipe.name].layers}
    noise = {name: torch.randn(each.filters, 1, *each.kernel, generator=generator) for name, each in layers.items()}
    save_file(noise, tmp_path / "noise.safetensors")
    build_folder(recipe, tmp_path / "built", source=tmp_path / "noise.safetensors", pinned=False, allow_degenerate=True)
    planned = plan_publication(recipe, tmp_path / "built", "me")
    assert planned.state == "refused" and "does not pass the quality gate" in planned.problem
    assert plan_publication(recipe, tmp_path / "built", "me", allow_degenerate=True).state == "built"


def test_computed_banks_are_not_judged(tmp_path):
    computed = [name for name, recipe in recipes().items() if recipe.rule == "computed"]
    assert {"random", "random-8", "scale-space-8"} <= set(computed)
    for name in computed:
        bank = load_bank(name)
        assert not is_judged(bank)
        require_quality(bank)
    wide = load_bank("random").at(3)
    assert not gate(wide).passed
    require_quality(wide)
    build_folder(recipes()["random"], tmp_path / "random")
    assert "| quality | not judged: computed |" in (tmp_path / "random" / "README.md").read_text()
    assert read_folder(tmp_path / "random")[0].name == "random"


def test_what_cannot_be_assessed_passes():
    bank = make_bank("few")
    assert is_judged(bank) and gate(bank).sentence == "no layer has enough filters to be assessed"
    require_quality(bank)
