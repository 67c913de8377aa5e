"""The report's figures: means, pairs, intervals, the matrix, what may be claimed, what is missing."""

import json
import math
from dataclasses import replace

import pytest
from report_runs import BANK, MACHINE, RANDOM, SCRATCH, SELFFER, by_arm, experiment, finish, row, rows, write_run

from masterkey.benchmarks.config import BenchmarkError
from masterkey.benchmarks.report.blocks import main_figures
from masterkey.benchmarks.report.section import make_section, plain_text
from masterkey.benchmarks.report.student import summarize, t_quantile
from masterkey.benchmarks.report.words import judge
from masterkey.benchmarks.store import ResultStore

PLACE = ("convnext_atto", "pets")


@pytest.fixture
def store(tmp_path):
    return ResultStore(tmp_path / "results")


def three_seeds(store, arms=(SCRATCH, RANDOM, BANK), **accuracies):
    """Three seeds whose levels differ by far more than the arms do, so that only pairing finds the differences."""
    what = experiment(list(arms), seeds=[0, 1, 2])
    given = {"scratch": [10.0, 20.0, 30.0], "random": [9.0, 20.0, 28.0], "bank": [17.0, 28.0, 39.0], **accuracies}
    finish(what, store, by_arm(given))
    return make_section(what, store, None)


@pytest.mark.parametrize(
    ("probability", "freedom", "quantile"),  # from the usual tables
    [
        *[(0.975, 1, 12.706), (0.975, 2, 4.303), (0.975, 3, 3.182), (0.975, 4, 2.776), (0.975, 30, 2.042)],
        *[(0.95, 5, 2.015), (0.995, 2, 9.925), (0.995, 7, 3.499), (0.9995, 1, 636.619), (0.975, 1000, 1.962)],
    ],
)
def test_quantiles_of_student_are_those_of_the_tables(probability, freedom, quantile):
    assert t_quantile(probability, freedom) == pytest.approx(quantile, abs=5e-4)


def test_interval_of_a_mean():
    sample = summarize([7.0, 8.0, 9.0])
    half = 4.302653 / math.sqrt(3)
    assert (sample.n, sample.mean, sample.deviation, sample.sign) == (3, 8.0, 1.0, 1)
    assert (sample.low, sample.high) == (pytest.approx(8 - half, abs=1e-5), pytest.approx(8 + half, abs=1e-5))
    assert summarize([5.0]).low is None and summarize([5.0]).sign is None and summarize([]).mean is None


def test_marker_and_interval_are_different_tests():
    # mean 1, sd 1, n 3: 2 sd / sqrt(n) = 1.15; scaled to mean 1.5 it is beyond, but the t interval holds zero
    assert summarize([0.0, 1.0, 2.0]).beyond_two_errors is False
    assert summarize([0.5, 1.5, 2.5]).beyond_two_errors is True
    assert summarize([0.5, 1.5, 2.5]).sign == 0
    assert summarize([1.0]).beyond_two_errors is None


def test_means_and_deviations(store):
    section = three_seeds(store)
    scratch = row(section, "arms", arm="scratch")
    assert (scratch["top1"], scratch["deviation"], scratch["seeds"], scratch["missing"]) == (20.0, 10.0, 3, None)
    assert (scratch["lr"], scratch["lrs_tried"]) == (1e-3, 1)


def test_differences_are_paired_by_seed(store):
    section = three_seeds(store)
    bank = row(section, "differences", arm="bank", control="scratch")
    assert (bank["difference"], bank["deviation"], bank["pairs"]) == (8.0, 1.0, 3)
    assert bank["low"] == pytest.approx(5.515862, abs=1e-5) and bank["high"] == pytest.approx(10.484138, abs=1e-5)
    assert (bank["reading"], bank["beyond_two_errors"]) == ("above", True)
    random = row(section, "differences", arm="random", control="scratch")
    assert (random["difference"], random["reading"]) == (-1.0, "open")
    # nothing is compared with itself
    assert len(rows(section, "differences")) == 4


