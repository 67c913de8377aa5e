"""What an experiment's runs gave, cell by cell: a network, a target, an arm."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from masterkey.catalog import recipes

from ..config import BenchmarkError
from ..experiment import Experiment, Planned
from ..numerics import describe_numerics
from ..stalled import run_has_stalled
from ..store import ResultStore, default_store

SCRATCH, RANDOM, SELFFER = "scratch", "random", "selffer"
_NOISE = ("random", "random-8", "random-local", "shuffled-pixels")  # banks that hold no shape, whatever an arm's name
DONE = "done"
_NAMED = 3  # folders of pictures, in a message
_NOT_THE_MACHINE = ("seconds", "epoch_seconds", "peak_memory", "load_average", "earlier")


@dataclass(frozen=True)
class Run:
    """A finished run.

    ``top1`` is in percent of the evaluated pictures, ``curve`` is (epochs done, top1), ``seconds`` of the whole run,
    ``epoch_seconds`` of training alone, ``peak_memory`` in bytes. ``source_seconds`` are those of the runs whose
    filters or weights it takes, None if one of them was done elsewhere. ``load`` is the highest load average that its
    machine had when it ended (of 1, 5 and 15 minutes), None if it was not recorded; ``cores`` are the machine's.
    ``pictures`` is the hash of what was learnt from and judged on, ``pixels`` its side, ``classes``, ``learnt`` and
    ``judged`` their numbers; ``bank`` is the hash of the filters, None without any, and
    ``source`` the run (``run:ID``) that they were taken from, if any.
    ``numerics`` says what decides how its numbers are rounded. ``has_stalled``: it did not learn (see ``stalled``);
    ``source_has_stalled``: nor did a run whose filters or weights it takes. ``filled`` names the layers that a bank
    went into, None where none did.
    """

    id: str
    top1: float
    curve: tuple[tuple[int, float], ...]
    seconds: float
    epoch_seconds: tuple[float, ...]
    peak_memory: float
    pictures: str
    pixels: int
    classes: int
    learnt: int
    judged: int
    bank: str | None
    source: str | None
    numerics: str
    source_seconds: float | None
    load: float | None = None
    cores: int | None = None
    has_stalled: bool = False
    source_has_stalled: bool = False
    filled: tuple[str, ...] | None = None

    @property
    def is_crowded(self) -> bool:
        """Whether more wanted to run than there were cores, so that the times are too long."""
        return self.load is not None and self.cores is not None and self.load > self.cores


@dataclass(frozen=True)
class Cell:
    """The final runs of one arm by seed; ``missing`` says for each seed without a result why.

    ``is_noise``: it puts in filters without shape, so it is a control, whatever its name. ``is_frozen``: what it puts
    in stays. ``recipe`` is what it says of its own training, ``about`` all that the experiment says of the arm.
    """

    model: str
    target: str
    arm: str
    bank: str | None
    what: str
    lr: float | None
    lrs_tried: int
    runs: Mapping[int, Run]
    missing: Mapping[int, str]
    is_noise: bool
    is_frozen: bool
    recipe: Mapping[str, Any]
    about: Mapping[str, Any]

    @property
    def top1(self) -> list[float]:
        """Final accuracies, in the order of seeds."""
        return [run.top1 for run in self.runs.values()]

    @property
    def stalled(self) -> int:
        """How many of the runs did not learn."""
        return sum(run.has_stalled for run in self.runs.values())

    def freezes_as(self, other: "Cell") -> bool:
        """Whether two arms freeze the same: the layers, as runs tell or else the experiment; ever at all; biases."""
        both = (self, other)
        layers: list[Any] = [next((run.filled for run in cell.runs.values()), None) for cell in both]
        if None in layers:
            layers = [cell.about.get("inject", {}).get("layers") for cell in both]
        return layers[0] == layers[1] and self._freezing == other._freezing

    @property
    def _freezing(self) -> tuple[bool, bool]:
        is_ever = self.is_frozen or "freeze_epoch" in self.about.get("train", {})
        return is_ever, bool(self.about.get("bias", True))

    @property
    def source_has_stalled(self) -> bool:
        """Whether a run takes its filters or weights from one that did not learn."""
        return any(run.source_has_stalled for run in self.runs.values())


@dataclass(frozen=True)
class Listed:
    """A line of the list of runs; ``id`` is None while the learning rate is not chosen.

    ``skipped`` counts the pictures that could not be decoded and were left out.
    """

    id: str | None
    stage: str
    model: str
    target: str
    arm: str
    seed: int
    lr: float | None
    status: str
    top1: float | None = None
    seconds: float | None = None
    load: float | None = None
    skipped: int | None = None
    machine: str | None = None


@dataclass(frozen=True)
class Results:
    """All cells by (model, target, arm), in the experiment's order; its runs; and the machines they ran on."""

    experiment: Experiment
    cells: Mapping[tuple[str, str, str], Cell]
    listed: tuple[Listed, ...]
    machines: Mapping[str, Mapping[str, Any]]

    @property
    def part(self) -> str:
        """The part of the data that the final figures are of: ``test``, or ``validation`` where something is chosen."""
        return str(self.experiment.raw.get("evaluate", "test"))

    @property
    def places(self) -> list[tuple[str, str]]:
        """Every network with every target."""
        return list(dict.fromkeys((model, target) for model, target, _ in self.cells))

    def at(self, model: str, target: str) -> dict[str, Cell]:
        """Return the cells of a network on a target, by arm."""
        return {cell.arm: cell for cell in self.cells.values() if (cell.model, cell.target) == (model, target)}

    def controls(self, model: str, target: str) -> list[str]:
        """Return what the arms are compared with: scratch, random, the experiment's ``controls``, and arms of noise.

        Each is an arm of that name, or a series of them, ``random/1``, ``random/2``; see :meth:`opposite`.
        """
        named = [
            name
            for arm, cell in self.at(model, target).items()
            for name in (arm, _series(arm))
            if self.is_required(name) or (cell.is_noise and name == (_series(arm) or arm))
        ]
        return list(dict.fromkeys(named))

    def is_required(self, control: str) -> bool:
        """Whether every arm must have a counterpart in a control; one that is none but for its noise may lack some.

        ``random-scaled/unit`` then is a control of arms ``…/unit`` alone.
        """
        return control in (SCRATCH, RANDOM, *self.experiment.raw.get("controls", ()))

    def shapeless(self, model: str, target: str) -> list[str]:
        """Return the controls besides ``random`` whose filters have no shape: shuffled, local, or few at random."""
        noise = {name for arm, cell in self.at(model, target).items() if cell.is_noise for name in (arm, _series(arm))}
        return [name for name in self.controls(model, target) if name in noise and name != RANDOM]

    def is_control(self, model: str, target: str, arm: str) -> bool:
        """Whether an arm is a control, or one of a series that is."""
        return not {arm, _series(arm)}.isdisjoint(self.controls(model, target))

    def opposite(self, model: str, target: str, arm: str, control: str) -> str | None:
        """Return the arm that an arm is compared with: of ``AnB/3`` the control ``random/3``, else ``random``.

        A series that tries recipes (``scratch/0.001``, ``scratch/0.002``) is one control: its best arm, so that no arm
        gains by a recipe that suits it alone. None if the control has no such arm, or if it is the arm itself.
        """
        cells = self.at(model, target)
        tried = self.recipes_tried(model, target, control)
        if tried:
            found = max(
                (name for name in tried if cells[name].runs), key=lambda name: fmean(cells[name].top1), default=""
            )
            return None if _series(arm) == control else found or tried[0]
        value = arm.partition("/")[2]
        names = (f"{control}/{value}", control) if value else (control,)
        found = next((name for name in names if name in cells), "")
        return found if found and found != arm else None

    def recipes_tried(self, model: str, target: str, control: str) -> list[str]:
        """Return the arms of a control that is a series of recipes, nothing if it is none."""
        members = {arm: cell for arm, cell in self.at(model, target).items() if _series(arm) == control}
        differ = any(cell.recipe != other.recipe for cell in members.values() for other in members.values())
        return list(members) if differ else []

    def candidates(self, model: str, target: str) -> list[str]:
        """Return the arms with a bank that is neither a control nor learnt by the same network on the target."""
        return [
            cell.arm
            for cell in self.at(model, target).values()
            if cell.bank is not None and not self._is_own(cell) and not self.is_control(model, target, cell.arm)
        ]

    def own_source(self, model: str, target: str) -> str | None:
        """Return the arm with the filters that the network learnt on the target itself: selffer, the diagonal."""
        return next((cell.arm for cell in self.at(model, target).values() if self._is_own(cell)), None)

    def _is_own(self, cell: Cell) -> bool:
        """Whether an arm's filters were learnt by its own network on its own target."""
        bank = cell.bank or ""
        source, _, other = bank.removeprefix("scratch:").partition("@")
        is_source = bank.startswith("scratch:") and (other or cell.model) == cell.model
        return bank == SELFFER or (is_source and self.experiment.is_same_data(source or cell.target, cell.target))


