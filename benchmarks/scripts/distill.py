"""Time of distilling 8 keys from 100,000 7x7 filters, from the bank to keys with every filter assigned.

    python -m masterkey.benchmarks.scripts.distill -o benchmarks/results/distill.json

The filters are those of the real 7x7 banks (``$MASTERKEY_DATA/checkpoints``), drawn again and again, each time with
fresh noise of 0.3 times the filter's norm. Wall time depends on what else the machine does; CPU time is beside it.
"""

import time

import torch

import masterkey
from masterkey.bank import Bank
from masterkey.distill import METHODS, distill
from masterkey.extract import from_state_dict

from ..measure import describe_machine
from .keys import CHECKPOINTS, NETWORKS
from .record import arguments, record

FILTERS = 100_000
NOISE = 0.3


def many() -> Bank:
    """The bank of 100,000 filters."""
    bank = masterkey.join([Bank.from_checkpoint(CHECKPOINTS / f"{name}.pth").select(kernel=7) for name in NETWORKS])
    filters = torch.cat(list(bank.pruned(0.1).layers.values()))
    generator = torch.Generator().manual_seed(0)
    filters = filters[torch.randint(len(filters), (FILTERS,), generator=generator)]
    noise = torch.randn(filters.shape, generator=generator) * filters.flatten(1).norm(dim=1).view(-1, 1, 1, 1) / 7
    layers = (filters + NOISE * noise).split(FILTERS // 20)
    return from_state_dict({f"layers.{i}.weight": layer for i, layer in enumerate(layers)}, name="100,000 filters")


def main() -> None:
    """Measure, print and record."""
    parser = arguments(__doc__, "distill.json")
    options = parser.parse_args()
    bank = many()
    methods = {}
    for method in METHODS:
        wall, cpu = time.perf_counter(), time.process_time()
        result = distill(bank, 8, method)
        methods[method] = {
            "wall_s": round(time.perf_counter() - wall, 1),
            "cpu_s": round(time.process_time() - cpu, 1),
            "explained": round(result.explained, 4),
            "pruned": result.pruned,
        }
        print(method, methods[method], flush=True)
    result_file = {
        "machine": describe_machine(),
        "command": "python -m masterkey.benchmarks.scripts.distill",
        "threads": torch.get_num_threads(),
        "filters": FILTERS,
        "keys": 8,
        "methods": methods,
    }
    record(options.output, result_file)


if __name__ == "__main__":
    main()
