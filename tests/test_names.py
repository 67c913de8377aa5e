"""What a bank's name means."""

from pathlib import Path

import pytest
import torch
from samples import make_bank

import masterkey
from masterkey.bank import Bank
from masterkey.errors import UnknownNameError
from masterkey.names import BuiltinName, HubFileName, PathName, RepositoryName, TimmName, UrlName, parse_name


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


def test_built_in_names(bank, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in masterkey.list_banks():
        assert isinstance(parse_name(name), BuiltinName)
        Path(name).write_bytes(b"a file of that name changes nothing")
        assert isinstance(parse_name(name), BuiltinName)
        Path(name).unlink()
        Path(name).mkdir()
        assert isinstance(parse_name(name), BuiltinName), "a folder without a bank hides none"
        bank.save_pretrained(name)
        assert isinstance(parse_name(name), PathName), "a bank's folder goes before a built-in name"


def test_a_folder_without_a_bank_does_not_hide_a_built_in_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("random").mkdir()
    Path("random", "figures.csv").write_text("a,b")
    assert Bank.from_pretrained("random").name == "random"
    with pytest.raises(UnknownNameError, match=r"holds no model\.safetensors"):
        Bank.from_pretrained("./random")


@pytest.mark.parametrize(
    ("given", "word"), [(None, "None"), (torch.ones(2, 1, 3, 3), "Tensor"), (7, "int"), (b"random", "bytes")]
)
def test_what_is_no_name_is_not_taken_for_one(given, word):
    with pytest.raises(UnknownNameError, match=f"a bank is given as .*, not as {word}$"):
        Bank.from_pretrained(given)


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
        ("nothing-like-it", "masterkey list shows"),
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
        ("hf://org/repo", "hf://org/repo/file"),
        ("hf://org/repo/", "hf://org/repo/file"),
        ("hf://org/repo/../x.pth", "hf://org/repo/file"),
        ("hf://org/repo/a//b.pth", "hf://org/repo/file"),
        ("hf://org/repo/a\\b.pth", "hf://org/repo/file"),
        ("hf://org/repo@../x.pth", "hf://org/repo/file"),
        ("hf://org/repo/a\x1b[2J.pth", "hf://org/repo/file"),
        ("hf://" + "a" * 10_000, "hf://org/repo/file"),
        ("http://example.org/model.safetensors", "use https://"),
        ("https://huggingface.co/org/repo", "a page of the Hub, not a file"),
        ("https://huggingface.co/org/repo/tree/main", "a page of the Hub, not a file"),
        ("https://huggingface.co/org/repo/resolve/main/../x.pth", "a page of the Hub, not a file"),
        ("https://huggingface.co/org/repo/resolve/%2e%2e/x.pth", "a page of the Hub, not a file"),
        ("https://huggingface.co/org/repo/resolve/a%2F..%2Fb/x.pth", "a page of the Hub, not a file"),
        ("https://huggingface.co/org/repo/resolve/a%00b/x.pth", "a page of the Hub, not a file"),
        ("https://", "not a URL"),
        ("https://[", "not a URL"),
        ("https://example.org/a b", "not a URL"),
        ("https://example.org/\x00", "not a URL"),
        ("org/repo/more", "is no name of a bank"),
        ("org/repo@", "is no name of a bank"),
        ("org/repo@v1@v2", "is no name of a bank"),
        ("org/repo.git", "is no name of a bank"),
        ("org/a--b", "is no name of a bank"),
        ("org/repo-", "is no name of a bank"),
        ("/repo", "does not exist"),
        ("org/" + "a" * 97, "is no name of a bank"),
        ("örg/repo", "is no name of a bank"),
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


SHA = "0123456789" * 4


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("org/repo", RepositoryName("org/repo")),
        ("org/repo@v1.0", RepositoryName("org/repo", "v1.0")),
        ("org/repo@refs/pr/1", RepositoryName("org/repo", "refs/pr/1")),
        (f"Org_1/my.bank-2@{SHA}", RepositoryName("Org_1/my.bank-2", SHA)),
        ("timm/convnext_tiny.fb_in1k", TimmName("convnext_tiny.fb_in1k")),
        ("timm/convnext_tiny.fb_in1k@main", TimmName("convnext_tiny.fb_in1k", "main")),
        ("hf://org/repo/model.safetensors", HubFileName("org/repo", "model.safetensors")),
        ("HF://org/repo/sub/dir/a.pth", HubFileName("org/repo", "sub/dir/a.pth")),
        (f"hf://org/repo@{SHA}/a.pth", HubFileName("org/repo", "a.pth", SHA)),
        ("hf://org/repo@refs/pr/7/sub/a.pth", HubFileName("org/repo", "sub/a.pth", "refs/pr/7")),
        ("hf://timm/x.y/model.safetensors", HubFileName("timm/x.y", "model.safetensors")),
        ("https://example.org/a/b.pth?token=1", UrlName("https://example.org/a/b.pth?token=1")),
        ("http://localhost:8000/b.pth", UrlName("http://localhost:8000/b.pth")),
        ("https://huggingface.co/org/repo/resolve/main/a%20b.pth", HubFileName("org/repo", "a b.pth")),
        ("https://huggingface.co/org/repo/blob/v1/sub/a.pth?download=true", HubFileName("org/repo", "sub/a.pth", "v1")),
        ("https://huggingface.co/a/b/resolve/refs%2Fpr%2F1/a.pth", HubFileName("a/b", "a.pth", "refs/pr/1")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_names_on_the_hub(tmp_path, monkeypatch, name, meant):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    assert parse_name(name) == meant


def test_a_folder_goes_before_a_name_on_the_hub(bank, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bank.save_pretrained("org/repo")
    assert isinstance(parse_name("org/repo"), PathName)
    assert Bank.from_pretrained("org/repo").sha256 == bank.sha256


@pytest.mark.parametrize(
    ("name", "revision", "words"),
    [
        ("scale-space-8", "v1", "has no revisions"),
        ("./folder", "v1", "has no revisions"),
        ("https://example.org/a.pth", "v1", "has no revisions"),
        ("org/repo@v1", "v2", "is at v1, and v2 was asked for"),
        ("org/repo", "../x", "is no revision"),
        ("org/repo", "a b", "is no revision"),
        ("org/repo", "", "is no revision"),
    ],
)
def test_revisions_that_are_none(name, revision, words):
    with pytest.raises(UnknownNameError, match=words):
        Bank.from_pretrained(name, revision=revision)
