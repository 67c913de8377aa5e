"""The card of a bank, and what the Hub makes of it."""

from dataclasses import replace

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from samples import make_bank

from masterkey import Bank, join
from masterkey.card import card_text, counts_text, licence_text
from masterkey.catalog import recipes
from masterkey.index import index
from masterkey.licence import HUB_LICENCES, hub_front_matter, is_non_commercial


@pytest.fixture
def bank() -> Bank:
    return make_bank(licence="MIT", base_model="me/net", datasets=("pets",))


def front_matter(text: str) -> dict:
    data = ModelCard(text).data.to_dict()
    assert data == yaml.safe_load(text.split("---\n")[1])
    return data


def test_card(bank):
    text = card_text(bank.shuffled(1).normalized())
    assert "6 filters of 3x3, 17 of 7x7" in text
    assert "| 3x3 | 1 | 6 |\n| 7x7 | 3 | 17 |\n| all | 4 | 23 |" in text
    assert "| licence | MIT |" in text
    assert "| base model | me/net |" in text
    assert "| trained on | pets |" in text
    assert "| done since | shuffled, normalized |" in text
    assert f"`{bank.shuffled(1).normalized().sha256}`" in text
    assert "policy" not in text and "Figures" not in text and "commercial" not in text
    assert "![Every filter, one panel a layer](atlas.png)" in text
    assert 'bank="path/to/this/folder"' in text
    assert front_matter(text) == {
        "library_name": "masterkey",
        "license": "mit",
        "base_model": "me/net",
        "datasets": ["pets"],
        "tags": ["masterkey", "depthwise", "filter-bank"],
    }
    assert licence_text(bank) is None


def test_card_of_a_repository(bank):
    text = card_text(bank, where="me/bank")
    assert 'masterkey.create_model("convnext_femto", bank="me/bank", num_classes=37)' in text
    assert "path/to" not in text


def test_card_of_a_recipes_bank_has_its_words(bank):
    recipe = recipes()["convnext-tiny.in1k"]
    layers = index()[recipe.name].layers
    filters = {layer.name: torch.ones(layer.filters, 1, *layer.kernel) for layer in layers}
    named = Bank(filters, replace(bank.metadata, name=recipe.name, layers=layers))
    assert recipe.card.strip() in card_text(named)
    assert "## Figures" not in card_text(named)
    for other in (named.shuffled(0), bank.renamed(recipe.name)):
        assert recipe.card.strip() not in card_text(other)
    figures = card_text(bank, recipe=replace(recipe, figures={"Pets | frozen": "1.5 %"}))
    assert "## Figures" in figures and "| Pets \\| frozen | 1.5 % |" in figures


def test_figures_are_of_the_very_filters_that_they_were_measured_with():
    """What is made of a bank keeps its name: its control would else state its accuracy."""
    bank = Bank.from_pretrained("convnext-atto.tiny-imagenet.8-keys")
    (figure, *_) = recipes()[bank.name].figures.values()
    assert figure in card_text(bank)
    drawn = Bank.from_filters(torch.randn(8, 7, 7), name=bank.name)
    for other in (bank.pixel_shuffled(0), bank.resized(5), drawn):
        assert other.name == bank.name
        assert "## Figures" not in card_text(other) and figure not in card_text(other)


def test_card_says_what_is_unknown():
    text = card_text(make_bank())
    assert text.count("unknown") >= 4
    assert "| done since | nothing |" in text
    assert front_matter(text)["license"] == "unknown"
    assert "base_model" not in front_matter(text)


def test_card_of_another_kind_says_how_to_use_it(bank):
    text = card_text(Bank(bank.layers, replace(bank.metadata, kind="dense")))
    assert 'inject_kwargs={"policy": "layerwise"}' in text
    assert "atlas.png" not in text


def test_card_of_a_joint_licence(bank, tmp_path):
    other = make_bank("other", licence="CC-BY-NC-4.0", base_model="timm/x.y")
    joined = join([bank, other])
    text = card_text(joined)
    head = front_matter(text)
    assert (head["license"], head["license_name"]) == ("other", "cc-by-nc-4.0-and-mit")
    assert head["license_link"] == "LICENSE"
    assert head["base_model"] == ["me/net", "timm/x.y"]
    assert "**Not for commercial use**" in text and "| licence | CC-BY-NC-4.0 AND MIT |" in text
    joined.save_pretrained(tmp_path)
    lines = (tmp_path / "LICENSE").read_text().splitlines()
    assert "- CC-BY-NC-4.0" in lines and "- MIT" in lines and "all of them hold at once" in " ".join(lines)


@pytest.mark.parametrize(
    ("licence", "front", "non_commercial"),
    [
        (None, {"license": "unknown"}, False),
        ("Apache-2.0", {"license": "apache-2.0"}, False),
        ("CC-BY-NC-4.0", {"license": "cc-by-nc-4.0"}, True),
        ("MIT AND MIT", {"license": "mit"}, False),
        ("dinov3-license", {"license": "other", "license_name": "dinov3-license", "license_link": "LICENSE"}, False),
        (
            "MIT AND unknown",
            {"license": "other", "license_name": "mit-and-unknown", "license_link": "LICENSE"},
            False,
        ),
        (
            "fair-noncommercial-research-license",
            {"license": "other", "license_name": "fair-noncommercial-research-license", "license_link": "LICENSE"},
            True,
        ),
        ("other", {"license": "other", "license_name": "other", "license_link": "LICENSE"}, False),
    ],
)
def test_a_licence_as_the_hub_wants_it(licence, front, non_commercial):
    assert hub_front_matter(licence) == front
    assert front["license"] in HUB_LICENCES | {"other"}
    assert is_non_commercial(licence) is non_commercial


@pytest.mark.parametrize(
    ("licence", "non_commercial"),
    [
        *(
            (spelt, True)
            for spelt in ("CC BY-NC 4.0", "cc_by_nc_4.0", "research only, non-commercial", "Non commercial")
        ),
        *((spelt, False) for spelt in ("CC BY 4.0", "Apache 2.0", "encoder licence")),
    ],
)
def test_non_commercial_is_known_however_it_is_spelt(licence, non_commercial):
    assert is_non_commercial(licence) is non_commercial


@pytest.mark.parametrize("text", ['a: "b" # c', "- x", "${name}", "$sha256", "'", "{}", "é 漢 😀", "null", "a | b"])
def test_card_of_odd_texts(tmp_path, text):
    bank = make_bank(text, licence=text, base_model=text, datasets=(text,))
    head = front_matter(card_text(bank))
    assert (head["license"], head["datasets"]) == ("other", [text])
    assert "base_model" not in head, "what is no model on the Hub is not announced as one"
    bank.save_pretrained(tmp_path)
    assert f"# {text}" in (tmp_path / "README.md").read_text(encoding="utf-8")
    assert f"- {text}" in (tmp_path / "LICENSE").read_text(encoding="utf-8")
    assert Bank.from_pretrained(tmp_path).metadata == bank.metadata


def test_counts_text(bank):
    assert counts_text(bank.select(kernel=3)) == "6 filters of 3x3"
    assert counts_text(bank.repeated(1000)) == "6,000 filters of 3x3, 17,000 of 7x7"
