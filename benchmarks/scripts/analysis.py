"""Quality, principal components, histograms and drift of ten million 3x3 filters, against numpy and scikit-learn.

Ten banks of 20 layers of 50,000 filters are drawn and written as bank files. The package reads them as a collection,
in three readings with their hashes verified in the first; ``analysis_reference`` loads them whole. Both run in turns,
each time in a process of its own on ``--threads`` threads; the clock starts after the imports. Files are read once
before the clock starts, so they are in the page cache; "cold" runs drop them from it first.

python -m masterkey.benchmarks.scripts.analysis
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file

from masterkey import Bank
from masterkey.analysis.collection import open_collection
from masterkey.analysis.drift import drift
from masterkey.analysis.quality import qualities
from masterkey.analysis.structure import measure
from masterkey.atomic import write_atomically
from masterkey.format import WEIGHTS_NAME, encode
from masterkey.metadata import Layer, Metadata, Source

from ..measure import describe_machine, paired_ratio
from .record import arguments, record

BANKS, LAYERS, FILTERS = 10, 20, 50_000
SIDES = ("masterkey", "reference")
TOLERANCE = 1e-5


def draw_bank(seed: int) -> Bank:
    """Draw a bank of smooth 3x3 filters of many strengths, some of them near zero."""
    generator = torch.Generator().manual_seed(seed)
    layers = {}
    for index in range(LAYERS):
        mixing = torch.randn(9, 9, generator=generator) * torch.linspace(1, 0.1, 9)
        filters = torch.randn(FILTERS, 9, generator=generator) @ mixing
        strengths = torch.rand(FILTERS, 1, generator=generator) ** 3
        layers[f"layers.{index}.weight"] = (filters * strengths).view(-1, 1, 3, 3)
    described = tuple(Layer(name, (3, 3), FILTERS) for name in layers)
    about = Metadata(f"bank-{seed}", "depthwise", Source("drawn", f"seed {seed}"), described, "forward")
    return Bank(layers, about)


def write_banks(folder: Path, banks: int) -> None:
    """Write banks as ``folder/bank-<seed>/model.safetensors``; those that are there stay."""
    for file in files(folder, banks):
        if not file.exists():
            bank = draw_bank(int(file.parent.name.removeprefix("bank-")))
            write_atomically(file, encode(bank.layers, bank.metadata))


def files(folder: Path, banks: int) -> list[Path]:
    """The files of the first banks, in order."""
    return [folder / f"bank-{seed}" / WEIGHTS_NAME for seed in range(banks)]


def by_package(paths: Sequence[Path]) -> dict[str, Any]:
    """Analyse as the package does."""
    collection = open_collection([path.parent for path in paths])
    read = collection.survey()
    layers = [quality for of in read for quality in qualities(of.sums)]
    structure = measure(read, (3, 3))
    groups = collection.groups(structure.layers, "bank")
    between = drift(structure, groups)
    return {
        "sparsity": np.array([layer.sparsity for layer in layers]),
        "entropy": np.array([layer.entropy for layer in layers]),
        "explained": structure.explained,
        "low": structure.low,
        "high": structure.high,
        "counts": np.stack([structure.counts[of].sum(axis=0) for of in groups.values()]),
        "drift": between.total,
    }


def by_reference(paths: Sequence[Path]) -> dict[str, Any]:
    """Analyse with everything in memory."""
    from . import analysis_reference  # its libraries are no part of the other side's memory

    banks = {}
    for path in paths:
        tensors = load_file(path)
        names = sorted(tensors, key=lambda name: int(name.split(".")[1]))
        banks[path.parent.name] = [tensors[name].reshape(-1, 9) for name in names]
    return analysis_reference.analyse(banks)


def run_side(side: str, folder: Path, banks: int, output: Path, cold: bool) -> None:
    """Run one side in this process and leave its time, peak memory and results in ``output``."""
    paths = files(folder, banks)
    for path in paths:
        with path.open("rb") as file:
            if cold:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            else:
                while file.read(1 << 24):
                    pass
    before, start = time.process_time(), time.perf_counter()
    results = (by_package if side == "masterkey" else by_reference)(paths)
    seconds = time.perf_counter() - start
    cpu = time.process_time() - before
    # getrusage's peak would be that of the process which started this one, where that is higher
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024
    np.savez(output, seconds=seconds, cpu=cpu, peak=peak, **results)


def measured(side: str, folder: Path, banks: int, threads: int, cold: bool = False) -> dict[str, Any]:
    """Run one side in a process of its own and return what it left."""
    with tempfile.TemporaryDirectory() as place:
        output = Path(place) / "results.npz"
        command = [sys.executable, "-m", "masterkey.benchmarks.scripts.analysis", "--side", side]
        command += ["--folder", str(folder), "--banks", str(banks), "-o", str(output), *(["--cold"] if cold else [])]
        numbers = {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
        subprocess.run(command, check=True, env={**os.environ, **numbers})
        with np.load(output) as left:
            return dict(left)


def mirrored(counts: Any, others: Any) -> Any:
    """Turn histograms round where a component has the opposite sign."""
    pooled, other = counts.sum(axis=0), others.sum(axis=0)
    turn = np.abs(pooled[:, ::-1] - other).sum(axis=1) < np.abs(pooled - other).sum(axis=1)
    return np.where(turn[None, :, None], counts[..., ::-1], counts)


def differences(ours: dict[str, Any], reference: dict[str, Any]) -> dict[str, float]:
    """Largest differences between the results of both sides."""
    found = {
        name: float(np.abs(ours[name] - reference[name]).max())
        for name in ("sparsity", "entropy", "explained", "drift")
    }
    counts = mirrored(ours["counts"], reference["counts"])
    shares, others = (each / each.sum(axis=2, keepdims=True) for each in (counts, reference["counts"]))
    return found | {"histograms": float(np.abs(shares - others).max())}


def summary(runs: list[dict[str, Any]], filters: int) -> dict[str, Any]:
    """Median time, time for a filter, and peak memory."""
    seconds = [float(run["seconds"]) for run in runs]
    return {
        "filters": filters,
        "median_s": round(median(seconds), 2),
        "seconds": [round(each, 2) for each in seconds],
        "microseconds_a_filter": round(median(seconds) / filters * 1e6, 3),
        "processor_seconds": round(median(float(run["cpu"]) for run in runs), 2),
        "peak_MiB": round(max(float(run["peak"]) for run in runs)),
    }


def compare(folder: Path, turns: int, threads: int) -> dict[str, Any]:
    """Run both sides in turns over one folder."""
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for turn in range(turns):
        for side in SIDES:
            runs[side].append(measured(side, folder, BANKS, threads))
            print(f"turn {turn}: {side} {float(runs[side][-1]['seconds']):.2f} s", flush=True)
    times = {side: [float(run["seconds"]) for run in runs[side]] for side in SIDES}
    apart = differences(runs["masterkey"][0], runs["reference"][0])
    count = BANKS * LAYERS * FILTERS
    cold = [measured("masterkey", folder, BANKS, threads, cold=True)]
    return {
        **{side: summary(runs[side], count) for side in SIDES},
        "speed_up": paired_ratio(times["reference"], times["masterkey"]),
        "largest_differences": apart,
        "same_within_1e-5": max(apart.values()) <= TOLERANCE,
        "masterkey_cold": summary(cold, count),
    }


def main() -> None:
    """Measure, print and record."""
    parser = arguments(__doc__, "analysis.json")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--large", type=int, default=10 * BANKS, help="banks of the large run, a million filters each")
    parser.add_argument("--folder", type=Path, help="where to draw the banks, or where they were drawn before")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--banks", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--cold", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        run_side(options.side, options.folder, options.banks, options.output, options.cold)
        return
    with tempfile.TemporaryDirectory() as place:
        folder = options.folder or Path(place)
        result: dict[str, Any] = {"machine": describe_machine(), "threads": options.threads}
        result["files"] = "in the page cache, except where cold: dropped from it first"
        write_banks(folder, BANKS)
        result["ten_million"] = compare(folder, options.turns, options.threads)
        record(options.output, result)
        write_banks(folder, options.large)
        run = measured("masterkey", folder, options.large, options.threads)
        result["large"] = summary([run], options.large * LAYERS * FILTERS)
        record(options.output, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
