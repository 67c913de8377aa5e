"""Build everything that an experiment would train, and train nothing: networks, plans, and first batches."""

import tempfile
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save
from torch import nn

from masterkey import Bank
from masterkey.atomic import write_atomically
from masterkey.errors import MasterkeyError
from masterkey.format import encode
from masterkey.metadata import canonical_json

from .arms import apply_arm, build_network, data_path
from .config import BenchmarkError, RunConfig
from .experiment import Experiment, Planned
from .first_batch import Batch, first_batch
from .store import ResultStore
from .sweep import expected_runs

_KEPT = 2  # networks in memory: one that learns, and the one that its filters are from


@dataclass(frozen=True)
class Built:
    """One network, arm and data set of an experiment, built.

    ``learning`` counts the parameters that would learn. ``filled`` of ``layers`` layers hold the bank, None where no
    bank went in. ``batch`` is the first batch's shape (B, 3, pixels, pixels). ``notes`` say what stands in for what
    is not here; ``problem`` why it cannot be built.
    """

    model: str
    arm: str
    data: str
    classes: int | None = None
    learning: int | None = None
    filled: int | None = None
    layers: int | None = None
    batch: tuple[int, ...] | None = None
    notes: tuple[str, ...] = ()
    problem: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def dry_run(
    experiment: Experiment,
    store: ResultStore,
    *,
    skip_corrupt: bool = False,
    on_built: Callable[[Built], None] = lambda built: None,
) -> list[Built]:
    """Build every network with every arm of an experiment, and the first batch of every data set; offline.

    A data set on the Hub is not fetched: random pictures stand in. Filters of a network that another run would train
    are taken from the untrained network. A network that learns different data sets with one arm is built once, and
    its head exchanged. A picture of each batch goes through.

    Args:
        experiment: what to build.
        store: finished runs.
        skip_corrupt: whether pictures that cannot be decoded are left out of the first batches.
        on_built: called after each.
    """
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        builder = _Builder(Path(folder), skip_corrupt)
        distinct = {canonical_json(_parts(run)): run for run in expected_runs(experiment, store)}
        for run in distinct.values():
            rows.append(builder.build(run))
            on_built(rows[-1])
    return rows


@dataclass(frozen=True)
class _Filled:
    """What an arm makes of a network: parameters that learn, but for the head; layers that hold the bank, of how many.

    The latter are None where no bank went in.
    """

    learning: int
    filled: int | None
    layers: int | None


