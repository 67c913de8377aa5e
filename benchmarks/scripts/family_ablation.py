"""Families of filters replaced in trained networks: what the network loses, against as many filters at random.

    python -m masterkey.benchmarks.scripts.family_ablation

Of MCUNet (MBConv filters, ImageNet-1k) at 128 pixels, judged on 600 pictures of Tiny-ImageNet's validation part (three
of each class, enlarged from 64 pixels), and of the ResNet-9 (dense) and MobileNetV2 that ``formation`` trained on
CIFAR-10, 600 pictures: the filters of one family are replaced by noise, by their mean shape, or have their pixels
shuffled; as a control as many filters are drawn at random in every layer and replaced by noise. The draw may hit the
family itself: it is a random subset of the layer, and ``overlap`` says how much of it is the family's. Noise and mean
shape keep each filter's mean and its norm about the mean. Batch norms stay as trained. Eight seeds. Kernel size by
kernel size there are only noise and the control. Every figure is written as soon as it is known, and the same command
goes on where it was broken off. ``differences`` are noise in the family less noise in as many at random, with the 95 %
interval of Student's t.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor, nn

from masterkey.analysis.replacement import GROUPS, Census, Replacement, census, replaced

from ..measure import describe_machine
from ..report.student import summarize
from .family_subjects import Subject, described, subjects
from .record import arguments, record

SEEDS = tuple(range(8))
PER_CLASS, CIFAR_PICTURES = 3, 600
CONTROL = "random filters by noise"
_NORMS = "inputs of norms against running means"
FEWEST = 10  # filters in a group of one kernel size: fewer are not replaced by themselves


class Condition(NamedTuple):
    """What is replaced: a group, of one kernel size or all, how, and the seed."""

    group: str
    kernel: int | None
    how: str
    seed: int

    @property
    def place(self) -> str:
        """What of it says which filters: group and kernel size."""
        return f"{self.group} | {f'{self.kernel}x{self.kernel}' if self.kernel else 'all kernels'}"

    @property
    def key(self) -> str:
        """How the result file calls it."""
        return f"{self.place} | {self.how} | {self.seed}"


def conditions(of: Census, by_kernel: bool) -> Iterator[Condition]:
    """The conditions of a network: of all its kernels together, or of each size where it has several."""
    sizes: list[int] = sorted(set(of.kernel.tolist()), reverse=True)
    kernels: Sequence[int | None] = [None]
    if by_kernel:
        kernels = sizes if len(sizes) > 1 else []
    for kernel in kernels:
        for group in GROUPS:
            if int(of.members(group, kernel).sum()) < FEWEST:
                continue
            for how in ("noise", CONTROL, "pixels", "mean"):
                if how == CONTROL and group == "dead":
                    continue  # the control leaves dead filters out
                if by_kernel and how in ("pixels", "mean"):
                    continue
                for seed in SEEDS if how != "mean" else SEEDS[:1]:
                    yield Condition(group, kernel, how, seed)


def changed(weights: dict[str, Tensor], of: Census, condition: Condition) -> dict[str, Tensor]:
    """The weights of a condition."""
    chosen = of.members(condition.group, condition.kernel)
    if condition.how in get_args(Replacement):
        return replaced(weights, of, chosen, condition.how, condition.seed)  # type: ignore[arg-type]
    return replaced(weights, of, of.as_many(chosen, condition.seed), "noise", condition.seed)


def batch_norm_check(subject: Subject) -> dict[str, float]:
    """Correlation of what arrives at the batch norms after depthwise and last convolutions with what they expect.

    Over the channels of each norm, the mean on 100 pictures against the running mean; the lowest and the median norm.
    Norms after a 1x1 expansion are left out: their inputs have means near zero. A wrong stride, residual, epsilon or
    normalisation shows here at once.
    """
    found: list[float] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        mean = inputs[0].mean((0, 2, 3))
        assert isinstance(module, nn.BatchNorm2d) and module.running_mean is not None
        found.append(float(torch.corrcoef(torch.stack([mean, module.running_mean]))[0, 1]))

    norms = [
        module
        for name, module in subject.model.named_modules()
        if isinstance(module, nn.BatchNorm2d) and "inverted_bottleneck" not in name
    ]
    handles = [norm.register_forward_pre_hook(look) for norm in norms]
    with torch.inference_mode():
        subject.model(subject.prepare(subject.images[:: max(1, len(subject.images) // 100)]))
    for handle in handles:
        handle.remove()
    return {"lowest": round(min(found), 3), "median": round(sorted(found)[len(found) // 2], 3)}


def counts(of: Census) -> dict[str, dict[str, int]]:
    """Filters by group, for each kernel size."""
    return {
        f"{size}x{size}": {group: int(of.members(group, size).sum()) for group in GROUPS}
        for size in sorted(set(of.kernel.tolist()))
    }


def differences(figures: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    """Noise in a family less noise in as many filters at random, over the seeds that have both: by group and kernel.

    ``low`` and ``high`` bound the 95 % interval of the mean.
    """
    found: dict[str, dict[str, Any]] = {}
    places = dict.fromkeys(key.split(" | ")[0] + " | " + key.split(" | ")[1] for key in figures if " | " in key)
    for place in places:
        both = [[figures.get(f"{place} | {how} | {seed}") for how in ("noise", CONTROL)] for seed in SEEDS]
        pairs = [(noise, control) for noise, control in both if noise and control]
        if pairs:
            found[place] = {"seeds": len(pairs)}
        for what in pairs[0][0] if pairs else ():
            sample = summarize([noise[what] - control[what] for noise, control in pairs])
            ends = {"mean": sample.mean, "low": sample.low, "high": sample.high}
            found[place][what] = {key: None if value is None else round(value, 3) for key, value in ends.items()}
    return found


def overlap(of: Census, by_kernel: bool) -> dict[str, float]:
    """Share of the control's filters that are the family's own, mean over the seeds: by group and kernel."""
    shares: defaultdict[str, list[float]] = defaultdict(list)
    for condition in conditions(of, by_kernel):
        if condition.how == CONTROL:
            chosen = of.members(condition.group, condition.kernel)
            drawn = of.as_many(chosen, condition.seed)
            shares[condition.place].append(float((drawn & chosen).sum() / chosen.sum()))
    return {place: round(fmean(values), 3) for place, values in shares.items()}


def run_subject(subject: Subject, of: Census, by_kernel: bool, result: dict[str, Any], output: Path) -> None:
    """Judge a network under every condition that ``result`` lacks, writing each."""
    weights = subject.weights()
    mine = result["networks"].setdefault(subject.name, {})
    mine |= {**described(subject), "filters": counts(of)}
    if subject.name.startswith("mcunet") and _NORMS not in mine:
        mine[_NORMS] = batch_norm_check(subject)
    mine["overlap"] = {**mine.get("overlap", {}), **overlap(of, by_kernel)}
    figures = mine.setdefault("figures", {})
    if "as trained" not in figures:
        figures["as trained"] = subject.judge(subject.model)
    for condition in conditions(of, by_kernel):
        if condition.key not in figures:
            figures[condition.key] = subject.judge(subject.with_weights(changed(weights, of, condition)))
            print(subject.name, condition.key, figures[condition.key], flush=True)
            record(output, result)


def main() -> None:
    """Compute, print and record."""
    parser = arguments(__doc__, "family_ablation.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = json.loads(options.output.read_text()) if options.output.exists() else {"networks": {}}
    result |= {"machine": describe_machine(), "command": "python -m masterkey.benchmarks.scripts.family_ablation"}
    known = [(subject, census(subject.weights())) for subject in subjects(PER_CLASS, CIFAR_PICTURES)]
    for by_kernel in (False, True):
        for subject, of in known:
            run_subject(subject, of, by_kernel, result, options.output)
    for name, network in result["networks"].items():
        network["differences"] = differences(network["figures"])
        print(name, network["figures"]["as trained"], json.dumps(network["differences"], indent=1))
    record(options.output, result)


if __name__ == "__main__":
    main()
