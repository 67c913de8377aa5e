"""What a bank's name means, and what its card says."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from samples import make_bank

import masterkey
from masterkey.bank import Bank
from masterkey.card import card_text, counts_text
from masterkey.errors import UnknownNameError
from masterkey.names import BuiltinName, PathName, parse_name


@pytest.fixture
def bank() -> Bank:
    return make_bank(licence="MIT", base_model="me/net", datasets=("pets",))


def test_by_folder_and_by_file(bank, tmp_path, monkeypatch):
    bank.save_pretrained(tmp_path / "my.bank")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    file = "my.bank/model.safetensors"
    for name in (
        tmp_path / "my.bank",
        str(tmp_path / "my.bank"),
        "my.bank",
        "./my.bank",
        "~/my.bank",
        "./x/../my.bank",
    ):
        if "x/.." in str(name):
            (tmp_path / "x").mkdir()
        assert Bank.from_pretrained(name).sha256 == bank.sha256
    for name in (tmp_path / file, file, f"./{file}", f"~/{file}"):
        assert Bank.from_pretrained(name).sha256 == bank.sha256


def test_built_in_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in masterkey.list_banks():
        assert isinstance(parse_name(name), BuiltinName)
        Path(name).write_bytes(b"a file of that name changes nothing")
        assert isinstance(parse_name(name), BuiltinName)
        Path(name).unlink()
        Path(name).mkdir()
        assert isinstance(parse_name(name), PathName), "a folder goes before a built-in name"


def test_a_control_of_a_bank(bank, tmp_path):
    bank.save_pretrained(tmp_path / "b")
    control = Bank.from_pretrained(f"shuffled-pixels:{tmp_path / 'b'}")
    assert control.name == "shuffled-pixels:net"
    assert control.metadata.licence == "MIT"
    assert parse_name("shuffled-pixels:scale-space-8") == BuiltinName(
        parse_name("shuffled-pixels").recipe, "scale-space-8"
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("scale-space", "did you mean scale-space-8"),
        ("Random", "did you mean random"),
        ("", "an empty name"),
        ("nothing-like-it", "built in: gaussian-covariance, random"),
        ("..", "holds no model.safetensors"),
        ("a..b", "is no name of a bank"),
        ("org/../../etc/passwd", "is no name of a bank"),
        ("org/repo@../x", "is no name of a bank"),
        ("hf://../x", "is no name of a bank"),
        ("/nowhere/at/all", "does not exist"),
        ("./nowhere", "does not exist"),
        ("~nobody-here/x", "there is no such user"),
        ("random\0", "is no name of a bank"),
        ("/etc/\0passwd", "contains a NUL"),
        ("./\0", "contains a NUL"),
        ("a b", "is no name of a bank"),
        ("a\nb", "is no name of a bank"),
        ("\x1b[2J", "is no name of a bank"),
        ("\ud800", "is no name of a bank"),
        ("-rf", "is no name of a bank"),
        ("a" * 10_000, "10,000 characters"),
        ("/" + "a" * 10_000, "cannot be opened"),
        ("./" + "a/" * 5_000, "cannot be opened"),
        ("random:scale-space-8", "is not made of another bank"),
        ("shuffled-pixels:", "name a bank after the colon"),
        ("shuffled-pixels:nothing", "no bank named 'nothing'"),
        ("shuffled-pixels:a\0b", "is no name of a bank"),
        ("shuffled-pixels:" + "a" * 10_000, "10,000 characters"),
        ("shuffled-pixels:" * 2000 + "random", "only one colon is understood"),
        ("gaussian-covariance:shuffled-pixels:" * 1000, "only one colon is understood"),
        ("org/repo", "banks on the Hub are not supported yet"),
        ("org/repo@v1", "banks on the Hub are not supported yet"),
        ("hf://org/repo", "banks on the Hub are not supported yet"),
        ("https://example.org/model.safetensors", "banks on the Hub are not supported yet"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_names_that_are_none(tmp_path, monkeypatch, name, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownNameError) as caught:
        Bank.from_pretrained(name)
    sentence = str(caught.value)
    assert words in sentence
    assert sentence.isprintable()
    assert len(sentence) < 400


# -- the card -----------------------------------------------------------------------------------------------


def front_matter(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def test_card(bank):
    text = card_text(bank.shuffled(1).normalized())
    assert "6 filters of 3x3, 17 of 7x7" in text
    assert "| licence | MIT |" in text
    assert "| base model | me/net |" in text
    assert "| trained on | pets |" in text
    assert "| done since | shuffled, normalized |" in text
    assert f"`{bank.shuffled(1).normalized().sha256}`" in text
    assert "policy" not in text
    head = front_matter(text)
    assert (head["license"], head["base_model"], head["datasets"]) == ("mit", "me/net", ["pets"])
    assert head["library_name"] == "masterkey"


def test_card_says_what_is_unknown():
    text = card_text(make_bank())
    assert text.count("unknown") >= 4
    assert "| done since | nothing |" in text
    assert front_matter(text)["license"] == "unknown"


def test_card_of_another_kind_says_how_to_use_it(bank):
    text = card_text(Bank(bank.layers, replace(bank.metadata, kind="dense")))
    assert 'inject_kwargs={"policy": "layerwise"}' in text


@pytest.mark.parametrize("text", ['a: "b" # c', "- x", "${name}", "$sha256", "'", "{}", "é 漢", "null"])
def test_card_of_odd_texts(tmp_path, text):
    bank = make_bank(text, licence=text, base_model=text, datasets=(text,))
    head = front_matter(card_text(bank))
    assert (head["license"], head["base_model"], head["datasets"]) == (text.lower(), text, [text])
    bank.save_pretrained(tmp_path)
    assert f"# {text}" in (tmp_path / "README.md").read_text(encoding="utf-8")
    assert Bank.from_pretrained(tmp_path).metadata == bank.metadata


def test_counts_text(bank):
    assert counts_text(bank.select(kernel=3)) == "6 filters of 3x3"
    assert counts_text(bank.repeated(1000)) == "6,000 filters of 3x3, 17,000 of 7x7"
