"""What the report claims: controls, gains, and when nothing may be claimed."""

from dataclasses import replace

import pytest
from report_runs import BANK, PLACE, RANDOM, SCRATCH, by_arm, experiment, finish, row, rows, three_seeds, write_run

from masterkey.benchmarks.report.section import make_section, plain_text
from masterkey.benchmarks.report.words import judge, sentences
from masterkey.benchmarks.store import ResultStore


@pytest.fixture
def store(tmp_path):
    return ResultStore(tmp_path / "results")


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
        ([SCRATCH, {**RANDOM, "inject": {"scale": "unit"}}], "the arm random is not what the control of that name is"),
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


def test_seeds_may_be_added_but_not_left_out_of_a_claim(store):
    what = experiment([SCRATCH, RANDOM, BANK], seeds=[0, 1, 2], data={"pets": {"seeds": [0, 1, 2]}})
    more = what.with_seeds([0, 1, 2, 5])
    figures = {"scratch": [10, 11, 12.1], "random": [9, 10, 11.1], "bank": [20, 21, 22]}
    finish(more, store, lambda run: 10.0 * len(run.arm) if run.config.seed == 5 else by_arm(figures)(run))
    assert len(make_section(more, store, None).results.at(*PLACE)["bank"].runs) == 4
    assert judge(make_section(what, store, None).results, *PLACE).outcome == "gain"
    assert judge(make_section(more, store, None).results, *PLACE).refusal is None
    section = make_section(what.with_seeds([0, 2, 5]), store, None)
    assert judge(section.results, *PLACE).refusal == "the experiment's seed 1 was left out"
    assert section.report_command.endswith("--size small --seed 0 --seed 2 --seed 5 -o report")


def test_noise_that_is_left_out_lets_nothing_be_claimed(store):
    """It is a control whatever its name, so it may not go by leaving it out."""
    noise = {"name": "mine", "bank": "scale-space-8", "steps": [["pixel_shuffled", {}]]}
    what = experiment([SCRATCH, RANDOM, noise, BANK], seeds=[0, 1, 2])
    finish(
        what,
        store,
        by_arm({"scratch": [10, 11, 12.1], "random": [9, 10, 11.1], "mine": [20, 22, 21], "bank": [20, 21, 22]}),
    )
    part = make_section(what.only(arms=["scratch", "random", "bank"]), store, None)
    assert judge(part.results, *PLACE).refusal == "the control mine was left out"
    elsewhere = experiment(
        [SCRATCH, RANDOM, {**noise, "targets": ["flowers17"]}, BANK], seeds=[0, 1, 2], targets=["pets", "flowers17"]
    )
    part = make_section(elsewhere.only(arms=["scratch", "random", "bank"], targets=["pets"]), store, None)
    assert judge(part.results, *PLACE).outcome == "gain"  # it is of another target


def test_what_no_arm_would_be_compared_with_may_be_left_out(store):
    vary = {"inject.layers": [1, 3]}
    what = experiment([SCRATCH, RANDOM, {**RANDOM, "vary": vary}, {**BANK, "vary": vary}], seeds=[0, 1, 2])
    finish(what, store, lambda run: len(run.arm) * 2.0 + run.config.seed * (1 + 0.01 * len(run.arm)))

    def refusal(*arms):
        return judge(make_section(what.only(arms=arms), store, None).results, *PLACE).refusal

    assert refusal("scratch", "random/1", "bank/1") is None
    assert refusal("scratch", "random/3", "bank/1") == "the control random was left out"


def test_arms_of_another_kind_are_judged_apart(store):
    pointwise = {
        "name": "pointwise",
        "bank": "scratch:flowers17",
        "kind": "pointwise",
        "inject": {"policy": "layerwise"},
    }
    arms = (SCRATCH, RANDOM, {**BANK, "kind": "depthwise"}, pointwise)
    for figures in ([50.0, 61.0, 72.0], [12.0, 23.0, 33.0]):
        verdict = judge(three_seeds(store, arms, pointwise=figures).results, *PLACE)
        assert (verdict.outcome, verdict.gains, verdict.apart) == ("gain", ("bank",), ("pointwise",))


@pytest.mark.parametrize(
    "other",
    [
        {"bank": "scale-space-8", "inject": {"layers": 3}},
        {"bank": "scale-space-8", "inject": {"freeze": False}},
        {"bank": "scale-space-8", "bias": False},
    ],
)
def test_arms_whose_noise_freezes_something_else_are_judged_apart(store, other):
    """That frozen noise in all layers is worse may be the freezing's, where the arm freezes three or none."""
    arms = (SCRATCH, RANDOM, BANK, {"name": "other", **other})
    for figures in ([50.0, 61.0, 72.0], [12.0, 23.0, 33.0]):
        verdict = judge(three_seeds(store, arms, other=figures).results, *PLACE)
        assert (verdict.outcome, verdict.gains, verdict.apart) == ("gain", ("bank",), ("other",))
    alone = three_seeds(ResultStore(store.root / "alone"), (SCRATCH, RANDOM, arms[-1]), other=[50.0, 61.0, 72.0])
    assert judge(alone.results, *PLACE).refusal == "random freezes something else than other"


