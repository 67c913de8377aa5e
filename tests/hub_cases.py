"""What the tests of the Hub put on the server."""

import io
import json
from itertools import count

import timm
import torch
from hub_server import HubServer, card
from safetensors.torch import save
from torch import Tensor, nn

from masterkey.bank import Bank
from masterkey.folder import bank_files

_numbers = count()


def new_repo(owner: str = "org", stem: str = "r") -> str:
    """Return a name that no other test uses, because the process that reads it has a cache."""
    return f"{owner}/{stem}{next(_numbers)}"


def publish(hub: HubServer, bank: Bank, repo_id: str | None = None, **about: bool) -> str:
    """Put a bank on the server as a repository; return its name."""
    repo_id = repo_id or new_repo()
    hub.add(repo_id, bank_files(bank), **about)
    return repo_id


def torch_file(content: object, legacy: bool = False) -> bytes:
    """Return what torch.save writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def state_dict(channels: int = 64) -> dict[str, Tensor]:
    """A network's weights, of which the filters are a small part."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for i in range(3):
        state[f"stages.{i}.dw.weight"] = torch.randn(channels, 1, 7, 7, generator=generator)
        state[f"stages.{i}.dw.bias"] = torch.randn(channels, generator=generator)
        state[f"stages.{i}.mlp.weight"] = torch.randn(channels * 16, channels * 4, generator=generator)
    return state


def filters(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The filters among the weights."""
    return {name: value for name, value in state.items() if name.endswith("dw.weight")}


def small_timm() -> nn.Module:
    """A network of timm's that is made in no time."""
    torch.manual_seed(0)
    return timm.create_model("test_convnext", num_classes=7)


def add_timm(hub: HubServer, network: nn.Module | None = None, **more: bytes) -> tuple[str, nn.Module]:
    """Put timm weights on the server, as timm does on the Hub; return their name and the network."""
    network = network or small_timm()
    config = {"architecture": "test_convnext", "num_classes": 7, "pretrained_cfg": {"license": "apache-2.0"}}
    files = {
        "config.json": json.dumps(config).encode(),
        "model.safetensors": save(network.state_dict()),
        "README.md": card(license="apache-2.0", datasets=["imagenet-1k"], tags=["timm"]),
    }
    repo_id = new_repo("timm", "test_convnext.r")
    hub.add(repo_id, {**files, **{name: data for name, data in more.items() if data}})
    return repo_id, network
