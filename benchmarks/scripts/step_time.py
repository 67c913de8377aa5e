"""What a training step costs with trainable and with frozen depthwise filters, on this machine.

    python -m masterkey.benchmarks.scripts.step_time -o benchmarks/results/step_time.json

The arms take turns, step by step, in one process, so that whatever else the machine does falls on all of them.
A speed-up is the median over the rounds of the trainable arm's time by the arm's own in the same round, with a
bootstrap 95 % interval. Peak memory is that of a fresh process which takes three steps with one arm.
"""

import argparse
import json
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from masterkey.depthwise import depthwise_layers
from masterkey.frozen import Frozen, freeze_module

from ..measure import describe_machine, paired_ratio
from .record import arguments, record

MODELS = [
    "convnext_femto:128:16",
    "mobilenetv3_large_100:64:16",
    "convnext_tiny:64:16",
    "convnext_femto:128:16:bfloat16",  # autocast, as the experiments run
    "convnext_tiny:64:16:bfloat16",
]
ARMS = {
    "trainable": "the timm model as built",
    "frozen": "all depthwise layers frozen by masterkey",
    "buffer": "the same weights as buffers, but PyTorch's own backward pass",
    "identity": "the limit: identities instead of depthwise layers, slicing for strides, repetition for multipliers",
    "trainable-cl": "the timm model as built, in channels_last",
    "frozen-cl": "all depthwise layers frozen by masterkey, in channels_last",
}
CLASSES = 37
WARM_UP = 3


class Passthrough(nn.Module):
    """Stands in for a depthwise layer at next to no cost; its shapes are right for odd kernels padded to 'same'."""

    def __init__(self, stride: tuple[int, ...], multiplier: int) -> None:
        super().__init__()
        self.stride, self.multiplier = stride, multiplier

    def forward(self, input: Tensor) -> Tensor:
        """Map (batch, channels, height, width) to (batch, multiplier * channels, height', width')."""
        output = input[:, :, :: self.stride[0], :: self.stride[1]]
        return output.repeat_interleave(self.multiplier, 1) if self.multiplier > 1 else output


def build(name: str, arm: str) -> nn.Module:
    """A timm model with its depthwise layers as ``arm`` says, in training mode."""
    torch.manual_seed(0)
    arm, _, layout = arm.partition("-")
    model: nn.Module = timm.create_model(name, num_classes=CLASSES)
    for path, layer in depthwise_layers(model).items():
        if arm == "identity":
            model.set_submodule(path, Passthrough(layer.stride, layer.out_channels // layer.in_channels))
        elif arm != "trainable":
            freeze_module(layer)
        if arm == "buffer" and isinstance(layer, Frozen):
            layer.__class__ = layer.plain_class
    return model.train().to(memory_format=torch.channels_last if layout else torch.contiguous_format)


def training_step(config: str, arm: str) -> Callable[[], None]:
    """A function that does one step of AdamW on one batch of noise, under autocast if ``config`` names a type."""
    name, size, batch, *autocast = config.split(":")
    model = build(name, arm)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05)
    images, labels = torch.randn(int(batch), 3, int(size), int(size)), torch.randint(CLASSES, (int(batch),))
    dtype = getattr(torch, autocast[0]) if autocast else torch.float32
    if arm.endswith("-cl"):
        images = images.to(memory_format=torch.channels_last)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype, enabled=bool(autocast)):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()

    return step


def peak_mib() -> float:
    """Peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_memory(config: str, arm: str) -> dict[str, float]:
    """Peak memory of three steps in a fresh process, and what it had reached before the first."""
    command = [sys.executable, "-m", "masterkey.benchmarks.scripts.step_time", "--memory-of", config, arm]
    child = subprocess.run(command, check=True, capture_output=True, text=True)
    memory: dict[str, float] = json.loads(child.stdout)
    return memory


def report_memory(config: str, arm: str) -> None:
    """The child's side of :func:`measure_memory`."""
    step = training_step(config, arm)
    before = peak_mib()
    for _ in range(3):
        step()
    print(json.dumps({"peak_mib": round(peak_mib(), 1), "before_mib": round(before, 1)}))


def measure_times(config: str, pairs: int) -> dict[str, list[float]]:
    """Milliseconds per step, per arm, one figure per round."""
    steps = {arm: training_step(config, arm) for arm in ARMS}
    times: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for round_ in range(WARM_UP + pairs):
        for arm, step in steps.items():
            start = time.perf_counter()
            step()
            if round_ >= WARM_UP:
                times[arm].append(round((time.perf_counter() - start) * 1e3, 2))
    return times


def markdown(results: list[dict[str, Any]]) -> str:
    """The results as a table, one row per model and arm; memory is the peak, and what of it the steps added."""
    head = ["model", "pixels", "batch", "autocast", "arm", "step, ms", "speed-up (95 %)", "peak, MiB", "by steps, MiB"]
    rows = [head, ["---"] * len(head)]
    for result in results:
        for arm, figures in result["arms"].items():
            low, high = figures["interval"]
            speed = f"{figures['ratio']:.2f} ({low:.2f} to {high:.2f})"
            peak, added = figures["peak_mib"], figures["peak_mib"] - figures["before_mib"]
            numbers = [f"{figures['step_ms']:.0f}", speed, f"{peak:.0f}", f"{added:.0f}"]
            rows.append([*(result["config"] + ":").split(":")[:4], arm, *numbers])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Measure, print the table, write the file."""
    parser = arguments(__doc__, "step_time.json")
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="NAME:PIXELS:BATCH[:TYPE]")
    parser.add_argument("--pairs", type=int, default=20, help="rounds after warm-up (default 20)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.memory_of:
        return report_memory(*args.memory_of)

    before = {**describe_machine(), "threads": torch.get_num_threads()}
    # first, while this process is small: Linux lets a child's ru_maxrss start from that of its parent
    memory = {(config, arm): measure_memory(config, arm) for config in args.models for arm in ARMS}
    results = []
    for config in args.models:
        times = measure_times(config, args.pairs)
        arms = {
            arm: {
                "step_ms": round(statistics.median(times[arm]), 1),
                **paired_ratio(times["trainable"], times[arm]),
                **memory[config, arm],
                "times_ms": times[arm],
            }
            for arm in ARMS
        }
        results.append({"config": config, "arms": arms})
    command = shlex.join(["python", "-m", "masterkey.benchmarks.scripts.step_time", *sys.argv[1:]])
    result = {"command": command, "machine": before, "arms": ARMS, "results": results}
    record(args.output, result)
    print(markdown(results))


if __name__ == "__main__":
    main()
