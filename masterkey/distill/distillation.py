"""From a bank of many filters to a bank of a few keys."""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..bank import Bank
from ..errors import MasterkeyError
from ..host import on_host
from ..metadata import Layer
from ..shapes import FilterTable, Shapes, filter_table, shapes_of
from ..whole import as_seed, whole_number
from .assignment import assign
from .greedy import MOST
from .keys import METHODS, KeysOf, explained
from .pruning import Pruning, RandomRule, prune
from .randomness import CHUNK, is_random
from .result import Distilled
from .stated import STEP

KEYS_NAME = "keys.weight"


@dataclass(frozen=True)
class Prepared:
    """A bank pruned and a method trained on it, ready for any number of keys."""

    bank: Bank
    table: FilterTable
    shapes: Shapes
    pruning: Pruning
    keys_of: KeysOf
    parameters: dict[str, Any]

    @property
    def unit(self) -> Tensor:
        """The shapes (n, d) that keys are sought among."""
        return self.shapes.unit[self.pruning.kept]

    @property
    def living(self) -> Tensor:
        """The shapes (n, d) of all filters that have one: neither dead nor constant, whatever else was pruned."""
        return self.shapes.unit[self.pruning.living]

    @on_host()
    def curve(self, counts: Iterable[int] = range(1, 33), living: bool = False) -> list[tuple[int, float]]:
        """Share of variance explained by K keys, for every K of ``counts`` that there are filters for.

        It is that of the filters that keys are sought among, or of all ``living`` ones.

        Raises:
            MasterkeyError: a count that is none, or below 1.
        """
        counts = [whole_number(count, "the number of keys", least=1) for count in counts]
        most = most_keys(len(self.unit), self.parameters["method"])
        unit = self.living if living else self.unit
        return [(keys, explained(unit, self.keys_of(keys))) for keys in counts if keys <= most]

    @on_host()
    def distilled(self, keys: int = 8) -> Distilled:
        """Return the bank of ``keys`` keys with its assignment.

        Raises:
            MasterkeyError: no key, or more keys than filters are left or the method can give.
        """
        most = most_keys(len(self.unit), self.parameters["method"])
        keys = whole_number(keys, "the number of keys", least=1)
        if keys > most:
            pruned = [f"{n:,} {why}" for why, n in self.pruning.counts().items() if n and why != "kept"]
            without = f" (without {', '.join(pruned)})" if pruned else ""
            raise MasterkeyError(
                f"bank {self.bank.name}: {keys} keys were asked for; with {len(self.unit):,} filters left{without} and "
                f"method {self.parameters['method']} there can be 1 to {most:,}"
            )
        found = _ordered(self.keys_of(keys), self.unit)
        assignment = assign(self.table, self.shapes, found, self.pruning)
        planes = found.view(keys, 1, *self.table.filters.shape[1:])
        layer = Layer(KEYS_NAME, (planes.shape[2], planes.shape[3]), keys)
        about = self.bank.metadata.after(
            STEP,
            (layer,),
            **self.parameters,
            **self._training(),
            keys=keys,
            pruned=self.pruning.counts(),
            explained=round(explained(self.unit, found), 6),
            source_sha256=self.bank.sha256,
            assignment_sha256=hashlib.sha256(assignment.to_csv()).hexdigest(),
        )
        about = replace(about, name=f"{self.bank.name} {keys} keys", kind="depthwise")
        return Distilled(Bank({KEYS_NAME: planes}, about), assignment)

    def _training(self) -> dict[str, Any]:
        """The loss curve of the method's autoencoder, where it has one."""
        losses = getattr(self.keys_of, "losses", None)
        return {} if losses is None else {"losses": [round(loss, 4) for loss in losses]}


