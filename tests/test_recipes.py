"""The recipes of the banks that are extracted, held against timm; building by them; the index."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

import masterkey
from masterkey import Bank
from masterkey.build import build_bank, build_folder, check_built, index_entry, lock_index
from masterkey.catalog import find_recipe, published_recipes, recipes
from masterkey.checkpoint import select_tensors
from masterkey.cli.main import run
from masterkey.create import build_timm
from masterkey.depthwise import require_layers
from masterkey.errors import BankFormatError, QualityError, RecipeError, SaveError
from masterkey.extract import wanted_for
from masterkey.index import IndexEntry, format_index, index, parse_index
from masterkey.pins import check_known

EXTRACTED = {recipe.name: recipe for recipe in published_recipes() if recipe.rule == "extracted"}
RECIPES = {name: recipe for name, recipe in EXTRACTED.items() if not recipe.is_url}  # test_recipe_urls has the others
HORNETS = {
    "hornet-tiny.in1k": 11_488,
    "hornet-small.in1k": 17_232,
    "hornet-base.in1k": 22_976,
    "hornet-large.in22k": 34_464,
}
TAGS = {
    *(f"convnext_{tag}" for tag in ("atto.d2_in1k", "femto.d1_in1k", "pico.d1_in1k", "nano.d1h_in1k")),
    *(f"convnext_{size}.fb_in1k" for size in ("tiny", "small", "base", "large")),
    *(f"convnextv2_{size}.fcmae_ft_in1k" for size in ("femto", "tiny")),
    *("mobilenetv3_large_100.ra_in1k", "efficientnet_b0.ra_in1k", "edgenext_small.usi_in1k"),
    *("mixnet_s.ft_in1k", "mixnet_m.ft_in1k", "mixnet_l.ft_in1k", "mixnet_xl.ra_in1k"),
    *("convmixer_768_32.in1k", "convmixer_1536_20.in1k"),
    *(f"starnet_s{i}.in1k" for i in range(1, 5)),
}
OWN = """
name = "mine"
rule = "extracted"
summary = "A bank of one's own"
licence = "MIT"
reference = "nowhere"
source_text = "a file of mine"
model = "test_convnext"
"""


def every(names=RECIPES):
    return pytest.mark.parametrize("name", sorted(names))


def weights(name: str, folder: Path, seed: int = 0) -> Path:
    """A file with the depthwise weights of a recipe's architecture, drawn at random, and a few others."""
    generator = torch.Generator().manual_seed(seed)
    state = {
        layer.name: torch.randn(layer.filters, 1, *layer.kernel, generator=generator) for layer in index()[name].layers
    }
    state |= {"stem.weight": torch.randn(8, 3, 4, 4, generator=generator), "head.bias": torch.zeros(10)}
    path = folder / f"{name}.safetensors"
    save_file(state, path)
    return path


# -- the recipes, against timm ------------------------------------------------------------------------------


def test_every_tag_that_is_wanted_has_a_recipe():
    assert {recipe.source for recipe in RECIPES.values() if recipe.source} == {f"timm/{tag}" for tag in TAGS}
    assert {name for name, recipe in RECIPES.items() if recipe.source is None} == set(HORNETS)
    assert set(index()) == {recipe.name for recipe in published_recipes()}


@every(set(RECIPES) - set(HORNETS))
def test_a_recipe_says_of_its_source_what_timm_says(name):
    recipe = RECIPES[name]
    tag = recipe.source.removeprefix("timm/")
    assert tag in timm.list_pretrained()
    config = timm.models.get_pretrained_cfg(tag)
    assert recipe.model == config.architecture
    assert recipe.base_model == f"timm/{tag}" == config.hf_hub_id
    assert recipe.licence.lower() == config.license
    assert recipe.datasets == ("imagenet-1k",) and tag.endswith("in1k")
    assert recipe.factor == 1.0


@every(HORNETS)
def test_hornets_recipes_are_of_the_networks_here(name):
    recipe, entry = RECIPES[name], index()[name]
    with torch.device("meta"):
        layers = require_layers(build_timm(recipe.model)).layers
    assert recipe.model.endswith("_7x7")
    assert {layer.factor for layer in layers} == {recipe.factor} == {1 / 3}
    assert entry.counts() == {(7, 7): HORNETS[name]}
    assert recipe.licence == "MIT" and recipe.terms == "MIT"
    assert recipe.datasets == ("imagenet-22k" if "large" in name else "imagenet-1k",)


def test_the_non_commercial_are_marked():
    marked = {name for name, recipe in recipes().items() if "non-commercial" in recipe.terms}
    assert marked == {"convnextv2-femto.in1k", "convnextv2-tiny.in1k"}