def test_a_named_control_is_a_control(store):
    other = {"name": "other", "bank": "gaussian-covariance"}
    what = experiment([SCRATCH, RANDOM, other, BANK], controls=["other"], seeds=[0, 1, 2])
    figures = {"scratch": [10, 11, 12.1], "random": [9, 10, 11.1], "other": [15, 20.9, 21], "bank": [20, 21, 22]}
    finish(what, store, by_arm(figures))
    section = make_section(what, store, None)
    assert {r["control"] for r in rows(section, "differences")} == {"scratch", "random", "other"}
    verdict = judge(section.results, *PLACE)
    assert (verdict.best, verdict.outcome, set(verdict.over)) == ("bank", "open", {"scratch", "random", "other"})


@pytest.mark.parametrize(
    "noise",
    [
        {"bank": "shuffled-pixels:scale-space-8"},
        {"bank": "random-8"},
        {"bank": "random-local"},
        {"bank": "checkpoint:real.pth", "steps": [["pixel_shuffled", {"seed": 0}]]},
    ],
)
def test_filters_without_shape_are_a_control_whatever_their_name(store, noise):
    what = experiment([SCRATCH, RANDOM, BANK, {"name": "mine", **noise}], seeds=[0, 1, 2])
    figures = {"scratch": [10, 11, 12.1], "random": [9, 10, 11.1], "bank": [20, 21, 22], "mine": [30, 31.5, 32]}
    finish(what, store, by_arm(figures))
    verdict = judge(make_section(what, store, None).results, *PLACE)
    assert (verdict.best, verdict.outcome, set(verdict.over)) == ("bank", "loss", {"scratch", "random", "mine"})


@pytest.mark.parametrize(
    ("arms", "sentence"),
    [
        ([SCRATCH, {**BANK, "name": "random"}], "the arm random is not what the control of that name is: filters as"),
        ([SCRATCH, {**RANDOM, "inject": {"freeze": False}}], "the arm random is not what the control of that name is"),
        (
            [{**RANDOM, "name": "scratch"}, RANDOM],
            "the arm scratch is not what the control of that name is: new weights",
        ),
    ],
)
def test_a_control_has_to_be_what_its_name_says(store, arms, sentence):
    what = experiment([*arms, {**BANK, "name": "mine"}], seeds=[0, 1, 2])
    finish(what, store, lambda run: {"mine": 30.0, "random": 10.0}.get(run.arm, 5.0) + run.config.seed**2)
    assert judge(make_section(what, store, None).results, *PLACE).refusal.startswith(sentence)


def test_a_control_that_is_left_out_lets_nothing_be_claimed(store):
    other = {"name": "other", "bank": "gaussian-covariance"}
    what = experiment([SCRATCH, RANDOM, other, BANK], controls=["other"], seeds=[0, 1, 2])
    figures = {"scratch": [10, 11, 12.1], "random": [9, 10, 11.1], "other": [15, 20.9, 21], "bank": [20, 21, 22]}
    finish(what, store, by_arm(figures))
    part = make_section(what.only(arms=["scratch", "random", "bank"]), store, None)
    assert judge(part.results, *PLACE).refusal == "the control other was left out"
    assert row(part, "differences", arm="bank", control="scratch")["reading"] == "above"
    assert part.report_command.endswith("--size small --only scratch --only random --only bank -o report")
    whole = what.only(arms=["scratch", "random", "other", "bank"])
    assert judge(make_section(whole, store, None).results, *PLACE).refusal is None


def test_two_seeds_and_seeds_that_agree_to_the_picture_claim_nothing(store):
    two = experiment([SCRATCH, RANDOM, BANK])
    finish(two, store, by_arm({"scratch": [10, 11], "random": [9, 10], "bank": [20, 21.1]}))
    assert judge(make_section(two, store, None).results, *PLACE).refusal == "there are 2 seeds, and a claim takes 3"
    store = ResultStore(store.root / "alike")
    alike = experiment([SCRATCH, RANDOM, BANK], seeds=[0, 1, 2, 3])
    four = {"scratch": [10, 11, 12, 13], "random": [9, 10.5, 11, 12], "bank": [20, 21, 22, 23]}
    finish(alike, store, by_arm(four))
    section = make_section(alike, store, None)
    assert judge(section.results, *PLACE).outcome == "open"
    assert row(section, "differences", arm="bank", control="scratch")["reading"] == "no interval"


