"""One line from a name to a network with a bank inside."""

import difflib
import re
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from .bank import Bank
from .errors import CheckpointError, PlanError, UnknownNameError
from .injection import inject
from .names import expanded, is_there
from .rules import DEFAULT_BANK, SCALE_RULES

_SCHEMES = ("hf-hub", "hf_hub", "local-dir")  # of timm's own names for networks that are not in its registry
_OPTIONS = ("policy", "kernel", "freeze", "seed")  # of the injection; no network of timm's takes one of that name


def create_model(
    name: str,
    bank: Bank | str | Path = DEFAULT_BANK,
    *,
    inject_kwargs: Mapping[str, Any] | None = None,
    **timm_kwargs: Any,
) -> nn.Module:
    """Build timm's network ``name`` and put ``bank`` into it, frozen.

    Whatever ``timm.create_model`` takes goes through ``timm_kwargs``. With ``pretrained=True`` or a
    ``checkpoint_path`` the weights are loaded first and the bank replaces the depthwise ones only.

    Args:
        name: a timm model name.
        bank: a bank, or a name or path for ``Bank.from_pretrained``; if not given, the built-in one that did best in
            the benchmarks (docs/results.md).
        inject_kwargs: arguments for ``masterkey.inject``: policy, layers, kernel, scale, freeze, seed.
        timm_kwargs: arguments for ``timm.create_model``: num_classes, in_chans, features_only, ….

    Raises:
        UnknownNameError: no such bank or model; near names are given.
        BankFormatError, CheckpointError, HubError: the bank or the network's weights cannot be loaded.
        NoTargetLayersError, PlanError: the bank does not go into this network, or an option of the injection is given
            among ``timm_kwargs``.

    >>> model = create_model("convnext_femto", num_classes=37)  # doctest: +SKIP
    """
    if options := {key: value for key, value in timm_kwargs.items() if key in _OPTIONS}:
        raise _misplaced(options)
    options = _inject_options(inject_kwargs)
    if not isinstance(bank, Bank):
        bank = Bank.from_pretrained(bank)  # first, because it fails sooner than a network is built
    try:
        model = build_timm(name, **timm_kwargs)
    except TypeError as error:
        refused = re.search(r"unexpected keyword argument '(scale|layers)'", str(error))
        if not refused or not _is_option(refused[1], value := timm_kwargs.get(refused[1])):
            raise
        raise _misplaced({refused[1]: value}) from error
    inject(model, bank, **options)
    return model


def build_timm(name: str, **timm_kwargs: Any) -> nn.Module:
    """Call ``timm.create_model``, with a sentence for a name it does not have.

    Raises:
        UnknownNameError: timm has no such model, or no such pretrained weights.
        CheckpointError: pretrained weights could not be fetched or a checkpoint could not be loaded, or what
            ``local-dir:`` or ``hf-hub:`` names describes no network.
    """
    require_timm_name(name)
    import timm

    checkpoint = timm_kwargs.pop("checkpoint_path", None)
    if checkpoint and (not is_there(str(checkpoint)) or is_there(str(checkpoint), folder=True)):  # timm logs it, too
        raise CheckpointError(f"{checkpoint} could not be loaded into {name}: no such file")
    try:
        model: nn.Module = timm.create_model(name, **timm_kwargs)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"the weights of {name} could not be loaded: {_reason(error)}") from error
    except Exception as error:
        if isinstance(error, RuntimeError) and re.search("pretrained|Unknown model", str(error)):
            raise UnknownNameError(f"timm has no such weights or network: {_reason(error)}") from error
        asked = [key for key, value in timm_kwargs.items() if value is not None and key != "pretrained"]
        if ":" in name and not asked:  # a description from a folder or the Hub may be wrong in any way
            raise CheckpointError(f"{name} could not be built: {_reason(error)}") from error
        raise
    if checkpoint:
        try:
            timm.models.load_checkpoint(model, checkpoint, weights_only=True)
        except Exception as error:
            # a file may be wrong in any way, and the libraries that read it each have their own exceptions
            raise CheckpointError(f"{checkpoint} could not be loaded into {name}: {_reason(error)}") from error
    return model


def require_timm_name(name: str) -> None:
    """See that timm knows a network, with ours (HorNet) registered; names like ``hf-hub:…`` are timm's to resolve.

    Raises:
        UnknownNameError: it does not; near names are given.
    """
    import timm

    from .models import hornet  # noqa: F401 (puts HorNet into timm's registry)

    if not isinstance(name, str):
        raise UnknownNameError(f"a network is named by a text, not by a {type(name).__name__}")
    scheme, colon, place = name.partition(":")
    if colon and (scheme.lower() not in _SCHEMES or not place):
        raise UnknownNameError(
            f"timm does not recognise {name[:100]!r}; beside names it takes hf-hub:org/name and local-dir:FOLDER"
        )
    if colon and scheme.lower() == "local-dir" and not is_there(str(expanded(place) / "config.json")):
        raise UnknownNameError(f"{place[:200]!r} is no network's folder: it holds no config.json")
    architecture = name.split(".")[0]
    if not colon and not (re.fullmatch(r"[\w.-]{1,200}", name) and timm.is_model(architecture)):
        near = difflib.get_close_matches(architecture[:200], timm.list_models(), n=3)
        hint = f"; near names: {', '.join(near)}" if near else ""
        raise UnknownNameError(f"timm has no model named {name[:100]!r}{hint}")


def _inject_options(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """See that ``inject`` takes these, before a network is built and its weights are fetched.

    Raises:
        PlanError: they are no mapping, or one is none of its options.
    """
    known = [name for name in signature(inject).parameters if name not in ("model", "bank")]
    if not isinstance(given or {}, Mapping) or any(name not in known for name in given or {}):
        raise PlanError(f"inject_kwargs are a mapping with some of {', '.join(known)}, not {given!r:.200}")
    return dict(given or {})


def _is_option(name: str, value: object) -> bool:
    """Whether ``inject`` takes this as ``scale`` or ``layers``, words that networks of timm's have a use for, too."""
    if name == "scale":
        return isinstance(value, str) and value in SCALE_RULES
    patterns = value if isinstance(value, list | tuple) else [value]
    return isinstance(value, int) or all(isinstance(each, str) for each in patterns)


def _misplaced(given: dict[str, Any]) -> PlanError:
    are = "is an option" if len(given) == 1 else "are options"
    return PlanError(f"{', '.join(given)} {are} of the injection: inject_kwargs={given!r:.200}")


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines:
        text = " ".join(lines[:2])  # torch's first line only announces the second
        return text if len(text) <= 300 else f"{text[:297]}..."
    return "no such file" if isinstance(error, FileNotFoundError) else type(error).__name__