def test_all_kernels_from_3_to_11_are_there():
    assert {kernel for entry in index().values() for kernel in entry.counts()} == {(k, k) for k in (3, 5, 7, 9, 11)}


@every()
def test_the_index_states_the_layers_of_the_architecture(name):
    recipe = RECIPES[name]
    with torch.device("meta"):
        network = build_timm(recipe.model)
    found = require_layers(network)
    assert found.order == "forward"
    assert index()[name].layers == index_entry(recipe).layers
    assert [(layer.name, layer.filters, layer.kernel, layer.stride) for layer in index()[name].layers] == [
        (f"{layer.name}.weight", len(layer.weight), layer.kernel, layer.stride) for layer in found.layers
    ]
    by_shape = select_tensors(network.state_dict(), wanted_for("depthwise"))
    assert set(by_shape.tensors) == {layer.name for layer in index()[name].layers}


# -- building -----------------------------------------------------------------------------------------------


@every()
def test_a_bank_is_built_from_a_file(name, tmp_path):
    recipe = RECIPES[name]
    bank = build_bank(recipe, source=weights(name, tmp_path), pinned=False)
    entry = index()[name]
    assert bank.counts() == entry.counts()
    assert tuple(replace(layer, factor=1.0) for layer in bank.metadata.layers) == entry.layers
    assert {layer.factor for layer in bank.metadata.layers} == {recipe.factor}
    about = bank.metadata
    assert (about.name, about.order, about.kind) == (name, "forward", "depthwise")
    assert (about.licence, about.base_model, about.datasets) == (recipe.licence, recipe.base_model, recipe.datasets)
    assert about.source.sha256_verified


def test_the_filters_are_the_files_own(tmp_path):
    recipe = RECIPES["hornet-tiny.in1k"]
    network = build_timm(recipe.model)
    torch.save({"model": network.state_dict()}, tmp_path / "hornet_tiny_7x7.pth")
    bank = build_bank(recipe, source=tmp_path / "hornet_tiny_7x7.pth", pinned=False)
    straight = Bank.from_model(network)
    assert list(bank.layers) == list(straight.layers)
    assert all(torch.equal(bank.layers[name], straight.layers[name]) for name in bank.layers)
    assert bank.metadata.layers == straight.metadata.layers


def test_what_is_missing_beside_a_bank_is_written(tmp_path):
    recipe = RECIPES["hornet-tiny.in1k"]
    folder = tmp_path / "built"
    build_folder(recipe, folder, source=weights(recipe.name, tmp_path), allow_degenerate=True)
    (folder / "README.md").write_text(edited := (folder / "README.md").read_text() + "by hand\n")
    (folder / "config.json").unlink()
    build_folder(recipe, folder, allow_degenerate=True)
    assert (folder / "config.json").is_file() and (folder / "README.md").read_text() == edited
    (folder / "README.md").unlink()
    build_folder(recipe, folder, allow_degenerate=True)
    assert recipe.name in (folder / "README.md").read_text()
    with pytest.raises(QualityError):  # random weights
        build_folder(recipe, folder)


def test_a_bank_without_a_name_on_the_hub_says_what_to_download():
    with pytest.raises(RecipeError, match=r"linked in the README of github.com/raoyongming/HorNet.*--source FILE"):
        Bank.from_pretrained("hornet-tiny.in1k")


def test_another_networks_weights_are_refused(tmp_path):
    small = weights("hornet-small.in1k", tmp_path)
    with pytest.raises(RecipeError, match=r"is not the source of hornet-tiny.in1k: layer stages.* expected"):
        build_bank(RECIPES["hornet-tiny.in1k"], source=small)
    longer = weights("convnext-small.in1k", tmp_path)  # has all of ConvNeXt-Tiny's layers, and more
    with pytest.raises(RecipeError, match=r"18 layers expected, 36 found"):
        build_bank(RECIPES["convnext-tiny.in1k"], source=longer)


def test_a_source_that_states_another_licence_is_refused(tmp_path, monkeypatch):
    path = weights("starnet-s1.in1k", tmp_path)
    stating = Bank.from_checkpoint(path, licence="CC-BY-NC-4.0")
    monkeypatch.setattr("masterkey.build.from_checkpoint", lambda source: stating)
    with pytest.raises(RecipeError, match=r"under Apache-2.0 as its recipe says, but .* says CC-BY-NC-4.0"):
        build_bank(RECIPES["starnet-s1.in1k"], source=path)


