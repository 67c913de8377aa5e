"""The report's figures: means, pairs, intervals, series, cost, what is missing."""

import json
import math
from dataclasses import replace

import pytest
from report_runs import (
    BANK,
    MACHINE,
    PLACE,
    RANDOM,
    SCRATCH,
    SELFFER,
    by_arm,
    experiment,
    finish,
    row,
    rows,
    three_seeds,
    write_run,
)

from masterkey.benchmarks.config import BenchmarkError
from masterkey.benchmarks.report.blocks import main_figures
from masterkey.benchmarks.report.section import make_section, plain_text
from masterkey.benchmarks.report.student import summarize, t_quantile
from masterkey.benchmarks.report.words import judge
from masterkey.benchmarks.store import ResultStore


@pytest.fixture
def store(tmp_path):
    return ResultStore(tmp_path / "results")


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


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_seeds_that_all_differ_alike_prove_nothing(seeds):
    """In floats the differences of accuracies k / 340 are equal but for rounding."""
    theirs = [100 * k / 340 for k in (210, 223, 231, 217, 229)[:seeds]]
    sample = summarize(
        [100 * (k + 3) / 340 - their for k, their in zip((210, 223, 231, 217, 229), theirs, strict=False)]
    )
    assert sample.mean == pytest.approx(300 / 340) and sample.deviation == 0.0
    assert (sample.low, sample.high, sample.sign, sample.beyond_two_errors) == (None, None, None, None)


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


def test_a_source_that_was_trained_anew_between_seeds_is_warned_of(store):
    what = experiment([SCRATCH, RANDOM, {"name": "from", "bank": "scratch:pets"}], source_seed=0)
    for run in what.plan(store):
        write_run(run, store, 10.0, 1.0, bank_sha256=f"{run.config.seed if run.arm == 'from' else 7}" * 64)
    assert "the runs of from did not all take the same filters" in make_section(what, store, None).tables["arms"].note
    (own := ResultStore(store.root / "own")).root.mkdir(parents=True)
    what = experiment([SCRATCH, RANDOM, {"name": "from", "bank": "scratch:pets"}])  # every seed has a source of its own
    for run in what.plan(own):
        write_run(run, own, 10.0, 1.0, bank_sha256=f"{run.config.seed if run.arm == 'from' else 7}" * 64)
    assert "Warning" not in make_section(what, own, None).tables["arms"].note


def test_epochs_to_scratch_are_those_of_the_seeds_that_both_have(store):
    """The seed that scratch lacks is the only one that gets anywhere."""
    what = experiment([SCRATCH, RANDOM, BANK])
    finish(what, store, by_arm({"scratch": [20.0, None], "random": [1.0, 2.0], "bank": [18.0, 50.0]}))
    assert row(make_section(what, store, None), "cost", arm="bank")["epochs_to_scratch"] is None


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


def test_rates_are_taken_from_where_they_were_chosen(store):
    """Each arm's best rate of a short training is that of its long one, which tries none itself."""
    data = {"short": {"name": "pets", "lrs": [1e-3, 2e-3]}, "long": {"name": "pets", "tuned_on": "short"}}
    data["long"]["train"] = {"epochs": 8}

    def accuracy(run):
        best = {"scratch": 1e-3, "random": 2e-3}[run.arm]
        return 10.0 + 5 * (run.config.train.lr == best) + run.config.train.epochs

    for targets in (["long"], ["short", "long"], ["long", "short"]):
        what = experiment([SCRATCH, RANDOM], targets=targets, data=data)
        tried = [run for run in what.plan(store) if run.stage == "tune"]
        assert {run.config.train.epochs for run in tried} == {4} and len(tried) == 4
        finish(what, store, accuracy)
        section = make_section(what, store, None)
        told = [(row["arm"], row["lr"], row["lrs_tried"], row["top1"]) for row in rows(section, "arms", target="long")]
        assert told == [("scratch", 1e-3, 2, 23.0), ("random", 2e-3, 2, 23.0)]
        assert section.tables["arms"].note.endswith("For long they were tried on short.")
        assert what.only(targets=["long"]).with_seeds([7]).lrs_for("long") == [1e-3, 2e-3]


