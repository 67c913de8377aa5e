"""Banks whose filters are there once they meet a network, and the algebra of such banks, whose steps wait as well."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from functools import cached_property, wraps
from typing import Any, Self

import torch
from torch import Tensor

from .bank import Bank, join
from .errors import NothingMeantError
from .host import on_host
from .metadata import Kernel, Metadata, as_kernel
from .plan import Target
from .rules import KernelRule

SHOWN_KERNEL = 7  # ConvNeXt's, the size the published keys have


def _later(name: str) -> Callable[..., "DerivedBank"]:
    @wraps(getattr(Bank, name))
    def step(bank: "LateBank", *positional: Any, **named: Any) -> "DerivedBank":
        return DerivedBank.of(bank, name, positional, named)

    return step


class LateBank(Bank):
    """A bank whose kernel, depth and seed are bound when a plan is made.

    Until then it shows its filters at ``SHOWN_KERNEL`` for a stand-in network of three layers; ``at`` shows another
    kernel. What is saved, published or distilled is what it shows, and so is what ``sampled`` and ``resized`` take,
    which fix a number of filters or a kernel, and give a stored bank. Every other step of the algebra is taken when the
    filters are there: ``random.signed()`` is drawn for the network that it goes into, and signed then.
    """

    @abstractmethod
    def bind(self, targets: Sequence[Target], seed: int, rule: KernelRule = "crop") -> Bank:
        """Compute the filters for ``targets``, layers in forward order."""

    @on_host()
    def at(self, kernel: int | Kernel, seed: int = 0) -> Bank:
        """Compute the filters at one kernel size, for a stand-in network."""
        return self.bind(_stand_in(as_kernel(kernel)), seed)

    @cached_property
    def _shown(self) -> Bank:
        return self.at(SHOWN_KERNEL)

    @property
    def layers(self) -> Mapping[str, Tensor]:
        """Name -> tensor, at ``SHOWN_KERNEL``."""
        return self._shown.layers

    @property
    def metadata(self) -> Metadata:
        """What is known of the filters at ``SHOWN_KERNEL``."""
        return self._shown.metadata

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    select = _later("select")
    shuffled = _later("shuffled")
    pixel_shuffled = _later("pixel_shuffled")
    normalized = _later("normalized")
    pruned = _later("pruned")
    denoised = _later("denoised")
    signed = _later("signed")
    repeated = _later("repeated")
    renamed = _later("renamed")


class DerivedBank(LateBank):
    """A late bank, and a step of the algebra that is taken once its filters are there."""

    def __init__(self, source: LateBank, op: str, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._source, self._op, self._positional, self._named = source, op, positional, named

    def __repr__(self) -> str:
        given = [*map(repr, self._positional), *(f"{key}={value!r}" for key, value in self._named.items())]
        return f"{self._source!r}.{self._op}({', '.join(given)})"

    @classmethod
    def of(cls, source: LateBank, op: str, positional: tuple[Any, ...], named: dict[str, Any]) -> Self:
        """Make one, and refuse at once what the step takes for no network.

        Raises:
            MasterkeyError: an argument that is none; what merely means nothing in the stand-in may do in a network.
        """
        derived = cls(source, op, tuple(map(_kept, positional)), {key: _kept(value) for key, value in named.items()})
        with suppress(NothingMeantError):
            _ = derived._shown
        return derived

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy by source and step."""
        return type(self), (self._source, self._op, self._positional, self._named)

    def bind(self, targets: Sequence[Target], seed: int, rule: KernelRule = "crop") -> Bank:
        """Compute the source's filters for ``targets``, and take the step with them."""
        taken: Bank = getattr(self._source.bind(targets, seed, rule), self._op)(*self._positional, **self._named)
        return taken

    @property
    def name(self) -> str:
        """The bank's name."""
        if self._op != "renamed":
            return self._source.name
        name: str = [*self._positional, *self._named.values()][0]
        return name

    @property
    def kind(self) -> str:
        """The source's."""
        return self._source.kind


class JoinedBank(LateBank):
    """Banks stacked one after the other (``masterkey.bank.join``), late ones among them."""

    def __init__(self, parts: Sequence[Bank]) -> None:
        self._parts = tuple(parts)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy by parts."""
        return type(self), (self._parts,)

    def bind(self, targets: Sequence[Target], seed: int, rule: KernelRule = "crop") -> Bank:
        """Compute each part for ``targets``, and stack them."""
        return join([part.bind(targets, seed, rule) for part in self._parts])

    @property
    def name(self) -> str:
        """The parts' names."""
        return " + ".join(part.name for part in self._parts)

    @property
    def kind(self) -> str:
        """The parts'."""
        return self._parts[0].kind


def _kept(argument: Any) -> Any:
    """Return an argument that stays what it is until the step is taken."""
    return tuple(argument) if isinstance(argument, Iterator) else deepcopy(argument)


def _stand_in(kernel: Kernel) -> list[Target]:
    """Three layers of 64 filters, first, middle and last of a network, with ConvNeXt's initial weights."""
    generator = torch.Generator().manual_seed(0)
    targets = []
    for depth in (0.0, 0.5, 1.0):
        initial = torch.empty(64, 1, *kernel)
        torch.nn.init.trunc_normal_(initial, std=0.02, generator=generator)
        targets.append(Target(f"depth-{depth:.1f}", None, depth, initial))
    return targets