def test_all_layers_are_all_layers_however_it_is_said(store):
    """``layers = 2`` of a network that has two is what plain random fills."""
    arms = (SCRATCH, RANDOM, {"name": "two", "bank": "scale-space-8", "inject": {"layers": 2}})
    what = three_seeds(store, arms, two=[17.0, 28.0, 39.0]).results.experiment
    assert judge(make_section(what, store, None).results, *PLACE).refusal == "random freezes something else than two"
    row = {
        "filters": 1,
        "fitted": None,
        "kernel": [7, 7],
        "reason": None,
        "replaced": True,
        "sources": [],
        "wrapped": False,
    }
    report = {"bank": "b", "frozen": True, "kind": "depthwise", "order": "forward", "policy": "stack"}
    report |= {"trainable_before": 1, "trainable_after": 1, "rows": [{**row, "layer": name} for name in ("a", "b")]}
    for run in what.plan(store):
        top1 = store.read(run.config.id)["metrics"]["top1"]
        write_run(run, store, top1, 1.0, injection=None if run.arm == "scratch" else report)
    assert judge(make_section(what, store, None).results, *PLACE).gains == ("two",)


def test_arms_that_saw_other_pictures_are_not_compared(store):
    section = three_seeds(store)
    what = section.results.experiment
    for run in what.plan(store):
        if run.arm == "bank":
            write_run(run, store, 40.0, 1.0, data_sha256="1" * 64)
    refusal = "the arms did not all learn from and judge on the same pictures"
    assert judge(make_section(what, store, None).results, *PLACE).refusal == refusal


def test_runs_on_other_numbers_of_threads_are_said_to_round_otherwise(store):
    section = three_seeds(store)
    assert "round differently" not in section.tables["arms"].note
    what = section.results.experiment
    for run in what.plan(store):
        if run.arm == "bank":
            result = store.read(run.config.id)
            store.run_path(run.config.id).unlink()
            store.write(run.config, result["metrics"], {**result["machine"], "threads": 8})
    assert "8 threads" in make_section(what, store, None).tables["arms"].note


@pytest.mark.parametrize("stalled", ["scratch", "random", "bank"])
def test_runs_that_did_not_learn_let_nothing_be_claimed(store, stalled):
    what = three_seeds(store).results.experiment
    assert judge(make_section(what, store, None).results, *PLACE).outcome == "gain"
    for run in what.plan(store):
        if run.arm == stalled and run.config.seed == 1:
            write_run(run, store, 20.0 if stalled != "bank" else 28.0, 1.0, fall=0.01)
    section = make_section(what, store, None)
    verdict = judge(section.results, *PLACE)
    assert (verdict.outcome, verdict.gains) == ("no claim", ())
    assert verdict.refusal == f"{stalled} did not learn in 1 of its 3 runs"
    assert f"Warning: runs of {stalled} on pets (1 of 3) did not learn" in section.tables["arms"].note


def test_an_arm_that_did_not_learn_is_no_loss(store):
    """There the recipe is what failed, and not the filters."""
    dud = {"name": "dud", "bank": "gaussian-covariance"}
    what = experiment([SCRATCH, RANDOM, BANK, dud], seeds=[0, 1, 2])
    finish(
        what,
        store,
        by_arm({"scratch": [10, 11, 12], "random": [9, 10.5, 12], "bank": [20, 21.5, 22], "dud": [3, 4.5, 5]}),
    )
    assert judge(make_section(what, store, None).results, *PLACE).losses == ("dud",)
    for run in what.plan(store):
        if run.arm == "dud":
            store.run_path(run.config.id).unlink()
            write_run(run, store, 3.0 + run.config.seed, 1.0, fall=0.01)
    verdict = judge(make_section(what, store, None).results, *PLACE)
    assert (verdict.losses, verdict.incomplete, verdict.gains) == ((), ("dud",), ("bank",))


