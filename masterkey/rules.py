"""The words for what an injection may do, and defaults; imports no torch, so that the command line can list them."""

from typing import Literal, get_args

Policy = Literal["stack", "layerwise", "sample"]
KernelRule = Literal["crop", "resample", "exact"]
ScaleRule = Literal["source", "unit", "target"]

DEFAULT_BANK = "scale-space-8"
DEFAULT_POLICY: Policy = "stack"
DEFAULT_KERNEL: KernelRule = "crop"
DEFAULT_SCALE: ScaleRule = "source"

POLICIES: tuple[Policy, ...] = get_args(Policy)
KERNEL_RULES: tuple[KernelRule, ...] = get_args(KernelRule)
SCALE_RULES: tuple[ScaleRule, ...] = get_args(ScaleRule)
