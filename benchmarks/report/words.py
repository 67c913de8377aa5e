"""What the figures say, in words; a gain is claimed only over every control, and never without ``random``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from masterkey.rules import DEFAULT_SCALE

from .results import RANDOM, SCRATCH, Cell, Results, is_noise, label
from .student import Sample
from .table import Column, Figure, Sentence, Table, Value, make_table
from .tables import MODEL, TARGET, paired

GAIN, OPEN, LOSS, NO_CLAIM = "gain", "open", "loss", "no claim"
_SEEDS = 3  # two happen to agree too often on small test parts
_MEANT = {SCRATCH: "new weights, all trained", RANDOM: "filters as the network draws them, frozen in all of it"}


@dataclass(frozen=True)
class Verdict:
    """What can be said of one network on one target.

    Arms that put in a bank are ``gains`` if all their seeds are there and they lie above every control, ``losses`` if
    they lie below one, ``incomplete`` if they or a control of theirs lack seeds or did not learn, else ``undecided``;
    those that are not trained as their controls, or have filters of another
    kind than ``random``, are ``apart``, and judged only where there are no others. ``best`` has the best mean of the
    gains, or of all that are judged if there is none; ``outcome`` is its: ``gain``, ``loss``, ``open``, or ``no claim``
    with the ``refusal`` that says why.
    ``only_controls`` are the controls where none but ``random`` puts in filters without shape: then a gain may be that
    of a few filters, or of where they have their weight.
    """

    model: str
    target: str
    outcome: str
    refusal: str | None
    best: str | None
    accuracy: float | None
    over: dict[str, Sample]
    gains: tuple[str, ...]
    losses: tuple[str, ...]
    undecided: tuple[str, ...]
    incomplete: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()
    only_controls: tuple[str, ...] = ()

    @property
    def gain(self) -> str:
        """What a gain is over: every control, or those that there are."""
        if not self.only_controls:
            return "a gain over every control"
        *others, last = self.only_controls
        return f"a gain over {', '.join(others)} and {last}, the only controls here"


def judge(results: Results, model: str, target: str) -> Verdict | None:
    """Compare every arm that puts in a bank with every control; None where no arm does."""
    candidates = results.candidates(model, target)
    if not candidates:
        return None
    cells = results.at(model, target)
    finished = [arm for arm in candidates if cells[arm].runs]
    apart = tuple(
        arm
        for arm in finished
        if _otherwise_trained(results, model, target, arm)
        or _otherwise_begun(results, model, target, arm)
        or _is_of_another_kind(results, model, target, arm)
        or _otherwise_frozen(results, model, target, arm)
    )
    alike = [arm for arm in finished if arm not in apart]
    means = {arm: fmean(cells[arm].top1) for arm in alike or finished}
    samples = {arm: _over(results, model, target, arm) for arm in means}
    signs = {arm: {sample.sign for sample in samples[arm].values()} for arm in means}
    # seeds differ in their level, so a mean over some of them says nothing beside one over all
    judged = [arm for arm in means if _is_comparable(results, model, target, arm)]
    gains = tuple(arm for arm in judged if signs[arm] == {1})
    losses = tuple(arm for arm in judged if -1 in signs[arm])
    best = max(gains or judged or means, key=lambda arm: means[arm], default=None)
    refusal = _refusal(results, model, target, best)
    return Verdict(
        model,
        target,
        NO_CLAIM if refusal else GAIN if best in gains else LOSS if best in losses else OPEN,
        refusal,
        best,
        round(means[best], 6) if best else None,
        samples[best] if best else {},
        () if refusal else gains,
        () if refusal else losses,
        () if refusal else tuple(arm for arm in judged if arm not in gains + losses),
        () if refusal else tuple(arm for arm in means if arm not in judged),
        () if refusal else apart,
        () if results.shapeless(model, target) else tuple(results.controls(model, target)),
    )


def _over(results: Results, model: str, target: str, arm: str) -> dict[str, Sample]:
    """Return the differences to every control of the arm; of one without a counterpart to it, nothing is known."""
    opposite = {name: results.opposite(model, target, arm, name) for name in results.controls(model, target)}
    return {
        name: Sample(0) if other is None else paired(results, model, target, arm, other)
        for name, other in opposite.items()
        if other is not None or results.is_required(name)
    }


def _refusal(results: Results, model: str, target: str, best: str | None) -> str | None:
    """Say why nothing may be claimed, or None."""
    cells, controls = results.at(model, target), results.controls(model, target)
    left_out = {str(arm["name"]) for arm in results.experiment.left_out}
    for control in (SCRATCH, RANDOM):
        if control not in controls and control in left_out:
            return f"the control {control} was left out"
        if control not in controls:
            return f"the control {control} is no arm of this experiment"
        if not all(_is_what_it_says(control, cell) for arm, cell in cells.items() if arm.partition("/")[0] == control):
            return f"the arm {control} is not what the control of that name is: {_MEANT[control]}"
    for arm in results.experiment.left_out:
        is_here = model in arm.get("models", [model]) and target in arm.get("targets", [target])
        if is_here and _would_control(results, model, target, arm):
            return f"the control {arm['name']} was left out"
    if unasked := results.experiment.seeds_left_out(target):
        return f"the experiment's seed {unasked[0]} was left out"
    if best is None:
        return "no arm with a bank has a finished run"
    for name in controls:
        if results.opposite(model, target, best, name) is None and results.is_required(name):
            return f"no arm of the control {name} is like {label(best)}"
    if len({run.pictures for cell in cells.values() for run in cell.runs.values()}) > 1:
        return "the arms did not all learn from and judge on the same pictures"
    if _is_of_another_kind(results, model, target, best):
        return f"the control {RANDOM} has filters of another kind than {label(best)}"
    for each in _otherwise_frozen(results, model, target, best):
        return f"{label(each)} freezes something else than {label(best)}"
    for each in _lacking(results, model, target, best):
        return f"{label(each)} lacks {len(cells[each].missing)} of its seeds"
    for each in _otherwise_trained(results, model, target, best):
        return f"{label(each)} is not trained as {label(best)} is"
    for each in _otherwise_begun(results, model, target, best):
        return f"{label(each)} does not begin with the weights that {label(best)} begins with"
    for each in _stalled(results, model, target, best):
        return f"{label(each)} did not learn in {cells[each].stalled} of its {len(cells[each].runs)} runs"
    if len({cell.lrs_tried for cell in cells.values() if cell.runs}) > 1:
        return "the arms did not try the same number of learning rates"
    seeds = len(cells[best].runs)
    if seeds < _SEEDS:
        return f"there {'is one seed' if seeds == 1 else f'are {seeds} seeds'}, and a claim takes {_SEEDS}"
    return None


def _would_control(results: Results, model: str, target: str, left_out: Mapping[str, Any]) -> bool:
    """Whether an arm that was left out is what one of the others would have been compared with."""
    name = str(left_out["name"])
    series, _, value = name.partition("/")
    if not (is_noise(left_out) or results.is_required(name) or results.is_required(series)):
        return False
    values = {arm.partition("/")[2] for arm in results.candidates(model, target)}
    if value:  # of a series of recipes any may be the best
        return value in values or (bool(values) and bool(left_out.get("train")))
    return any(f"{name}/{other}" not in results.at(model, target) for other in values)


def _is_of_another_kind(results: Results, model: str, target: str, arm: str) -> bool:
    cells, name = results.at(model, target), results.opposite(model, target, arm, RANDOM)
    kinds = {cells[each].about.get("kind", "depthwise") for each in (arm, name) if each is not None}
    return len(kinds) > 1


def _otherwise_frozen(results: Results, model: str, target: str, arm: str) -> list[str]:
    """Name the controls of noise that are in other layers than an arm's bank, or frozen where that never is.

    What freezing does by itself they can only tell where they freeze the same.
    """
    cells = results.at(model, target)
    opposite = [results.opposite(model, target, arm, name) for name in (RANDOM, *results.shapeless(model, target))]
    return [each for each in opposite if each is not None and not cells[each].freezes_as(cells[arm])]


def _is_comparable(results: Results, model: str, target: str, arm: str) -> bool:
    return not (_lacking(results, model, target, arm) or _stalled(results, model, target, arm))


def _lacking(results: Results, model: str, target: str, arm: str) -> list[str]:
    """Name what lacks seeds, of an arm and its controls: a run may have failed for what it would have shown."""
    cells, controls = results.at(model, target), results.controls(model, target)
    tried = [each for name in controls for each in results.recipes_tried(model, target, name)]
    compared = dict.fromkeys([*_opposites(results, model, target, arm), *tried, arm])
    return [each for each in compared if cells[each].missing]


def _stalled(results: Results, model: str, target: str, arm: str) -> list[str]:
    """Name what did not learn, of an arm and the controls that it is compared with: there the recipe is what failed.

    Of a control that tries recipes that is its best one alone: that others fail is what they are tried for.
    """
    cells = results.at(model, target)
    return [each for each in dict.fromkeys([*_opposites(results, model, target, arm), arm]) if cells[each].stalled]


def _opposites(results: Results, model: str, target: str, arm: str) -> list[str]:
    opposite = [results.opposite(model, target, arm, name) for name in results.controls(model, target)]
    return [each for each in opposite if each is not None]


def _otherwise_trained(results: Results, model: str, target: str, arm: str) -> list[str]:
    """Name the controls of an arm that have a recipe of their own, but for when filters are frozen."""
    cells = results.at(model, target)
    opposite = {
        name: results.opposite(model, target, arm, name)
        for name in results.controls(model, target)
        if not results.recipes_tried(model, target, name)
    }
    return [each for each in opposite.values() if each is not None and _recipe(cells[each]) != _recipe(cells[arm])]


def _otherwise_begun(results: Results, model: str, target: str, arm: str) -> list[str]:
    """Name the controls of an arm that have other weights in all that no bank goes into: pretrained, or a teacher's."""
    cells = results.at(model, target)
    opposite = _opposites(results, model, target, arm)
    return [each for each in opposite if _beginning(cells[each]) != _beginning(cells[arm])]


