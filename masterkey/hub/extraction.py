"""Banks out of remote checkpoints: ``hf://org/repo/file``, a URL, ``timm/<checkpoint>``."""

import json
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import torch
from torch import Tensor, nn

from ..bank import Bank
from ..catalog import Recipe
from ..create import build_timm
from ..depthwise import FoundLayer, require_layers
from ..errors import BankFormatError, CheckpointError, HubError, IsBankError, MasterkeyError
from ..extract import bank_of_checkpoint, bank_of_layers, tag_datasets, wanted_for
from ..format import opened
from ..format import read as read_bank
from ..index import IndexEntry
from ..licence import joint_licence
from ..pins import check_pinned
from .access import Access
from .bank_cache import BankCache
from .commit import Pinned, pinned
from .remote_checkpoint import read_remote
from .remote_file import HubFile, UrlFile
from .remote_safetensors import INDEX_SUFFIX
from .repository import Repository

_WEIGHTS = ("model.safetensors", f"model{INDEX_SUFFIX}", "pytorch_model.bin")  # in the order in which they are tried
_CONFIG = "config.json"
_NOT_FOR_META = ("pretrained", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")


def bank_of_url(url: str, kind: str, access: Access) -> Bank:
    """Take the filters out of a checkpoint behind a URL, or fetch the bank that is there; it is read anew each time.

    Raises:
        HubError: it cannot be read.
        CheckpointError: it holds no filters of that kind, or is not a sound checkpoint.
        BankFormatError: it is a bank, and not a sound one.
    """
    file = UrlFile(url)
    if access.offline:
        raise HubError(
            f"{file.name} was not fetched, because {access.offline}; what is behind a URL is not kept, so make a bank "
            f"of it beforehand, where there is a network, with: masterkey extract {file.name} -o DIR"
        )
    try:
        read = read_remote(file, wanted_for(kind))
    except IsBankError:
        return _bank_in(file)
    path = PurePosixPath(file.name)
    source = read.source("url", file.name, path.name)
    return bank_of_checkpoint(read.checkpoint, kind, source, path.stem, file.name)


def _bank_in(file: UrlFile) -> Bank:
    with file.whole() as path:
        try:
            return Bank(*read_bank(path))
        except BankFormatError as error:
            raise BankFormatError(str(error).replace(str(path), file.name)) from error


def bank_of_recipe(recipe: Recipe, known: IndexEntry, access: Access) -> Bank:
    """Take the filters of a recipe out of the file behind its URL, or out of the cache if they were taken before.

    A URL has no commits: what is kept is the bank of the hash that ``known`` states, and no other is given.

    Raises:
        HubError: it cannot be read, or is not in the cache and the network must not be used.
        CheckpointError: it holds no depthwise filters, or is not a sound checkpoint.
        BankFormatError: they are others than those that ``known`` states.
    """
    assert recipe.source is not None and known.sha256 is not None
    cache, url, kind = BankCache(recipe.name, access), recipe.source, "depthwise"
    file = PurePosixPath(url).name
    if access.offline and not cache.has(known.sha256, file, kind):
        raise HubError(
            f"{recipe.name} was not fetched, because {access.offline}; fetch it beforehand, where there is a network, "
            f"with: masterkey download {recipe.name}"
        )

    def make() -> Bank:
        bank = bank_of_url(url, kind, access)
        check_pinned(bank, known)
        return bank

    return cache.load_or_make(known.sha256, file, kind, make)


def bank_of_hub_file(repo_id: str, path: str, revision: str | None, kind: str, access: Access) -> Bank:
    """Take the filters out of a checkpoint in a repository, or out of the cache if they were taken before.

    Raises:
        HubError: it cannot be read, or is not in the cache and the network must not be used.
        CheckpointError: it holds no filters of that kind, or is not a sound checkpoint.
    """

    def make(repository: Repository) -> Bank:
        file = HubFile(repo_id, repository.commit, path, access)
        read = read_remote(file, wanted_for(kind))
        source = read.source("hub", repo_id, path, repository.commit)
        about: dict[str, Any] = {"licence": repository.licence, "base_model": repo_id, "datasets": repository.datasets}
        return bank_of_checkpoint(read.checkpoint, kind, source, _title(repo_id, path), file.name, **about)

    wanted_for(kind)  # before anything is asked for
    return _kept(f"hf://{repo_id}/{path}", repo_id, revision, path, kind, access, make)


def bank_of_timm(checkpoint: str, revision: str | None, kind: str, access: Access) -> Bank:
    """Take the filters out of timm's pretrained weights on the Hub, or out of the cache if they were taken before.

    The layers come in forward order with stride, groups, stage and factor, as ``Bank.from_model`` gives them: the
    architecture that the repository names is built without weights.

    Raises:
        HubError: it cannot be read, or is not in the cache and the network must not be used.
        CheckpointError: it is not what timm's architecture expects.
        UnknownNameError: this timm has no such architecture.
        NoTargetLayersError: the architecture has no layer of that kind.
    """
    repo_id = f"timm/{checkpoint}"

    def make(repository: Repository) -> Bank:
        config = _config(HubFile(repo_id, repository.commit, _CONFIG, access))
        found = require_layers(_without_weights(config["architecture"], config["model_args"], repo_id), kind)
        weights = next((name for name in _WEIGHTS if name in repository.files), _WEIGHTS[0])
        file = HubFile(repo_id, repository.commit, weights, access)
        layers = {f"{layer.name}.weight": layer for layer in found.layers}
        read = read_remote(file, lambda name, shape: name in layers)
        _fill(layers, read.checkpoint.tensors, file.name, config["architecture"])
        return bank_of_layers(
            found,
            kind,
            name=checkpoint,
            source=read.source("timm", repo_id, weights, repository.commit),
            licence=_both(repository.licence, config["licence"]),
            base_model=repo_id,
            datasets=repository.datasets or tag_datasets(checkpoint.partition(".")[2]),
        )

    wanted_for(kind)
    return _kept(repo_id, repo_id, revision, "timm", kind, access, make)


def _kept(name: str, repo_id: str, revision: str | None, file: str, kind: str, access: Access, make: Any) -> Bank:
    """Return a bank out of the cache of extracted banks, made and kept if it is not there."""
    cache = BankCache(repo_id, access)
    at: Pinned = pinned(name, repo_id, revision, access, lambda commit: cache.has(commit, file, kind))
    return cache.load_or_make(at.commit, file, kind, lambda: make(at.repository()))


def _config(file: HubFile) -> dict[str, Any]:
    """Return what a timm repository says of its network: architecture, its arguments, and licence."""
    try:
        with file.whole() as path, opened(path) as config:
            text = config.read()
        raw = json.loads(text.decode("utf-8"))
        about = raw.get("pretrained_cfg", raw)
        arguments = {key: value for key, value in (raw.get("model_args") or {}).items() if key not in _NOT_FOR_META}
        architecture, licence = raw["architecture"], about.get("license")
        if not re.fullmatch(r"[\w.-]+", architecture) or not isinstance(
            licence, str | None
        ):  # hf-hub:… is timm's to load
            raise TypeError("architecture and license are plain texts")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{file.name} does not say which network of timm this is ({error!s:.100}); the filters of a checkpoint "
            f"alone are hf://{file.repo_id}/FILE"
        ) from error
    return {"architecture": architecture, "model_args": arguments, "licence": licence}