def test_a_control_that_tries_recipes_is_its_best_one(store):
    """No arm gains by a rate that suits it alone; and all of the control's have to be there."""

    def rates(arm):
        return {**arm, "vary": {"train.lr": [1e-3, 4e-3]}}

    what = experiment([rates(SCRATCH), rates(RANDOM), rates(BANK)], seeds=[0, 1, 2])
    low, high = {"scratch": 5.0, "random": 4.0, "bank": 20.0}, {"scratch": 15.0, "random": 9.0, "bank": 12.0}

    def accuracy(run):
        arm, _, rate = run.arm.partition("/")
        return (low if rate == "0.001" else high)[arm] + (1 + 0.1 * len(run.arm)) * run.config.seed**2

    finish(what, store, lambda run: None if (run.arm, run.config.seed) == ("scratch/0.004", 2) else accuracy(run))
    assert judge(make_section(what, store, None).results, *PLACE).refusal == "scratch/0.004 lacks 1 of its seeds"
    finish(what, store, accuracy)
    section = make_section(what, store, None)
    assert row(section, "differences", arm="bank/0.001", control="scratch")["difference"] == pytest.approx(4.5, abs=0.1)
    assert "bank/0.004" in judge(section.results, *PLACE).losses  # above scratch at its own rate that would be a tie
    assert "Arms differ in their learning rates" in section.tables["arms"].note


def test_a_series_of_two_values_has_its_control(store):
    vary = {"inject.layers": [1, 3], "inject.scale": ["unit", "source"]}
    what = experiment([SCRATCH, {**RANDOM, "vary": vary}, {**BANK, "vary": vary}], seeds=[0, 1, 2])
    finish(what, store, lambda run: len(run.arm) * 2.0 + run.config.seed * (1 + 0.01 * len(run.arm)))
    section = make_section(what, store, None)
    assert section.results.opposite(*PLACE, "bank/3/unit", "random") == "random/3/unit"
    assert judge(section.results, *PLACE).refusal is None


def test_scratch_is_reached_with_the_seeds_that_both_have(store):
    what = experiment([SCRATCH, RANDOM, BANK])
    finish(what, store, by_arm({"scratch": [80.0, 20.0], "random": [1.0, 2.0], "bank": [70.0, None]}))
    assert row(make_section(what, store, None), "cost", arm="bank")["epochs_to_scratch"] is None


def test_what_is_missing_is_said_and_not_imputed(store):
    section = three_seeds(store, bank=[17.0, 28.0])
    bank = row(section, "arms", arm="bank")
    assert (bank["top1"], bank["seeds"], bank["missing"]) == (22.5, 2, "seed 2: not run")
    against = row(section, "differences", arm="bank", control="random")
    assert (against["difference"], against["pairs"]) == (8.0, 2)
    (missing,) = [r for r in rows(section, "runs") if r["status"] != "done"]
    assert (missing["arm"], missing["seed"], missing["top1"]) == ("bank", 2, None)


def test_pairs_are_the_seeds_that_both_have(store):
    section = three_seeds(store, bank=[None, 28.0, 39.0], random=[9.0, 20.0])
    against = row(section, "differences", arm="bank", control="random")
    assert (against["difference"], against["pairs"], against["deviation"]) == (8.0, 1, None)


def test_an_arm_that_lacks_seeds_gains_nothing(store):
    """However good it is: the seed may lack because of what it would have shown."""
    better = {"name": "better", "bank": "gaussian-covariance"}
    section = three_seeds(store, (SCRATCH, RANDOM, BANK, better), better=[30.0, 40.0])
    verdict = judge(section.results, *PLACE)
    assert (verdict.outcome, verdict.best, verdict.gains) == ("gain", "bank", ("bank",))
    assert verdict.undecided == ("better",)