def test_steps_and_figures_of_a_recipe_of_ones_own(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(
        OWN + 'factor = 0.5\nsteps = [["select", {stages = [0, 1]}], ["normalized", {how = "unit"}]]\n'
        'card = "Two stages of it."\n[figures]\n"Pets, convnext_atto" = "1.5 %"\n'
    )
    network = build_timm("test_convnext")
    torch.save(network.state_dict(), tmp_path / "w.pth")
    bank = build_folder(find_recipe(str(file)), tmp_path / "mine", source=tmp_path / "w.pth")
    assert [step["op"] for step in bank.metadata.transformations] == ["select", "normalized"]
    assert {layer.stage for layer in bank.metadata.layers} == {0, 1}
    norms = torch.cat([tensor.flatten(1).norm(dim=1) for tensor in bank.layers.values()])
    torch.testing.assert_close(norms, torch.ones(len(bank)))
    card = (tmp_path / "mine" / "README.md").read_text()
    assert "Two stages of it." in card and "| Pets, convnext_atto | 1.5 % |" in card
    assert Bank.from_pretrained(tmp_path / "mine").sha256 == bank.sha256


def test_a_bank_is_not_built_over_a_project(tmp_path):
    (tmp_path / "mine.toml").write_text(OWN)
    torch.save(build_timm("test_convnext").state_dict(), tmp_path / "w.pth")
    (tmp_path / "README.md").write_text("a project")
    with pytest.raises(SaveError, match=r"its README.md would be replaced, and belongs to no bank"):
        build_folder(find_recipe(str(tmp_path / "mine.toml")), tmp_path, source=tmp_path / "w.pth")
    assert (tmp_path / "README.md").read_text() == "a project"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = ", "is no TOML"),
        (OWN.replace("licence", "license"), "it lacks licence"),
        (OWN + "colour = 'red'", "unknown field 'colour'"),
        (OWN + "factor = '1/3'", "is not of type float"),
        (OWN.replace('"mine"', '"../../outside"'), "name = '../../outside' is not of letters"),
        (OWN + "factor = nan", "factor = nan is no number to multiply by"),
        (OWN.replace('licence = "MIT"', 'licence = " "'), "its licence is empty"),
        (OWN + "datasets = [1]", "datasets and figures are texts"),
        (OWN.replace('"extracted"', '"guessed"'), "rule 'guessed' is none of computed, extracted"),
        (OWN.replace("source_text", "card"), "needs a source"),
        (OWN.replace('"extracted"', '"computed"'), "computed banks are the package's own rules"),
        (OWN + 'steps = ["shuffled"]', "is not [NAME, {ARGUMENTS}]"),
        (OWN + 'steps = [["push_to_hub", {}]]', "is not [NAME, {ARGUMENTS}]"),
    ],
)
def test_what_is_no_recipe_is_refused(text, words, tmp_path):
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        find_recipe(str(tmp_path / "r.toml"))
    assert words in str(caught.value) and "r.toml" in str(caught.value)


def test_a_recipe_in_the_home_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.toml").write_text(OWN)
    assert find_recipe("~/mine.toml").name == "mine"


def test_a_recipe_that_is_not_there():
    with pytest.raises(RecipeError, match=r"did you mean convnext-tiny\.in1k"):
        find_recipe("convnext-tiny.in22k")
    with pytest.raises(RecipeError, match="No such file"):
        find_recipe("nowhere.toml")


# -- the index ----------------------------------------------------------------------------------------------


def test_the_index_has_one_spelling():
    text = (Path(masterkey.catalog.files("masterkey.banks").joinpath("index.json"))).read_text()
    assert format_index(parse_index(text)) == text
    assert list(json.loads(text)) == sorted(recipe.name for recipe in published_recipes())


def test_a_hash_that_nobody_computed_is_absent():
    entries = parse_index(format_index({"a": IndexEntry(index()["starnet-s1.in1k"].layers)}))
    assert entries["a"].sha256 is None and entries["a"].revision is None
    assert '"sha256"' not in format_index(entries)


@pytest.fixture
def own_index(tmp_path, monkeypatch):
    """An index of the tests' own in the place of the package's."""
    path = tmp_path / "index.json"
    path.write_text(format_index({name: IndexEntry(entry.layers) for name, entry in index().items()}))
    monkeypatch.setattr("masterkey.index._own", lambda: path)
    index.cache_clear()
    yield path
    monkeypatch.undo()
    index.cache_clear()


def test_a_locked_bank_is_held_to_its_hash(own_index, tmp_path):
    recipe = RECIPES["hornet-tiny.in1k"]
    first, second = (weights(recipe.name, tmp_path, seed).rename(tmp_path / f"{seed}.safetensors") for seed in (0, 1))
    bank = build_bank(recipe, source=first)
    assert lock_index({recipe.name: bank}) == [f"hornet-tiny.in1k: not pinned -> {bank.sha256[:16]}…"]
    assert index()[recipe.name].sha256 == bank.sha256
    assert {name for name, entry in index().items() if entry.sha256} == {recipe.name}
    assert build_bank(recipe, source=first).sha256 == bank.sha256
    with pytest.raises(BankFormatError, match=rf"but {bank.sha256[:16]}… is expected"):
        build_bank(recipe, source=second)
    other = build_bank(recipe, source=second, pinned=False)
    assert lock_index({recipe.name: other}) == [f"hornet-tiny.in1k: {bank.sha256[:16]}… -> {other.sha256[:16]}…"]
    assert lock_index({recipe.name: other}) == []
    for claims in (check_known, lambda bank: check_built(bank, recipe)):
        claims(other)
        with pytest.raises(BankFormatError, match="has changed or is damaged"):
            claims(bank)
    assert check_known(bank.shuffled(1)).name == recipe.name, "what was made of it since is another thing"
    with pytest.raises(RecipeError, match="build it anew"):
        check_built(other.select(layers=1), recipe)


