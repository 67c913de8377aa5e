"""What an experiment of one's own names, and what its arms say: seen from its file, refused before the first run."""

import shutil
from pathlib import Path

import pytest
from sweep_files import make_pictures

from masterkey import Bank
from masterkey.benchmarks.dry_run import dry_run
from masterkey.benchmarks.experiment import load_experiment
from masterkey.benchmarks.store import ResultStore
from masterkey.benchmarks.sweep import expected_runs

MINE = """
targets = ["leaves"]
models = ["small"]
seeds = [0]
lrs = [1e-3]
arms = [
    { name = "scratch" },
    { name = "random", bank = "random" },
    ARM
]
networks.small = { name = "convnext_atto", kwargs = { depths = [1, 1, 1, 1], dims = [8, 8, 8, 8] } }
pictures = { pixels = 32 }
train = { epochs = 1, batch_size = 8, warmup_epochs = 0 }
"""


@pytest.fixture
def mine(tmp_path, monkeypatch) -> Path:
    """A folder with pictures and a bank, whose names stand without a dot in files beside them."""
    monkeypatch.setenv("MASTERKEY_CACHE", str(tmp_path / "cache"))
    make_pictures(tmp_path / "mine" / "leaves")
    Bank.from_pretrained("convnext-atto.tiny-imagenet.8-keys").select(layers=1).save_pretrained(
        tmp_path / "mine" / "keys"
    )
    return tmp_path / "mine"


def _write(folder: Path, arm: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(MINE.replace("ARM", arm))
    return path


def test_bare_names_are_seen_from_the_file(mine, tmp_path, monkeypatch):
    """Else they mean something else in another working folder, and pictures that changed since are not noticed."""
    path = _write(mine, '{ name = "bank", vary = { bank = ["keys", "shuffled-pixels:./keys"] } }')
    monkeypatch.chdir(tmp_path)
    store = ResultStore(tmp_path / "r")
    runs = expected_runs(load_experiment(str(path), "small"), store)
    keys = mine / "keys"
    assert {run.config.data.name for run in runs} == {str(mine / "leaves")}
    assert {run.config.arm.bank for run in runs[2:]} == {str(keys), f"shuffled-pixels:{keys}"}
    assert all(row.problem is None for row in dry_run(load_experiment(str(path), "small"), store))


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        ('steps = [["normalized", { norm = "unit" }]]', "step normalized: got an unexpected keyword argument 'norm'"),
        ('steps = [["repeatd", { n = 2 }]]', "unknown step 'repeatd'; did you mean repeated"),
        ('steps = [["repeated", {}]]', "missing a required argument: 'n'; it takes n"),
        ('inject = { polcy = "stack" }', "inject: got an unexpected keyword argument 'polcy'; it takes policy, layers"),
        ('inject = { policy = "stak" }', "inject: policy is 'stak'; did you mean stack"),
    ],
)
def test_what_an_arm_cannot_do_is_refused_before_the_first_run(arm, said, mine, cli, tmp_path):
    path = _write(mine, f'{{ name = "bank", bank = "scale-space-8", {arm} }}')
    code, out = cli("bench", "run", path, "--size", "small", "--results", tmp_path / "r")
    assert code == 1 and said in out and len(out.splitlines()) == 1
    assert not (tmp_path / "r").exists()


def test_a_bank_that_is_a_checkpoint_is_refused_before_the_first_run(mine, cli, tmp_path):
    (mine / "network.pth").write_bytes(b"PK\3\4 and so on")
    path = _write(mine, '{ name = "bank", bank = "./network.pth" }')
    code, out = cli("bench", "run", path, "--size", "small", "--results", tmp_path / "r")
    assert code == 1 and "masterkey extract" in out and not (tmp_path / "r").exists()


def test_results_among_the_classes_are_refused(mine, cli, tmp_path, monkeypatch):
    flat = tmp_path / "flat"
    shutil.copytree(mine / "leaves" / "train", flat)
    monkeypatch.chdir(flat)
    options = ("own-pictures", "--size", "smoke", "--only", "scratch", "--target", ".")
    code, out = cli("bench", "run", *options, "--results", "results")
    assert code == 1 and "as one of its classes" in out and not (flat / "results").exists()


def test_a_dry_run_names_a_damaged_picture_or_leaves_it_out(mine, cli, tmp_path):
    path = _write(mine, '{ name = "bank", bank = "scale-space-8" }')
    damaged = mine / "leaves" / "train" / "dark" / "0.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    options = ("bench", "run", path, "--size", "small", "--results", tmp_path / "r", "--dry-run")
    code, out = cli(*options)
    assert code == 1 and "train/dark/0.png" in out
    assert cli(*options, "--skip-corrupt")[0] == 0


def test_a_report_of_another_folder_names_those_that_runs_learnt_from(mine, cli, tmp_path, monkeypatch):
    monkeypatch.chdir(mine)
    where = ("--size", "smoke", "--results", tmp_path / "r")
    assert cli("bench", "run", "own-pictures", *where, "--only", "scratch", "--target", "./leaves")[0] == 0
    code, out = cli("bench", "report", "own-pictures", *where, "-o", tmp_path / "report")
    assert code == 1 and f"(runs there learnt from {mine / 'leaves'}: is that the --target?)" in out
    code, out = cli("bench", "list", "own-pictures", "--target", "./leaves", "--results", tmp_path / "r")
    assert code == 0 and "1/5" in out
    assert cli("bench", "list", "arms", "--target", "flowers17-128px")[0] == 0  # a target of one of its sizes
    assert "has no target" in cli("bench", "list", "arms", "--target", "flowrs")[1]
    code, out = cli("bench", "list", "--target", "flowers17-128px")  # of all, those that have it
    assert code == 0 and "own-pictures" in out and "table7" not in out
    assert "no experiment has the target flowrs; masterkey bench data" in cli("bench", "list", "--target", "flowrs")[1]
