"""Images per second of our training loop and of timm's own train.py, side by side on this machine.

    python -m masterkey.benchmarks.scripts.throughput --timm-source ~/pytorch-image-models

``train.py`` is not in timm's wheel: DIR is a checkout of huggingface/pytorch-image-models, and runs with the timm
that lies in it. Both train the same network on the same pictures (a data set at its training size, for timm as a
folder of PNG files) with AdamW, the same batch, random resized crops and flips, in 32 bits or, with ``--amp``, under
bfloat16 autocast, and with as many threads, on the CPU or on the GPU that ``--device`` names. Three arms take turns,
each in a fresh process: timm, ours, ours with a frozen bank. A figure is the rate of the second epoch, so that what
happens once (imports, data loader, first allocation) does not count; evaluation does not count either. A ratio is the
median over the turns, with a bootstrap 95 % interval.
"""

import argparse
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import masterkey
from masterkey.create import build_timm

from ..config import BenchmarkError, DataConfig, TrainConfig
from ..data import Data, Part, load_data
from ..device import recorded_device, usable_device
from ..measure import describe_machine, paired_ratio
from ..training import train
from .record import arguments, record

ARMS = ("timm", "ours", "ours frozen")
TARGETS = {"cpu": {"ours": 0.98, "ours frozen": 1.3}, "cuda": {"ours frozen": 3.0}}  # by kind of device
_EPOCHS = 2
_RECIPE = TrainConfig(epochs=_EPOCHS, warmup_epochs=0)
_TIMM_RATE = re.compile(rf"Train: {_EPOCHS - 1} \[.*\(100%\)\].*?/s\s+\(.*?([\d.]+)/s\)")


def write_pictures(data: Data, count: int, folder: Path) -> None:
    """Write ``count`` training pictures twice: as ``pictures.npz``, and as ``train/CLASS/NUMBER.png`` for timm.

    Raises:
        BenchmarkError: there are fewer.
    """
    if len(data.train.labels) < count:
        raise BenchmarkError(f"{data.name} has {len(data.train.labels)} training pictures, {count} are needed")
    chosen = np.sort(np.random.default_rng(0).permutation(len(data.train.labels))[:count])
    images, labels = data.train.images[chosen], data.train.labels[chosen]
    np.savez(folder / "pictures.npz", images=images, labels=labels, classes=np.array(data.classes))
    for label in range(len(data.classes)):
        (folder / "train" / f"{label:04d}").mkdir(parents=True)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        Image.fromarray(image).save(folder / "train" / f"{label:04d}" / f"{number:06d}.png")


def run_ours(
    folder: Path,
    model_name: str,
    pixels: int,
    batch_size: int,
    bank: str | None,
    device: str = "cpu",
    amp: bool = False,
) -> float:
    """Train on ``pictures.npz`` in this process, on a device; return images per second of the last epoch."""
    with np.load(folder / "pictures.npz") as stored:
        part = Part(stored["images"], stored["labels"])
        classes = tuple(stored["classes"].tolist())
    few = Part(part.images[:batch_size], part.labels[:batch_size])
    data = Data("pictures", classes, part, few, pixels, sha256="")
    torch.manual_seed(0)
    model = build_timm(model_name, num_classes=len(classes))
    if bank is not None:
        masterkey.inject(model, bank)
    outcome = train(model, data, replace(_RECIPE, batch_size=batch_size, amp=amp), seed=0, device=device)
    return len(part.labels) / outcome.epoch_seconds[-1]


def timm_command(folder: Path, classes: int, options: argparse.Namespace) -> list[str]:
    """Return the command line of timm's train.py that does the same."""
    values = {
        "--data-dir": folder,
        "--val-split": "",
        "--model": options.model,
        "--num-classes": classes,
        "--input-size": f"3 {options.pixels} {options.pixels}",
        "--batch-size": options.batch_size,
        "--epochs": _EPOCHS,
        "--opt": "adamw",
        "--lr": _RECIPE.lr,
        "--weight-decay": _RECIPE.weight_decay,
        "--warmup-epochs": 0,
        "--smoothing": _RECIPE.smoothing,
        "--scale": f"{_RECIPE.scale[0]} {_RECIPE.scale[1]}",
        "--hflip": _RECIPE.hflip,
        "--color-jitter": 0,
        "--train-interpolation": "bilinear",
        "--workers": options.workers,
        "--device": options.device,
        "--output": folder / "output",
    }
    words = [word for name, value in values.items() for word in (name, *(str(value).split(" ")))]
    half = ["--amp", "--amp-dtype", "bfloat16"] if options.amp else []
    return [sys.executable, "train.py", *words, *half]


