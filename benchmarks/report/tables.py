"""From cells to tables: accuracies, paired differences, curves, cost, runs."""

from collections.abc import Sequence
from itertools import accumulate, product
from statistics import fmean, stdev

from ..stalled import STALLED
from .results import RANDOM, SCRATCH, Cell, Results, Run, label
from .student import Sample, summarize
from .table import Column, Table, Value, make_table

MODEL, TARGET, ARM = (
    Column("model", "network", key=True),
    Column("target", "target", key=True),
    Column("arm", "arm", key=True),
)
_MEGABYTE = 2**20
READINGS = {1: "above", -1: "below", 0: "open", None: "no interval"}


def paired(results: Results, model: str, target: str, arm: str, other: str) -> Sample:
    """Summarise the differences in points between two arms, over the seeds that both have."""
    ours, theirs = (results.cells[model, target, name].runs for name in (arm, other))
    return summarize([ours[seed].top1 - theirs[seed].top1 for seed in ours if seed in theirs])


def arms_table(results: Results) -> Table:
    """Mean and deviation of every arm, its learning rate, and the seeds that are missing."""
    rows: list[Sequence[Value]] = []
    for cell in results.cells.values():
        sample = summarize(cell.top1)
        missing = "; ".join(f"seed {seed}: {why}" for seed, why in cell.missing.items())
        place = (cell.model, cell.target, cell.arm)
        rows.append(
            (*place, cell.what, sample.mean, sample.deviation, sample.n, cell.lr, cell.lrs_tried, missing or None)
        )
    columns = (
        *(MODEL, TARGET, ARM),
        Column("what", "what is done"),
        Column("top1", "accuracy, %", "accuracy"),
        Column("deviation", "± sd", "deviation"),
        Column("seeds", "seeds", "count"),
        Column("lr", "rate", "rate"),
        Column("lrs_tried", "rates tried", "count"),
        Column("missing", "missing"),
    )
    note = f"Mean and sample deviation of the final accuracy on the {results.part} part, over seeds. {_rates(results)}"
    note += _stalled(results) + _other_pictures(results) + _other_banks(results) + _other_numerics(results)
    return make_table("arms", "Accuracy", note, columns, rows)


def _rates(results: Results) -> str:
    """Say how arms came by their learning rates."""
    experiment = results.experiment
    tuned = [len(experiment.lrs_for(target)) > 1 for target in experiment.targets]
    said = _best_rates(results, tuned)
    own = dict.fromkeys(cell.arm for cell in results.cells.values() if "lr" in cell.recipe)
    if any(tuned) and own:
        said += f" The rate of {', '.join(map(label, own))} is the experiment's, whatever did best."
    for target, is_tuned in zip(experiment.targets, tuned, strict=True):
        if is_tuned and (other := experiment.tuned_on(target)) != target:
            said += f" For {target} they were tried on {other}."
    if any(tuned) and results.part == "validation":
        said += " It is the part that is shown here, and the best of several rates flatters an arm on it."
    at_an_end = []
    for cell in results.cells.values():
        lrs = sorted(experiment.lrs_for(cell.target))
        if cell.lrs_tried > 2 and cell.lr in (lrs[0], lrs[-1]):
            at_an_end.append(_place(cell))
    if at_an_end:
        said += (
            f" The rate of {', '.join(at_an_end)} is the lowest or the highest that was tried: others may do better."
        )
    return said


def _best_rates(results: Results, tuned: list[bool]) -> str:
    if all(tuned):
        return "Every arm has the learning rate that did best for it on the validation part."
    if any(tuned):
        return "Where several learning rates were tried, an arm has the one that did best on the validation part."
    if len({cell.lr for cell in results.cells.values()}) == 1:
        return "All arms have the same learning rate."
    if len({(cell.target, cell.lr) for cell in results.cells.values()}) == len(tuned):
        return "All arms on a target have the same learning rate."
    return "Arms differ in their learning rates, as the experiment says."


def _stalled(results: Results) -> str:
    """Warn of runs that did not learn, and of filters and weights that come from such."""
    cells = list(results.cells.values())
    stalled = [f"{_place(cell)} ({cell.stalled} of {len(cell.runs)})" for cell in cells if cell.stalled]
    taken = [_place(cell) for cell in cells if cell.source_has_stalled]
    told = (
        f" Warning: runs of {', '.join(stalled)} {STALLED}. A difference to them measures that; a lower rate or a "
        "longer warm-up may help."
        if stalled
        else ""
    )
    if taken:
        told += f" Warning: {', '.join(taken)} took what such a run had learnt."
    return told


def _place(cell: Cell) -> str:
    return f"{label(cell.arm)} on {cell.target}"


