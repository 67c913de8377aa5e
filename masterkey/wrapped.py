"""The network inside what it may be wrapped in: DataParallel, an average of its weights, torch.compile."""

from torch import nn
from torch.optim.swa_utils import AveragedModel

_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)


def unwrapped(model: nn.Module) -> tuple[nn.Module, str]:
    """Return the network inside, and what its module names begin with in ``model``; a bare network and ``""``."""
    prefix = ""
    while True:
        key = "module" if isinstance(model, _WRAPPERS) else "_orig_mod"
        inner = getattr(model, key, None)
        if not isinstance(inner, nn.Module):
            return model, prefix
        model, prefix = inner, f"{prefix}{key}."
