"""A bank of several kernel sizes: each is distilled by itself, to keys and an assignment of its own."""

from typing import Any

from ..bank import Bank
from ..errors import MasterkeyError
from ..metadata import Kernel
from .distillation import distill
from .pruning import RandomRule
from .randomness import is_random
from .result import Distilled


def by_kernel(bank: Bank) -> dict[Kernel, Bank]:
    """Take a bank apart by kernel size, smallest first; a bank of one size stays as it is.

    1x1 filters, which have no shape, are left out.

    Raises:
        MasterkeyError: there are no others.
    """
    sizes = [kernel for kernel in bank.counts() if kernel != (1, 1)]
    if not sizes:
        raise MasterkeyError(f"bank {bank.name} holds 1x1 filters, which have no shape")
    return {size: bank if len(bank.counts()) == 1 else bank.select(kernel=size) for size in sizes}


def distill_kernels(
    bank: Bank,
    keys: int = 8,
    method: str = "greedy",
    seed: int = 0,
    *,
    sample: int | None = None,
    dead: float = 0.1,
    duplicates: float = 0.99,
    sign: bool = True,
    random: RandomRule | None = is_random,
) -> dict[Kernel, Distilled]:
    """Distil each kernel size of a bank by itself, to ``keys`` keys each; the arguments are those of ``distill``.

    Raises:
        MasterkeyError: see ``distill``; of a kernel with fewer filters left than keys, for instance.
    """
    options: dict[str, Any] = {"sample": sample, "dead": dead, "duplicates": duplicates, "sign": sign, "random": random}
    return {kernel: distill(part, keys, method, seed, **options) for kernel, part in by_kernel(bank).items()}