class _Remembering(ResultStore):
    """A store that reads every result once."""

    @cached_property
    def _known(self) -> dict[str, dict[str, Any] | None]:
        return {}

    def read(self, run_id: str) -> dict[str, Any] | None:
        if run_id not in self._known:
            self._known[run_id] = super().read(run_id)
        return self._known[run_id]


def collect(experiment: Experiment, store: ResultStore) -> Results:
    """Read what is there of an experiment.

    Raises:
        BenchmarkError: no run is finished, two arms share a name, a control that is no arm, or a result that cannot
            be read.
    """
    store = _Remembering(store.root)
    machines: dict[str, dict[str, Any]] = {}
    listed: dict[str, Listed] = {}
    cells: dict[tuple[str, str, str], Cell] = {}
    for model, target, arm in experiment.cells():
        place = (model, target, str(arm["name"]))
        if place in cells:
            raise BenchmarkError(f"experiment {experiment.name} has two arms named {place[2]}; rename one")
        # planned alone, so that the runs of this cell can be told from those of others
        raw = {**experiment.raw, "models": [model], "targets": [target], "arms": [arm]}
        planned = replace(experiment, raw=raw).plan(store)
        for run in planned:
            listed.setdefault(run.config.id, _listed(run, store, machines))
        cells[place] = cell = _cell(experiment, store, place, arm, planned)
        for seed, why in cell.missing.items() if cell.lr is None else ():
            listed[f"{place} {seed}"] = Listed(None, "final", *place, seed, None, why)
    known = {name for _, _, arm in cells for name in (arm, _series(arm))}
    known |= {str(arm["name"]) for arm in experiment.left_out}
    strange = sorted({str(name) for name in experiment.raw.get("controls", ())} - known)
    if strange:
        raise BenchmarkError(f"experiment {experiment.name}: controls name {', '.join(strange)}, which is no arm of it")
    done = any(run.status == DONE for run in listed.values())
    if not done or (experiment.chosen_seeds and not any(cell.runs for cell in cells.values())):
        where = [] if store.root == default_store().root else ["--results", str(store.root)]
        raise BenchmarkError(
            f"no {_asked(experiment)} is finished in {store.root}{_elsewhere(store)}; "
            f"first: {experiment.command('run', *where)}"
        )
    return Results(experiment, cells, tuple(listed.values()), machines)


