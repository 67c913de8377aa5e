import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from masterkey.benchmarks.config import BenchmarkError
from masterkey.benchmarks.data import Data, Part
from masterkey.benchmarks.scripts import throughput

# what timm's train.py logs at the end of an epoch
LOG = """\
Train: 0 [   3/4 (100%)]  Loss: 3.52 (3.60)  Time: 0.500s,  128.00/s  (0.900s,   71.11/s)  LR: 1.000e-03  Data: 0.000
Train: 1 [   0/4 ( 25%)]  Loss: 3.52 (3.52)  Time: 0.410s,  156.10/s  (0.410s,  156.10/s)  LR: 5.005e-04  Data: 0.000
Train: 1 [   3/4 (100%)]  Loss: 3.41 (3.47)  Time: 0.420s,  152.38/s  (0.430s,  148.84/s)  LR: 5.005e-04  Data: 0.000
"""


def test_timms_rate_is_the_mean_of_the_last_epoch():
    assert throughput.timm_rate(LOG) == 148.84


def test_a_failed_train_py_is_reported_with_its_last_line():
    with pytest.raises(BenchmarkError, match="did not report epoch 1; its last line: RuntimeError: no"):
        throughput.timm_rate("Traceback\nRuntimeError: no\n")


def test_a_folder_without_timm_is_refused(tmp_path):
    with pytest.raises(BenchmarkError, match="no source folder of timm"):
        throughput.source_version(tmp_path)


def test_timm_and_we_get_the_same_pictures(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)
    part = Part(images, np.arange(10) % 3)
    data = Data("noise", ("a", "b", "c"), part, part, 8, sha256="")
    throughput.write_pictures(data, 6, tmp_path)
    files = sorted((tmp_path / "train").glob("*/*.png"), key=lambda file: file.stem)
    with np.load(tmp_path / "pictures.npz") as stored:
        assert np.array_equal(np.stack([np.asarray(Image.open(file)) for file in files]), stored["images"])
        assert [int(file.parent.name) for file in files] == stored["labels"].tolist()
    with pytest.raises(BenchmarkError, match="noise has 10 training pictures, 11 are needed"):
        throughput.write_pictures(data, 11, tmp_path)


def test_timm_is_told_our_recipe():
    options = argparse.Namespace(
        model="convnext_femto", pixels=64, batch_size=32, workers=1, device="cuda:1", amp=False
    )
    command = throughput.timm_command(Path("/pictures"), 37, options)
    said = " ".join(command)
    for words in ("--batch-size 32", "--input-size 3 64 64", "--opt adamw", "--scale 0.35 1.0", "--device cuda:1"):
        assert words in said
    assert command[command.index("--val-split") + 1] == "" and "--amp" not in command
    options.amp = True
    assert throughput.timm_command(Path("/pictures"), 37, options) == [*command, "--amp", "--amp-dtype", "bfloat16"]


def test_a_report_compares_turn_by_turn():
    report = throughput.report(
        {"timm": [100.0, 50.0, 80.0], "ours": [100.0, 50.0, 80.0], "ours frozen": [150.0, 75.0, 96.0]}
    )
    assert report["timm"] == {"images_per_second": 80.0, "turns": [100.0, 50.0, 80.0]}
    assert report["ours"]["to_timm"]["ratio"] == 1.0
    assert report["ours frozen"]["to_timm"]["ratio"] == 1.5 and report["ours frozen"]["target"] == 1.3


def test_on_a_gpu_other_ratios_are_to_be_reached():
    report = throughput.report({"timm": [100.0], "ours": [100.0], "ours frozen": [250.0]}, "cuda:1")
    assert (report["ours frozen"]["to_timm"]["ratio"], report["ours frozen"]["target"]) == (2.5, 3.0)
    assert "target" not in report["ours"]


def noise(folder: Path, pictures: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (pictures, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(pictures) % 3
    np.savez(folder / "pictures.npz", images=images, labels=labels, classes=np.array(["a", "b", "c"]))


def test_device_and_autocast_reach_the_training(tmp_path, monkeypatch):
    noise(tmp_path, 6)
    seen = []

    def train(_model, _data, config, **options):
        seen.append((config.amp, options))
        return Outcome([2.0, 3.0])

    monkeypatch.setattr(throughput, "train", train)
    assert throughput.run_ours(tmp_path, "test_convnext", 32, 6, None, "cuda:1") == 2.0  # 6 pictures in 3 seconds
    throughput.run_ours(tmp_path, "test_convnext", 32, 6, None, amp=True)
    assert seen == [(False, {"seed": 0, "device": "cuda:1"}), (True, {"seed": 0, "device": "cpu"})]


@pytest.mark.parametrize("device", ["meta", "gpu", "cuda:256"])
def test_a_device_that_cannot_be_used_is_refused_before_anything_is_read(device, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["throughput", "--timm-source", "nowhere", "--device", device])
    with pytest.raises(SystemExit):
        throughput.main()
    assert f"error: device {device!r} cannot be used here" in capsys.readouterr().err


@dataclass
class Outcome:
    epoch_seconds: list[float]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_our_loop_runs_on_a_gpu(tmp_path):
    noise(tmp_path, 64)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    assert throughput.run_ours(tmp_path, "test_convnext", 32, 32, "scale-space-8", "cuda") > 0
    assert torch.cuda.max_memory_allocated() > before
