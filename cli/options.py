"""Options that several commands share, and how their texts become values."""

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import typer

from masterkey.names import expanded
from masterkey.rules import KernelRule, Policy, ScaleRule

PolicyOption = Annotated[Policy, typer.Option(help="How filters are dealt to layers.")]
KernelOption = Annotated[KernelRule, typer.Option("--kernel", help="How a filter of another kernel size is fitted.")]
ScaleOption = Annotated[ScaleRule, typer.Option(help="How large the filters are made.")]
LayersOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="N|-N|stage:I|PATTERN",
        help="Fill only these layers: the first N, the last N, a stage, or a name pattern. May be repeated.",
    ),
]
SeedOption = Annotated[
    int,
    typer.Option(min=0, max=2**32 - 1, help="Seed of the network's own weights and of banks that are drawn."),
]
RevisionOption = Annotated[str | None, typer.Option(help="On the Hub: a branch, a tag or a commit.")]
TokenOption = Annotated[str | None, typer.Option(help="The Hub's token; the one logged in with if not given.")]
LocalOption = Annotated[bool, typer.Option("--local-files-only", help="Take what is in the cache; ask no network.")]
SizeOption = Annotated[
    str | None, typer.Option("--kernel", metavar="K|KHxKW", help="Kernel size of a computed bank (7 if not given).")
]


def as_path(text: str | Path) -> Path:
    """Read a path, with ``~`` filled in, which a shell leaves alone in ``--output=~/bank``.

    Raises:
        typer.BadParameter: an empty text, as of a variable that is not set: it would mean the folder one is in.
        UnknownNameError: a user that does not exist, or a NUL.
    """
    if not str(text):
        raise typer.BadParameter("an empty path; write . for the folder you are in")
    return expanded(text)


def refuse_given(context: typer.Context, names: Collection[str], why: str) -> None:
    """Refuse options that would do nothing, if they were written out.

    Raises:
        typer.BadParameter: the first of them that was.
    """
    for parameter in context.command.params:
        # by name: newer versions of Typer have a Click of their own
        source = context.get_parameter_source(parameter.name) if parameter.name in names else None
        if source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(why, param_hint=parameter.opts[0])


def parse_size(text: str | None, option: str = "--kernel") -> tuple[int, int] | None:
    """Read a kernel size: ``7`` or ``1x11``.

    Raises:
        typer.BadParameter: anything else.
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,4})(?:x(\d{1,4}))?", text)
    if not found or min(sides := (int(found[1]), int(found[2] or found[1]))) < 1 or max(sides) > 101:
        raise typer.BadParameter(f"{text!r} is no kernel size from 1 to 101; write 7 or 1x11", param_hint=option)
    return sides


def parse_model_kwargs(texts: list[str]) -> dict[str, Any]:
    """Read timm's keyword arguments: ``ls_init_value=1.0``, ``depths=[2,2,2,2]``; what is no JSON is text.

    Raises:
        typer.BadParameter: no ``=``, a name that is none in Python, or a number that is not finite.
    """
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise typer.BadParameter(f"{text!r:.100} is not NAME=VALUE", param_hint="--model-kwargs")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
        try:
            json.dumps(found[name], allow_nan=False)
        except ValueError as error:
            raise typer.BadParameter(f"{text!r:.100} has no finite number", param_hint="--model-kwargs") from error
    return found


def inject_options(
    policy: Policy, layers: list[str] | None, kernel: KernelRule, scale: ScaleRule, seed: int
) -> dict[str, Any]:
    """Return the arguments for ``masterkey.inject``."""
    mask: int | list[str] | None = layers or None
    if layers and len(layers) == 1 and re.fullmatch(r"-?\d+", layers[0]):
        mask = int(layers[0])
    return {"policy": policy, "layers": mask, "kernel": kernel, "scale": scale, "seed": seed}
