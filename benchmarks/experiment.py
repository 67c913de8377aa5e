"""An experiment: a TOML file that says only what differs, and the runs that it means."""

import itertools
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from masterkey.names import expanded

from .config import ArmConfig, BenchmarkError, DataConfig, RunConfig, problem_of_seed, run_config
from .data_name import place_of_data, same_data
from .experiment_file import (
    SIZES,
    built_in_names,
    is_path,
    read_built_in,
    read_own,
    size_groups,
    sizes_of_file,
)
from .store import ResultStore
from .typed import check_fields, near

__all__ = ["SIZES", "Experiment", "Planned", "experiment_names", "experiment_sizes", "load_experiment"]


@dataclass(frozen=True)
class Planned:
    """A run and its place in the experiment.

    ``model`` is the experiment's name of the network. ``stage`` is ``tune`` (on the validation part, to choose a
    learning rate) or ``final`` (on the test part, unless the experiment is there to choose something and says
    ``evaluate = "validation"``); ``needs`` are the runs whose filters or weights it takes.
    """

    config: RunConfig
    stage: str
    model: str
    target: str
    arm: str
    needs: tuple["Planned", ...] = ()


@dataclass(frozen=True)
class Experiment:
    """An experiment at one size; ``shows`` is what the paper says it should show.

    ``file`` is where it comes from, None if it is built in; ``options`` are those of the command line that chose its
    targets or changed its runs.
    """

    name: str
    size: str
    title: str
    shows: str
    layout: str
    raw: Mapping[str, Any]
    file: str | None = None
    options: tuple[str, ...] = ()

    @property
    def targets(self) -> list[str]:
        """Keys of the data sets that the arms are trained on."""
        return list(self.raw["targets"])

    @property
    def data_names(self) -> list[str]:
        """Names of all data sets that are learnt from, sources included, sorted."""
        sources = {str(arm.get(key, "")).partition("@")[0] for arm in self.arms for key in ("bank", "teacher")}
        keys = {*self.targets, *(name.removeprefix("scratch:") for name in sources if name.startswith("scratch:"))}
        return sorted({str(self._data(key)[0]["name"]) for key in keys if key})

    @property
    def models(self) -> list[str]:
        """Target networks: timm names, or keys of ``[networks]``: a name, keyword arguments, how it begins."""
        return list(self.raw["models"])

    @property
    def seeds(self) -> list[int]:
        """Seeds of the final runs, but for targets that have their own."""
        return list(self.raw["seeds"])

    @property
    def by_size(self) -> list[list[str]]:
        """Data sets by size of train, the largest first, those of one size together; the targets where none is said."""
        return size_groups(self.raw.get("by_size", self.targets))

    @property
    def left_out(self) -> list[dict[str, Any]]:
        """Arms that were not chosen by :meth:`only`."""
        return list(self.raw.get("left_out", ()))

    @property
    def tuning_seed(self) -> int:
        """Seed of the runs that choose a learning rate: the first, whatever seeds were chosen by :meth:`with_seeds`."""
        return int(self.raw.get("tuning_seed", self.seeds[0]))

    @property
    def chosen_seeds(self) -> list[int]:
        """Seeds that were chosen by :meth:`with_seeds`, none without it."""
        return self.seeds if "tuning_seed" in self.raw else []

    def seeds_left_out(self, target: str) -> list[int]:
        """Seeds of the experiment on a target that were not chosen by :meth:`with_seeds`."""
        return list(self.raw.get("seeds_left_out", {}).get(target, ()))

    def seeds_for(self, target: str) -> list[int]:
        """Seeds of the final runs on a target: ``data.TARGET.seeds``, or the experiment's."""
        return list(self.raw.get("data", {}).get(target, {}).get("seeds", self.seeds))

    def tuned_on(self, data: str) -> str:
        """Data set that chooses the learning rates for one: ``data.KEY.tuned_on``, or itself."""
        return str(self.raw.get("data", {}).get(data, {}).get("tuned_on", data))

    def lrs_for(self, data: str) -> list[float]:
        """Learning rates that every arm tries for a data set: ``data.KEY.lrs``, or the experiment's."""
        return list(self.raw.get("data", {}).get(self.tuned_on(data), {}).get("lrs", self.raw["lrs"]))

    @property
    def arms(self) -> list[dict[str, Any]]:
        """The arms, those with ``vary`` spread out into one for each value."""
        return [arm for entry in self.raw["arms"] for arm in _spread(entry)]

    def command(self, verb: str, *options: str) -> str:
        """Return the command line ``masterkey bench VERB`` on this experiment, quoted for a shell."""
        words = ["masterkey", "bench", verb, self.file or self.name, "--size", self.size, *self.options, *options]
        return shlex.join(words)

    def with_batch_size(self, batch_size: int | None) -> "Experiment":
        """Return the experiment with this batch size for every run, sources too; as it is where None is given.

        These are other runs, with ids of their own.

        Raises:
            BenchmarkError: the arms compare batch sizes.
        """
        if batch_size is None:
            return self
        compared = {arm["name"]: arm.get("train", {}).get("batch_size") for arm in self.arms}
        if len({*compared.values()}) > 1:
            raise BenchmarkError(
                f"the arms {', '.join(map(str, compared)):.200} of experiment {self.name} compare batch sizes, so they "
                "cannot have one for all runs"
            )
        raw = deepcopy(dict(self.raw))
        tables = [raw, *raw.get("data", {}).values(), *raw["arms"]]
        for table in tables:
            if table is raw or "batch_size" in table.get("train", {}):
                table["train"] = {**table.get("train", {}), "batch_size": batch_size}
        return replace(self, raw=raw, options=(*self.options, "--batch-size", str(batch_size)))

    def with_seeds(self, seeds: Sequence[int] = ()) -> "Experiment":
        """Return the experiment with these seeds for the final runs on every target; as it is where none is given.

        They need not be the experiment's. Learning rates are chosen by the same runs as without.

        Raises:
            BenchmarkError: a seed that no run can have.
        """
        if not seeds:
            return self
        for seed in seeds:
            if problem := problem_of_seed(seed):
                raise BenchmarkError(problem)
        chosen = list(dict.fromkeys(seeds))
        left_out = {
            target: [*self.seeds_left_out(target), *(seed for seed in self.seeds_for(target) if seed not in chosen)]
            for target in self.targets
        }
        data = {
            key: {k: v for k, v in table.items() if k != "seeds"} for key, table in self.raw.get("data", {}).items()
        }
        part = {"seeds": chosen, "seeds_left_out": left_out, "tuning_seed": self.tuning_seed, "data": data}
        options = [word for seed in chosen for word in ("--seed", str(seed))]
        return replace(self, raw={**self.raw, **part}, options=(*self.options, *options))

    def only(
        self, *, arms: Collection[str] = (), targets: Collection[str] = (), models: Collection[str] = ()
    ) -> "Experiment":
        """Return the part of the experiment with these arms, targets and networks; all of a kind where none is named.

        ``fig`` also means the arms ``fig/1``, ``fig/2``. What the part needs of the rest, it still plans. A target may
        be a data set of one's own: a folder, beginning with ``.``, ``/`` or ``~``, or a repository of the Hub,
        ``org/name``. It has the experiment's recipe, and its key is the name as given.

        Raises:
            BenchmarkError: a name that the experiment does not have; near names are given. Or no arm is left.
        """
        named = [str(arm["name"]) for arm in self.arms]
        own = [target for target in targets if target not in self.targets and ("/" in target or is_path(target))]
        self._check("arm", arms, list(dict.fromkeys([*named, *(name.split("/")[0] for name in named)])))
        self._check("target", [target for target in targets if target not in own], self.targets)
        self._check("model", models, self.models)
        kept = [arm for arm in self.arms if not arms or {str(arm["name"]), str(arm["name"]).split("/")[0]} & {*arms}]
        places = {target: {"name": place_of_data(target, Path.cwd())} for target in own}
        part = {
            "arms": kept,
            "targets": [*(target for target in self.targets if not targets or target in targets), *dict.fromkeys(own)],
            "models": [model for model in self.models if not models or model in models],
            "data": {**places, **self.raw.get("data", {})},
            "left_out": [*(arm for arm in self.arms if arm not in kept), *self.raw.get("left_out", ())],
        }
        chosen = {"--only": arms, "--target": targets, "--model": models}
        options = [word for option, names in chosen.items() for name in names for word in (option, name)]
        found = replace(self, raw={**self.raw, **part}, options=(*self.options, *options))
        if not any(found.cells()):
            raise BenchmarkError(
                f"experiment {self.name} has no arm for {' '.join(options):.200}: its arms name the targets and "
                "networks that they are for"
            )
        return found

    def _check(self, what: str, names: Collection[str], known: Collection[str]) -> None:
        for name in names:
            if name not in known:
                here = f"; the folder here is ./{name[:80]}" if what == "target" and Path(name).is_dir() else ""
                raise BenchmarkError(f"experiment {self.name} has no {what} {name[:80]!r}; {near(name, known)}{here}")

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
            for run in tuning if len(tuning) > 1 else []:
                _add(planned, run)
            for seed in self.seeds_for(target):
                final = self._final(store, model, target, arm, seed)
                if final is not None:
                    _add(planned, final)
        return list(planned.values())

    def chosen_lr(self, store: ResultStore, model: str, target: str, arm: Mapping[str, Any]) -> float | None:
        """Return the learning rate with the best validation accuracy (the smallest of equals).

        One whose run diverged is no choice. None while a run that decides it is missing, or if all diverged.
        """
        lrs = self.lrs_for(target)
        if len(lrs) == 1:
            return lrs[0]
        scores = []
        for run in self._tuning(model, target, arm):
            result = store.read(run.config.id)
            if result is not None:
                scores.append((result["metrics"]["top1"], -run.config.train.lr))
            elif not store.has_diverged(run.config.id):
                return None
        return -max(scores)[1] if scores else None

    def _tuning(self, model: str, target: str, arm: Mapping[str, Any]) -> Iterator[Planned]:
        for lr in self.lrs_for(target):
            run = self._run(model, self.tuned_on(target), arm, self.tuning_seed, lr, "tune")
            yield replace(run, target=target)

    def _final(self, store: ResultStore, model: str, target: str, arm: Mapping[str, Any], seed: int) -> Planned | None:
        lr = self.chosen_lr(store, model, target, arm)
        return None if lr is None else self._run(model, target, arm, seed, lr, "final")

    def _run(
        self,
        model: str,
        target: str,
        arm: Mapping[str, Any],
        seed: int,
        lr: float,
        stage: str,
        part: str | None = None,
        split: Mapping[str, Any] | None = None,
    ) -> Planned:
        data, train = self._data(target)
        data |= split or {}
        part = part or ("validation" if stage == "tune" else self.raw.get("evaluate", "test"))
        sources = {
            key: self._source(str(arm[key]), model, target, seed, stage)
            for key in ("bank", "teacher")
            if str(arm.get(key, "")).startswith(("scratch:", "selffer"))
        }
        own = _own_fields(arm)
        network = self.raw.get("networks", {}).get(model, {})
        if "initial" in network:
            own.setdefault("initial", network["initial"])
        raw = {
            "data": {**data, "evaluate": part},
            "model": network.get("name", model),
            "model_kwargs": network.get("kwargs", {}),
            "arm": {**own, **{key: f"run:{source.config.id}" for key, source in sources.items()}},
            "train": {**train, "lr": lr, **arm.get("train", {})},
            "seed": seed,
        }
        try:
            config = run_config(raw)
        except BenchmarkError as error:
            raise BenchmarkError(f"experiment {self.name}: {error}") from error
        return Planned(config, stage, model, target, str(arm["name"]), tuple(sources.values()))

    def _source(self, text: str, model: str, target: str, seed: int, stage: str) -> Planned:
        """Resolve ``selffer`` and ``scratch:DATA[@MODEL]`` to the run from scratch with the same seed.

        An experiment's ``source_seed`` is that of all its sources but ``selffer``, where they are too dear to be
        trained for every seed. A source on the target's own data is evaluated on the same part, the same split off,
        so that a choice made on the validation part never sees filters that were trained on it; any other learns from
        all but its test part, and is the same for every choice. Its learning rate is the first of its data set's, the
        same for every run that takes it.
        """
        part: str | None = None
        split: dict[str, Any] = {}
        if text != "selffer":
            source, _, other = text.removeprefix("scratch:").partition("@")
            own, learnt = self._data(target)[0], self._data(source or target)[0]
            if not _are_same_pictures(learnt, own):
                part = "test"
            elif learnt.get("label") != own.get("label"):
                raise BenchmarkError(
                    f"experiment {self.name}: {source!r:.80} and {target!r:.80} are the same pictures by other labels, "
                    "which split off another validation part, so the filters of one know pictures that judge the other"
                )
            else:
                split = {key: own.get(key, getattr(DataConfig, key)) for key in ("validation", "split_seed")}
            target, model = source or target, other or model
            seed = int(self.raw.get("source_seed", seed))
        run = self._run(model, target, {"name": "scratch"}, seed, self.lrs_for(target)[0], stage, part, split)
        if not run.config.is_source:
            raise BenchmarkError(
                f"experiment {self.name}: {text!r:.80} is a training of {model}, which begins with "
                f"{run.config.arm.initial} weights; only of one from new weights are the filters kept"
            )
        return run

    def is_same_data(self, one: str, other: str) -> bool:
        """Whether two keys mean the same classes of the same data set, whatever the size of the pictures."""
        (first, _), (second, _) = self._data(one), self._data(other)
        return one == other or (first.get("view") == second.get("view") and _are_same_pictures(first, second))

    def _data(self, key: str) -> tuple[dict[str, Any], dict[str, Any]]:
        own = dict(self.raw.get("data", {}).get(key, {}))
        train = {**self.raw.get("train", {}), **own.pop("train", {})}
        for ours in ("seeds", "lrs", "tuned_on"):
            own.pop(ours, None)
        return {"name": key, **self.raw.get("pictures", {}), **own}, train