def _other_pictures(results: Results) -> str:
    """Say which pictures were left out, and warn where the runs on a target did not all see the same ones."""
    seen: dict[str, set[str]] = {}
    for cell in results.cells.values():
        seen.setdefault(cell.target, set()).update(run.pictures for run in cell.runs.values())
    skipped = max((run.skipped or 0 for run in results.listed), default=0)
    left_out = f" Pictures that cannot be decoded were left out, up to {skipped:,} of a run." if skipped else ""
    mixed = [target for target, pictures in seen.items() if len(pictures) > 1]
    if not mixed:
        return left_out
    return (
        f"{left_out} Warning: the runs on {', '.join(mixed)} did not all learn from and judge on the same pictures, so "
        "their differences are not the arms' alone."
    )


def _other_banks(results: Results) -> str:
    """Warn where the runs of an arm did not all take the same filters of a bank, or of one run."""
    mixed = set()
    for cell in results.cells.values():
        found: dict[str | None, set[str | None]] = {}
        for run in cell.runs.values():
            found.setdefault(run.source, set()).add(run.bank)
        # a draw of other kinds than depthwise is every seed's own
        is_drawn = cell.bank is None or cell.bank.startswith(RANDOM)
        if not is_drawn and any(len(banks) > 1 for banks in found.values()):
            mixed.add(label(cell.arm))
    if not mixed:
        return ""
    return (
        f" Warning: the runs of {', '.join(sorted(mixed))} did not all take the same filters: what the bank's name "
        "stands for has changed between them."
    )


def _other_numerics(results: Results) -> str:
    """Say where the runs on a target were not all computed alike, so that they differ in rounding as well."""
    ways: dict[str, set[str]] = {}
    for cell in results.cells.values():
        ways.setdefault(cell.target, set()).update(run.numerics for run in cell.runs.values())
    return "".join(
        f" The runs on {target} were made in {len(found)} ways that round differently ({'; '.join(sorted(found))}): "
        "pairs across them share data, order and initial weights, but not the last bits."
        for target, found in ways.items()
        if len(found) > 1
    )


def differences_table(results: Results) -> Table:
    """Every arm against every control, paired by seed; of a series, AnB/3 against random/3."""
    rows: list[Sequence[Value]] = []
    for model, target in results.places:
        for control, arm in product(results.controls(model, target), results.at(model, target)):
            opposite = results.opposite(model, target, arm, control)
            if opposite is None:
                continue
            sample = paired(results, model, target, arm, opposite)
            reading = READINGS[sample.sign] if sample.n else "missing"
            figures = (sample.mean, sample.low, sample.high, sample.deviation, sample.n, sample.beyond_two_errors)
            rows.append((model, target, arm, control, *figures, reading))
    columns = (
        *(MODEL, TARGET, ARM),
        Column("control", "against", key=True),
        Column("difference", "points", "difference"),
        Column("low", "95 % from", "difference"),
        Column("high", "to", "difference"),
        Column("deviation", "sd", "deviation"),
        Column("pairs", "pairs", "count"),
        Column("beyond_two_errors", "> 2 sd/√n", "flag"),
        Column("reading", "reading"),
    )
    note = (
        "Arm minus control in points, paired by seed, with Student's 95 % interval of the mean. above, below: the "
        "interval leaves out zero; open: it holds zero. Intervals are not corrected for the number of comparisons. "
        "Where a control is a series, series/n is compared with control/n, or, where n is a recipe of training, with "
        "the control's best."
    )
    return make_table("differences", "Paired differences", note, columns, rows)


def curves_table(results: Results) -> Table:
    """Mean accuracy after every evaluated epoch."""
    rows: list[Sequence[Value]] = []
    for cell in results.cells.values():
        curves = [run.curve for run in cell.runs.values()]
        for points in zip(*curves, strict=True):
            epoch, values = points[0][0], [top1 for _, top1 in points]
            deviation = stdev(values) if len(values) > 1 else None
            rows.append((cell.model, cell.target, cell.arm, epoch, fmean(values), deviation, len(values)))
    columns = (
        *(MODEL, TARGET, ARM),
        Column("epoch", "epoch", "count", key=True),
        Column("top1", "accuracy, %", "accuracy"),
        Column("deviation", "± sd", "deviation"),
        Column("seeds", "seeds", "count"),
    )
    note = "Accuracy after evaluated epochs: mean over seeds, band of one sample deviation. No epoch was chosen by it."
    return make_table("curves", "Learning curves", note, columns, rows)


