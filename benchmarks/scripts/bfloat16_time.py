"""What a training step under bfloat16 autocast costs on this CPU: as PyTorch does it, and as the harness does.

    python -m masterkey.benchmarks.scripts.bfloat16_time

The arms take turns, step by step, in one process; the speed-up is the median over the rounds of plain autocast's time
by the arm's own in the same round, with a bootstrap 95 % interval. Where the CPU has instructions for bfloat16 the
harness does as PyTorch does, and both arms are the same.
"""

import json
import statistics
import time
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F

import masterkey

from ..bfloat16 import are_products_wide, products
from ..measure import describe_machine, paired_ratio
from .record import arguments, record

ARMS = ("autocast", "harness", "float32")


def seconds_of_step(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor, arm: str) -> float:
    """Return how long one forward and backward pass takes."""
    wide: AbstractContextManager[object] = products(True, images.device) if arm == "harness" else nullcontext()
    start = time.perf_counter()
    with wide:
        with torch.autocast("cpu", torch.bfloat16, enabled=arm != "float32"):
            logits = model(images)
        F.cross_entropy(logits.float(), labels).backward()
    seconds = time.perf_counter() - start
    model.zero_grad()
    return seconds


def main() -> None:
    """Measure, print the speed-ups, write the file."""
    parser = arguments(__doc__, "bfloat16_time.json")
    parser.add_argument("--model", default="convnext_atto")
    parser.add_argument("--pixels", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=11, help="rounds after one warm-up (default %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = masterkey.create_model(options.model, "scale-space-8", num_classes=17).train()
    images, labels = torch.randn(options.batch, 3, options.pixels, options.pixels), torch.arange(options.batch) % 17
    rounds = [{arm: seconds_of_step(model, images, labels, arm) for arm in ARMS} for _ in range(1 + options.pairs)][1:]
    result = {
        "command": "python -m masterkey.benchmarks.scripts.bfloat16_time "
        f"--model {options.model} --pixels {options.pixels} --batch {options.batch} --pairs {options.pairs}",
        "machine": {**describe_machine(), "threads": 1, "products_in_float32": are_products_wide(images.device)},
        "arms": {
            arm: {
                "step_ms": round(1e3 * statistics.median(times[arm] for times in rounds), 1),
                **paired_ratio([times["autocast"] for times in rounds], [times[arm] for times in rounds]),
            }
            for arm in ARMS
        },
    }
    record(options.output, result)
    print(json.dumps(result["arms"], indent=2))


if __name__ == "__main__":
    main()
