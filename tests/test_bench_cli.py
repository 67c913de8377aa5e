"""masterkey bench: list, run, dry run, show; what they print where, and their exit codes."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from sweep_files import make_pictures, tiny_experiment

from masterkey.benchmarks import experiment as experiment_module
from masterkey.benchmarks import first_batch
from masterkey.benchmarks.config import DataConfig
from masterkey.benchmarks.data import load_data
from masterkey.benchmarks.dry_run import dry_run
from masterkey.benchmarks.experiment import experiment_names, load_experiment
from masterkey.benchmarks.store import ResultStore
from masterkey.cli.main import run
from masterkey.distill import autoencoder, greedy


@pytest.fixture
def cli(capfd):
    """Run the command line in this process: exit code, stdout, stderr."""

    def call(*arguments) -> tuple[int, str, str]:
        code = run([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MASTERKEY_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def one_thread():
    """Tests run side by side: threads that wait for each other on cores that others use take many times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def use(monkeypatch):
    """Put an experiment in the place of all."""

    def put(experiment):
        monkeypatch.setattr(experiment_module, "load_experiment", lambda name, size: experiment)

    return put


def single(pictures, *arms, **over):
    return tiny_experiment(pictures, seeds=[0], lrs=[1e-3], arms=list(arms), **over)


SCRATCH, RANDOM = {"name": "scratch"}, {"name": "random", "bank": "random"}
GONE = {"name": "gone", "bank": "checkpoint:gone.pth"}


def test_list_counts_what_is_done(cli, tmp_path):
    experiment = load_experiment("arms", "smoke")
    ids = [planned.config.id for planned in experiment.plan(ResultStore(tmp_path))]
    (tmp_path / "runs").mkdir()
    for run_id in ids[:2]:
        result = {"version": 1, "metrics": {"id": run_id, "top1": 1.0}, "machine": {}}
        (tmp_path / "runs" / f"{run_id}.json").write_text(json.dumps(result))
    code, out, err = cli("bench", "list", "--results", tmp_path, "--json")
    assert (code, err) == (0, "")
    rows = {row["name"]: row for row in json.loads(out)}
    assert sorted(rows) == experiment_names()
    assert rows["arms"]["title"] == experiment.title
    assert rows["arms"]["runs"]["smoke"] == {"finished": 2, "total": len(ids)}
    assert rows["arms"]["runs"]["paper"]["finished"] == 0
    assert all(count["total"] > 0 for row in rows.values() for count in row["runs"].values())

    code, out, _ = cli("bench", "list", "--results", tmp_path)
    assert code == 0
    header, *lines = out.splitlines()
    assert header.split() == ["experiment", "smoke", "small", "paper", "title"]
    assert [line.split()[0] for line in lines] == experiment_names()
    assert f" 2/{len(ids)} " in next(line for line in lines if line.startswith("arms "))