def cost_table(results: Results) -> Table:
    """What an arm takes: time, memory, and how long until it is where scratch ends."""
    rows: list[Sequence[Value]] = []
    for cell in results.cells.values():
        runs = list(cell.runs.values())
        scratch = results.cells.get((cell.model, cell.target, SCRATCH))
        shared = [seed for seed in cell.runs if scratch and seed in scratch.runs]
        reached = fmean(scratch.runs[seed].top1 for seed in shared) if scratch and shared else None
        epochs, seconds = (None, None) if reached is None else _reach([cell.runs[seed] for seed in shared], reached)
        sources = [run.source_seconds for run in runs]
        per_epoch = [second for run in runs for second in run.epoch_seconds]
        rows.append(
            (
                *(cell.model, cell.target, cell.arm),
                fmean(per_epoch) if per_epoch else None,
                fmean(run.seconds for run in runs) if runs else None,
                fmean(second for second in sources if second is not None) if runs and None not in sources else None,
                max(run.peak_memory for run in runs) / _MEGABYTE if runs else None,
                epochs,
                seconds,
                max((run.load for run in runs if run.load is not None), default=None),
            )
        )
    columns = (
        *(MODEL, TARGET, ARM),
        Column("seconds_per_epoch", "s / epoch", "seconds"),
        Column("seconds_per_run", "s / run", "seconds"),
        Column("source_seconds", "s for its source", "seconds"),
        Column("peak_memory_mb", "peak MB", "megabytes"),
        Column("epochs_to_scratch", "epochs to scratch", "epochs"),
        Column("seconds_to_scratch", "s to scratch", "seconds"),
        Column("load", "highest load", "load"),
    )
    note = (
        "Means over seeds; peak memory is the largest. To scratch: the first evaluated epoch after which the arm's "
        "mean curve is at scratch's final mean accuracy with the same seeds, and the training time until then. For its "
        "source: the training of the filters that it takes, which comes on top, so selffer trains twice; "
        "of filters that were learnt elsewhere it is not known. Load: of the "
        f"machine when a run ended, the highest.{_machines(results)}{_crowding(results)}"
    )
    return make_table("cost", "Cost", note, columns, rows)


def _machines(results: Results) -> str:
    """Warn of arms whose runs were made on other machines than their neighbours'; nothing where none were."""
    shown = {run.id for cell in results.cells.values() for run in cell.runs.values()}
    machines: dict[tuple[str, str], set[str | None]] = {}
    for run in results.listed:
        if run.id in shown:
            machines.setdefault((run.model, run.target), set()).add(run.machine)
    mixed = sum(len(names) > 1 for names in machines.values())
    if not mixed:
        return ""
    where = "" if len(machines) == 1 else f" of {mixed} of {len(machines)} networks and targets"
    return (
        f" Warning: the runs{where} are of several machines (table Runs), so seconds of arms there cannot be compared."
    )


def _crowding(results: Results) -> str:
    """Warn of times that were taken on a machine with other work; nothing where none were."""
    runs = {run.id: run for cell in results.cells.values() for run in cell.runs.values()}
    crowded = sum(run.is_crowded for run in runs.values())
    if not crowded:
        return ""
    return (
        f" Warning: {crowded} of {len(runs)} runs had a load above their machine's cores, so their seconds are too "
        "long and those of arms cannot be compared; epochs can."
    )


def _reach(runs: Sequence[Run], accuracy: float) -> tuple[int | None, float | None]:
    """Return epochs and mean seconds until the mean curve reaches an accuracy in percent."""
    for points in zip(*(run.curve for run in runs), strict=True):
        epoch = points[0][0]
        if fmean(top1 for _, top1 in points) >= accuracy - 1e-9:
            return epoch, fmean(list(accumulate(run.epoch_seconds))[epoch - 1] for run in runs)
    return None, None


def runs_table(results: Results) -> Table:
    """Every run, those that chose a learning rate and those that are missing included."""
    rows: list[Sequence[Value]] = [
        (
            *(run.model, run.target, run.arm, run.stage, run.seed, run.lr, run.id),
            *(run.status, run.top1, run.seconds, run.load, run.skipped, run.machine),
        )
        for run in results.listed
    ]
    columns = (
        *(MODEL, TARGET, ARM),
        Column("stage", "stage", key=True),
        Column("seed", "seed", "count", key=True),
        Column("lr", "rate", "rate", key=True),
        Column("id", "run"),
        Column("status", "status"),
        Column("top1", "accuracy, %", "accuracy"),
        Column("seconds", "seconds", "seconds"),
        Column("load", "load", "load"),
        Column("skipped", "pictures left out", "count"),
        Column("machine", "machine"),
    )
    note = (
        f"tune: on the validation part, to choose a rate; final: on the {results.part} part. Sources of filters are "
        "among them. Left out: pictures that cannot be decoded. masterkey bench show RUN tells all of one."
    )
    return make_table("runs", "Runs", note, columns, rows)


def machines_table(results: Results) -> Table:
    """What the runs ran on."""
    rows = [
        (name, key, str(value)) for name, machine in results.machines.items() for key, value in sorted(machine.items())
    ]
    columns = (Column("machine", "machine", key=True), Column("property", "property", key=True), Column("value", "is"))
    note = "Times of different machines are not comparable."
    return make_table("machines", "Machines", note, columns, rows)
