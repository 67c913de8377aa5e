"""Sweeps: everything is done, nothing twice, whatever breaks off, fails, or is done elsewhere meanwhile."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import active_children
from pathlib import Path

import pytest
from sweep_files import make_pictures, tiny_experiment

import masterkey
from masterkey.benchmarks.claim import claim, is_claimed
from masterkey.benchmarks.config import BenchmarkError
from masterkey.benchmarks.progress import Display
from masterkey.benchmarks.report.results import collect
from masterkey.benchmarks.scripts.kill_test import kill_sweeps, metrics_of
from masterkey.benchmarks.store import WEIGHTS_NAME, ResultStore
from masterkey.benchmarks.sweep import expected_runs, run_sweep

SCRIPT = Path(__file__).with_name("sweep_files.py")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MASTERKEY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def unbroken(pictures, tmp_path_factory) -> dict[str, str]:
    """The metrics that an unbroken sweep gives; every other way of sweeping must give the same bytes."""
    store = ResultStore(tmp_path_factory.mktemp("unbroken"))
    run_sweep(tiny_experiment(pictures), store)
    return metrics_of(store)


@pytest.fixture
def store(tmp_path) -> ResultStore:
    return ResultStore(tmp_path / "results")


def single(pictures, *arms, **over):
    """An experiment without tuning and with one seed."""
    return tiny_experiment(pictures, seeds=[0], lrs=[1e-3], arms=list(arms), **over)


def start_sweep(pictures, root, *options, **process) -> subprocess.Popen:
    """The real command in a process of its own."""
    command = [sys.executable, SCRIPT, pictures, "bench", "run", "tiny", "--size", "smoke", "--results", root, *options]
    return subprocess.Popen(map(str, command), stderr=subprocess.PIPE, text=True, **process)


def files(root: Path) -> dict[str, tuple[int, bytes]]:
    """Inode and bytes of every file below a folder: equal if nothing was written."""
    found = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): (path.stat().st_ino, path.read_bytes()) for path in found}


def test_everything_is_done_once(pictures, store, unbroken):
    experiment = tiny_experiment(pictures)
    moments = []
    summary = run_sweep(experiment, store, jobs=2, on_progress=moments.append)
    planned = {run.config.id: run for run in experiment.plan(store)}
    assert set(summary.done) == set(planned) == set(store.run_ids())
    assert len(summary.done) == len(planned)
    assert {run.stage for run in planned.values()} == {"tune", "final"}
    assert metrics_of(store) == unbroken  # two at once, one after the other before: the same bytes
    assert moments[-1].settled == moments[-1].total == len(planned)
    epochs = [moment.fraction for moment in moments if moment.state == "running"]
    assert sorted(set(epochs)) == [0.5, 1.0]
    assert len(epochs) == 2 * len(planned)

    before = files(store.root)
    again = run_sweep(experiment, store)
    assert set(again.already_there) == set(planned)
    assert (again.done, again.failed, again.blocked) == ([], {}, [])
    assert files(store.root) == before


def test_threads_are_of_a_run_and_do_not_depend_on_jobs(pictures, store):
    run_sweep(single(pictures, {"name": "scratch"}), store, jobs=3, threads=2)
    (run_id,) = store.run_ids()
    assert store.read(run_id)["machine"]["threads"] == 2


def test_a_cpu_may_have_a_number(pictures, store):
    experiment = single(pictures, {"name": "scratch"})
    assert run_sweep(experiment, store, device="cpu:0").failed == {}
    (run_id,) = store.run_ids()
    assert store.read(run_id)["machine"]["device"] == "cpu"


def test_the_checkpoint_of_a_run_that_is_done_is_removed(pictures, store):
    """As it is left by a kill between the two."""
    experiment = single(pictures, {"name": "scratch"})
    (run_id,) = run_sweep(experiment, store).done
    checkpoint, weights = store.partial_path(run_id), store.kept_path(run_id) / WEIGHTS_NAME
    checkpoint.write_bytes(b"left")
    with claim(store, run_id):  # another sweep trains it again for its weights
        assert run_sweep(experiment, store).already_there == [run_id]
    assert checkpoint.exists()
    weights.rename(weights.with_name("elsewhere"))
    run_sweep(experiment, store)
    assert checkpoint.exists()  # where a training for the weights goes on from
    weights.with_name("elsewhere").rename(weights)
    assert run_sweep(experiment, store).already_there == [run_id]
    assert not list((store.root / "partial").iterdir())


def test_a_sweep_that_is_killed_goes_on(pictures, tmp_path, unbroken):
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)

    def command(root: Path) -> list[str]:
        sweep = ["bench", "run", "tiny", "--size", "smoke", "--seed", "0", "--results", str(root), "--jobs", "2"]
        return [sys.executable, str(SCRIPT), str(pictures), *sweep, "--checkpoint-every", "0.05"]

    start = time.monotonic()
    subprocess.run(command(tmp_path / "timed"), check=True, capture_output=True)
    seconds = time.monotonic() - start
    expected = metrics_of(ResultStore(tmp_path / "timed"))
    assert len(expected) > 4 and expected.items() <= unbroken.items()
    outcome = kill_sweeps(command, expected, tmp_path, kills=4, seed=seed, seconds=seconds)
    assert outcome.kills == 4
    assert outcome.completed >= 1


def test_weights_that_are_missing_or_damaged_are_made_again_when_they_are_needed(pictures, store):
    experiment = single(pictures, {"name": "scratch"}, {"name": "selffer", "bank": "selffer"})
    run_sweep(experiment, store)
    source, taker = (run.config.id for run in experiment.plan(store))
    weights = store.kept_path(source) / WEIGHTS_NAME
    recorded, metrics, made = store.run_path(source).read_bytes(), metrics_of(store), weights.read_bytes()

    weights.unlink()
    assert run_sweep(experiment, store).done == []  # nobody needs them
    for damage in (None, b"", made[:-1]):
        if damage is not None:
            weights.write_bytes(damage)
        store.run_path(taker).unlink()
        summary = run_sweep(experiment, store)
        assert (summary.done, summary.already_there) == ([source, taker], [])
        assert store.run_path(source).read_bytes() == recorded
        assert weights.read_bytes() == made
        assert metrics_of(store) == metrics


def test_a_failure_is_recorded_and_not_tried_again_unless_asked(pictures, store, tmp_path):
    late = tmp_path / "late-bank"
    experiment = single(pictures, {"name": "late", "bank": str(late)}, {"name": "scratch"})
    failing, good = (run.config.id for run in experiment.plan(store))

    summary = run_sweep(experiment, store)
    assert summary.done == [good]  # the others go on
    assert list(summary.failed) == [failing]
    assert "UnknownNameError" in summary.failed[failing]
    assert str(late) in summary.failed[failing]
    failure = store.read_failure(failing)
    assert failure["error"] == "UnknownNameError"
    assert failure["config"]["arm"]["bank"] == str(late)
    assert "load_bank" in failure["traceback"]

    before = files(store.root)
    summary = run_sweep(experiment, store)
    assert (summary.done, list(summary.failed)) == ([], [failing])
    assert files(store.root) == before

    summary = run_sweep(experiment, store, retry_before=time.time())
    assert list(summary.failed) == [failing]
    failed = str(store.failed_path(failing).relative_to(store.root))
    assert files(store.root)[failed][0] != before[failed][0]  # tried, once, and recorded anew

    masterkey.Bank.from_model("test_convnext", pretrained=False).save_pretrained(late)
    summary = run_sweep(experiment, store, retry_before=time.time())
    assert (summary.done, summary.failed) == ([failing], {})
    assert not store.failed_path(failing).exists()


def test_what_depends_on_a_failure_is_said_to_be_not_runnable(pictures, store):
    experiment = single(
        pictures,
        {"name": "taker", "bank": "scratch:gone"},
        {"name": "random", "bank": "random"},
        data={"tiny": {"name": str(pictures), "pixels": 32}, "gone": {"name": "./no-such-folder", "pixels": 32}},
    )
    source, taker, good = (run.config.id for run in experiment.plan(store))
    summary = run_sweep(experiment, store)
    assert (summary.done, list(summary.failed), summary.blocked) == ([good], [source], [taker])
    assert "1 not runnable" in str(summary)


def test_a_failure_in_tuning_leaves_the_final_runs_out(pictures, store):
    experiment = tiny_experiment(pictures, arms=[{"name": "gone", "bank": "no-such-bank"}])
    summary = run_sweep(experiment, store, jobs=2)
    assert (summary.done, len(summary.failed), len(summary.blocked)) == ([], 2, 2)


def test_a_process_that_is_killed_is_a_failure_of_its_run_alone(pictures, store):
    experiment = single(
        pictures,
        {"name": "long", "train": {"epochs": 10_000}},
        {"name": "random", "bank": "random"},
    )
    long, good = (run.config.id for run in experiment.plan(store))

    def kill(moment):
        if moment.run.config.id == long and moment.state == "running":
            (process,) = (child for child in active_children() if child.name == long)
            os.kill(process.pid, signal.SIGKILL)

    summary = run_sweep(experiment, store, on_progress=kill)
    assert summary.done == [good]
    assert "SIGKILL" in summary.failed[long]
    assert "memory" in store.read_failure(long)["message"]


def test_two_sweeps_at_once_share_the_work(pictures, store, unbroken):
    summaries = []

    def sweep():
        summaries.append(run_sweep(tiny_experiment(pictures), store, jobs=2))

    threads = [threading.Thread(target=sweep) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first, second = summaries
    assert sorted(first.done + second.done) == sorted(unbroken)  # each run by one of them
    assert set(first.done) | set(first.already_there) == set(second.done) | set(second.already_there) == set(unbroken)
    assert metrics_of(store) == unbroken


def test_a_run_that_is_held_elsewhere_is_waited_for(pictures, store):
    experiment = single(pictures, {"name": "scratch"}, {"name": "random", "bank": "random"})
    held, other = (run.config.id for run in experiment.plan(store))
    done, summaries, lines = threading.Event(), [], io.StringIO()
    display = Display(lines)

    def hear(moment):
        display(moment)
        if moment.state == "done":
            done.set()

    def sweep():
        summaries.append(run_sweep(experiment, store, on_progress=hear))

    with claim(store, held) as mine:
        assert mine
        assert is_claimed(store, held)
        thread = threading.Thread(target=sweep)
        thread.start()
        assert done.wait(60)
        thread.join(2.5)
        assert thread.is_alive()  # the other run is done, this one is waited for
        assert not store.run_path(held).exists()
    thread.join()
    assert not is_claimed(store, held)
    assert summaries[0].done == [other, held]
    told = [line for line in lines.getvalue().splitlines() if held in line]
    assert len(told) == 2 and "is done by another process, which this one waits for" in told[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"version": 1, "metri', "cannot be read"),
        (b'{"version": 99, "metrics": {}, "machine": {}}', "version 99"),
        (b"[]", "no record of a run but a list"),
        (b'{"version": 1, "metrics": {"id": "000000000000"}, "machine": {}}', "holds run '000000000000'"),
    ],
)
def test_a_result_that_cannot_be_used_is_refused_and_left_alone(pictures, store, content, message):
    experiment = single(pictures, {"name": "scratch"}, {"name": "random", "bank": "random"})
    run_id = experiment.plan(store)[0].config.id
    store.run_path(run_id).parent.mkdir(parents=True)
    store.run_path(run_id).write_bytes(content)
    with pytest.raises(BenchmarkError, match=message):
        run_sweep(experiment, store)
    assert files(store.root).keys() == {f"runs/{run_id}.json"}
    assert store.run_path(run_id).read_bytes() == content


def test_a_full_disk_stops_the_sweep_and_it_goes_on_later(pictures, store, unbroken):
    limited = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); sys.argv = sys.argv[1:];"
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    )
    sweep = ["bench", "run", "tiny", "--size", "smoke", "--results", store.root, "--jobs", "2"]
    command = [sys.executable, "-c", limited, SCRIPT, pictures, *sweep]
    done = subprocess.run(map(str, command), capture_output=True, text=True)
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("masterkey: cannot write")
    assert "File too large" in sentence
    assert "goes on" in sentence
    assert (store.run_ids(), store.failed_ids()) == ([], [])

    assert set(run_sweep(tiny_experiment(pictures), store, jobs=2).done) == set(unbroken)
    assert metrics_of(store) == unbroken


def test_an_interrupt_stops_the_sweep_and_it_goes_on_later(pictures, store, unbroken):
    process = start_sweep(pictures, store.root, "--jobs", 2, start_new_session=True)
    first = process.stderr.readline()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the sweep and all its processes
    _, rest = process.communicate(timeout=60)
    assert first.startswith("[1/")
    assert process.returncode == 130
    assert "Traceback" not in rest
    there = set(store.run_ids())
    assert 0 < len(there) < len(unbroken)
    assert not any(is_claimed(store, run_id) for run_id in unbroken)  # nothing is left running
    summary = run_sweep(tiny_experiment(pictures), store, jobs=2)
    assert set(summary.already_there) == there
    assert metrics_of(store) == unbroken


def test_some_arms_with_what_they_need(pictures, store):
    experiment = tiny_experiment(pictures)
    arms = {run.arm for run in expected_runs(experiment.only(arms=["selffer"]), store)}
    assert arms == {"selffer", "scratch"}
    spread = {run.arm for run in expected_runs(experiment.only(arms=["random"]), store)}
    assert len(spread) == 2
    assert all(arm.startswith("random/") for arm in spread)
    assert len(expected_runs(experiment, store)) == 16
    assert expected_runs(experiment.only(targets=["tiny"], models=["small"]), store) == expected_runs(experiment, store)
    for wrong, message in {
        "arms": "no arm 'selfer'; did you mean selffer",
        "targets": "no target 'selfer'; there are tiny",
        "models": "no model 'selfer'; there are small",
    }.items():
        with pytest.raises(BenchmarkError, match=message):
            experiment.only(**{wrong: ["selfer"]})


def test_other_seeds(pictures, store):
    """One seed for a first look, or two more than an experiment has; rates are chosen by the same runs."""
    experiment = tiny_experiment(pictures)
    tuning = {run.config.id for run in expected_runs(experiment, store) if run.stage == "tune"}
    for seeds in ([1], [7, 0, 7]):
        part = experiment.with_seeds(seeds)
        runs = expected_runs(part, store)
        assert {run.config.id for run in runs if run.stage == "tune"} == tuning
        assert {run.config.seed for run in runs if run.stage == "final"} == set(seeds)
        both = set(seeds) & set(experiment.seeds)
        wanted = {run.config.id for run in expected_runs(experiment, store) if run.config.seed in both}
        assert wanted <= {run.config.id for run in runs}
        assert part.seeds_left_out("tiny") == [seed for seed in experiment.seeds if seed not in seeds]
    assert experiment.with_seeds([7, 0, 7]).command("run").endswith("--seed 7 --seed 0")
    assert experiment.with_seeds() is experiment
    for wrong in (-1, 2**63):
        with pytest.raises(BenchmarkError, match=rf"seed is {wrong}; it must be from 0 to 2\*\*63 - 1"):
            experiment.with_seeds([3, wrong])


def test_a_target_with_its_own_seeds_and_sources_with_one_seed(pictures, store):
    of = {"name": str(pictures), "pixels": 32}
    arms = [{"name": "from", "bank": "scratch:other"}, {"name": "selffer", "bank": "selffer"}]
    over = {"lrs": [1e-3], "targets": ["tiny", "other"], "arms": arms, "source_seed": 7}
    experiment = tiny_experiment(pictures, data={"tiny": of, "other": {**of, "pixels": 24, "seeds": [0, 1, 2]}}, **over)
    plan = expected_runs(experiment, store)
    taken = {
        (run.target, run.arm, run.config.seed): [need.config.seed for need in run.needs] for run in plan if run.needs
    }
    assert taken == {
        **{("tiny", "from", seed): [7] for seed in (0, 1)},
        **{("tiny", "selffer", seed): [seed] for seed in (0, 1)},
        **{("other", "from", seed): [7] for seed in (0, 1, 2)},
        **{("other", "selffer", seed): [seed] for seed in (0, 1, 2)},
    }


def test_a_target_with_its_own_rates_and_sources_on_data_that_have_theirs(pictures, store):
    of = {"name": str(pictures), "pixels": 32}
    arms = [{"name": f"from-{key}", "bank": f"scratch:{key}"} for key in ("tiny", "other")]
    data = {"tiny": of, "other": {**of, "pixels": 24, "lrs": [4e-3, 5e-3]}}
    experiment = tiny_experiment(pictures, data=data, lrs=[1e-3], targets=["tiny", "other"], arms=arms)
    rates = {
        (run.target, run.arm, run.stage, run.config.train.lr): run.needs[0].config.train.lr
        for run in experiment.plan(store)
        if run.needs
    }
    assert rates == {
        ("tiny", "from-tiny", "final", 1e-3): 1e-3,
        ("tiny", "from-other", "final", 1e-3): 4e-3,  # a source has the first rate of its own data, chosen by nobody
        **{
            ("other", arm, "tune", lr): at
            for arm, at in (("from-tiny", 1e-3), ("from-other", 4e-3))
            for lr in (4e-3, 5e-3)
        },
    }


def test_a_source_on_other_data_is_one_for_every_choice(pictures, store):
    """On the target's own data, under whatever name, a choice must not see what it is judged on."""
    of = {"name": str(pictures), "pixels": 32}
    arms = [{"name": f"from-{key}", "bank": f"scratch:{key}@begun"} for key in ("same", "other")]
    begun = {"name": "convnext_atto", "kwargs": {"dims": [8, 8, 8, 8]}, "initial": "small-depthwise"}
    experiment = tiny_experiment(
        pictures,
        arms=arms,
        networks={"small": {"name": "convnext_atto"}, "begun": begun},
        data={"tiny": of, "same": {**of, "pixels": 24}, "other": {"name": "elsewhere"}},
    )
    sources = {(run.arm, run.stage): run.needs[0].config for run in experiment.plan(store) if run.needs}
    parts = {place: config.data.evaluate for place, config in sources.items()}
    assert parts == {("from-same", "tune"): "validation", ("from-other", "tune"): "test"}
    assert {config.arm.initial for config in sources.values()} == {"small-depthwise"}
    final = tiny_experiment(
        pictures, arms=arms, lrs=[1e-3], networks=experiment.raw["networks"], data=experiment.raw["data"]
    )
    last = {(run.arm, run.config.seed): run.needs[0].config for run in final.plan(store) if run.needs}
    assert last["from-same", 0].data.evaluate == "test"
    assert last["from-other", 0] == sources["from-other", "tune"]


