"""Do finished runs again, and see whether their ``metrics`` are the same bytes.

python -m masterkey.benchmarks.scripts.repeat 96ca2a7db615 dbf79657674f
"""

import sys
import tempfile
from pathlib import Path

import torch

from masterkey.metadata import canonical_json

from ..config import BenchmarkError, run_config
from ..measure import describe_machine
from ..runs import compute_run
from ..store import ResultStore, default_store
from .record import arguments, record


def repeats(run_id: str, store: ResultStore) -> bool:
    """Do a finished run again, with as many threads, and say whether it gave the same bytes.

    Raises:
        BenchmarkError: there is no such run, it was made on a GPU, or weights that it takes are not here.
    """
    result = store.read(run_id)
    if result is None:
        raise BenchmarkError(f"no run {run_id} in {store.root}")
    metrics = result["metrics"]
    if result["machine"]["device"] != "cpu":
        raise BenchmarkError(
            f"run {run_id} was made on {result['machine']['device']}; a CPU alone gives the same bytes"
        )
    config = run_config(metrics["config"])
    torch.set_num_threads(result["machine"]["threads"])
    with tempfile.TemporaryDirectory() as folder:
        again = compute_run(config, store, checkpoint=Path(folder) / "run.pt").metrics
    return canonical_json({"id": config.id, "config": config.to_dict(), **again}) == canonical_json(metrics)


def main() -> int:
    """Do the runs again, print and record; 1 if one differs."""
    parser = arguments(__doc__, "repeat.json")
    parser.add_argument("runs", nargs="+", metavar="RUN")
    options = parser.parse_args()
    same = {}
    for run_id in options.runs:
        same[run_id] = repeats(run_id, default_store())
        print(f"{run_id}: {'the same bytes' if same[run_id] else 'other bytes'}")
    result = {"machine": describe_machine(), "same_bytes": same}
    record(options.output, result)
    return 0 if all(same.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