def _beginning(cell: Cell) -> tuple[object, object]:
    return cell.about.get("initial"), cell.about.get("teacher")


def _recipe(cell: Cell) -> dict[str, object]:
    return {key: value for key, value in cell.recipe.items() if key != "freeze_epoch"}


def _is_what_it_says(control: str, cell: Cell) -> bool:
    if control == SCRATCH:
        return cell.what == _MEANT[SCRATCH]
    # a series, random/3, may be of some layers or scaled, as its counterparts are; plain random is the network's own
    inject = cell.about.get("inject", {})
    is_plain = "layers" not in inject and inject.get("scale", DEFAULT_SCALE) == DEFAULT_SCALE
    return cell.bank == RANDOM and cell.is_frozen and not cell.about.get("steps") and (is_plain or "/" in cell.arm)


def verdicts_table(results: Results, verdicts: Sequence[Verdict]) -> Table:
    """The best arm of each network and target, and its differences to the controls."""
    rows: list[tuple[Value, ...]] = []
    for verdict in verdicts:
        head = (verdict.best, verdict.accuracy, verdict.outcome, verdict.refusal, ", ".join(verdict.gains) or None)
        for control in results.controls(verdict.model, verdict.target):
            sample = verdict.over.get(control, Sample(0))
            figures = (sample.mean, sample.low, sample.high, sample.n)
            rows.append((verdict.model, verdict.target, control, *head, *figures))
    columns = (
        *(MODEL, TARGET),
        Column("control", "against", key=True),
        Column("best", "best arm"),
        Column("top1", "accuracy, %", "accuracy"),
        Column("outcome", "outcome"),
        Column("refusal", "why no claim"),
        Column("gains", "above every control"),
        Column("difference", "points", "difference"),
        Column("low", "95 % from", "difference"),
        Column("high", "to", "difference"),
        Column("pairs", "pairs", "count"),
    )
    note = (
        "Of the arms that put in a bank and lie above every control, the one with the best mean; if none does, the "
        "best of all. It is picked by the figures that are shown, so they flatter it: confirm it on other data."
    )
    untuned = [target for target in results.experiment.targets if len(results.experiment.lrs_for(target)) == 1]
    if untuned:
        where = "" if len(untuned) == len(results.experiment.targets) else f" on {', '.join(untuned)}"
        series = any(arm.get("train", {}).get("lr") for arm in results.experiment.arms)
        note += (
            f" Learning rates are compared as arms{where}: a control's best is what they are against."
            if series
            else f" One learning rate was tried{where}, the same for every arm, so none has the one that suits it best."
        )
    return make_table("verdicts", "Verdicts", note, columns, rows)