def _asked(experiment: Experiment) -> str:
    seeds = ", ".join(map(str, experiment.chosen_seeds))
    with_seeds = f" with seed {seeds}" if seeds else ""
    return f"run of {experiment.name} at size {experiment.size}{with_seeds}"


def _elsewhere(store: ResultStore) -> str:
    """Name the folders of pictures that finished runs learnt from: one was perhaps meant, or moved since."""
    results = [store.read(run_id) for run_id in store.run_ids()]
    names = {str(result["metrics"]["config"]["data"]["name"]) for result in results if result is not None}
    folders = sorted(name for name in names if Path(name).is_absolute())
    if not folders:
        return ""
    return f" (runs there learnt from {', '.join(folders[:_NAMED])}: is that the --target?)"


def _cell(
    experiment: Experiment,
    store: ResultStore,
    place: tuple[str, str, str],
    arm: Mapping[str, Any],
    planned: Sequence[Planned],
) -> Cell:
    model, target, name = place
    taken = {source.config.id for run in planned for source in _all_needs(run)}
    own = [run for run in planned if run.config.id not in taken]
    lrs, part = experiment.lrs_for(target), experiment.raw.get("evaluate", "test")
    tuning = [run.config.id for run in own if run.stage == "tune"]
    diverged = [run_id for run_id in tuning if store.read(run_id) is None and store.has_diverged(run_id)]
    tried = len(diverged) + sum(store.read(run_id) is not None for run_id in tuning) if len(lrs) > 1 else 1
    chosen = experiment.chosen_lr(store, model, target, arm)
    lr = None if chosen is None else arm.get("train", {}).get("lr", chosen)
    # where the final figures are of the validation part, a run may have chosen the rate and be final too
    finals = {run.config.seed: run for run in own if run.config.data.evaluate == part and run.config.train.lr == lr}
    runs: dict[int, Run] = {}
    missing: dict[int, str] = {}
    for seed in experiment.seeds_for(target):
        if lr is None and diverged and len(diverged) == len(tuning):
            missing[seed] = "diverged at every learning rate"
        elif lr is None:
            missing[seed] = f"waits for its learning rate, {tried} of {len(lrs)} tried"
        elif store.read(finals[seed].config.id) is None:
            missing[seed] = _status(finals[seed].config.id, store)
        else:
            runs[seed] = _run(finals[seed], store)
    bank = arm.get("bank")
    if "initial" in (network := experiment.raw.get("networks", {}).get(model, {})):
        arm = {"initial": network["initial"], **arm}
    return Cell(
        model=model,
        target=target,
        arm=name,
        bank=bank,
        what=describe_arm(arm),
        lr=lr,
        lrs_tried=tried,
        runs=runs,
        missing=missing,
        is_noise=is_noise(arm),
        is_frozen=bank is not None and bool(arm.get("inject", {}).get("freeze", True)),
        recipe=arm.get("train", {}),
        about=arm,
    )


