"""README and docs: every command in them is one that its parser takes, and README's Python runs as it stands there."""

import argparse
import importlib
import re
import shlex
import shutil
import sys
from collections.abc import Iterator

import pytest
import typer
from samples import ROOT, small_bank

import masterkey
from masterkey.cli.main import app
from masterkey.errors import NotInjectedError

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks" / "results" / "README.md"]
PYTHON = "python -m "
COMMAND = re.compile(rf"(masterkey |{PYTHON}masterkey\.)\S")
PLACEHOLDER = re.compile(r"[\[\]|…]")  # [--optional], one | other, BANK…
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def lines(text: str) -> Iterator[tuple[str, bool]]:
    """Pairs of a line of shell in a document and whether it is complete: in a block, or only named in a sentence."""
    for language, block in BLOCK.findall(text):
        if language == "sh":
            yield from ((line, True) for line in block.replace("\\\n", " ").splitlines())
    yield from ((" ".join(span.split()), False) for span in re.findall(r"`([^`]+)`", BLOCK.sub("", text)))


def commands(complete: bool) -> list[tuple[str, str]]:
    """Pairs of a document's name and a command in it, each once."""
    found = []
    for document in DOCUMENTS:
        for line, is_complete in lines(document.read_text(encoding="utf-8")):
            if is_complete is not complete:
                continue
            for command in re.sub(r"\s#.*", "", line).split("&&"):
                command = re.sub(r"\[(--[a-z-]+)\]", r"\1", command).strip().removeprefix("nice -n 5 ")
                if COMMAND.match(command) and not PLACEHOLDER.search(command):
                    found.append((str(document.relative_to(ROOT)), command))
    return list(dict.fromkeys(found))


def understand(command: str, monkeypatch: pytest.MonkeyPatch, *, complete: bool) -> None:
    """Let the command's own parser read it, and run nothing."""
    if command.startswith(PYTHON):
        return understand_module(*shlex.split(command.removeprefix(PYTHON)), monkeypatch=monkeypatch)
    if command == "masterkey --help":  # prints while it is read
        return None
    context = typer.main.get_command(app).make_context("masterkey", shlex.split(command)[1:])
    while context.command.__class__.__name__.endswith("Group") and (rest := [*context._protected_args, *context.args]):
        name, subcommand, arguments = context.command.resolve_command(context, rest)
        try:
            context = subcommand.make_context(name, arguments, parent=context)
        except Exception as error:
            if complete or type(error).__name__ not in ("MissingParameter", "NoArgsIsHelpError"):
                raise
            return None
    return None


def understand_module(module: str, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class UnderstoodError(Exception):
        pass

    def parse(parser: argparse.ArgumentParser, given: list[str] | None = None) -> None:
        read(parser, given)
        raise UnderstoodError

    read = argparse.ArgumentParser.parse_args
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    with pytest.raises(UnderstoodError):
        importlib.import_module(module).main()


@pytest.mark.parametrize(("document", "command"), commands(complete=True))
def test_a_command_in_a_block_is_complete(document, command, monkeypatch):
    understand(command, monkeypatch, complete=True)


@pytest.mark.parametrize(("document", "command"), commands(complete=False))
def test_a_command_in_a_sentence_is_there(document, command, monkeypatch):
    understand(command, monkeypatch, complete=False)


@pytest.mark.parametrize("command", ["masterkey extrct a.pth", "masterkey info a --jsn", "masterkey bench shw run"])
def test_a_command_that_is_not_there_is_not_understood(command, monkeypatch):
    with pytest.raises(Exception, match=r"No such (command|option)"):
        understand(command, monkeypatch, complete=False)


def test_a_module_that_does_not_know_an_option_does_not_understand_it(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        understand("python -m masterkey.benchmarks.scripts.quality --no-such-option", monkeypatch, complete=True)
    assert "--no-such-option" in capsys.readouterr().err


def test_readme_names_every_command():
    table = re.findall(r"^\| `masterkey (\S.*?)` \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    named = {part.split()[0].removeprefix("masterkey ") for cell in table for part in cell.split("`, `")}
    assert named == set(typer.main.get_command(app).commands)


def test_every_benchmark_with_a_result_file_is_in_the_table_of_results():
    text = (ROOT / "benchmarks" / "results" / "README.md").read_text(encoding="utf-8")
    files = {path.name for path in (ROOT / "benchmarks" / "results").iterdir() if path.suffix in (".json", ".csv")}
    assert {name for name in files if f"`{name}`" not in text} == set()


def test_readme_s_python_runs(data_dir, tmp_path, monkeypatch):
    shutil.copy(data_dir / "checkpoints" / "mcunet-320kb-1mb_imagenet.pth", tmp_path)
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    names = {"other": small_bank()}
    for block in [block for language, block in BLOCK.findall(text) if language == "python"]:
        exec(block, names)
    with pytest.raises(NotInjectedError):  # its last line took everything out again
        masterkey.verify(names["model"])
    assert masterkey.Bank.from_pretrained("my-bank").sha256 == names["bank"].sha256