def sentences(verdict: Verdict) -> list[Sentence]:
    """Put a verdict into words."""
    place = f"{verdict.target}, {verdict.model}: "
    if verdict.refusal is not None:
        return [[f"{place}no claim, since {verdict.refusal}."]]
    told: list[str | Figure] = [
        place,
        f"{label(verdict.best or '')} reaches ",
        Figure(verdict.accuracy, "accuracy"),
        " %",
    ]
    for control, sample in verdict.over.items():
        told += [", ", *over(sample), f" points against {control}", *interval(sample)]
    told.append(
        {GAIN: f": {verdict.gain}.", LOSS: ": below a control, so no gain.", OPEN: ": no clear gain."}[verdict.outcome]
    )
    groups = {
        "also above all of these": verdict.gains,
        "not told apart from a control": verdict.undecided,
        "lack seeds or did not learn, or a control of theirs, so not judged": verdict.incomplete,
        "below a control": verdict.losses,
        "not like the controls in training, first weights, kind or what is frozen, so not judged": verdict.apart,
    }
    said: list[Sentence] = [told]
    for what, arms in groups.items():
        others = [label(arm) for arm in arms if arm != verdict.best]
        said += [[f"{place}{what}: {', '.join(others)}."]] if others else []
    return said


def describe(results: Results, model: str, target: str) -> list[Sentence]:
    """Say what was reached where there is nothing to compare."""
    return [
        [
            f"{target}, {model}: {label(cell.arm)} reaches ",
            Figure(round(fmean(cell.top1), 6), "accuracy"),
            " %, mean of ",
            Figure(len(cell.runs), "count"),
            " seed." if len(cell.runs) == 1 else " seeds.",
        ]
        for cell in results.at(model, target).values()
        if cell.runs
    ]


def over(sample: Sample) -> list[str | Figure]:
    """Return a difference as a part of a sentence."""
    return [Figure(None if sample.mean is None else round(sample.mean, 6), "difference")]


def interval(sample: Sample) -> list[str | Figure]:
    """Return an interval as a part of a sentence; nothing where there is none."""
    if sample.low is None or sample.high is None:
        return []
    low, high = (Figure(round(value, 6), "difference") for value in (sample.low, sample.high))
    return [" [", low, ", ", high, "]"]