def test_a_failed_run_says_how_it_failed(store):
    what = experiment([SCRATCH, RANDOM, BANK])
    finish(what, store, by_arm({"scratch": [10, 11], "random": [9, 10], "bank": [12]}))
    (run,) = [run for run in what.plan(store) if store.read(run.config.id) is None]
    store.write_failure(run.config, RuntimeError("the loss is not finite"))
    section = make_section(what, store, None)
    assert row(section, "arms", arm="bank")["missing"] == "seed 1: failed: RuntimeError: the loss is not finite"


def test_an_arm_without_any_run(store):
    section = three_seeds(store, bank=[])
    assert row(section, "arms", arm="bank")["top1"] is None
    assert row(section, "differences", arm="bank", control="scratch")["reading"] == "missing"
    assert row(section, "cost", arm="bank")["seconds_per_run"] is None
    assert "no arm with a bank" in judge(section.results, *PLACE).refusal


def test_a_gain_is_claimed_over_every_control(store):
    section = three_seeds(store)
    verdict = judge(section.results, *PLACE)
    assert (verdict.outcome, verdict.best, verdict.gains, verdict.accuracy) == ("gain", "bank", ("bank",), 28.0)
    said = [plain_text(sentence) for sentence in section.sentences]
    assert said == [
        "pets, convnext_atto: bank reaches 28.0 %, +8.0 points against scratch [+5.5, +10.5], "
        "+9.0 points against random [+4.7, +13.3]: a gain over scratch and random, the only controls here."
    ]
    noise = {"name": "noise", "bank": "random-local"}
    section = three_seeds(ResultStore(store.root / "more"), (SCRATCH, RANDOM, BANK, noise), noise=[8.0, 19.0, 29.0])
    assert judge(section.results, *PLACE).only_controls == ()
    assert plain_text(section.sentences[0]).endswith("points against noise [+7.9, +10.8]: a gain over every control.")


def test_a_control_that_is_one_for_its_noise_alone_is_one_of_arms_like_it(store):
    """As in ablation-scale: random filters at unit norm are no control of a bank at its own scale."""
    scaled = {"vary": {"inject.scale": ["unit", "source"]}}
    noise = {"name": "noise", "bank": "random", "vary": {"inject.scale": ["unit"]}}
    what = experiment([SCRATCH, RANDOM, noise, {**BANK, **scaled}], seeds=[0, 1, 2])
    figures = {"scratch": [10, 11, 12.1], "random": [9, 10, 11.1], "noise/unit": [15, 20.9, 21]}
    finish(what, store, by_arm({**figures, "bank/unit": [20, 21, 22], "bank/source": [18, 19, 20]}))
    assert judge(make_section(what, store, None).results, *PLACE).best == "bank/source"
    finish(
        what,
        other := ResultStore(store.root / "b"),
        by_arm({**figures, "bank/unit": [1, 2, 3.1], "bank/source": [18, 19, 20]}),
    )
    verdict = judge(make_section(what, other, None).results, *PLACE)
    assert (verdict.best, verdict.outcome, set(verdict.over)) == ("bank/source", "gain", {"scratch", "random"})
    named = experiment(what.arms, seeds=[0, 1, 2], controls=["noise"])
    assert (
        "no arm of the control noise is like bank/source"
        in judge(make_section(named, other, None).results, *PLACE).refusal
    )


def test_every_gain_needs_its_own_controls(store):
    """The control of AnB/1 lacks a seed, perhaps because of what it would have shown."""
    layers = {"vary": {"inject.layers": [1, 2]}}
    what = experiment(
        [SCRATCH, {**RANDOM, **layers}, {"name": "AnB", "bank": "scale-space-8", **layers}], seeds=[0, 1, 2]
    )
    figures = {"scratch": [10, 11, 12.1], "random/1": [9, 10.2], "random/2": [9, 10, 11.1]}
    finish(what, store, by_arm({**figures, "AnB/1": [20, 21, 22], "AnB/2": [30, 31, 32.2]}))
    verdict = judge(make_section(what, store, None).results, *PLACE)
    assert (verdict.best, verdict.outcome, verdict.gains, verdict.undecided) == (
        "AnB/2",
        "gain",
        ("AnB/2",),
        ("AnB/1",),
    )


