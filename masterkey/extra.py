"""The extra ``analysis``: what figures and a matching of keys need, imported when it is needed."""

from importlib import import_module
from typing import Any

from .errors import MasterkeyError


def needs(module: str) -> Any:
    """Import a module of the extra ``analysis``.

    Raises:
        MasterkeyError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as missing:
        package = module.split(".")[0]
        raise MasterkeyError(
            f"this needs {package}, which the extra analysis brings: pip install 'masterkey[analysis]'"
        ) from missing