def test_the_command_builds_and_locks(own_index, tmp_path, capfd):
    source = weights("hornet-tiny.in1k", tmp_path)
    out = tmp_path / "built" / "hornet-tiny.in1k"
    command = ["build", "hornet-tiny.in1k", "--source", str(source), "-o", str(out), "--lock", "--json"]
    assert run([*command, "--allow-degenerate"]) == 0  # its weights are drawn at random
    captured = capfd.readouterr()
    facts = json.loads(captured.out)
    assert facts == [{"bank": "hornet-tiny.in1k", "filters": 11_488, "sha256": Bank.from_pretrained(out).sha256}]
    assert "not pinned ->" in captured.err
    assert run(["info", "hornet-tiny.in1k", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["sha256"] == facts[0]["sha256"]
    assert "1/3" in (out / "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["build"], 2, "name one recipe, or say --all"),
        (["build", "random", "--all"], 2, "name one recipe, or say --all"),
        (["build", "--all", "--source", "x.pth"], 2, "the source of one bank"),
        (["build", "random", "--lock"], 2, "only built-in banks that are extracted"),
        (["build", "hornet-tiny.in1k"], 1, "has to be downloaded by hand"),
        (["build", "hornet-tiny.in1k", "--source", "x.pth"], 1, "does not exist"),
        (["build", "nothing"], 1, "no recipe named 'nothing'"),
    ],
)
def test_what_the_command_refuses(arguments, code, words, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == code
    assert words in " ".join(capfd.readouterr().err.replace("│", " ").split())
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_of_ones_own_is_not_looked_for_in_the_package():
    """Nor is it said to be built by its name, which masterkey does not know."""
    own = replace(recipes()["convnext-atto.tiny-imagenet"], name="mine")
    with pytest.raises(RecipeError, match="mine is a recipe of your own for trained filters; say where they are"):
        build_bank(own)
    by_hand = replace(recipes()["hornet-tiny.in1k"], name="mine")
    with pytest.raises(RecipeError, match=r"masterkey build RECIPE\.toml --source FILE -o DIR"):
        build_bank(by_hand)


def test_a_computed_bank_is_built_as_well(tmp_path):
    bank = build_folder(recipes()["scale-space-8"], tmp_path / "s")
    assert Bank.from_pretrained(tmp_path / "s").sha256 == bank.sha256
    assert len(bank) == 8


def test_list_and_info_say_where_a_bank_comes_from(capfd):
    assert run(["list"]) == 0
    rows = {line.split()[0]: line for line in capfd.readouterr().out.splitlines()}
    assert "built from the Hub at first use" in rows["convnext-tiny.in1k"]
    assert "CC-BY-NC-4.0 (non-commercial)" in rows["convnextv2-tiny.in1k"]
    assert "built from a file that you download" in rows["hornet-tiny.in1k"]
    assert " computed " in rows["scale-space-8"]
    assert run(["info", "mixnet-s.in1k", "--json"]) == 0
    facts = json.loads(capfd.readouterr().out)
    assert facts["filters"] == {"3x3": 2236, "5x5": 2052, "7x7": 1212, "9x9": 924, "11x11": 144}
    assert facts["sha256"] == index()["mixnet-s.in1k"].sha256 or facts["sha256"] == "not pinned"


def test_a_computed_bank_takes_no_source(tmp_path):
    with pytest.raises(RecipeError, match="computed from a formula and takes no source"):
        build_folder(recipes()["scale-space-8"], tmp_path / "s", source="weights.pth")
    assert not (tmp_path / "s").exists()


def test_a_file_with_a_built_in_name_does_not_change_the_index(own_index, tmp_path, capfd):
    """Else anybody's weights would be pinned as the built-in bank's."""
    (tmp_path / "own.toml").write_text(OWN.replace('"mine"', '"hornet-tiny.in1k"'))
    assert run(["build", str(tmp_path / "own.toml"), "--source", "x.pth", "-o", str(tmp_path / "o"), "--lock"]) == 2
    assert "only built-in banks" in " ".join(capfd.readouterr().err.split())