@pytest.mark.parametrize(
    ("arms", "reason"),
    [
        ([{**SCRATCH, "initial": "pretrained"}, RANDOM, BANK], "the arm scratch is not what the control of that name"),
        ([{**SCRATCH, "train": {"epochs": 1}}, RANDOM, BANK], "scratch is not trained as bank is"),
        ([SCRATCH, RANDOM, {**BANK, "train": {"weight_decay": 0.0}}], "scratch is not trained as bank is"),
    ],
)
def test_no_claim_over_a_control_that_is_something_else(store, arms, reason):
    what = experiment(arms, seeds=[0, 1, 2])
    finish(what, store, by_arm({"scratch": [10, 11, 12.1], "random": [9, 10, 11.1], "bank": [20, 21, 22]}))
    assert reason in judge(make_section(what, store, None).results, *PLACE).refusal


def test_freezing_later_is_no_other_recipe(store):
    later = {"name": "later", "bank": "scale-space-8", "inject": {"freeze": False}, "train": {"freeze_epoch": 2}}
    what = experiment([SCRATCH, RANDOM, later], seeds=[0, 1, 2])
    finish(what, store, by_arm({"scratch": [10, 11, 12.1], "random": [9, 10, 11.1], "later": [20, 21, 22]}))
    section = make_section(what, store, None)
    assert judge(section.results, *PLACE).outcome == "gain"
    assert row(section, "arms", arm="later")["what"] == "scale-space-8, frozen from epoch 2 on"
    assert "One learning rate was tried" in section.tables["verdicts"].note


def test_runs_that_round_differently_are_told(store):
    what = experiment([SCRATCH, RANDOM, BANK])
    finish(what, store, by_arm({"scratch": [10, 11], "random": [9, 10]}))
    assert "round differently" not in make_section(what, store, None).tables["arms"].note
    for run in what.plan(store):
        if run.arm == "bank":
            write_run(run, store, 12.0, 1.0)
            path = store.run_path(run.config.id)
            result = json.loads(path.read_bytes())
            result["machine"] |= {"instructions": "AVX2", "bfloat16": "products in float32, rounded"}
            path.write_text(json.dumps(result))
    note = make_section(what, store, None).tables["arms"].note
    assert "The runs on pets were made in 2 ways" in note and "torch 2.10.0, AVX2, products in float32, rounded" in note


def test_runs_that_took_other_filters_are_warned_of(store):
    what = experiment([SCRATCH, RANDOM, BANK])
    for run in what.plan(store):
        write_run(run, store, 10.0, 1.0, bank_sha256=f"{run.config.seed if run.arm == 'bank' else 7}" * 64)
    note = make_section(what, store, None).tables["arms"].note
    assert "Warning: the runs of bank did not all take the same filters" in note
    (same := ResultStore(store.root / "same")).root.mkdir(parents=True)
    for run in what.plan(same):
        write_run(run, same, 10.0, 1.0, bank_sha256="7" * 64)
    assert "Warning" not in make_section(what, same, None).tables["arms"].note


def test_epochs_to_scratch_are_those_of_the_seeds_that_both_have(store):
    """The seed that scratch lacks is the only one that gets anywhere."""
    what = experiment([SCRATCH, RANDOM, BANK])
    finish(what, store, by_arm({"scratch": [20.0, None], "random": [1.0, 2.0], "bank": [18.0, 50.0]}))
    assert row(make_section(what, store, None), "cost", arm="bank")["epochs_to_scratch"] is None


@pytest.mark.parametrize(
    ("bank", "outcome"), [([10.0, 21.0, 31.0], "open"), ([5.0, 15.0, 25.0], "loss"), ([17.0, 28.0, 39.0], "gain")]
)
def test_outcomes(store, bank, outcome):
    assert judge(three_seeds(store, bank=bank).results, *PLACE).outcome == outcome


