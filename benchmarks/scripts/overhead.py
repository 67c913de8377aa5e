"""What a bank adds to the time of building a network: ``masterkey.create_model`` against ``timm.create_model``.

python -m masterkey.benchmarks.scripts.overhead -o benchmarks/results/overhead.json

The two take turns in one process. The overhead is the median over the pairs of (time with the bank / time without),
with a bootstrap 95 % interval; what lies behind it is timed once more in parts.
"""

import gc
import shlex
import sys
import time
from collections.abc import Callable
from statistics import median

import timm
import torch

from masterkey import Bank, create_model, inject
from masterkey.depthwise import find_layers

from ..measure import describe_machine, paired_ratio
from .record import arguments, record


def seconds(action: Callable[[], object]) -> float:
    """Wall time of one call, what it returns thrown away before the clock starts again."""
    gc.collect()
    start = time.perf_counter()
    result = action()
    elapsed = time.perf_counter() - start
    del result
    return elapsed


def main() -> None:
    """Measure, print and record."""
    parser = arguments(__doc__, "overhead.json")
    parser.add_argument("--model", default="convnext_large")
    parser.add_argument("--bank", default="scale-space-8")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    machine = describe_machine()
    plain: list[float] = []
    with_bank: list[float] = []
    for pair in range(options.pairs + 1):
        turns = [
            (plain, lambda: timm.create_model(options.model)),
            (with_bank, lambda: create_model(options.model, options.bank)),
        ]
        # who goes first alternates, so that neither always meets the memory that the other has just freed
        for times, action in turns if pair % 2 else reversed(turns):
            elapsed = seconds(action)
            if pair > 0:  # the first pair warms up
                times.append(elapsed)
    model = timm.create_model(options.model)
    parts = {
        "bank_s": seconds(lambda: Bank.from_pretrained(options.bank)),
        "find_layers_s": seconds(lambda: find_layers(model)),
        "inject_s": seconds(lambda: inject(model, options.bank)),
    }
    result = {
        "command": shlex.join(["python", "-m", "masterkey.benchmarks.scripts.overhead", *sys.argv[1:]]),
        "machine": {**machine, "threads": options.threads},
        "model": options.model,
        "bank": options.bank,
        "plain_s": [round(value, 3) for value in plain],
        "with_bank_s": [round(value, 3) for value in with_bank],
        **paired_ratio(with_bank, plain),
        "parts": {name: round(value, 3) for name, value in parts.items()},
    }
    record(options.output, result)
    low, high = result["interval"]
    print(
        f"{options.model}: {median(plain):.2f} s, with {options.bank} {median(with_bank):.2f} s, "
        f"ratio {result['ratio']:.3f} ({low:.3f} to {high:.3f}); {result['parts']}"
    )


if __name__ == "__main__":
    main()
