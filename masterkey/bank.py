"""A bank: ordered layers of filters, what is known about them, and a small algebra over them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from . import format as bank_format
from .denoise import denoise
from .errors import BankFormatError, NothingMeantError, PlanError
from .fit import fit_kernel
from .host import on_host
from .licence import joint_licence
from .mask import LayerMask, as_mask, first_names, mask_layers
from .metadata import Kernel, Metadata, Source, as_kernel
from .rules import KernelRule
from .shapes import ROUNDING, near_dead, permuted_pixels
from .whole import LARGEST, as_seed, several, whole_number

if TYPE_CHECKING:
    from torch import nn

    from .plan import Target

Normalisation = Literal["unit", "std", "max"]


class Bank:
    """Filters of a trained network, layer by layer in forward order, and where they came from.

    A bank never changes: each step of the algebra returns a new bank that remembers what was done.

    Args:
        layers: name -> float32 tensor (filters, channels per group, kh, kw), in forward order; they are taken over, not
            copied, so nothing may be written to them afterwards.
        metadata: what is known about them; its layers name the same tensors in the same order.

    Raises:
        BankFormatError: layers and metadata disagree, or a weight is NaN or infinite.
    """

    def __init__(self, layers: Mapping[str, Tensor], metadata: Metadata) -> None:
        names = [layer.name for layer in metadata.layers]
        if names != list(layers) or not names:
            raise BankFormatError(
                f"bank {metadata.name}: metadata names the layers {names}, the tensors are {list(layers)}"
            )
        for layer in metadata.layers:
            tensor = layers[layer.name]
            dtype = "F32" if tensor.dtype == torch.float32 else str(tensor.dtype).removeprefix("torch.")
            entry = {"dtype": dtype, "shape": tensor.shape}
            bank_format.check_entry(f"bank {metadata.name}", metadata.kind, layer, entry)
        bank_format.check_finite(layers, f"bank {metadata.name}")
        self._layers = MappingProxyType({name: tensor.detach() for name, tensor in layers.items()})
        self._metadata = metadata

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy by layers and metadata: to other processes, Ray and configurations."""
        # a layer may be a view of a larger tensor (of the pool that ``shuffled`` deals from), all of which pickle takes
        layers = {
            name: tensor.clone() if tensor.untyped_storage().nbytes() > tensor.nbytes else tensor
            for name, tensor in self._layers.items()
        }
        return type(self), (layers, self._metadata)

    # -- sources ------------------------------------------------------------------------------------------

    @staticmethod
    def from_pretrained(
        name_or_path: str | Path,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
    ) -> Bank:
        """Load a bank by its name: a folder, a built-in bank, or one on the Hub (docs/hub.md).

        Args:
            name_or_path: a path; a built-in name; ``hf://org/repo/file`` or ``https://…``, the filters of a
                checkpoint; ``timm/<checkpoint>``, those of timm's pretrained weights; ``org/name[@revision]``.
            revision: on the Hub: a branch, a tag or a commit.
            cache_dir: folder to keep downloads in, instead of huggingface_hub's own.
            token: for the Hub; None takes the one that was logged in with, False sends none.
            local_files_only: take what was fetched before, and ask no network.

        Raises:
            UnknownNameError: no such bank; near names are given.
            HubError: it cannot be fetched, or is not in the cache and no network may be used.
            CheckpointError: a checkpoint that holds no such filters or cannot be read safely.
            BankFormatError: the file is not a sound bank.
        """
        from .names import load_bank

        return load_bank(name_or_path, revision, cache_dir, token, local_files_only)

    @staticmethod
    def from_model(model: nn.Module | str, kind: str = "depthwise", pretrained: bool = True) -> Bank:
        """Take the filters out of a live network, or of timm's network of that name.

        ``pretrained`` applies to a name: False draws timm's random initial weights with a fixed seed.

        Raises:
            UnknownNameError: timm has no such model, or no pretrained weights for it.
            CheckpointError: its weights could not be fetched.
            NoTargetLayersError: the network has no layer of that kind.
        """
        from .extract import from_model, from_timm

        return from_timm(model, kind, pretrained) if isinstance(model, str) else from_model(model, kind)

    @staticmethod
    def from_filters(filters: Any, kind: str = "depthwise", *, name: str, **about: Any) -> Bank:
        """Make a bank of filters of one's own, a tensor or array (n, kh, kw); see ``extract.from_filters``."""
        from .extract import from_filters

        return from_filters(filters, kind, name=name, **about)

    @staticmethod
    def from_state_dict(state: Mapping[str, Tensor], kind: str = "depthwise", *, name: str, **about: Any) -> Bank:
        """Take the filters out of a state dict; see ``masterkey.extract.from_state_dict``."""
        from .extract import from_state_dict

        return from_state_dict(state, kind, name=name, **about)

    @staticmethod
    def from_checkpoint(path_or_url: str | Path, kind: str = "depthwise", **about: Any) -> Bank:
        """Take the filters out of a checkpoint file; see ``masterkey.extract.from_checkpoint``."""
        from .extract import from_checkpoint

        return from_checkpoint(path_or_url, kind, **about)

    # -- what is in it ------------------------------------------------------------------------------------

    @property
    def layers(self) -> Mapping[str, Tensor]:
        """Name -> tensor (filters, channels per group, kh, kw), in forward order; not to be changed."""
        return self._layers

    @property
    def metadata(self) -> Metadata:
        """Where the filters came from and what was done to them."""
        return self._metadata

    @property
    def name(self) -> str:
        """The bank's name."""
        return self.metadata.name

    @property
    def kind(self) -> str:
        """``depthwise``, ``pointwise``, ``dense`` or ``all``."""
        return self.metadata.kind

    @property
    def sha256(self) -> str:
        """The hash over the filters, as ``masterkey.format.filters_sha256`` defines it."""
        return bank_format.filters_sha256(self.layers)

    def counts(self) -> dict[Kernel, int]:
        """Number of filters by kernel size, smallest kernel first."""
        counts: dict[Kernel, int] = {}
        for layer in self.metadata.layers:
            counts[layer.kernel] = counts.get(layer.kernel, 0) + layer.filters
        return dict(sorted(counts.items()))

    def __len__(self) -> int:
        return sum(layer.filters for layer in self.metadata.layers)

    def __repr__(self) -> str:
        counts = " + ".join(f"{n:,} of {kh}x{kw}" for (kh, kw), n in self.counts().items())
        return f"Bank({self.name!r}, {self.kind}, {len(self.layers)} layers: {counts})"

    def bind(self, targets: Sequence[Target], seed: int, rule: KernelRule = "crop") -> Bank:
        """Return the bank to stack into ``targets``: a stored bank is itself, a computed one is computed."""
        return self

    # -- algebra ------------------------------------------------------------------------------------------

    def select(
        self,
        layers: LayerMask | None = None,
        stages: int | Iterable[int] | None = None,
        kernel: int | Kernel | None = None,
    ) -> Bank:
        """Keep the layers that meet every condition given.

        What is left does not know how deep it was in the network: the analysis takes whole banks kernel by kernel.

        Args:
            layers: the first n, the last n (negative), or name patterns (see ``masterkey.mask``).
            stages: a stage's number, counted from 0, or several.
            kernel: a kernel size.

        Raises:
            PlanError: no layer is left.
            MasterkeyError: a stage or a side of a kernel that is no such number.
        """
        layers = as_mask(layers)
        chosen = mask_layers(self.metadata.layers, layers)
        wanted_stages = None
        if stages is not None:
            wanted_stages = sorted({whole_number(stage, "a stage", -LARGEST) for stage in several(stages)})
        wanted_kernel = None if kernel is None else as_kernel(kernel)
        kept = tuple(
            layer
            for layer, is_chosen in zip(self.metadata.layers, chosen, strict=True)
            if is_chosen
            and (wanted_stages is None or layer.stage in wanted_stages)
            and (wanted_kernel is None or layer.kernel == wanted_kernel)
        )
        if not kept:
            raise NothingMeantError(
                f"select(layers={layers!r}, stages={wanted_stages}, kernel={kernel}) leaves none of the "
                f"{len(self.layers)} layers of bank {self.name} ({first_names(self.metadata.layers)})"
            )
        about = self.metadata.after(
            "select", kept, layers=layers, stages=wanted_stages, kernel=wanted_kernel and list(wanted_kernel)
        )
        return Bank({layer.name: self.layers[layer.name] for layer in kept}, about)

    @on_host()
    def shuffled(self, seed: int = 0) -> Bank:
        """Deal the filters out anew: names and sizes stay, which layer a filter is in changes.

        Filters change places with those of the same shape. Each takes its layer's output factor along, so
        that "scale as in the source" still holds.
        """
        seed = as_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        effective = self.effective()
        pools: dict[torch.Size, list[str]] = {}
        for name, tensor in effective.items():
            pools.setdefault(tensor.shape[1:], []).append(name)
        dealt: dict[str, Tensor] = {}
        for names in pools.values():
            pool = torch.cat([effective[name] for name in names])
            pool = pool[torch.randperm(len(pool), generator=generator)]
            dealt.update(zip(names, torch.split(pool, [len(effective[name]) for name in names]), strict=True))
        return self._step("shuffled", {name: dealt[name] for name in effective}, seed=seed)

    @on_host()
    def pixel_shuffled(self, seed: int = 0) -> Bank:
        """Permute the positions inside each kernel, each filter by its own draw: same norms, no structure."""
        seed = as_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        layers = {
            name: permuted_pixels(tensor.flatten(2), generator).view_as(tensor) for name, tensor in self.layers.items()
        }
        return self._step("pixel_shuffled", layers, seed=seed)

    @on_host()
    def normalized(self, how: Normalisation = "unit") -> Bank:
        """Scale each filter: ``unit`` to L2 norm 1, ``std`` to deviation 1, ``max`` to largest size 1.

        A filter for which that measure is zero, but for rounding, stays as it is.
        """
        measures = {
            "unit": lambda flat: flat.norm(dim=1),
            "std": lambda flat: flat.std(dim=1, unbiased=False),
            "max": lambda flat: flat.abs().amax(dim=1),
        }
        if not isinstance(how, str) or how not in measures:
            raise PlanError(f"unknown normalisation {how!r}; known: {', '.join(measures)}")
        layers = {}
        for name, tensor in self.effective().items():
            wide = tensor.double()  # squares of very large or small float32 weights leave its range
            flat = wide.flatten(1)
            size = measures[how](flat)
            layers[name] = (wide / torch.where(size > ROUNDING * flat.norm(dim=1), size, 1.0).view(-1, 1, 1, 1)).float()
        return self._step("normalized", layers, how=how)

    @on_host()
    def pruned(self, below: float = 0.1) -> Bank:
        """Drop the near-dead filters: those whose L2 norm is under ``below`` times their layer's median norm.

        Raises:
            PlanError: no filter is left, or ``below`` is no share from 0 on.
        """
        if not isinstance(below, Real) or not 0 <= below < math.inf:
            raise PlanError(f"filters are pruned below a share of the median norm, from 0 on, not {below!r:.80}")
        below, kept = float(below), {}
        for name, tensor in self.layers.items():
            norms = tensor.double().flatten(1).norm(dim=1)
            kept[name] = ~near_dead(norms, below)
        return self._filters("pruned", kept, below=below)

    @on_host()
    def sampled(self, n: int, seed: int = 0) -> Bank:
        """Draw ``n`` different filters out of all layers; they keep their layer and their order.

        Raises:
            PlanError: the bank has fewer.
            MasterkeyError: no number from 1 on, or no seed.
        """
        seed, n = as_seed(seed), whole_number(n, "a number of filters", least=1)
        sizes = [len(tensor) for tensor in self.layers.values()]
        if n > sum(sizes):
            raise PlanError(f"bank {self.name} has {sum(sizes)} filters; {n} cannot be drawn from it")
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.zeros(sum(sizes), dtype=torch.bool)
        drawn[torch.randperm(len(drawn), generator=generator)[:n]] = True
        return self._filters("sampled", dict(zip(self.layers, drawn.split(sizes), strict=True)), n=n, seed=seed)

    def distilled(self, keys: int = 8, method: str = "greedy", seed: int = 0) -> Bank:
        """Put a few key filters in the place of all; ``masterkey.distill.distill`` also says which filter is which key.

        Raises:
            MasterkeyError: see there.
        """
        from .distill import distill

        return distill(self, keys, method, seed).bank

    @on_host()
    def denoised(self) -> Bank:
        """Take out the white noise that a short training leaves of the initial weights (``masterkey.denoise``).

        A layer that is noise throughout is dropped. The step's ``directions`` say how many each of the rest kept.

        Raises:
            PlanError: every layer is noise.
        """
        layers, directions = {}, {}
        for name, tensor in self.layers.items():
            layers[name], directions[name] = denoise(tensor)
        kept = tuple(layer for layer in self.metadata.layers if directions[layer.name])
        if not kept:
            raise NothingMeantError(f"bank {self.name} is noise in every layer: nothing is left of it")
        about = self.metadata.after("denoised", kept, directions=[directions[layer.name] for layer in kept])
        return Bank({layer.name: layers[layer.name] for layer in kept}, about)

    @on_host()
    def signed(self, seed: int = 0) -> Bank:
        """Give each filter a sign by the toss of a coin."""
        seed = as_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        layers = {}
        for name, tensor in self.layers.items():
            signs = torch.randint(2, (len(tensor), 1, 1, 1), generator=generator) * 2.0 - 1.0
            layers[name] = tensor * signs
        return self._step("signed", layers, seed=seed)

    @on_host()
    def resized(self, kernel: int | Kernel, how: KernelRule = "crop") -> Bank:
        """Fit every filter to ``kernel`` by the rule ``how`` (see ``masterkey.fit``).

        Raises:
            PlanError: the rule is ``exact`` and the size another.
        """
        size = as_kernel(kernel)
        layers = {name: fit_kernel(tensor, size, how) for name, tensor in self.layers.items()}
        kept = tuple(replace(layer, kernel=size) for layer in self.metadata.layers)
        return Bank(layers, self.metadata.after("resized", kept, kernel=list(size), how=how))

    def __add__(self, other: Bank) -> Bank:
        return join([self, other]) if isinstance(other, Bank) else NotImplemented

    def repeated(self, n: int) -> Bank:
        """Stack the bank ``n`` times, one copy after the other, with names prefixed ``0/``, ``1/``, …."""
        n = whole_number(n, "the number of copies", least=1)
        copies = [(f"{i}/", layer) for i in range(n) for layer in self.metadata.layers]
        layers = {prefix + layer.name: self.layers[layer.name] for prefix, layer in copies}
        named = tuple(replace(layer, name=prefix + layer.name) for prefix, layer in copies)
        return Bank(layers, self.metadata.after("repeated", named, n=n))

    def renamed(self, name: str) -> Bank:
        """The same bank under another name."""
        return Bank(self.layers, replace(self.metadata, name=name))

    def effective(self) -> dict[str, Tensor]:
        """The filters by layer, times the factor that their architecture multiplies its output by."""
        return {layer.name: self.layers[layer.name] * layer.factor for layer in self.metadata.layers}

    def _step(self, op: str, layers: Mapping[str, Tensor], **arguments: Any) -> Bank:
        kept = self.metadata.layers
        if op in ("shuffled", "normalized"):  # their filters have the factor multiplied in
            kept = tuple(replace(layer, factor=1.0) for layer in kept)
        return Bank(layers, self.metadata.after(op, kept, **arguments))

    def _filters(self, op: str, kept: Mapping[str, Tensor], **arguments: Any) -> Bank:
        """Keep the filters that ``kept`` says, by layer; a layer that none is left of is dropped."""
        layers = {name: tensor[kept[name]] for name, tensor in self.layers.items() if bool(kept[name].any())}
        if not layers:
            raise NothingMeantError(f"{op}({arguments}) leaves no filter of bank {self.name}")
        about = tuple(
            replace(layer, filters=len(layers[layer.name])) for layer in self.metadata.layers if layer.name in layers
        )
        return Bank(layers, self.metadata.after(op, about, **arguments))

    # -- to disk ------------------------------------------------------------------------------------------

    def save_pretrained(self, directory: str | Path) -> Path:
        """Write the bank as a folder: weights, ``config.json``, a card, and the atlas (spatial kinds).

        Returns the folder. The weights go in last, so a folder that holds them is complete.

        Raises:
            SaveError: the folder cannot be written; what it held before is intact.
        """
        from .folder import bank_files, write_folder

        return write_folder(directory, bank_files(self))  # weights last

    def push_to_hub(
        self,
        repo_id: str,
        private: bool = False,
        token: str | bool | None = None,
        create_pr: bool = False,
        allow_degenerate: bool = False,
    ) -> str:
        """Publish the bank as a model repository of the Hub, in one commit, and return the commit's address.

        Args:
            repo_id: ``NAMESPACE/NAME``; created if it does not exist.
            private: create it as private; a public one that is there is refused.
            token: the Hub's; the one that was logged in with if not given.
            create_pr: open a pull request instead of committing to ``main``.
            allow_degenerate: publish it even if most of its filters are in degenerate layers.

        Raises:
            QualityError: they are, and that is not allowed (``masterkey.analysis.quality.gate``).
            PublishError: the card would lose or loosen a source's licence, or the Hub did not take it.
        """
        from .folder import bank_files
        from .hub.publish import push_files

        return push_files(self, bank_files(self, where=repo_id), repo_id, private, token, create_pr, allow_degenerate)