@pytest.mark.parametrize(
    ("arms", "accuracies", "reason"),
    [
        ((SCRATCH, BANK), {}, "the control random is no arm"),
        ((RANDOM, BANK), {}, "the control scratch is no arm"),
        ((SCRATCH, RANDOM, BANK), {"random": [9.0]}, "random lacks 2 of its seeds"),
        ((SCRATCH, RANDOM, BANK), {"bank": [17.0, 28.0]}, "bank lacks 1 of its seeds"),
        ((SCRATCH, RANDOM, BANK), {"random": []}, "random lacks 3 of its seeds"),
    ],
)
def test_no_claim_without_the_controls(store, arms, accuracies, reason):
    section = three_seeds(store, arms, **accuracies)
    verdict = judge(section.results, *PLACE)
    assert verdict.outcome == "no claim" and reason in verdict.refusal and verdict.gains == ()
    assert "a gain" not in " ".join(map(plain_text, section.sentences))


def test_no_claim_of_one_seed(store):
    what = experiment([SCRATCH, RANDOM, BANK], seeds=[0])
    finish(what, store, by_arm({"scratch": [10.0], "random": [9.0], "bank": [90.0]}))
    section = make_section(what, store, None)
    assert "one seed" in judge(section.results, *PLACE).refusal
    assert row(section, "differences", arm="bank", control="scratch")["reading"] == "no interval"


def test_no_claim_where_arms_tried_different_numbers_of_rates(store):
    results = three_seeds(store).results
    key = (*PLACE, "bank")
    uneven = replace(results, cells={**results.cells, key: replace(results.cells[key], lrs_tried=2)})
    assert judge(results, *PLACE).refusal is None
    assert "same number of learning rates" in judge(uneven, *PLACE).refusal


def test_the_chosen_rate_is_the_arms_own(store):
    """Scratch does best at the second rate, while selffer's source is trained at the first."""
    what = experiment([SCRATCH, SELFFER], lrs=[1e-3, 2e-3])

    def accuracy(run):
        base = 30.0 if run.arm == "selffer" else 10.0 + 1000 * run.config.train.lr
        return base + run.config.seed + (50.0 if run.stage == "tune" else 0.0)

    finish(what, store, accuracy)
    section = make_section(what, store, None)
    scratch, selffer = row(section, "arms", arm="scratch"), row(section, "arms", arm="selffer")
    assert (scratch["lr"], scratch["lrs_tried"], scratch["top1"]) == (2e-3, 2, 12.5)
    assert (selffer["lr"], selffer["lrs_tried"], selffer["top1"]) == (1e-3, 2, 30.5)


def test_waits_for_its_learning_rate(store):
    what = experiment([SCRATCH, RANDOM], lrs=[1e-3, 2e-3])
    finish(what, store, lambda run: None if run.arm == "random" and run.config.train.lr == 2e-3 else 10.0)
    section = make_section(what, store, None)
    random = row(section, "arms", arm="random")
    assert random["lr"] is None and "seed 0: waits for its learning rate, 1 of 2 tried" in random["missing"]
    assert [r["id"] for r in rows(section, "runs", arm="random", stage="final")] == [None, None]


def test_runs_that_chose_the_rate_may_be_final_too(store):
    what = experiment([SCRATCH, RANDOM], lrs=[1e-3, 2e-3], evaluate="validation")
    finish(what, store, lambda run: 11.0 + run.config.seed - 1000 * run.config.train.lr)
    section = make_section(what, store, None)
    assert [(r["seeds"], r["lr"], r["top1"]) for r in rows(section, "arms")] == [(2, 1e-3, 10.5), (2, 1e-3, 10.5)]
    assert "validation part, over seeds" in section.tables["arms"].note