def test_says_how_arms_came_by_their_rates(store):
    def told(**raw):
        what = experiment([SCRATCH, RANDOM], seeds=[0, 1, 2], targets=["pets", "flowers17"], **raw)
        finish(what, store, lambda run: 10.0 + run.config.seed)
        tables = make_section(what, store, None).tables
        return tables["arms"].note.split("over seeds. ")[1], tables["verdicts"].note.partition(" One learning")[2]

    at = {"flowers17": {"lrs": [2e-3]}}
    everywhere = " rate was tried, the same for every arm, so none has the one that suits it best."
    assert told() == ("All arms have the same learning rate.", everywhere)
    assert told(data=at) == ("All arms on a target have the same learning rate.", everywhere)
    assert told(data=at, lrs=[1e-3, 3e-3]) == (
        "Where several learning rates were tried, an arm has the one that did best on the validation part.",
        everywhere.replace("tried", "tried on flowers17"),
    )
    assert told(lrs=[1e-3, 3e-3])[0] == "Every arm has the learning rate that did best for it on the validation part."


def test_a_rate_at_an_end_of_those_tried_is_told(store):
    """Beyond it there may be a better one."""
    best = {"scratch": 1e-3, "random": 2e-3}

    def note(**raw):
        what = experiment([SCRATCH, RANDOM], lrs=[1e-3, 2e-3, 4e-3], **raw)
        finish(what, store, lambda run: 10.0 + 5 * (run.config.train.lr == best[run.arm]))
        return make_section(what, store, None).tables["arms"].note

    assert "The rate of scratch on pets is the lowest or the highest that was tried" in note()
    assert "part that is shown here" not in note()
    assert "the best of several rates flatters an arm on it" in note(evaluate="validation")
    best["scratch"] = 2e-3
    assert "lowest" not in note(data={"pets": {"seeds": [0], "train": {"epochs": 9}}})


def test_seeds_that_were_not_run_are_nothing_to_report(store):
    what = experiment([SCRATCH, RANDOM], lrs=[1e-3, 2e-3])
    finish(what, store, lambda run: 10.0)
    with pytest.raises(BenchmarkError, match=r"no run of tiny at size small with seed 7, 8 is .* --seed 7 --seed 8"):
        make_section(what.with_seeds([7, 8]), store, None)
    assert row(make_section(what.with_seeds([1]), store, None), "arms", arm="random")["seeds"] == 1


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


def test_times_of_several_machines_are_marked(store, monkeypatch):
    elsewhere = {"name": "elsewhere", "bank": "checkpoint:keys.txt"}
    what = experiment([SCRATCH, RANDOM, elsewhere])
    finish(what, store, by_arm({"scratch": [20.0, 21.0], "random": [18.0, 18.5]}))
    assert "machines" not in make_section(what, store, None).tables["cost"].note
    monkeypatch.setitem(MACHINE, "cpu", "Invented 4000")
    finish(what, store, by_arm({"elsewhere": [25.0, 26.0]}))
    section = make_section(what, store, None)
    assert "Warning: the runs are of several machines" in section.tables["cost"].note
    # what the filters took that others had trained is not known, and not nothing
    assert [row(section, "cost", arm=arm)["source_seconds"] for arm in ("random", "elsewhere")] == [0, None]


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
    assert main_figures(make_section(bars.experiment.only(arms=["scratch"]), store, None)) == [""]


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


def test_pictures_are_counted_for_each_target(store):
    what = experiment([SCRATCH, BANK], targets=["food", "pets"])
    for run in what.plan(store):
        counts = {"train_pictures": 900, "evaluated_pictures": 100, "classes": 5} if run.target == "food" else {}
        if run.target == "pets" and run.config.seed == 1:  # some were left out of these
            counts = {"train_pictures": 3679}
        write_run(run, store, 50.0, 1.0, **counts)
    section = make_section(what, store, None)
    counted = [tuple(row.values()) for row in section.tables["pictures"].rows]
    pixels = what.plan(store)[0].config.data.pixels
    assert counted == [
        ("food", pixels, 5, 900, 100),
        ("pets", pixels, 37, 3680, 3669),
        ("pets", pixels, 37, 3679, 3669),
    ]
