"""The words for what an injection may do, and defaults; imports no torch, so that the command line can list them."""

from typing import Literal, get_args

Policy = Literal["stack", "layerwise", "sample"]
KernelRule = Literal["crop", "resample", "exact"]
ScaleRule = Literal["source", "unit", "target"]

# What decided each is in benchmarks/results/pages. The bank was best of those that a wheel can hold on Flowers-17
# (arms.md, five seeds, test part), and is above scratch and random filters on Pets too. The rules are
# arXiv:2412.16751's, which the validation part of Flowers-17 gave no reason to leave: stack has the higher means
# (ablation-order.md), crop too (ablation-kernel.md), and scale makes no difference (ablation-scale.md). Differences
# that are not told apart from nothing were not tried on a second set.
DEFAULT_BANK = "scale-space-8"
DEFAULT_POLICY: Policy = "stack"
DEFAULT_KERNEL: KernelRule = "crop"
DEFAULT_SCALE: ScaleRule = "source"

POLICIES: tuple[Policy, ...] = get_args(Policy)
KERNEL_RULES: tuple[KernelRule, ...] = get_args(KernelRule)
SCALE_RULES: tuple[ScaleRule, ...] = get_args(ScaleRule)