def timm_rate(log: str) -> float:
    """Return the images per second that train.py's log gives for the last epoch.

    Raises:
        BenchmarkError: the log has no such line.
    """
    found = _TIMM_RATE.search(log)
    if found is None:
        last = log.strip().splitlines()[-1] if log.strip() else "nothing was written"
        raise BenchmarkError(f"timm's train.py did not report epoch {_EPOCHS - 1}; its last line: {last}")
    return float(found[1])


def run_timm(folder: Path, classes: int, options: argparse.Namespace) -> float:
    """Run timm's train.py on ``train/``; return its images per second."""
    command = timm_command(folder, classes, options)
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    child = subprocess.run(
        command, cwd=options.timm_source, env=environment, capture_output=True, text=True, check=False
    )
    return timm_rate(child.stdout + child.stderr)


def run_child(folder: Path, arm: str, options: argparse.Namespace) -> float:
    """Run one of our arms in a fresh process, as timm's runs in one."""
    arguments = ["--model", options.model, "--pixels", options.pixels, "--batch-size", options.batch_size]
    arguments += ["--device", options.device]
    if arm == "ours frozen":
        arguments += ["--bank", options.bank]
    if options.amp:
        arguments += ["--amp"]
    command = [sys.executable, "-m", "masterkey.benchmarks.scripts.throughput", "--pictures", folder, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    child = subprocess.run(
        [str(word) for word in command], env=environment, capture_output=True, text=True, check=False
    )
    if child.returncode != 0:
        raise BenchmarkError(f"our own loop failed: {child.stderr.strip().splitlines()[-1]}")
    return float(child.stdout)


def measure(options: argparse.Namespace) -> dict[str, list[float]]:
    """Return images per second of every turn, per arm."""
    data = load_data(DataConfig(options.data, pixels=options.pixels))
    rates: dict[str, list[float]] = {arm: [] for arm in ARMS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pictures(data, options.batches * options.batch_size, folder)
        for turn in range(options.turns):
            for arm in ARMS:
                rate = (
                    run_timm(folder, len(data.classes), options) if arm == "timm" else run_child(folder, arm, options)
                )
                rates[arm].append(round(rate, 2))
            print(turn, {arm: rates[arm][-1] for arm in ARMS}, file=sys.stderr, flush=True)
    return rates


def source_version(source: Path) -> str:
    """Return the version of the timm in a source folder.

    Raises:
        BenchmarkError: the folder holds no timm with a train.py.
    """
    version = source / "timm" / "version.py"
    if not version.exists() or not (source / "train.py").exists():
        raise BenchmarkError(f"{source} is no source folder of timm: it lacks train.py or timm/version.py")
    return version.read_text().split("'")[1]


def report(rates: dict[str, list[float]], device: str = "cpu") -> dict[str, Any]:
    """Return medians and ratios to timm, with the ratio to reach where there is one for the kind of device."""
    arms: dict[str, dict[str, Any]] = {}
    targets = TARGETS.get(device.split(":")[0], {})
    for arm, values in rates.items():
        arms[arm] = {"images_per_second": round(statistics.median(values), 1), "turns": values}
        if arm != "timm":
            arms[arm]["to_timm"] = paired_ratio(values, rates["timm"])
        if arm in targets:
            arms[arm]["target"] = targets[arm]
    return arms


def main() -> None:
    """Measure, print, write the file."""
    parser = arguments(__doc__, "throughput.json")
    parser.add_argument("--timm-source", type=Path, help="a checkout of huggingface/pytorch-image-models")
    parser.add_argument("--data", default="../shared/data/pets", help="what load_data reads (default %(default)s)")
    parser.add_argument("--model", default="convnext_femto")
    parser.add_argument("--bank", default=None)
    parser.add_argument("--pixels", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--batches", type=int, default=8, help="in an epoch (default 8)")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--workers", type=int, default=2, help="of timm's data loader (default 2)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 (default %(default)s)")
    parser.add_argument("--amp", action="store_true", help="under bfloat16 autocast, both loops")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch (default %(default)s)")
    parser.add_argument("--pictures", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        options.device = usable_device(options.device)
    except BenchmarkError as error:
        parser.error(str(error))
    if options.pictures is not None:
        few = (options.model, options.pixels, options.batch_size, options.bank, options.device, options.amp)
        print(run_ours(options.pictures, *few))
        return
    if options.timm_source is None:
        parser.error("--timm-source is needed")
    options.bank = options.bank or "scale-space-8"
    before = {**describe_machine(), "device": recorded_device(options.device), "threads": options.threads}
    version = source_version(options.timm_source)
    result = {
        "command": shlex.join(["python", "-m", "masterkey.benchmarks.scripts.throughput", *sys.argv[1:]]),
        "machine": before,
        "timm_source": version,
        "arms": report(measure(options), options.device),
    }
    record(options.output, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