def _without_weights(architecture: str, arguments: Mapping[str, Any], where: str) -> nn.Module:
    try:
        with torch.device("meta"):
            return build_timm(architecture, **arguments)
    except MasterkeyError:
        raise
    except Exception as error:  # what a network does with arguments that are not meant for it
        raise CheckpointError(
            f"{where}: timm's {architecture} cannot be built with {dict(arguments)!s:.100}: {error!s:.100}"
        ) from error


def _fill(layers: Mapping[str, FoundLayer], tensors: Mapping[str, Any], where: str, architecture: str) -> None:
    """Put the weights that were read into the network's layers, which had none.

    Raises:
        CheckpointError: one is missing, or of another shape than the architecture's.
    """
    for name, layer in layers.items():
        expected = layer.module.weight
        assert isinstance(expected, Tensor)
        found = tensors.get(name)
        if found is None or found.shape != expected.shape:
            has = "no such tensor" if found is None else f"one of shape {list(found.shape)}"
            raise CheckpointError(
                f"timm's {architecture} has a layer {name} of shape {list(expected.shape)}, {where} has "
                f"{has}; its own filters, whatever their names, are {where}"
            )
        layer.module.weight = nn.Parameter(found, requires_grad=False)


def _title(repo_id: str, path: str) -> str:
    """Name a bank after its file, or after its repository where the file is called as all are."""
    name = PurePosixPath(path).name
    generic = re.fullmatch(r"(pytorch_)?model(\.safetensors\.index)?\.\w+", name)
    return repo_id.partition("/")[2] if generic else PurePosixPath(path).stem


def _both(first: str | None, second: str | None) -> str | None:
    """Return the licence that both state; where they differ, both hold."""
    return joint_licence(each for each in (first, second) if each)
