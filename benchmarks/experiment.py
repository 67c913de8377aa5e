"""An experiment: a TOML file that says only what differs, and the runs that it means."""

import difflib
import itertools
import tomllib
from collections.abc import Collection, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

from .config import BenchmarkError, RunConfig, run_config
from .store import ResultStore

SIZES = ("smoke", "small", "paper")


@dataclass(frozen=True)
class Planned:
    """A run and its place in the experiment.

    ``stage`` is ``tune`` (on the validation part, to choose a learning rate) or ``final`` (on the test part, unless
    the experiment is there to choose something and says ``evaluate = "validation"``); ``needs`` are the runs whose
    filters or weights it takes.
    """

    config: RunConfig
    stage: str
    target: str
    arm: str
    needs: tuple["Planned", ...] = ()


@dataclass(frozen=True)
class Experiment:
    """An experiment at one size; ``shows`` is what the paper says it should show."""

    name: str
    size: str
    title: str
    shows: str
    layout: str
    raw: Mapping[str, Any]

    @property
    def targets(self) -> list[str]:
        """Keys of the data sets that the arms are trained on."""
        return list(self.raw["targets"])

    @property
    def models(self) -> list[str]:
        """Target networks: timm names, or keys of ``[networks]``, which give a name and keyword arguments."""
        return list(self.raw["models"])

    @property
    def seeds(self) -> list[int]:
        """Seeds of the final runs, but for targets that have their own; the first one's are the runs that tune."""
        return list(self.raw["seeds"])

    def seeds_for(self, target: str) -> list[int]:
        """Seeds of the final runs on a target: ``data.TARGET.seeds``, or the experiment's."""
        return list(self.raw.get("data", {}).get(target, {}).get("seeds", self.seeds))

    @property
    def lrs(self) -> list[float]:
        """Learning rates that every arm tries, the same number for each."""
        return list(self.raw["lrs"])

    @property
    def arms(self) -> list[dict[str, Any]]:
        """The arms, those with ``vary`` spread out into one for each value."""
        return [arm for entry in self.raw["arms"] for arm in _spread(entry)]

    def only(
        self, *, arms: Collection[str] = (), targets: Collection[str] = (), models: Collection[str] = ()
    ) -> "Experiment":
        """Return the part of the experiment with these arms, targets and networks; all of a kind where none is named.

        ``fig`` also means the arms ``fig/1``, ``fig/2``. What the part needs of the rest, it still plans.

        Raises:
            BenchmarkError: a name that the experiment does not have; near names are given.
        """
        named = [str(arm["name"]) for arm in self.arms]
        self._check("arm", arms, list(dict.fromkeys([*named, *(name.split("/")[0] for name in named)])))
        self._check("target", targets, self.targets)
        self._check("model", models, self.models)
        kept = [arm for arm in self.arms if not arms or {str(arm["name"]), str(arm["name"]).split("/")[0]} & {*arms}]
        part = {
            "arms": kept,
            "targets": [target for target in self.targets if not targets or target in targets],
            "models": [model for model in self.models if not models or model in models],
        }
        return replace(self, raw={**self.raw, **part})

    def _check(self, what: str, names: Collection[str], known: Collection[str]) -> None:
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=3)
                hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
                raise BenchmarkError(f"experiment {self.name} has no {what} {name[:80]!r}; {hint}")

    def cells(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Yield (model, target, arm); an arm may name the ``models`` and ``targets`` that it is for."""
        for model, target, arm in itertools.product(self.models, self.targets, self.arms):
            if model in arm.get("models", [model]) and target in arm.get("targets", [target]):
                yield model, target, arm

    def plan(self, store: ResultStore) -> list[Planned]:
        """Return every run that can be told so far, in an order in which each comes after what it needs.

        Runs of the final stage appear once the runs that choose their learning rate are finished, so a sweep asks
        again until nothing is new.
        """
        planned: dict[str, Planned] = {}
        for model, target, arm in self.cells():
            tuning = list(self._tuning(model, target, arm))
            for run in tuning if len(self.lrs) > 1 else []:
                _add(planned, run)
            for seed in self.seeds_for(target):
                final = self._final(store, model, target, arm, seed)
                if final is not None:
                    _add(planned, final)
        return list(planned.values())

    def chosen_lr(self, store: ResultStore, model: str, target: str, arm: Mapping[str, Any]) -> float | None:
        """Return the learning rate with the best validation accuracy (the smallest of equals).

        None while a run that decides it is missing.
        """
        if len(self.lrs) == 1:
            return self.lrs[0]
        scores = []
        for run in self._tuning(model, target, arm):
            result = store.read(run.config.id)
            if result is None:
                return None
            scores.append((result["metrics"]["top1"], -run.config.train.lr))
        return -max(scores)[1]

    def _tuning(self, model: str, target: str, arm: Mapping[str, Any]) -> Iterator[Planned]:
        for lr in self.lrs:
            yield self._run(model, target, arm, self.seeds[0], lr, "tune")

    def _final(self, store: ResultStore, model: str, target: str, arm: Mapping[str, Any], seed: int) -> Planned | None:
        lr = self.chosen_lr(store, model, target, arm)
        return None if lr is None else self._run(model, target, arm, seed, lr, "final")

    def _run(self, model: str, target: str, arm: Mapping[str, Any], seed: int, lr: float, stage: str) -> Planned:
        data, train = self._data(target)
        sources = {
            key: self._source(str(arm[key]), model, target, seed, stage)
            for key in ("bank", "teacher")
            if str(arm.get(key, "")).startswith(("scratch:", "selffer"))
        }
        own = {key: value for key, value in arm.items() if key not in ("models", "targets", "train")}
        network = self.raw.get("networks", {}).get(model, {})
        config = run_config(
            {
                "data": {**data, "evaluate": "validation" if stage == "tune" else self.raw.get("evaluate", "test")},
                "model": network.get("name", model),
                "model_kwargs": network.get("kwargs", {}),
                "arm": {**own, **{key: f"run:{source.config.id}" for key, source in sources.items()}},
                "train": {**train, "lr": lr, **arm.get("train", {})},
                "seed": seed,
            }
        )
        return Planned(config, stage, target, str(arm["name"]), tuple(sources.values()))

    def _source(self, text: str, model: str, target: str, seed: int, stage: str) -> Planned:
        """Resolve ``selffer`` and ``scratch:DATA[@MODEL]`` to the run from scratch with the same seed.

        An experiment's ``source_seed`` is that of all its sources but ``selffer``, where they are too dear to be
        trained for every seed. A source is evaluated on the same part, so that a choice made on the validation part
        never sees filters that were trained on it. Its learning rate is the experiment's first one, the same for
        every run that takes it.
        """
        if text != "selffer":
            source, _, other = text.removeprefix("scratch:").partition("@")
            target, model = source or target, other or model
            seed = int(self.raw.get("source_seed", seed))
        return self._run(model, target, {"name": "scratch"}, seed, self.lrs[0], stage)

    def _data(self, key: str) -> tuple[dict[str, Any], dict[str, Any]]:
        own = dict(self.raw.get("data", {}).get(key, {}))
        train = {**self.raw.get("train", {}), **own.pop("train", {})}
        own.pop("seeds", None)
        return {"name": key, **self.raw.get("pictures", {}), **own}, train


def _add(planned: dict[str, Planned], run: Planned) -> None:
    """Put a run behind those it needs."""
    for needed in run.needs:
        _add(planned, needed)
    planned.setdefault(run.config.id, run)


def experiment_names() -> list[str]:
    """Return the names of all experiments, sorted."""
    folder = files("masterkey.benchmarks") / "experiments"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_experiment(name: str, size: str) -> Experiment:
    """Load an experiment at one of ``SIZES``.

    Raises:
        BenchmarkError: no such experiment (near names are given) or size, or a file that lacks something.
    """
    names = experiment_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(names)}"
        raise BenchmarkError(f"no experiment named {name[:80]!r}; {hint}")
    text = (files("masterkey.benchmarks") / "experiments" / f"{name}.toml").read_text(encoding="utf-8")
    raw = tomllib.loads(text)
    sizes = raw.pop("sizes", {})
    if size not in SIZES or size not in sizes:
        raise BenchmarkError(f"experiment {name} has no size {size!r}; it has {', '.join(sizes)}")
    merged = _merge(raw, sizes[size])
    missing = [
        key for key in ("title", "shows", "layout", "targets", "models", "arms", "seeds", "lrs") if key not in merged
    ]
    if missing:
        raise BenchmarkError(f"experiment {name} does not say {', '.join(missing)}")
    return Experiment(name, size, merged["title"], merged["shows"], merged["layout"], merged)


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay ``over`` over ``base``: tables are merged, everything else is replaced."""
    merged = deepcopy(dict(base))
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else deepcopy(value)
    return merged


def _spread(arm: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Turn ``vary = {"inject.layers" = [1, 2]}`` into two arms, ``name/1`` and ``name/2``."""
    plain = {key: value for key, value in arm.items() if key != "vary"}
    vary = arm.get("vary", {})
    for values in itertools.product(*vary.values()):
        spread = deepcopy(plain)
        for path, value in zip(vary, values, strict=True):
            *tables, last = path.split(".")
            place = spread
            for table in tables:
                place = place.setdefault(table, {})
            place[last] = value
        if values:
            spread["name"] = "/".join([str(plain["name"]), *map(str, values)])
        yield spread