def is_noise(arm: Mapping[str, Any]) -> bool:
    """Whether an arm puts in filters without shape: random, or shuffled."""
    shuffled = any(operation == "pixel_shuffled" for operation, *_ in arm.get("steps", ()))
    return arm.get("bank") is not None and (shuffled or str(arm["bank"]).partition(":")[0] in _NOISE)


def _series(arm: str) -> str:
    """Return ``AnB`` of ``AnB/3`` and of ``AnB/3/unit``, nothing of other names."""
    series, slash, _ = arm.partition("/")
    return series if slash else ""


def describe_arm(arm: Mapping[str, Any]) -> str:
    """Say in a line what is done to the network before it is trained."""
    bank, inject = arm.get("bank"), dict(arm.get("inject", {}))
    begins = [f"from {arm['teacher']}"] if arm.get("teacher") else []
    begins = [str(arm["initial"]), *begins] if arm.get("initial") else begins
    if bank is None:
        return ", ".join(begins or ["new weights, all trained"])
    frozen = inject.pop("freeze", True)
    parts = [*begins, str(bank).rsplit("/", 1)[-1], *([] if arm.get("kind") is None else [str(arm["kind"])])]
    parts += [f"{op}({_arguments(arguments)})" for op, arguments in arm.get("steps", ())]
    parts += [_arguments(inject)] if inject else []
    later = arm.get("train", {}).get("freeze_epoch")
    stays = "frozen" if frozen else "trainable" if later is None else f"frozen from epoch {later} on"
    return ", ".join([*parts, stays, *([] if arm.get("bias", True) else ["bias frozen"])])


