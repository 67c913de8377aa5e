"""The files of a bank's folder, which is laid out as a model repository of the Hub (docs/format.md)."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .atomic import write_all_atomically
from .card import FOLDER, card_text, licence_text
from .errors import BankFormatError, SaveError, UnknownNameError
from .format import CONFIG_NAME, METADATA_KEY, WEIGHTS_NAME, encode, read_header
from .metadata import canonical_json
from .names import expanded, is_there

if TYPE_CHECKING:
    from .bank import Bank
    from .catalog import Recipe

CARD_NAME = "README.md"
ATLAS_NAME = "atlas.png"
LICENCE_NAME = "LICENSE"
CARD_SIGN = b"(https://pypi.org/project/masterkey/) filter bank"  # as card.md has it
ASSIGNMENT_NAME = "assignment.csv"  # of distilled keys
CURVE_NAMES = ("curve.png", "curve.csv")  # which the command distill draws beside them


def bank_files(bank: "Bank", *, where: str = FOLDER, recipe: "Recipe | None" = None) -> dict[str, bytes]:
    """Return the folder's files by name, the weights last; ``where`` and ``recipe`` are the card's."""
    weights = encode(bank.layers, bank.metadata)
    files = {CONFIG_NAME: config_bytes(bank), CARD_NAME: card_text(bank, where=where, recipe=recipe).encode()}
    if licence := licence_text(bank):
        files[LICENCE_NAME] = licence.encode()
    if bank.kind == "depthwise":
        from .atlas import draw_atlas, encode_png

        files[ATLAS_NAME] = encode_png(draw_atlas(bank.layers, bank.name))
    return {**files, WEIGHTS_NAME: weights}


def write_folder(directory: str | Path, files: Mapping[str, bytes]) -> Path:
    """Write a bank's files in the mapping's order, and remove those that only another bank, here before, had.

    Its licence, assignment or curve would else stand beside this one's filters. Where the very same bank is there, its
    card and licence stay as they are: a person may have edited them. Returns the folder.

    Raises:
        SaveError: the folder cannot be written, or holds files of these names that are no bank's; what it held before
            is intact.
    """
    try:
        folder = expanded(directory)
    except UnknownNameError as error:
        raise SaveError(f"cannot write {str(directory)!r:.300}: {error}; nothing was changed") from error
    require_replaceable(folder)
    before = _weights_in(folder)
    is_other = before not in (None, files[WEIGHTS_NAME])
    kept = {name for name in (CARD_NAME, LICENCE_NAME) if before == files[WEIGHTS_NAME] and (folder / name).is_file()}
    write_all_atomically({folder / name: data for name, data in files.items() if name not in kept})
    from .distill.curve import is_curve

    curves = CURVE_NAMES if is_curve(folder / CURVE_NAMES[1]) else ()  # else they are somebody's own
    for name in (LICENCE_NAME, ATLAS_NAME, ASSIGNMENT_NAME, *curves) if is_other else ():
        if name not in files:
            (folder / name).unlink(missing_ok=True)
    return folder


def require_replaceable(folder: Path) -> None:
    """See that what would be replaced is a bank: not a network's checkpoint, nor a project's own README or LICENSE.

    Raises:
        SaveError: it is something else.
    """
    names = (WEIGHTS_NAME, CARD_NAME, LICENCE_NAME, CONFIG_NAME, ATLAS_NAME, ASSIGNMENT_NAME)
    there = [name for name in names if is_there(str(folder / name)) and (folder / name).is_file()]
    card = folder / CARD_NAME
    # a bank may be its weights alone, in a folder whose other files are a project's: these go by the card
    has_card = CARD_SIGN in _read(card) if CARD_NAME in there else _is_config_of_weights(folder)
    foreign = [name for name in there if not (_is_bank(folder / name, has_card) if name == WEIGHTS_NAME else has_card)]
    if foreign:
        raise SaveError(
            f"cannot write a bank into {str(folder)!r:.300}: its {' and '.join(foreign)} would be replaced, and "
            f"{'belongs' if len(foreign) == 1 else 'belong'} to no bank; give a folder of its own; nothing was changed"
        )


def _is_config_of_weights(folder: Path) -> bool:
    """Whether ``config.json`` says what the weights beside it say: so a bank's folder is known that lost its card."""
    try:
        stated = read_header(folder / WEIGHTS_NAME).metadata.get(METADATA_KEY, "")
        return (folder / CONFIG_NAME).read_bytes() == stated.encode() + b"\n"
    except (OSError, BankFormatError):
        return False


def _read(card: Path) -> bytes:
    try:
        return card.read_bytes()
    except OSError as error:
        raise SaveError(f"cannot read {str(card)!r:.300}: {error.strerror or error}; nothing was changed") from error


def _is_bank(weights: Path, has_card: bool) -> bool:
    """Whether weights are a bank's; damaged ones are if a bank's card stands beside them."""
    try:
        return METADATA_KEY in read_header(weights).metadata
    except BankFormatError:
        return has_card


def _weights_in(folder: Path) -> bytes | None:
    try:
        return (folder / WEIGHTS_NAME).read_bytes()
    except (OSError, ValueError):  # none, or a path that cannot be one, which writing will say
        return None


def config_bytes(bank: "Bank") -> bytes:
    """Return ``config.json``: the metadata, and a line break."""
    return canonical_json(bank.metadata.to_dict(bank.sha256)).encode() + b"\n"
