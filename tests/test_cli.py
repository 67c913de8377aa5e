"""The command line: what it prints where, its exit codes, and that it never shows a traceback."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
import typer
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import masterkey
from masterkey.cli import main
from masterkey.cli.main import run

COMMANDS = ["list", "info", "verify", "plot", "extract", "inspect", "init", "build", "push", "publish"]


@pytest.fixture
def cli(capfd):
    """Run the command line in this process: exit code, stdout, stderr."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        code = run([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def bank_dir(tmp_path_factory) -> Path:
    """A small stored bank: three layers of 3x3, 5x5 and 7x7."""
    folder = tmp_path_factory.mktemp("bank")
    generator = torch.Generator().manual_seed(0)
    state = {f"stages.{i}.dw.weight": torch.randn(16, 1, k, k, generator=generator) for i, k in enumerate((3, 5, 7))}
    checkpoint = folder / "small.safetensors"
    save_file(state, checkpoint)
    return masterkey.Bank.from_checkpoint(checkpoint, licence="MIT").save_pretrained(folder / "small")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(cli, command):
    code, out, _ = cli(command, "--help")
    assert code == 0
    assert f"masterkey {command}" in out.split("Options")[0].replace("Usage: masterkey", "")


def test_help_and_list_import_neither_torch_nor_timm():
    script = (
        "import sys; from masterkey.cli.main import run\n"
        "for arguments in (['--help'], ['list'], ['list', '--json'], ['info', 'scale-space-8']):\n"
        "    assert run(arguments) == 0\n"
        "assert not {'torch', 'timm', 'numpy', 'huggingface_hub'} & set(sys.modules), 'heavy imports'\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_console_script_is_installed():
    script = Path(sys.executable).with_name("masterkey")
    done = subprocess.run([script, "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, masterkey.__version__)


def test_list_names_every_built_in_bank(cli):
    code, out, _ = cli("list", "--json")
    assert code == 0
    assert [entry["bank"] for entry in json.loads(out)] == masterkey.list_banks()
    assert "scale-space-8" in cli("list")[1]


def test_extract_info_verify_roundtrip(cli, tmp_path):
    model = timm.create_model("test_convnext")
    torch.save({"state_dict": model.state_dict()}, tmp_path / "weights.pth")
    out_dir = tmp_path / "bank"
    code, out, err = cli("extract", tmp_path / "weights.pth", "-o", out_dir, "--licence", "MIT", "--name", "mine")
    assert code == 0
    assert "wrote" in err and "wrote" not in out
    code, out, _ = cli("info", out_dir, "--json")
    facts = json.loads(out)
    assert (facts["bank"], facts["licence"], facts["kind"]) == ("mine", "MIT", "depthwise")
    code, out, _ = cli("verify", out_dir, "--json")
    assert json.loads(out)["sha256"] == facts["sha256"] == masterkey.Bank.from_pretrained(out_dir).sha256
    assert {path.name for path in out_dir.iterdir()} == {"model.safetensors", "config.json", "README.md", "atlas.png"}


def test_extract_by_timm_name_without_network(cli, tmp_path):
    assert cli("extract", "test_convnext", "--no-pretrained", "-o", tmp_path / "a")[0] == 0
    assert cli("extract", "test_convnext", "--no-pretrained", "-o", tmp_path / "b")[0] == 0
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in "ab")
    assert first == second


def test_verify_names_a_damaged_bank(cli, bank_dir, tmp_path):
    data = bytearray((bank_dir / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(data)
    code, out, err = cli("verify", tmp_path)
    assert (code, out) == (1, "")
    assert "damaged" in err and err.count("\n") == 1


def test_plot_writes_a_picture(cli, bank_dir, tmp_path):
    assert cli("plot", bank_dir, "-o", tmp_path / "atlas.png")[0] == 0
    assert Image.open(tmp_path / "atlas.png").width > 1000
    assert cli("plot", "scale-space-8", "--kernel", "1x11", "-o", tmp_path / "keys.png")[0] == 0
    assert Image.open(tmp_path / "keys.png").width > 500


def test_inspect_lists_layers_and_a_plan(cli, bank_dir):
    code, out, _ = cli("inspect", "test_convnext", "--json")
    names = [layer["layer"] for layer in json.loads(out)["layers"]]
    assert code == 0
    assert names == list(masterkey.depthwise_layers(timm.create_model("test_convnext")))
    listed = json.loads(cli("inspect", "test_convnext", "--layers", "-2", "--json")[1])["layers"]
    assert [layer["layer"] for layer in listed] == names[-2:]
    for option in (("--policy", "sample"), ("--kernel", "exact"), ("--scale", "unit"), ("--seed", "1")):
        code, out, err = cli("inspect", "test_convnext", *option)
        assert (code, out) == (2, "") and "say how a bank goes in" in err
    code, out, _ = cli("inspect", "test_convnext", "--bank", bank_dir, "--layers", "-1", "--json")
    rows = json.loads(out)["rows"]
    assert [row["replaced"] for row in rows] == [False] * (len(rows) - 1) + [True]
    code, out, _ = cli("inspect", "test_convnext", "--bank", bank_dir, "--layers", "stage:0", "--layers", "stages.1.*")
    assert code == 0
    assert out.count("left alone") == len([name for name in names if name.split(".")[1] not in "01"])


def test_init_writes_what_plain_timm_loads(cli, bank_dir, tmp_path):
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for file in files:
        code, _, _ = cli("init", "test_convnext", "--bank", bank_dir, "--num-classes", "5", "-o", file)
        assert code == 0
    assert files[0].read_bytes() == files[1].read_bytes()
    model = timm.create_model("test_convnext", num_classes=5, checkpoint_path=str(files[0]))
    same = masterkey.create_model("test_convnext", bank_dir, num_classes=5)
    for name, layer in masterkey.depthwise_layers(model).items():
        assert torch.equal(layer.weight, masterkey.depthwise_layers(same)[name].weight)
    with safe_open(files[0], framework="pt") as file:
        assert json.loads(file.metadata()["masterkey_init"])["bank"] == "small"


def test_init_takes_what_else_the_network_takes(cli, tmp_path):
    file = tmp_path / "a.safetensors"
    options = ["--model-kwargs", "ls_init_value=0.5", "--model-kwargs", "depths=[1,1,1,1]"]
    assert cli("init", "test_convnext", "--num-classes", "5", *options, "-o", file)[0] == 0
    model = timm.create_model("test_convnext", num_classes=5, depths=[1, 1, 1, 1], checkpoint_path=str(file))
    assert {len(stage.blocks) for stage in model.stages} == {1}
    assert set(model.stages[0].blocks[0].gamma.tolist()) == {0.5}
    with safe_open(file, framework="pt") as opened:
        assert json.loads(opened.metadata()["masterkey_init"])["bank"] == "scale-space-8"


def test_init_keeps_a_checkpoint_but_for_depthwise_weights(cli, tmp_path):
    model = timm.create_model("test_convnext", num_classes=5)
    save_file(model.state_dict(), tmp_path / "start.safetensors")
    options = ["--num-classes", "5", "--checkpoint", tmp_path / "start.safetensors", "-o", tmp_path / "out.safetensors"]
    assert cli("init", "test_convnext", "--bank", "scale-space-8", *options)[0] == 0
    start, out = load_file(tmp_path / "start.safetensors"), load_file(tmp_path / "out.safetensors")
    changed = {name for name in start if not torch.equal(start[name], out[name])}
    assert changed == {f"{name}.weight" for name in masterkey.depthwise_layers(model)}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["info", "scale-space-9"], "did you mean scale-space-8?"),
        (["info", "../nowhere"], "does not exist"),
        (["info", "some/../thing"], "is no name of a bank"),
        (["info", "x" * 10_000], "10,000 characters"),
        (["verify", "bank\0name"], "is no name of a bank"),
        (["info", "hf://someone/some-bank"], "hf://org/repo/file"),
        (["inspect", "convnext_fempto"], "near names: convnext_femto"),
        (["inspect", "resnet50"], "no spatial depthwise convolution"),
        (["inspect", "../../etc"], "timm has no model"),
        (["inspect", "test_convnext", "--bank", "scale-space-8", "--layers", "nothing.*"], "matches none of the"),
        (["inspect", "test_convnext", "--layers", "nothing.*"], "matches none of the 9 layers"),
        (["inspect", "test_convnext", "--layers", "stages.0"], "'stages.0.*' or 'stage:0' is probably meant"),
        (["inspect", "timm/convnext_atto.d2_in1k"], "goes without timm/ here: 'convnext_atto.d2_in1k'"),
        (["init", "timm/test_convnext", "-o", "m.safetensors"], "goes without timm/ here: 'test_convnext'"),
        (["extract", "missing.pth", "-o", "out"], "does not exist"),
        (["extract", "missing.onnx", "-o", "out"], "does not exist"),
        (["extract", "./convnext_femto", "-o", "out"], "does not exist"),
        (["extract", f"./{'x' * 300}.onnx", "-o", "out"], "cannot read"),
        (["inspect", "foo:bar"], "timm does not recognise 'foo:bar'"),
        (["inspect", "hf-hub:"], "timm does not recognise 'hf-hub:'"),
        (["inspect", "local-dir:nowhere"], "'nowhere' is no network's folder"),
        (["info", "scale-space-8", "--revision", "v1"], "has no revisions"),
        (["info", "shuffled-pixels:scale-space-8", "--revision", "v1"], "'scale-space-8' has no revisions"),
        (["plot", "scale-space-8", "--output=~nobody-here/atlas.png"], "no such user"),
        (["init", "test_convnext", "--bank", "random", "-o", "model.bin"], "must end in .safetensors"),
        (["init", "test_convnext", "--bank", "random", "-o", "/proc/nowhere/m.safetensors"], "cannot write"),
        (["init", "test_convnext", "--bank", "random", "--checkpoint", "no.pth", "-o", "m.safetensors"], "no.pth"),
        (["plot", "scale-space-8", "-o", "/proc/nowhere/atlas.png"], "cannot write"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_refusals_are_one_sentence_and_exit_1(cli, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    code, out, err = cli(*arguments)
    assert (code, out) == (1, "")
    assert sentence in err and err.startswith("masterkey: ") and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["info"],
        ["plot", "scale-space-8", "--kernel", "0"],
        ["plot", "scale-space-8", "--kernel", "7y7"],
        ["inspect", "test_convnext", "--bank", "random", "--policy", "guess"],
        ["init", "test_convnext", "--bank", "random"],
        ["init", "test_convnext", "--model-kwargs", "ls_init_value", "-o", "m.safetensors"],
        ["init", "test_convnext", "--model-kwargs", "num_classes=3", "-o", "m.safetensors"],
        ["init", "test_convnext", "--model-kwargs", "seed=3", "-o", "m.safetensors"],
        ["init", "test_convnext", "--model-kwargs", "name=x", "-o", "m.safetensors"],
        ["init", "test_convnext", "--model-kwargs", "ls_init_value=NaN", "-o", "m.safetensors"],
        ["init", "test_convnext", "--model-kwargs", "depths=[1e999]", "-o", "m.safetensors"],
        ["init", "test_convnext", "--num-classes", "99999999999999", "-o", "m.safetensors"],
        ["init", "test_convnext", "--in-chans", "99999999999999", "-o", "m.safetensors"],
        ["init", "test_convnext", "--model-kwargs", "no_such=3", "-o", "m.safetensors"],
        ["init", "test_convnext", "--model-kwargs", "depths=[2]", "-o", "m.safetensors"],
        ["init", "test_convnext", "--model-kwargs", "dims=[-1,2,3,4]", "-o", "m.safetensors"],
        ["distill", "convnext-atto.tiny-imagenet", "-o", "keys", "--curve", "curve.csv"],
        ["distill", "convnext-atto.tiny-imagenet", "-o", ""],  # of a variable that is not set
        ["plot", "scale-space-8", "--output="],
        ["init", "test_convnext", "--bank", "random", "-o", ""],
        ["extract", "test_convnext", "--licence", "MIT", "-o", "out"],
        ["extract", "test_convnext", "--revision", "v1", "-o", "out"],
        ["extract", "timm/test_convnext", "--no-pretrained", "-o", "out"],
        ["extract", "missing.pth", "--no-pretrained", "-o", "out"],
        ["extract", "test_convnext", "--local-files-only", "-o", "out"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_2(cli, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    assert cli(*arguments)[0] == 2
    assert list(tmp_path.iterdir()) == []


def test_kernel_of_a_stored_bank_is_wrong_usage(cli, bank_dir):
    assert cli("plot", bank_dir, "--kernel", "5")[0] == 2


def test_policy_layerwise_of_other_shapes_is_refused(cli, bank_dir):
    code, _, err = cli("inspect", "test_convnext", "--bank", bank_dir, "--policy", "layerwise")
    assert code == 1
    assert "policy 'stack' fits other shapes" in err


@pytest.mark.parametrize("name", ["HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"])
@pytest.mark.parametrize("value", ["2.5", "10s", ""])
def test_seconds_that_the_hubs_client_cannot_read_are_one_sentence(cli, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    code, out, err = cli("list")
    assert (code, out) == (1, "") and err == f"masterkey: {name} is '{value}'; it must be whole seconds\n"
    monkeypatch.setenv(name, "10")
    assert cli("list")[0] == 0


def test_what_a_path_holds_cannot_move_the_cursor(cli):
    code, _, err = cli("verify", "./esc\x1b[31mred\nline.safetensors")
    assert code == 1 and "\x1b" not in err and err.count("\n") == 1


def test_a_reader_that_goes_away_is_no_traceback(bank_dir):
    script = Path(sys.executable).with_name("masterkey")
    done = subprocess.run(f"{script} list | true", shell=True, capture_output=True, text=True)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("arguments", [["list"], ["info", "scale-space-8", "--json"]])
def test_output_that_cannot_be_written_is_one_sentence(arguments):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "masterkey.cli.main", *arguments], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert done.stderr == "masterkey: cannot write the output: No space left on device\n"


def test_a_file_that_a_command_cannot_use_is_one_sentence(monkeypatch, capsys, tmp_path):
    app = typer.Typer()

    @app.command()
    def read():
        (tmp_path / "no" / "file").read_bytes()

    monkeypatch.setattr(main, "app", app)
    assert main.run([]) == 1
    assert capsys.readouterr().err == f"masterkey: cannot use '{tmp_path}/no/file': No such file or directory\n"


def test_a_terminal_without_a_sign_shows_another(bank_dir):
    command = [sys.executable, "-m", "masterkey.cli.main", "inspect", "test_convnext", "--bank", bank_dir]
    done = subprocess.run(
        [*command, "--policy", "sample"], capture_output=True, env={**os.environ, "PYTHONIOENCODING": "latin-1"}
    )
    assert done.returncode == 0 and b"? " in done.stdout and b"Traceback" not in done.stderr


def test_a_control_made_of_a_bank_has_that_banks_licence(cli, bank_dir):
    code, out, _ = cli("info", "--json", "gaussian-covariance:convnextv2-femto.in1k")
    assert code == 0 and (json.loads(out)["licence"], json.loads(out)["non-commercial"]) == ("CC-BY-NC-4.0", True)
    code, out, _ = cli("info", "--json", f"shuffled-pixels:{bank_dir}")
    assert code == 0 and json.loads(out)["licence"] == masterkey.Bank.from_pretrained(bank_dir).metadata.licence
    code, _, err = cli("info", "shuffled-pixels:nope")
    assert code == 1 and "no bank named 'nope'" in err


def test_extract_does_not_replace_the_checkpoint(cli, tmp_path):
    checkpoint = tmp_path / "model.safetensors"
    save_file({"stem.weight": torch.ones(2, 2), "dw.weight": torch.randn(16, 1, 3, 3)}, checkpoint)
    before = checkpoint.read_bytes()
    code, _, err = cli("extract", checkpoint, "-o", tmp_path)
    assert code == 1 and "its model.safetensors would be replaced" in err
    assert checkpoint.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_extract_writes_again_into_a_folder_called_like_the_network(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = [cli("extract", "test_convnext", "--no-pretrained", "-o", "test_convnext") for _ in range(2)]
    assert said[0] == said[1] and said[0][0] == 0
    code, _, err = cli("extract", "no-network", "-o", "out")
    assert code == 1 and "timm has no model named 'no-network'" in err
    (tmp_path / "no-network").mkdir()
    code, _, err = cli("extract", "no-network", "-o", "out")
    assert code == 1 and "is a folder, not a checkpoint" in err


def test_a_home_is_filled_in_where_the_shell_does_not(cli, bank_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    commands = [
        ("plot", bank_dir, "--output=~/atlas.png"),
        ("analyze", bank_dir, "--output=~/report", "--no-families", "--keys=0"),
        ("init", "test_convnext", "--output=~/start.safetensors"),
        ("extract", "test_convnext", "--no-pretrained", "--output=~/bank"),
        ("distill", bank_dir, "--kernel=7", "--keys=1", "--method=kmeans", "--output=~/keys", "--curve=~/curve.png"),
    ]
    for command in commands:
        code, _, err = cli(*command)
        assert code == 0, err
    expected = {"atlas.png", "report", "start.safetensors", "bank", "keys", "curve.png", "curve.csv"}
    # a cache and settings of others may be there as well
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")} == expected


def test_init_does_not_replace_a_bank(cli, bank_dir, tmp_path):
    weights = shutil.copy(bank_dir / "model.safetensors", tmp_path)
    before = Path(weights).read_bytes()
    code, _, err = cli("init", "test_convnext", "-o", weights)
    assert code == 1 and "is a bank and would be replaced" in err and Path(weights).read_bytes() == before
    pipe = tmp_path / "pipe.safetensors"
    os.mkfifo(pipe)  # which nobody writes to
    code, _, err = cli("init", "test_convnext", "-o", pipe)
    assert code == 1 and "a device or a pipe" in err and pipe.is_fifo()
    start = tmp_path / "start.safetensors"
    assert [cli("init", "test_convnext", "-o", start)[0] for _ in range(2)] == [0, 0]  # its own it does replace


def test_init_does_not_replace_what_was_trained_from_it(cli, tmp_path):
    start = tmp_path / "model.safetensors"
    assert cli("init", "test_convnext", "-o", start)[0] == 0
    save_file(load_file(start), start)  # as a training does that keeps the name
    before = start.read_bytes()
    code, _, err = cli("init", "test_convnext", "-o", start)
    assert code == 1 and "holds something else than initial weights and would be lost" in err
    assert start.read_bytes() == before


@pytest.mark.parametrize(("closed", "code"), [(">&-", 1), ("2>&-", 0), ("2>&- >&-", 1)])
def test_closed_streams_are_no_traceback(closed, code, tmp_path):
    command = f"{shlex.quote(sys.executable)} -m masterkey.cli.main list {closed}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == code and "Traceback" not in done.stderr
    assert ("standard output is closed" in done.stderr) is (closed == ">&-")
    assert ("scale-space-8" in done.stdout) is (closed == "2>&-")


def test_a_control_made_of_a_bank_without_licence_has_an_unknown_one(cli, tmp_path):
    save_file({"dw.weight": torch.randn(4, 1, 3, 3)}, tmp_path / "net.safetensors")
    masterkey.Bank.from_checkpoint(tmp_path / "net.safetensors").save_pretrained(tmp_path / "bank")
    code, out, _ = cli("info", "--json", f"shuffled-pixels:{tmp_path / 'bank'}")
    assert code == 0 and json.loads(out)["licence"] == "unknown"