def _are_same_pictures(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two data sets are one, whatever is chosen of it; a configuration (``subset``) is a set of its own."""
    return one.get("subset") == other.get("subset") and same_data(one["name"], other["name"])


def _add(planned: dict[str, Planned], run: Planned) -> None:
    """Put a run behind those it needs."""
    for needed in run.needs:
        _add(planned, needed)
    planned.setdefault(run.config.id, run)


def experiment_names() -> list[str]:
    """Return the names of all experiments that come with masterkey, sorted."""
    return built_in_names()


def experiment_sizes(name: str) -> list[str]:
    """Return the sizes that an experiment has: all, but for a file that says fewer.

    Raises:
        BenchmarkError: no such file, or no TOML.
    """
    return sizes_of_file(expanded(name)) if is_path(name) else list(SIZES)


def load_experiment(name: str, size: str) -> Experiment:
    """Load an experiment at one of ``SIZES``: by its name, or from a TOML file (``./mine.toml``).

    Raises:
        BenchmarkError: no such experiment (near names are given), file or size, or a file that lacks something.
    """
    names = experiment_names()
    if name in names:
        raw, file = read_built_in(name, size), None
    elif is_path(name):
        path = expanded(name)
        name, raw, file = path.stem, read_own(path, size), name
    else:
        raise BenchmarkError(f"no experiment named {name[:80]!r}; {near(name, names)}")
    experiment = Experiment(name, size, raw["title"], raw["shows"], raw["layout"], raw, file)
    _check_names(experiment)
    return experiment


def _check_names(experiment: Experiment) -> None:
    """Refuse, before anything is trained, what could not be reported; arms that are left out later are reported too."""
    for arm in experiment.arms:
        check_fields(ArmConfig, _own_fields(arm), f"experiment {experiment.name}: arm {arm['name']!r:.80}")
    places = [(model, target, str(arm["name"])) for model, target, arm in experiment.cells()]
    twice = [name for place in places if places.count(place) > 1 for name in place[2:]]
    if twice:
        raise BenchmarkError(f"experiment {experiment.name} has two arms named {twice[0]!r:.80}; rename one")
    arms = {part for _, _, name in places for part in (name, name.partition("/")[0])}
    for control in experiment.raw.get("controls", ()):
        if control not in arms:
            hint = near(control, sorted(arms))
            raise BenchmarkError(f"experiment {experiment.name}: controls name {control!r:.80}, no arm of it; {hint}")


def _own_fields(arm: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an arm says of what is done to the network, without where it is tried and how it is trained."""
    return {key: value for key, value in arm.items() if key not in ("models", "targets", "train")}


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
                if not isinstance(place, dict):
                    raise BenchmarkError(f"arm {plain['name']!r:.80} varies {path!r:.80}, but its {table} is no table")
            place[last] = value
        if values:
            spread["name"] = "/".join([str(plain["name"]), *map(str, values)])
        yield spread