def join(banks: Sequence[Bank | str | Path]) -> Bank:
    """Stack banks, or what ``Bank.from_pretrained`` takes, one after the other; part i's layers are named ``i/<name>``.

    The result's licence names every part's: what cannot be told of one part is "unknown" for the whole. With a computed
    bank among them the result is computed, too (``masterkey.late``).

    Raises:
        PlanError: no bank, or banks of different kinds.
        UnknownNameError, BankFormatError, CheckpointError, HubError: a bank cannot be loaded.
    """
    if isinstance(banks, Bank | str | Path) or not isinstance(banks, Iterable):
        raise PlanError(f"join takes several banks, as in join([first, second]), not one {type(banks).__name__}")
    loaded = [bank if isinstance(bank, Bank) else Bank.from_pretrained(bank) for bank in banks]
    kinds = sorted({bank.kind for bank in loaded})
    if len(kinds) != 1:
        raise PlanError(f"only banks of one kind can be joined, not {' and '.join(kinds) or 'nothing'}")
    from .late import JoinedBank, LateBank

    if any(isinstance(bank, LateBank) for bank in loaded):
        return JoinedBank(loaded)
    layers, named = {}, []
    for i, bank in enumerate(loaded):
        for layer in bank.metadata.layers:
            named.append(replace(layer, name=f"{i}/{layer.name}"))
            layers[f"{i}/{layer.name}"] = bank.layers[layer.name]
    name = " + ".join(bank.name for bank in loaded)
    parts = [bank.metadata for bank in loaded]
    orders = {part.order for part in parts}
    metadata = Metadata(
        name=name,
        kind=kinds[0],
        source=Source(kind="joined", id=name),
        layers=tuple(named),
        order=orders.pop() if len(orders) == 1 else "natural",
        base_model=", ".join(sorted({part.base_model for part in parts if part.base_model})) or None,
        datasets=tuple(sorted({dataset for part in parts for dataset in part.datasets})),
        licence=joint_licence(part.licence for part in parts),
        transformations=({"op": "join", "parts": [_provenance(bank) for bank in loaded]},),
    )
    return Bank(layers, metadata)


def _provenance(bank: Bank) -> dict[str, Any]:
    about = bank.metadata.to_dict(bank.sha256)
    return {key: value for key, value in about.items() if key not in ("format", "layers", "kind")}