def test_a_source_on_the_targets_pictures_has_the_targets_split(pictures, store):
    """Else it has learnt from what its taker chooses by."""
    same = {"name": str(pictures), "pixels": 32}
    own, arms = {"split_seed": 1, "validation": 0.4}, [{"name": "from-same", "bank": "scratch:same"}]
    for of_target, of_source in ((own, {}), ({}, own)):
        data = {"tiny": {**same, **of_target}, "same": {**same, **of_source, "pixels": 24}}
        needs = [
            (run, source) for run in tiny_experiment(pictures, arms=arms, data=data).plan(store) for source in run.needs
        ]
        splits = [[(one.config.data.split_seed, one.config.data.validation) for one in pair] for pair in needs]
        assert splits and all(one == other == ((1, 0.4) if of_target else (0, 0.2)) for one, other in splits)
        assert {source.config.data.pixels for _, source in needs} == {24}


def test_a_rate_that_diverges_is_tried_and_not_chosen(pictures, store):
    arms = [{"name": "scratch"}, {"name": "random", "bank": "random"}]
    experiment = tiny_experiment(pictures, arms=arms, lrs=[1e-3, 1e30], seeds=[0])
    summary = run_sweep(experiment, store)
    assert len(summary.failed) == 2 and all("DivergedError: the loss is" in said for said in summary.failed.values())
    assert summary.blocked == [] and len(summary.done) == 4  # a rate for each arm, and the final runs
    cells = collect(experiment, store).cells.values()
    assert {(cell.lr, cell.lrs_tried, len(cell.runs)) for cell in cells} == {(1e-3, 2, 1)}
    calm = {"name": "calm", "train": {"lr": 1e-3}}
    nowhere = tiny_experiment(pictures, arms=[*arms, calm], lrs=[1e29, 1e30], seeds=[0])
    assert len(run_sweep(nowhere, store).blocked) == 2
    cells = collect(nowhere, store).cells
    assert cells["small", "tiny", "random"].missing == {0: "diverged at every learning rate"}
    assert cells["small", "tiny", "calm"].missing == {}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_a_line_for_each_run_and_a_bar_on_a_terminal(pictures, store):
    experiment = single(pictures, {"name": "scratch"}, {"name": "gone", "bank": "no-such-bank"})
    terminal, log = Terminal(), io.StringIO()
    with Display(terminal) as bar, Display(log) as lines:

        def show(moment):
            bar(moment)
            lines(moment)

        run_sweep(experiment, store, on_progress=show)
    first, second = log.getvalue().splitlines()
    scratch, gone = (run.config.id for run in experiment.plan(store))
    assert first.startswith(f"[1/2] {scratch} tiny small scratch lr 0.001 seed 0 (final) done: top-1 ")
    assert second.startswith(f"[2/2] {gone} tiny small gone lr 0.001 seed 0 (final) failed: UnknownNameError")
    assert "left" not in log.getvalue()
    shown = terminal.getvalue()
    assert "0.5 of 2 runs" in shown  # half of the first run's epochs
    assert "2.0 of 2 runs" in shown
    assert " left" in shown


def test_results_are_whole_json_files(pictures, store, unbroken):
    run_sweep(single(pictures, {"name": "scratch"}), store)
    (run_id,) = store.run_ids()
    raw = store.run_path(run_id).read_text()
    assert raw.endswith("}\n")
    assert json.loads(raw)["metrics"]["id"] == run_id
