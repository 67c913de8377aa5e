"""A file of initial weights: a timm network's state dict with a bank inside."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ._version import __version__
from .atomic import write_atomically
from .bank import Bank
from .create import build_timm
from .errors import SaveError
from .format import is_bank
from .host import on_host
from .injection import inject
from .metadata import canonical_json
from .report import Report
from .whole import as_seed

_ABOUT = "masterkey_init"  # the key of the file's metadata


@on_host()
def write_initial(
    name: str, bank: str | Path, output: Path, *, seed: int = 0, inject_kwargs: Mapping[str, Any], **timm_kwargs: Any
) -> Report:
    """Build timm's network ``name`` with seeded weights, put ``bank`` in, and save its state dict.

    The file has timm's own keys and loads into plain timm. Its metadata says what went in. The same arguments
    give the same bytes. ``timm_kwargs`` that are None are left to timm.

    Raises:
        SaveError: ``output`` is not a ``.safetensors`` name, holds something else than initial weights (trained ones,
            say), or cannot be written.
        UnknownNameError, CheckpointError, NoTargetLayersError, PlanError: as ``masterkey.create_model``.
    """
    seed = as_seed(seed)
    inject_kwargs = dict(inject_kwargs) | {"seed": as_seed(inject_kwargs.get("seed", 0))}
    if output.suffix != ".safetensors":
        raise SaveError(f"{output}: the file is written as safetensors, so its name must end in .safetensors")
    _require_replaceable(output)
    source = Bank.from_pretrained(bank)
    chosen = {key: value for key, value in timm_kwargs.items() if value is not None}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # not torch.manual_seed: that seeds every GPU, too, for good
        model = build_timm(name, **chosen)
    report = inject(model, source, freeze=False, **inject_kwargs)  # a file holds weights, not their being frozen
    about = {
        "masterkey": __version__,
        "model": name,
        "timm": chosen,
        "bank": source.name,
        "inject": inject_kwargs,
        "seed": seed,
    }
    # clones, because safetensors refuses tensors that share memory
    state = {key: value.detach().clone().contiguous() for key, value in model.state_dict().items()}
    # one metadata key: safetensors writes several in an order that varies
    write_atomically(output, save(state, metadata={_ABOUT: canonical_json(about)}))
    return report


def _require_replaceable(output: Path) -> None:
    """Refuse to write over anything but initial weights: what was trained from them often has their name."""
    if not output.is_file():
        return
    if is_bank(output):
        raise SaveError(f"{output} is a bank and would be replaced by a network's weights; give another name")
    try:
        with safe_open(output, "pt") as file:
            is_initial = _ABOUT in (file.metadata() or {})
    except (OSError, SafetensorError):
        is_initial = False
    if not is_initial:
        raise SaveError(f"{output} holds something else than initial weights and would be lost; give another name")