def label(arm: str) -> str:
    """Return an arm's name for people: ``from/scratch:pets`` becomes ``from/pets``."""
    return arm.replace("scratch:", "")


def _arguments(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in arguments.items())


def _run(planned: Planned, store: ResultStore) -> Run:
    result = store.read(planned.config.id)
    assert result is not None
    metrics, machine, bank = result["metrics"], result["machine"], planned.config.arm.bank
    sources = [store.read(run_id) for run_id in sorted({source.config.id for source in _all_needs(planned)})]
    is_told = None not in sources and not _is_learnt_elsewhere(bank)
    return Run(
        id=planned.config.id,
        top1=metrics["top1"],
        curve=tuple((epoch["epoch"] + 1, epoch["top1"]) for epoch in metrics["curve"] if epoch["top1"] is not None),
        seconds=machine["seconds"],
        epoch_seconds=tuple(machine["epoch_seconds"]),
        peak_memory=machine["peak_memory"],
        pictures=metrics["data_sha256"],
        pixels=planned.config.data.pixels,
        classes=metrics["classes"],
        learnt=metrics["train_pictures"],
        judged=metrics["evaluated_pictures"],
        bank=metrics["bank_sha256"],
        source=bank if bank is not None and bank.startswith("run:") else None,
        numerics=describe_numerics(machine),
        source_seconds=sum(source["machine"]["seconds"] for source in sources if source) if is_told else None,
        load=_load(machine),
        cores=machine.get("cores"),
        has_stalled=run_has_stalled(result),
        source_has_stalled=any(run_has_stalled(source) for source in sources if source is not None),
        filled=_filled(metrics["injection"]),
    )


def _is_learnt_elsewhere(bank: str | None) -> bool:
    """Whether a bank's filters are trained ones, and not those of a run."""
    if bank is None or bank.startswith("run:"):
        return False
    recipe = recipes().get(bank.partition(":")[0])
    return recipe is None or recipe.rule != "computed"


def _filled(injection: Mapping[str, Any] | None) -> tuple[str, ...] | None:
    return None if injection is None else tuple(row["layer"] for row in injection["rows"] if row["replaced"])


def _load(machine: Mapping[str, Any]) -> float | None:
    return max(machine.get("load_average") or (), default=None)


def _all_needs(planned: Planned) -> Iterator[Planned]:
    for source in planned.needs:
        yield source
        yield from _all_needs(source)


def _status(run_id: str, store: ResultStore) -> str:
    failure = store.read_failure(run_id)
    return "not run" if failure is None else f"failed: {failure['error']}: {failure['message']}"


def _listed(planned: Planned, store: ResultStore, machines: dict[str, dict[str, Any]]) -> Listed:
    config, result = planned.config, store.read(planned.config.id)
    place = (config.id, planned.stage, planned.model, planned.target, planned.arm, config.seed, config.train.lr)
    if result is None:
        return Listed(*place, status=_status(config.id, store))
    machine = {key: value for key, value in result["machine"].items() if key not in _NOT_THE_MACHINE}
    name = next((name for name, known in machines.items() if known == machine), f"M{len(machines) + 1}")
    machines[name] = machine
    metrics, times = result["metrics"], (result["machine"]["seconds"], _load(result["machine"]))
    return Listed(*place, DONE, metrics["top1"], *times, len(metrics.get("skipped_pictures", ())) or None, name)