@on_host()
def prepare(
    bank: Bank,
    method: str = "greedy",
    seed: int = 0,
    *,
    dead: float = 0.1,
    duplicates: float = 0.99,
    sign: bool = True,
    random: RandomRule | None = is_random,
    sample: int | None = None,
) -> Prepared:
    """Prune a bank and train the method on what is left; the arguments are those of ``distill``."""
    if method not in METHODS:
        raise MasterkeyError(f"unknown method {method!r}; known: {', '.join(METHODS)}")
    seed, dead, duplicates, sign = as_seed(seed), float(dead), float(duplicates), bool(sign)
    if not 0 <= dead < math.inf:
        raise MasterkeyError(f"dead is a share of the median norm, from 0 on, not {dead}")
    if not math.isfinite(duplicates):
        raise MasterkeyError(f"duplicates is a cosine, not {duplicates}")
    table = filter_table(bank.layers, f"bank {bank.name}")
    shapes = _shapes_in_chunks(table.filters)
    options: dict[str, Any] = {"dead": dead, "duplicates": duplicates, "sign": sign, "random": random}
    pruning = prune(table, shapes, **options, sample=sample, seed=seed)
    if not bool(pruning.kept.any()):
        counts = ", ".join(f"{count:,} {reason}" for reason, count in pruning.counts().items() if count)
        raise MasterkeyError(f"bank {bank.name}: nothing is left to distil; of its {len(table.filters):,}: {counts}")
    parameters = {
        "method": method,
        "seed": seed,
        "dead": dead,
        "duplicates": duplicates,
        "sign": sign,
        "random": None if random is None else _name_of(random),
        **({} if sample is None else {"sample": int(sample)}),
    }
    return Prepared(bank, table, shapes, pruning, METHODS[method](shapes.unit[pruning.kept], seed), parameters)


def distill(
    bank: Bank,
    keys: int = 8,
    method: str = "greedy",
    seed: int = 0,
    *,
    dead: float = 0.1,
    duplicates: float = 0.99,
    sign: bool = True,
    random: RandomRule | None = is_random,
    sample: int | None = None,
) -> Distilled:
    """Distil a bank of one kernel size to a few keys, under ``f = a * key + b`` with any sign of a.

    Dead, constant and random filters and near duplicates are left out first (``masterkey.distill.prune``), and counted;
    they get a key afterwards like all others. What is sought is the largest share of variance explained: the mean over
    the filters left of the largest squared cosine, all filters counting the same whatever their norm.

    Args:
        bank: filters of one kernel size.
        keys: how many keys.
        method: ``greedy`` (an autoencoder's code line and greedy removal, arXiv:2509.11711; at most 50 keys),
            ``kmeans`` (on the sphere) or ``medoids`` (real filters of the bank).
        seed: of everything that is drawn.
        dead: see ``prune``.
        duplicates: see ``prune``.
        sign: see ``prune``.
        random: see ``prune``.
        sample: find the keys from at most so many filters, drawn by ``seed``; all are assigned a key nevertheless.

    Raises:
        MasterkeyError: several kernel sizes (``bank.select(kernel=7)`` chooses one, ``distill_kernels`` takes each),
            1x1 filters, an unknown method, a sample of none, or fewer filters left than keys.
    """
    prepared = prepare(bank, method, seed, dead=dead, duplicates=duplicates, sign=sign, random=random, sample=sample)
    return prepared.distilled(keys)


def _name_of(rule: RandomRule) -> str:
    """What the bank remembers of a rule: its name, or an object's class, but no address, which no other run has."""
    if isinstance(rule, partial):
        return f"partial of {_name_of(rule.func)}"
    name: str = getattr(rule, "__name__", type(rule).__name__)
    return name


def _shapes_in_chunks(filters: Tensor) -> Shapes:
    """``shapes_of`` without double-precision copies of all filters at a time."""
    parts = [shapes_of(part) for part in filters.split(CHUNK)]
    return Shapes(*(torch.cat(column) for column in zip(*parts, strict=True)))


def most_keys(filters: int, method: str) -> int:
    """Return how many keys a method can find among so many filters."""
    return min(filters, MOST) if method == "greedy" else filters


def _ordered(keys: Tensor, unit: Tensor) -> Tensor:
    """Put the key of most filters first, and give each the sign that most of its filters have."""
    cosines = unit @ keys.T
    nearest = cosines.abs().argmax(1)
    own = cosines.gather(1, nearest[:, None])[:, 0]
    counts = torch.bincount(nearest, minlength=len(keys))
    signs = torch.zeros(len(keys)).index_add_(0, nearest, own.sign())
    order = counts.argsort(descending=True, stable=True)
    return (keys * torch.where(signs < 0, -1.0, 1.0)[:, None])[order]