def test_cost_and_the_way_to_scratch(store):
    what = experiment([SCRATCH, RANDOM, SELFFER], seeds=[0, 1, 2])
    finish(what, store, by_arm({"scratch": [20.0] * 3, "random": [18.0] * 3, "selffer": [40.0] * 3}), seconds=2.0)
    section = make_section(what, store, None)
    scratch, random, selffer = (row(section, "cost", arm=arm) for arm in ("scratch", "random", "selffer"))
    assert (scratch["seconds_per_epoch"], scratch["seconds_per_run"], scratch["peak_memory_mb"]) == (2.0, 13.0, 300.0)
    assert (scratch["epochs_to_scratch"], scratch["seconds_to_scratch"]) == (4, 8.0)
    assert (random["epochs_to_scratch"], random["seconds_to_scratch"]) == (None, None)
    # 10, 20, 30, 40: at 20 after two epochs; and its source was trained before
    assert (selffer["epochs_to_scratch"], selffer["seconds_to_scratch"]) == (2, 4.0)
    assert (selffer["source_seconds"], scratch["source_seconds"]) == (13.0, 0)


def test_times_of_a_busy_machine_are_marked(store, monkeypatch):
    what = experiment([SCRATCH, RANDOM, BANK])
    finish(what, store, by_arm({"scratch": [20.0, 21.0]}))
    monkeypatch.setitem(MACHINE, "load_average", [1.5, 2.25, 0.5])  # on two cores
    finish(what, store, by_arm({"random": [18.0, 18.5]}))
    monkeypatch.setitem(MACHINE, "load_average", [2.0, 1.0, 0.5])
    finish(what, store, by_arm({"bank": [25.0, 26.0]}))
    section = make_section(what, store, None)
    assert [row(section, "cost", arm=arm)["load"] for arm in ("scratch", "random", "bank")] == [0, 2.25, 2.0]
    assert {r["load"] for r in rows(section, "runs", arm="random")} == {2.25}
    assert "Warning: 2 of 6 runs had a load above" in section.tables["cost"].note
    assert "Warning" not in three_seeds(ResultStore(store.root / "quiet")).tables["cost"].note


def test_runs_that_saw_other_pictures_are_marked(store):
    what = experiment([SCRATCH, RANDOM])
    corrupt = {"data_sha256": "1" * 64, "skipped_pictures": ["train/cat/1.png", "train/dog/2.png"]}
    for run in what.plan(store):
        write_run(run, store, 20.0, 1.0, **(corrupt if (run.arm, run.config.seed) == ("random", 1) else {}))
    section = make_section(what, store, None)
    assert "Warning: the runs on pets did not all learn from" in section.tables["arms"].note
    left_out = {(r["arm"], r["seed"]): r["skipped"] for r in rows(section, "runs")}
    assert left_out == {("scratch", 0): None, ("scratch", 1): None, ("random", 0): None, ("random", 1): 2}
    assert "Warning" not in three_seeds(ResultStore(store.root / "same")).tables["arms"].note


def test_curves_are_means_by_epoch(store):
    section = three_seeds(store)
    curve = rows(section, "curves", arm="scratch")
    assert [r["epoch"] for r in curve] == [1, 2, 3, 4]
    assert [r["top1"] for r in curve] == [5.0, 10.0, 15.0, 20.0]
    assert [r["deviation"] for r in curve] == [2.5, 5.0, 7.5, 10.0]


def test_series_and_retention(store):
    arms = [SCRATCH, {"name": "AnB", "bank": "scale-space-8", "vary": {"inject.layers": [1, 12]}}]
    figures = by_arm({"scratch": [40.0, 50.0], "AnB/1": [41.0, 51.0], "AnB/12": [20.0, 40.0]})
    what = experiment(arms, "curve")
    finish(what, store, figures)
    section = make_section(what, store, None)
    assert "Accuracy in percent of scratch" in main_figures(section)[0]
    series = section.tables["series"].rows
    assert [(r["series"], r["n"], r["top1"]) for r in series] == [
        ("scratch", None, 45.0),
        ("AnB", 1.0, 46.0),
        ("AnB", 12.0, 30.0),
    ]
    # as in Figure 3: 20 / 40 and 40 / 50, each seed by itself
    assert [r["relative"] for r in series] == [100.0, pytest.approx(102.25), 65.0]
    assert series[2]["relative_deviation"] == pytest.approx(21.213203)
    bars = make_section(replace(what, layout="bars"), store, None)
    assert row(bars, "retention", arm="AnB/12")["retention"] == 65.0  # 20 / 40 and 40 / 50


