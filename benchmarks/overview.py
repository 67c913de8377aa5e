"""Reading results back: how much of each experiment is done, and what one run gave."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from masterkey.names import expanded

from .config import BenchmarkError
from .experiment import Experiment, experiment_names, experiment_sizes, load_experiment
from .experiment_file import is_path
from .stalled import STALLED, run_has_stalled
from .store import ResultStore
from .sweep import expected_runs

_SHOWN = 10  # ids, in a message


@dataclass(frozen=True)
class Count:
    """How many runs of an experiment at one size are finished, of how many (see ``expected_runs``)."""

    finished: int
    total: int


@dataclass(frozen=True)
class Listed:
    """An experiment, and how much of it is done by size."""

    name: str
    title: str
    runs: Mapping[str, Count]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def list_experiments(store: ResultStore, names: Sequence[str] = (), targets: Sequence[str] = ()) -> list[Listed]:
    """Return these experiments, which may be TOML files, in this order; without names all that are built in.

    With ``targets`` only the runs on these count, and without names only the experiments that have one of them. A
    folder of pictures or a repository on the Hub may be one.

    Raises:
        BenchmarkError: no such experiment or file, none with these targets, or a result that cannot be used is in the
            folder; or a folder of pictures that is not there.
    """
    for target in targets:
        if is_path(target) and not expanded(target).is_dir():
            raise BenchmarkError(f"{target!r:.200} is no folder of pictures")
    finished = set(store.run_ids())
    listed: list[Listed] = []
    for name in names or experiment_names():
        try:
            experiments = _sizes_with(name, targets)
        except BenchmarkError:
            if names or not targets:
                raise
            continue
        ids = {
            size: [run.config.id for run in expected_runs(experiment, store)]
            for size, experiment in experiments.items()
        }
        counts = {size: Count(len(finished.intersection(runs)), len(runs)) for size, runs in ids.items()}
        listed.append(Listed(name, next(iter(experiments.values())).title, counts))
    if not listed:
        raise BenchmarkError(
            f"no experiment has the target {' or '.join(targets)}; masterkey bench data lists the sets"
        )
    return listed


def _sizes_with(name: str, targets: Sequence[str]) -> dict[str, Experiment]:
    """Return the part of an experiment on targets at the sizes that have them; one without such a size is refused."""
    found: dict[str, Experiment] = {}
    for size in (sizes := experiment_sizes(name)):
        try:
            found[size] = load_experiment(name, size).only(targets=targets)
        except BenchmarkError:
            if not targets or (size == sizes[-1] and not found):
                raise
    return found


def find_run(store: ResultStore, text: str) -> dict[str, Any]:
    """Return the run whose id begins with ``text``: its result, or how it failed.

    Raises:
        BenchmarkError: there is none, or more than one; or the file cannot be used.
    """
    known = {*store.run_ids(), *store.failed_ids()}
    found = sorted(run_id for run_id in known if run_id.startswith(text)) if text else []
    if not found:
        there = f"it holds {len(known):,}: {_some(sorted(known))}" if known else "it holds none"
        raise BenchmarkError(f"no run in {store.root} has an id that begins with {text[:40]!r}; {there}")
    if len(found) > 1:
        raise BenchmarkError(f"{len(found):,} runs have an id that begins with {text[:40]!r}: {_some(found)}")
    result = store.read(found[0]) or store.read_failure(found[0])
    if result is None:
        raise BenchmarkError(f"run {found[0]} has just been removed")
    return result


def askers(store: ResultStore, run_id: str, files: Sequence[str] = ()) -> list[str]:
    """Return where a run is asked for, by the built-in experiments and these: experiment, size, arm and stage."""
    names = [*experiment_names(), *files]
    experiments = [load_experiment(name, size) for name in names for size in experiment_sizes(name)]
    return [
        f"{experiment.name} {experiment.size} ({run.arm}, {run.stage})"
        for experiment in experiments
        for run in expected_runs(experiment, store)
        if run.config.id == run_id
    ]


def describe_run(result: Mapping[str, Any], asked: Sequence[str]) -> dict[str, str | None]:
    """Return the facts of a run for people.

    Args:
        result: as ``find_run`` gives it.
        asked: as ``askers`` gives it.
    """
    metrics, machine = result.get("metrics", result), result.get("machine", {})
    config = metrics["config"]
    data, arm, train = config["data"], config["arm"], config["train"]
    facts = {
        "run": metrics["id"],
        "data": f"{data['name']} at {data['pixels']} pixels, judged on {data['evaluate']}",
        "view": data["view"],
        "crops": _crops(data, train),
        "model": config["model"],
        "asked for by": "; ".join(asked) or None,
        "bank": arm["bank"] or "none: from scratch" if arm["initial"] is None else arm["bank"],
        "initial weights": " of ".join(filter(None, [arm["initial"], arm["teacher"]])) or None,
        "steps": ", ".join(f"{step}({_arguments(given)})" for step, given in arm["steps"]) or None,
        "inject": _arguments(arm["inject"]) or None,
        "seed": str(config["seed"]),
        "recipe": f"epochs: {train['epochs']}, batch {train['batch_size']}, lr {train['lr']:g}",
    }
    if not machine:
        return {**facts, "failed": f"{metrics['error']}: {metrics['message']}"}
    rows = (metrics["injection"] or {}).get("rows", [])
    skipped = metrics.get("skipped_pictures", ())
    return {
        **facts,
        "pictures": f"{metrics['train_pictures']:,} learnt from, {metrics['evaluated_pictures']:,} judged on",
        "left out": f"{len(skipped):,} pictures that cannot be decoded" if skipped else None,
        "classes": str(metrics["classes"]),
        "bank sha256": metrics["bank_sha256"],
        "filled": f"{sum(bool(row['sources']) for row in rows)} of {len(rows)} layers" if rows else None,
        "top-1": f"{metrics['top1']:.2f} %",
        "warning": f"it {STALLED}" if run_has_stalled(result) else None,
        "machine": f"{machine['device']} ({machine['cpu']}), threads: {machine['threads']}",
        "begun with": "; ".join(machine.get("earlier", ())) or None,
        "took": f"{machine['seconds']:,.1f} s, at most {machine['peak_memory'] / 2**20:,.0f} MiB",
    }


def _crops(data: Mapping[str, Any], train: Mapping[str, Any]) -> str | None:
    """Say how pictures to learn from are cut out, where that is not as it always was."""
    size, how = data.get("train_size"), train.get("train_interpolation")
    told = [f"of pictures of {size} pixels" if size else None, how]
    return ", ".join(filter(None, told)) or None


def _arguments(given: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in given.items())


def _some(ids: list[str]) -> str:
    return ", ".join(ids[:_SHOWN]) + (", …" if len(ids) > _SHOWN else "")
