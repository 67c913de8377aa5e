"""Filters are computed on the host, in the types that the code states, whatever the caller has made its default."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def on_host() -> Iterator[None]:
    """Set aside a default device, a default type, autocast and inference mode, around a block or a whole function.

    ``with torch.device("cuda"): create_model(…)`` builds the network there, and the same filters go into it. What has
    a device and a type already keeps them.
    """
    with ExitStack() as back:
        if torch.get_default_device().type != "cpu":
            back.enter_context(torch.device("cpu"))
        if torch.is_autocast_enabled("cpu"):
            back.enter_context(torch.autocast("cpu", enabled=False))
        if torch.is_inference_mode_enabled():  # what is made in it cannot be learnt with later
            back.enter_context(torch.inference_mode(False))
        if (dtype := torch.get_default_dtype()) != torch.float32:
            back.callback(torch.set_default_dtype, dtype)
            torch.set_default_dtype(torch.float32)
        yield
