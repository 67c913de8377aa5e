"""The ``masterkey`` command: its sub-commands, and how it says no."""

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from masterkey.errors import MasterkeyError

from .analyze import analyze
from .bank import download, extract, info, list_, plot, verify
from .bench import app as bench
from .distill import distill
from .model import init, inspect
from .publish import build, publish, push

app = typer.Typer(
    name="masterkey",
    help="Depthwise filter banks: take them out of any checkpoint, put them frozen into any timm network.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("list")(list_)
for command in (info, download, verify, plot, extract, analyze, distill, inspect, init, build, push, publish):
    app.command()(command)
app.add_typer(bench, name="bench")


def _show_version(wanted: bool) -> None:
    if wanted:
        from masterkey._version import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Depthwise filter banks: take them out of any checkpoint, put them frozen into any timm network.

    Data goes to stdout, everything else to stderr. Exit code 0: done; 1: refused, with one sentence; 2: wrong usage.
    """


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    if sys.stderr is None:  # closed by the caller, as by 2>&- in a shell
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 (open to the end)
    if sys.stdout is None:
        _say("standard output is closed, so nothing can be printed there")
        return 1
    # before huggingface_hub is imported: its notes on attempts are none of ours, nor are bars that nobody watches
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):  # huggingface_hub reads them when it is imported
        if not os.environ.get(name, "1").isdecimal():
            _say(f"{name} is {os.environ[name]!r:.60}; it must be whole seconds")
            return 1
    # a terminal that cannot show a sign shows another one
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        code = _exit_code(arguments)
        sys.stdout.flush()  # here, where what goes wrong can be said
        return code
    except MasterkeyError as refusal:
        _say(refusal)  # names from files may hold anything; one sentence stays on one line
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _abandon_output()
        return 1
    except OSError as error:
        if error.filename is not None:  # some other file than the output
            _say(f"cannot use {str(error.filename)!r:.300}: {error.strerror}")
            return 1
        if error.errno is None:  # of no file and no stream: a fault of ours
            raise
        _say(f"cannot write the output: {error.strerror}")
        _abandon_output()
        return 1


def _exit_code(arguments: Sequence[str] | None) -> int:
    try:
        app(args=list(arguments) if arguments is not None else None, prog_name="masterkey")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def _say(sentence: object) -> None:
    line = " ".join(str(sentence).split())
    shown = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in line)
    print("masterkey:", shown, file=sys.stderr)  # noqa: T201


def _abandon_output() -> None:
    """Keep Python from complaining, at exit, of what it cannot write."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(run())