class _Builder:
    """Builds one run after the other, and what they share once."""

    def __init__(self, folder: Path, skip_corrupt: bool) -> None:
        self.store, self.folder, self.skip_corrupt = ResultStore(folder), folder, skip_corrupt
        self.batches: dict[str, Batch] = {}
        self.networks: dict[str, nn.Module] = {}
        self.untrained: dict[str, str] = {}
        self.filled: dict[str, _Filled] = {}
        self.heads: dict[str, int] = {}

    def build(self, run: Planned) -> Built:
        """Build what one run would train."""
        data = run.config.data
        row = Built(run.config.model, run.arm, data.name + (f" ({data.view})" if data.view else ""))
        try:
            batch = self._batch(run.config)
            config, notes = self._with_stand_ins(run)
            filled, head = self._fill(config, batch), self._head(config, batch)
        except (MasterkeyError, OSError) as error:  # the latter of a picture that cannot be decoded
            return replace(row, problem=str(error))
        return replace(
            row,
            classes=batch.classes,
            learning=filled.learning + head,
            filled=filled.filled,
            layers=filled.layers,
            batch=tuple(batch.images.shape),
            notes=tuple(note for note in (batch.note, *notes) if note),
        )

    def _batch(self, config: RunConfig) -> Batch:
        data, recipe = replace(config.data, evaluate="test"), replace(config.train, lr=0.0, freeze_epoch=None)
        key = canonical_json([asdict(data), asdict(recipe)])
        if key not in self.batches:
            self.batches[key] = first_batch(config, skip_corrupt=self.skip_corrupt)
        return self.batches[key]

    def _with_stand_ins(self, run: Planned) -> tuple[RunConfig, list[str]]:
        """Replace what an arm takes from elsewhere and is not here; say so."""
        arm, notes = run.config.arm, []
        sources = {f"run:{source.config.id}": source.config for source in run.needs}
        if arm.bank in sources:
            source = sources[arm.bank]
            arm = replace(arm, bank=self._filters(source, arm.kind))
            notes.append(f"filters of an untrained {source.model}")
        if arm.teacher in sources:
            source = sources[arm.teacher]
            arm = replace(arm, teacher=f"checkpoint:{self._weights(source)}")
            notes.append(f"weights of an untrained {source.model}")
        if arm.initial == "pretrained":
            arm = replace(arm, initial=None)
            notes.append("timm's pretrained weights are not fetched")
        if arm.bank and arm.bank.startswith("checkpoint:"):
            path = data_path(arm.bank.removeprefix("checkpoint:"))
            if not path.exists():
                arm = replace(arm, bank=None)
                notes.append(f"no plan: {path} is not here")
        return replace(run.config, arm=arm), notes

    def _fill(self, config: RunConfig, batch: Batch) -> _Filled:
        """Do what an arm says to a network, once for each network and arm."""
        key = canonical_json([_network(config), {**asdict(config.arm), "name": ""}])
        if key not in self.filled:
            arm = apply_arm(self._network(config, batch.classes), config, self.store)
            _pass_through(arm.model, batch, config.model)
            head = self.heads[_shape(config, batch)] = _learning(_classifier(arm.model))
            rows = arm.injection["rows"] if arm.injection else None
            filled = None if rows is None else sum(bool(row["sources"]) for row in rows)
            self.filled[key] = _Filled(_learning(arm.model) - head, filled, None if rows is None else len(rows))
        return self.filled[key]

    def _head(self, config: RunConfig, batch: Batch) -> int:
        """Let a picture of a shape through a network, if none went yet; return how many parameters its head has."""
        key = _shape(config, batch)
        if key not in self.heads:
            model = self._network(config, batch.classes)
            _pass_through(model, batch, config.model)
            self.heads[key] = _learning(_classifier(model))
        return self.heads[key]

    def _network(self, config: RunConfig, classes: int) -> nn.Module:
        """Return a new network; its weights are drawn once, because that takes most of the time."""
        key = canonical_json(_network(config))
        if key not in self.networks:
            while len(self.networks) >= _KEPT:
                del self.networks[next(iter(self.networks))]
            plain = replace(config, arm=replace(config.arm, initial=None))
            self.networks[key] = build_network(plain, classes)
        model = deepcopy(self.networks[key])
        cast(Any, model).reset_classifier(classes)
        return model

    def _filters(self, source: RunConfig, kind: str) -> str:
        """Write a bank of an untrained network's filters; return its name."""
        key = canonical_json([_network(source), kind])
        if key not in self.untrained:
            bank = Bank.from_model(self._network(source, 1), kind)
            self.untrained[key] = self._write(encode(bank.layers, bank.metadata))
        return self.untrained[key]

    def _weights(self, source: RunConfig) -> str:
        """Write all weights of an untrained network; return the path."""
        key = canonical_json(_network(source))
        if key not in self.untrained:
            self.untrained[key] = self._write(save(dict(self._network(source, 1).state_dict())))
        return self.untrained[key]

    def _write(self, data: bytes) -> str:
        path = self.folder / f"{len(self.untrained)}.safetensors"
        write_atomically(path, data)
        return str(path)


def _network(config: RunConfig) -> list[Any]:
    """What a network is, but for its head."""
    return [config.model, config.model_kwargs, config.train.drop_path]


def _parts(run: Planned) -> list[Any]:
    """What of a run is built: not seeds, and not the part of the data that it is judged on."""
    return [_network(run.config), run.arm, asdict(replace(run.config.data, evaluate="test"))]


def _shape(config: RunConfig, batch: Batch) -> str:
    return canonical_json([_network(config), batch.classes, config.data.pixels])


def _classifier(model: nn.Module) -> nn.Module:
    return cast(nn.Module, cast(Any, model).get_classifier())


def _learning(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


@torch.inference_mode()
def _pass_through(model: nn.Module, batch: Batch, name: str) -> None:
    given = batch.images[:1]
    try:
        logits = model.eval()(given)
    except (AssertionError, RuntimeError, ValueError) as error:  # of a network that takes no pictures of this size
        raise BenchmarkError(f"{name} does not take {list(given.shape)}: {error}") from error
    if logits.shape != (len(given), batch.classes) or not bool(logits.isfinite().all()):
        raise BenchmarkError(f"{name} answers {list(logits.shape)} to {list(given.shape)}, or not in numbers")