def test_rates_that_fail_are_what_a_control_tries_them_for(store):
    rates = {**SCRATCH, "vary": {"train.lr": [1e-3, 4e-3]}}
    figures = {
        "scratch/0.001": [10, 11, 12.1],
        "scratch/0.004": [2, 2, 2],
        "random": [9, 10.5, 12],
        "bank": [20, 21, 22],
    }
    what = experiment([rates, RANDOM, BANK], seeds=[0, 1, 2])
    finish(what, store, by_arm(figures))
    for run in what.plan(store):
        if run.arm == "scratch/0.004":
            write_run(run, store, 2.0, 1.0, fall=0.0)
    assert judge(make_section(what, store, None).results, *PLACE).gains == ("bank",)


@pytest.mark.parametrize("longer", [[12.0, 13.0, 14.1], [30.0, 31.0, 32.0], [90.0, 91.0, 92.0]])
def test_an_arm_with_a_recipe_of_its_own_neither_gains_nor_stops_the_others(store, longer):
    other = {"name": "longer", "bank": "scale-space-8", "train": {"epochs": 8}}
    verdict = judge((section := three_seeds(store, (SCRATCH, RANDOM, BANK, other), longer=longer)).results, *PLACE)
    assert (verdict.outcome, verdict.best, verdict.gains, verdict.apart) == ("gain", "bank", ("bank",), ("longer",))
    said = " ".join(map(plain_text, section.sentences))
    assert (
        "not like the controls in training, first weights, kind or what is frozen, so not judged: longer." in said
        and "above all of these" not in said
    )


def test_a_bank_in_a_pretrained_network_is_not_compared_with_new_weights(store):
    pretrained = {**BANK, "name": "helped", "initial": "pretrained"}
    section = three_seeds(store, (SCRATCH, RANDOM, BANK, pretrained), helped=[40.0, 51.0, 62.0])
    verdict = judge(section.results, *PLACE)
    assert (verdict.best, verdict.gains, verdict.apart) == ("bank", ("bank",), ("helped",))
    assert row(section, "arms", arm="helped")["what"] == "pretrained, scale-space-8, frozen"


def test_a_control_with_weaker_weights_lets_nothing_be_claimed(store):
    weak = {**RANDOM, "initial": "small-depthwise"}
    verdict = judge(three_seeds(store, (SCRATCH, weak, BANK)).results, *PLACE)
    assert verdict.refusal == "random does not begin with the weights that bank begins with"


def test_one_seed_of_a_high_level_hides_no_loss(store):
    other = {"name": "other", "bank": "gaussian-covariance"}
    section = three_seeds(store, (SCRATCH, RANDOM, BANK, other), bank=[5.0, 14.0, 24.0])
    write_run(next(run for run in section.experiment.plan(store) if run.arm == "other"), store, 50.0, 1.0)
    verdict = judge(make_section(section.experiment, store, None).results, *PLACE)
    assert (verdict.best, verdict.outcome, verdict.incomplete) == ("bank", "loss", ("other",))


def test_a_rate_of_ones_own_is_told(store):
    own = {"name": "own", "bank": "gaussian-covariance", "train": {"lr": 4e-3}}
    what = experiment([SCRATCH, own], lrs=[1e-3, 2e-3])
    finish(what, store, lambda run: 20.0 + run.config.seed)
    note = make_section(what, store, None).tables["arms"].note
    assert "did best for it on the validation part. The rate of own is the experiment's, whatever did best." in note


@pytest.mark.parametrize(
    "weaker", [{"inject": {"layers": 1}}, {"steps": [["signed", {}]]}, {"inject": {"freeze": False}}]
)
def test_random_is_of_the_whole_network_as_it_draws_it(store, weaker):
    verdict = judge(three_seeds(store, (SCRATCH, {**RANDOM, **weaker}, BANK)).results, *PLACE)
    assert verdict.refusal.startswith("the arm random is not what the control of that name is")


def test_random_of_another_kind_is_no_control(store):
    pointwise = {"kind": "pointwise", "inject": {"policy": "layerwise"}}
    verdict = judge(three_seeds(store, (SCRATCH, {**RANDOM, **pointwise}, BANK)).results, *PLACE)
    assert verdict.refusal == "the control random has filters of another kind than bank"


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


def test_an_arm_that_lacks_seeds_gains_nothing(store):
    """However good it is: the seed may lack because of what it would have shown."""
    better = {"name": "better", "bank": "gaussian-covariance"}
    section = three_seeds(store, (SCRATCH, RANDOM, BANK, better), better=[30.0, 40.0])
    verdict = judge(section.results, *PLACE)
    assert (verdict.outcome, verdict.best, verdict.gains) == ("gain", "bank", ("bank",))
    assert (verdict.undecided, verdict.incomplete) == ((), ("better",))
    assert "lack seeds or did not learn, or a control of theirs, so not judged: better." in plain_text(
        sentences(verdict)[-1]
    )


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
    assert (verdict.best, verdict.outcome, verdict.gains, verdict.incomplete) == (
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
