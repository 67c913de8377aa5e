"""Small banks and a small state dict; a sound bank file, and the means to build broken ones out of its parts."""

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from masterkey import format as bank_format
from masterkey.bank import Bank
from masterkey.errors import BankFormatError, MasterkeyError
from masterkey.extract import from_state_dict
from masterkey.metadata import CHECKSUM_KEY, Layer, Metadata, Source

Json = dict[str, Any]
State = dict[str, Tensor]
ROOT = Path(__file__).resolve().parent.parent


def small_bank(seed: int = 0) -> Bank:
    generator = torch.Generator().manual_seed(seed)
    state = {f"s.{i}.weight": torch.randn(n, 1, k, k, generator=generator) for i, n, k in ((0, 3, 3), (10, 2, 2))}
    return from_state_dict(state, name="small", licence="MIT", datasets=("pets",)).shuffled(seed)


BANK = small_bank()
GOOD = bank_format.encode(BANK.layers, BANK.metadata)
START = 8 + int.from_bytes(GOOD[:8], "little")
HEADER: Json = json.loads(GOOD[8:START])
WEIGHTS = GOOD[START:]


def assemble(header: Any, weights: bytes = WEIGHTS) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + weights


def signed(about: Any) -> str:
    """Metadata as text with the right checksum, so that the tests get past it."""
    covered = {key: value for key, value in about.items() if key != CHECKSUM_KEY}
    text = json.dumps(covered, sort_keys=True, separators=(",", ":"))
    return json.dumps({**covered, CHECKSUM_KEY: hashlib.sha256(text.encode()).hexdigest()})


def with_metadata(edit: Callable[[Json], object], weights: bytes = WEIGHTS) -> bytes:
    header = copy.deepcopy(HEADER)
    about = json.loads(header["__metadata__"]["masterkey"])
    edit(about)
    header["__metadata__"]["masterkey"] = signed(about)
    return assemble(header, weights)


def with_header(edit: Callable[[Json], object], weights: bytes = WEIGHTS) -> bytes:
    header = copy.deepcopy(HEADER)
    edit(header)
    return assemble(header, weights)


def refused(path: Path, data: bytes | None = None, kind: type[MasterkeyError] = BankFormatError) -> str:
    """Check that loading ``path`` is refused in one printable sentence that names it, and return that."""
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(kind) as caught:
        Bank.from_pretrained(path)
    sentence = str(caught.value)
    assert path.name in sentence
    assert sentence.isprintable()
    assert len(sentence) < 500 + len(str(path))
    return sentence


SHAPES = {
    "stages.0.a.weight": (6, 3),
    "stages.0.b.weight": (4, 7),
    "stages.1.a.weight": (8, 7),
    "stages.2.a.weight": (5, 7),
}


def make_bank(name: str = "net", seed: int = 0, factor: float = 1.0, **about: object) -> Bank:
    generator = torch.Generator().manual_seed(seed)
    layers = {name: torch.randn(n, 1, k, k, generator=generator) for name, (n, k) in SHAPES.items()}
    described = tuple(
        Layer(name, (k, k), n, groups=n, stride=(1, 1), stage=int(name.split(".")[1]), factor=factor)
        for name, (n, k) in SHAPES.items()
    )
    return Bank(layers, Metadata(name, "depthwise", Source("model", name), described, "forward", **about))


def state(**extra: Tensor) -> State:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "stem.weight": draw(8, 3, 3, 3),
        "stages.0.dw.weight": draw(8, 1, 3, 3),
        "stages.0.pw.weight": draw(16, 8, 1, 1),
        "stages.10.dw.weight": draw(16, 1, 7, 7),
        "stages.2.dw.weight": draw(16, 1, 5, 5),
        "stages.2.dw.bias": draw(16),
        "stages.2.row.weight": draw(16, 1, 1, 5),
        "relative.table": draw(16, 1, 7, 7),
        "head.weight": draw(10, 16),
        **extra,
    }


DEPTHWISE = ["stages.0.dw.weight", "stages.10.dw.weight", "stages.2.dw.weight", "stages.2.row.weight"]