def test_list_and_help_import_neither_torch_nor_numpy(tmp_path):
    script = (
        "import sys; from masterkey.cli.main import run\n"
        f"for command in (['list', '--results', {str(tmp_path)!r}], ['run', '--help'], ['show', '--help']):\n"
        "    assert run(['bench', *command]) == 0\n"
        "assert not {'torch', 'timm', 'numpy', 'datasets', 'ray'} & set(sys.modules), 'heavy imports'\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_where_a_killed_process_keeps_its_locks_bench_says_what_it_needs():
    without = (
        "import sys; sys.modules['fcntl'] = None; from masterkey.cli.main import run; sys.exit(run(['bench', 'list']))"
    )
    done = subprocess.run([sys.executable, "-c", without], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "masterkey: the benchmarks need Linux, macOS or WSL; all else of masterkey does not\n"


def test_data_lists_the_seeds_table_2(cli, tmp_path, monkeypatch):
    """Sets on the Hub as they were published; a folder's pictures are counted once it was used."""
    make_pictures(tmp_path / "data" / "flowers17")
    monkeypatch.setenv("MASTERKEY_DATA", str(tmp_path / "data"))
    code, out, err = cli("bench", "data", "--json")
    assert (code, err) == (0, "")
    rows = {row.pop("name"): row for row in json.loads(out)}
    sizes = {name: (row["classes"], row["train"], row["test"]) for name, row in rows.items()}
    assert sizes["food101"] == (101, 75_750, 25_250)
    assert sizes["flowers102"] == (102, 2_040, 6_149)
    assert next(iter(rows)) == "imagenet" and rows["imagenet"]["place"] == "ILSVRC/imagenet-1k on the Hub"
    assert rows["flowers17"] == {
        "classes": None,
        "train": None,
        "test": None,
        "place": str(tmp_path / "data/flowers17"),
    }
    assert rows["pacs_sketch"]["place"] == "not here"
    load_data(DataConfig("flowers17", pixels=8))
    code, out, _ = cli("bench", "data")
    assert code == 0
    (line,) = [line.split() for line in out.splitlines() if line.startswith("flowers17 ")]
    assert line == ["flowers17", "3", "18", "18", str(tmp_path / "data" / "flowers17")]


@pytest.mark.parametrize("command", ["list", "run", "show", "data"])
def test_help_shows_an_example(cli, command):
    code, out, _ = cli("bench", command, "--help")
    assert code == 0
    assert f"masterkey bench {command}" in out.split("Options")[0].replace("Usage: masterkey", "")


def test_run_and_run_again(cli, use, pictures, tmp_path):
    use(single(pictures, SCRATCH, RANDOM))
    code, out, err = cli("bench", "run", "tiny", "--size", "smoke", "--results", tmp_path / "r")
    assert (code, out) == (0, "")
    *lines, summary = err.splitlines()
    assert [line.split()[0] for line in lines] == ["[1/2]", "[2/2]"]
    assert summary == "2 done"
    code, out, err = cli("bench", "run", "tiny", "--size", "smoke", "--results", tmp_path / "r", "--json")
    assert (code, err) == (0, "2 already there\n")
    assert sorted(json.loads(out)["already_there"]) == ResultStore(tmp_path / "r").run_ids()


def test_results_may_be_named_by_the_environment(cli, use, pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("MASTERKEY_RESULTS", str(tmp_path / "named"))
    use(single(pictures, SCRATCH))
    assert cli("bench", "run", "tiny", "--size", "smoke")[0] == 0
    assert len(ResultStore(tmp_path / "named").run_ids()) == 1


def test_a_failed_run_is_exit_code_1_and_can_be_shown(cli, use, pictures, tmp_path):
    experiment = single(pictures, GONE, SCRATCH)
    use(experiment)
    failing, good = (planned.config.id for planned in experiment.plan(ResultStore(tmp_path)))
    arguments = ("bench", "run", "tiny", "--size", "smoke", "--results", tmp_path)
    code, _, err = cli(*arguments)
    assert code == 1
    assert "1 done, 1 failed" in err
    assert err.splitlines()[-1].startswith(f"failed {failing}: CheckpointError: ")
    code, _, err = cli(*arguments)
    assert code == 1
    assert "1 already there, 1 failed" in err
    assert cli(*arguments, "--only", "scratch")[0] == 0

    code, out, _ = cli("bench", "show", failing, "--results", tmp_path)
    assert code == 0
    assert "CheckpointError: " in out and "gone.pth' does not exist" in out
    assert good not in out


def test_show(cli, use, pictures, tmp_path):
    use(single(pictures, SCRATCH, {"name": "eight", "bank": "random", "steps": [["select", {"layers": 1}]]}))
    assert cli("bench", "run", "tiny", "--size", "smoke", "--results", tmp_path)[0] == 0
    store = ResultStore(tmp_path)
    results = {run_id: store.read(run_id) for run_id in store.run_ids()}
    run_id = next(run_id for run_id, result in results.items() if result["metrics"]["config"]["arm"]["bank"])
    prefix = next(run_id[:n] for n in range(1, 13) if sum(other.startswith(run_id[:n]) for other in results) == 1)

    code, out, err = cli("bench", "show", prefix, "--results", tmp_path, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == results[run_id]

    code, out, _ = cli("bench", "show", prefix, "--results", tmp_path)
    metrics, machine = results[run_id]["metrics"], results[run_id]["machine"]
    assert code == 0
    facts, curve = out.split("\n\n")
    shown = {line[: facts.index(run_id)].strip(): line[facts.index(run_id) :] for line in facts.splitlines()}
    assert shown["run"] == run_id
    assert shown["bank"] == "random"
    assert shown["steps"] == "select(layers=1)"
    assert shown["filled"] == "4 of 4 layers"
    assert shown["bank sha256"] == metrics["bank_sha256"]
    assert shown["top-1"] == f"{metrics['top1']:.2f} %"
    assert f"threads: {machine['threads']}" in shown["machine"]
    header, *epochs = curve.splitlines()
    assert header.split() == ["epoch", "lr", "train_loss", "loss", "top1"]
    assert [float(line.split()[-1]) for line in epochs] == pytest.approx(
        [e["top1"] for e in metrics["curve"]], rel=1e-3
    )


def test_show_refuses_what_is_no_run(cli, tmp_path):
    code, _, err = cli("bench", "show", "abc", "--results", tmp_path)
    assert code == 1
    assert "no run" in err
    (tmp_path / "runs").mkdir()
    for name in ("ab1", "ab2"):
        (tmp_path / "runs" / f"{name}.json").write_text("{")
    code, _, err = cli("bench", "show", "ab", "--results", tmp_path)
    assert code == 1
    assert "ab1, ab2" in err
    code, _, err = cli("bench", "show", "", "--results", tmp_path)
    assert code == 1
    code, _, err = cli("bench", "show", "ab1", "--results", tmp_path)
    assert code == 1
    assert "cannot be read" in err


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("armz", "--size", "smoke"), 1, "no experiment named 'armz'; did you mean arms?"),
        (("arms", "--size", "smoke", "--only", "publishd-8"), 1, "no arm 'publishd-8'; did you mean published-8?"),
        (
            ("arms", "--size", "smoke", "--only", "publishd-8", "--dry-run"),
            1,
            "no arm 'publishd-8'; did you mean published-8?",
        ),
        (("arms", "--size", "smoke", "--device", "cuda:77"), 1, "'cuda:77' cannot be used here"),
        (("arms", "--size", "smoke", "--device", "gpu"), 1, "'gpu' cannot be used here"),
        (("arms", "--size", "smoke", "--device", "cuda:256"), 1, "'cuda:256' cannot be used here"),
        (("arms", "--size", "smoke", "--device", "meta"), 1, "'meta' cannot be used here: a run takes cpu, cuda"),
        (("arms", "--size", "smoke", "--device", "meta", "--ray", "auto"), 1, "'meta' cannot be used here"),
        (("arms", "--size", "smoke", "--seed", str(2**64)), 1, f"seed is {2**64}; it must be from 0 to 2**63 - 1"),
        (("arms", "--size", "huge"), 2, "huge"),
        (("arms",), 2, "--size"),
        (("arms", "--size", "smoke", "--jobs", "0"), 2, "jobs"),
        (("arms", "--size", "smoke", "--jobs", "2", "--ray", "auto"), 2, "--jobs"),
        (("arms", "--size", "smoke", "--gpus", "1"), 2, "--gpus"),
        (("arms", "--size", "smoke", "--device", "cuda:1", "--ray", "auto"), 2, "--device cuda"),
    ],
)
def test_bad_input_is_one_sentence(cli, tmp_path, arguments, code, sentence):
    found, out, err = cli("bench", "run", *arguments, "--results", tmp_path)
    assert (found, out) == (code, "")
    assert sentence in err
    if code == 1:
        assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({"crop_pct": 0}, "crop_pct is 0; it must be above 0 and at most 1"),
        ({"pixels": -5}, "pixels is -5; it must be 1 or more"),
        ({"per_class": 0}, "per_class is 0; it must be 1 or more"),
        ({"view": "natral"}, "view is 'natral'; did you mean natural?"),
    ],
)
def test_pictures_that_there_cannot_be_are_refused_before_anything_is_run(
    cli, use, pictures, tmp_path, value, sentence
):
    use(single(pictures, SCRATCH, data={"tiny": {"name": str(pictures), "pixels": 32, **value}}))
    for options in ((), ("--dry-run",)):
        code, out, err = cli("bench", "run", "tiny", "--size", "smoke", "--results", tmp_path / "results", *options)
        assert (code, out, len(err.splitlines())) == (1, "", 1)
        assert sentence in err
    assert not (tmp_path / "results").exists()