def test_a_series_is_compared_with_the_controls_of_the_same_n(store):
    def series(name, layers):
        return {
            "name": name,
            "bank": "random" if name == "random" else "scale-space-8",
            "vary": {"inject.layers": layers},
        }

    arms = [SCRATCH, series("random", [1, 3]), series("AnB", [1, 3, 9])]
    figures = {
        **{"scratch": [10, 11, 12.2], "random/1": [12, 13, 14], "random/3": [20, 21, 22]},
        **{"AnB/1": [16, 17.1, 18], "AnB/3": [24, 25.1, 26]},
    }
    what = experiment(arms, "curve", seeds=[0, 1, 2])
    finish(what, store, by_arm({**figures, "AnB/9": [30, 31, 32]}))
    section = make_section(what, store, None)
    against = {r["arm"]: r["difference"] for r in rows(section, "differences", control="random")}
    assert against == {"AnB/1": pytest.approx(4.1 / 3 + 8 / 3), "AnB/3": pytest.approx(12.1 / 3)}
    # AnB/9 is best and above scratch, but nothing random is in nine layers, so it gains nothing
    verdict = judge(section.results, *PLACE)
    assert (verdict.best, verdict.gains, verdict.undecided) == ("AnB/3", ("AnB/1", "AnB/3"), ("AnB/9",))
    # a plain arm of the control's name stands in for the n that are lacking
    what = experiment([SCRATCH, RANDOM, *arms[1:]], "curve", seeds=[0, 1, 2])
    finish(what, store, by_arm({**figures, "AnB/9": [30, 31, 32], "random": [28, 28.5, 29]}))
    section = make_section(what, store, None)
    assert row(section, "differences", arm="AnB/9", control="random")["difference"] == 2.5
    assert row(section, "differences", arm="AnB/1", control="random")["difference"] == pytest.approx(12.1 / 3)
    assert "random/1" not in judge(section.results, *PLACE).undecided


def test_without_scratch_nothing_is_relative(store):
    what = experiment([{"name": "AnB", "bank": "scale-space-8", "vary": {"inject.layers": [1, 12]}}], "curve")
    finish(what, store, by_arm({"AnB/1": [41.0, 51.0], "AnB/12": [20.0, 40.0]}))
    section = make_section(what, store, None)
    assert [r["relative"] for r in section.tables["series"].rows] == [None, None]
    (drawn,) = main_figures(section)
    assert "Accuracy in percent against n" in drawn and "Accuracy in percent of scratch" not in drawn


def test_an_experiment_of_scratch_alone_is_described(store):
    what = experiment([SCRATCH])
    finish(what, store, by_arm({"scratch": [36.0, 36.6]}))
    section = make_section(what, store, None)
    assert section.verdicts == ()
    assert plain_text(section.sentences[0]) == "pets, convnext_atto: scratch reaches 36.3 %, mean of 2 seeds."


def test_refusals(store):
    what = experiment([SCRATCH, RANDOM])
    with pytest.raises(BenchmarkError, match=r"no run of tiny at size small is finished .* masterkey bench run tiny"):
        make_section(what, store, None)
    with pytest.raises(BenchmarkError, match="two arms named scratch"):
        make_section(experiment([SCRATCH, SCRATCH]), store, None)
    with pytest.raises(BenchmarkError, match="controls name noise, which is no arm"):
        make_section(experiment([SCRATCH], controls=["noise"]), store, None)


def test_a_result_of_another_version_is_refused(store):
    what = experiment([SCRATCH])
    (run, _) = what.plan(store)
    write_run(run, store, 10.0, 1.0)
    path = store.run_path(run.config.id)
    path.write_text(path.read_text().replace('"version":1', '"version":99'))
    with pytest.raises(BenchmarkError, match="version 99"):
        make_section(what, store, None)
