"""The files of a bank's folder, which is laid out as a model repository of the Hub (docs/format.md)."""

from typing import TYPE_CHECKING

from .card import FOLDER, card_text, licence_text
from .format import CONFIG_NAME, WEIGHTS_NAME, encode
from .metadata import canonical_json

if TYPE_CHECKING:
    from .bank import Bank
    from .catalog import Recipe

CARD_NAME = "README.md"
ATLAS_NAME = "atlas.png"
LICENCE_NAME = "LICENSE"


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


def config_bytes(bank: "Bank") -> bytes:
    """Return ``config.json``: the metadata, and a line break."""
    return canonical_json(bank.metadata.to_dict(bank.sha256)).encode() + b"\n"