def test_ray_without_its_extra_is_one_sentence(cli, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "masterkey.benchmarks.ray_sweep", raising=False)
    code, _, err = cli("bench", "run", "arms", "--size", "smoke", "--results", tmp_path, "--ray", "auto")
    assert code == 1
    assert "masterkey[ray]" in err
    assert len(err.splitlines()) == 1


def test_a_result_of_another_version_is_one_sentence(cli, use, pictures, tmp_path):
    experiment = single(pictures, SCRATCH)
    use(experiment)
    path = ResultStore(tmp_path).run_path(experiment.plan(ResultStore(tmp_path))[0].config.id)
    path.parent.mkdir()
    path.write_text('{"version": 2}')
    code, _, err = cli("bench", "run", "tiny", "--size", "smoke", "--results", tmp_path)
    assert code == 1
    assert f"{path} is of version 2" in err
    assert path.read_text() == '{"version": 2}'


def test_a_dry_run_builds_everything_and_says_what_stands_in(cli, use, pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("MASTERKEY_DATA", str(tmp_path / "no-data"))
    use(
        tiny_experiment(
            pictures,
            targets=["tiny", "pets"],
            data={"tiny": {"name": str(pictures), "pixels": 32}, "pets": {"pixels": 32, "crop_pct": 0.875}},
            arms=[
                SCRATCH,
                RANDOM,
                {"name": "selffer", "bank": "selffer"},
                {"name": "checkpoint", "bank": "checkpoint:filters.pth"},
                {"name": "pretrained", "initial": "pretrained"},
                {"name": "selected", "initial": "weight-selection", "teacher": "scratch:@small"},
            ],
        )
    )
    arguments = ("bench", "run", "tiny", "--size", "paper", "--dry-run", "--results", tmp_path / "r")
    code, out, err = cli(*arguments, "--json")
    assert code == 0
    rows = {(row["data"], row["arm"]): row for row in json.loads(out)}
    assert len(err.splitlines()) == len(rows) == 12
    local, remote = rows[str(pictures), "random"], rows["pets", "random"]
    assert (local["classes"], local["batch"], local["filled"], local["layers"]) == (3, [6, 3, 32, 32], 4, 4)
    assert (remote["classes"], remote["batch"], remote["filled"]) == (37, [8, 3, 32, 32], 4)
    assert local["notes"] == []
    assert remote["notes"] == ["random pictures: timm/oxford-iiit-pet is on the Hub, not here"]
    scratch = rows[str(pictures), "scratch"]
    assert scratch["filled"] is None
    assert scratch["learning"] - local["learning"] == 4 * 8 * 49  # the frozen filters
    notes = {arm: rows[str(pictures), arm]["notes"] for arm in ("selffer", "checkpoint", "pretrained", "selected")}
    assert notes["selffer"] == ["filters of an untrained convnext_atto"]
    assert notes["selected"] == ["weights of an untrained convnext_atto"]
    assert "filters.pth is not here" in notes["checkpoint"][0]
    assert "not fetched" in notes["pretrained"][0]
    assert not (tmp_path / "r").exists()

    code, out, _ = cli(*arguments)
    assert code == 0
    header, *lines = out.splitlines()
    assert header.split() == ["data", "model", "arm", "classes", "learning", "filled", "batch", "remarks"]
    assert len(lines) == 12


def test_a_dry_run_says_per_row_what_cannot_be_built(cli, use, pictures, tmp_path):
    use(
        single(
            pictures,
            SCRATCH,
            {"name": "gone", "bank": "no-such"},
            {"name": "misfit", "bank": "random", "inject": {"layers": "no.such.layer"}},
            targets=["tiny", "absent"],
            data={"tiny": {"name": str(pictures), "pixels": 32}, "absent": {"name": "./absent", "pixels": 32}},
        )
    )
    code, out, err = cli("bench", "run", "tiny", "--size", "smoke", "--dry-run", "--results", tmp_path, "--json")
    rows = {(row["data"], row["arm"]): row["problem"] for row in json.loads(out)}
    assert code == 1
    assert "5 of 6 cannot be built" in err
    assert rows[str(pictures), "scratch"] is None
    assert "no bank named 'no-such'" in rows[str(pictures), "gone"]
    assert "no.such.layer" in rows[str(pictures), "misfit"]
    assert all("./absent" in rows["./absent", arm] for arm in ("scratch", "gone", "misfit"))


@pytest.mark.parametrize("name", experiment_names())
def test_every_experiment_can_be_built_at_paper_size_without_the_network(name, tmp_path, monkeypatch):
    """As the paper has it, but for time: batches of two pictures, of each AnB the least and the most n, hasty keys."""
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("the network was used"))
    monkeypatch.setattr(first_batch, "_batch_length", lambda pictures, batch_size: min(batch_size, 2))
    monkeypatch.setattr(greedy, "train", partial(autoencoder.train, steps=30))
    experiment = load_experiment(name, "paper")
    for arm in experiment.raw["arms"]:
        if (layers := arm.get("vary", {}).get("inject.layers")) is not None:
            layers[1:-1] = []
    rows = dry_run(experiment, ResultStore(tmp_path))
    assert [row.problem for row in rows] == [None] * len(rows)
    pixels = {run.config.data.pixels for run in experiment.plan(ResultStore(tmp_path))}
    assert 224 in pixels
    assert {row.batch[2:] for row in rows} == {(side, side) for side in pixels}
    assert {row.arm for row in rows} >= {arm["name"] for arm in experiment.arms}
    for row in rows:
        no_plan = row.arm.partition("/")[0] in ("scratch", "weight-selection", "pretrained") or any(
            note.startswith("no plan") for note in row.notes
        )
        assert no_plan == (row.filled is None)
        assert no_plan or 0 < row.filled <= row.layers


def test_a_dry_run_refuses_a_network_that_gives_no_numbers(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(first_batch, "augment", lambda *_, **__: torch.full((2, 3, 32, 32), torch.nan))
    (row,) = dry_run(single(pictures, SCRATCH), ResultStore(tmp_path))
    assert "not in numbers" in row.problem
