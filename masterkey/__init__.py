"""Pretrained depthwise filter banks, put frozen into any timm network in one line.

>>> import masterkey
>>> model = masterkey.create_model("convnext_femto", bank="scale-space-8", num_classes=37)  # doctest: +SKIP

Names are loaded when they are first used: importing the package imports neither torch nor timm.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__
from .catalog import list_banks
from .errors import MasterkeyError

if TYPE_CHECKING:
    from .bank import Bank, join
    from .create import create_model
    from .depthwise import depthwise_layers
    from .injection import eject, freeze, inject, thaw, verify
    from .report import Report

_HOMES = {
    "Bank": "bank",
    "join": "bank",
    "create_model": "create",
    "depthwise_layers": "depthwise",
    "eject": "injection",
    "freeze": "injection",
    "inject": "injection",
    "thaw": "injection",
    "verify": "injection",
    "Report": "report",
}

__all__ = [
    "Bank",
    "MasterkeyError",
    "Report",
    "__version__",
    "create_model",
    "depthwise_layers",
    "eject",
    "freeze",
    "inject",
    "join",
    "list_banks",
    "thaw",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
