"""Kill a sweep with SIGKILL at random moments, again and again, and see that no result is lost, doubled or half.

python -m masterkey.benchmarks.scripts.kill_test --kills 100 --seed 0

Half of the kills come at any moment, and hit the sweep alone, so that what it started has to see to itself. The others
are aimed at a write, half of them at that of a checkpoint and half at that of a result or of weights: they come when a
file that is being written is seen, and hit all of its processes. A kill counts as one inside a write when that file is
still there afterwards, half written or not yet in its place. The runs of the sweep have a few steps each, so they write
a checkpoint after every one.
"""

import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from masterkey.metadata import canonical_json

from ..config import BenchmarkError
from ..experiment import load_experiment
from ..measure import describe_machine
from ..store import ResultStore
from ..sweep import expected_runs
from .record import arguments, record

_WRITES_PASSED = 4  # at most so many writes are let through before one is hit


@dataclass
class Outcome:
    """What was done: ``kills``, of which ``inside_write`` hit a write; ``completed`` sweeps came to their end.

    ``inside_checkpoint`` of them hit a checkpoint's, the others a result's or that of weights.
    """

    kills: int = 0
    inside_write: int = 0
    inside_checkpoint: int = 0
    completed: int = 0


def kill_sweeps(
    command: Callable[[Path], Sequence[str]],
    reference: Mapping[str, str],
    folder: Path,
    *,
    kills: int,
    seed: int,
    seconds: float,
) -> Outcome:
    """Start and kill sweeps until enough were killed, then let one finish.

    Args:
        command: the command line of a sweep that keeps its results in the folder given.
        reference: the canonical ``metrics`` of every run of an unbroken sweep.
        folder: an empty one to work in.
        kills: how many.
        seed: of the moments.
        seconds: how long a sweep takes at most; kills that are not aimed come somewhere in there.

    Raises:
        BenchmarkError: a result was lost, changed, half or not that of the unbroken sweep; a checkpoint was left.
    """
    rng, outcome = random.Random(seed), Outcome()
    store, seen = ResultStore(folder / "0"), dict[str, bytes]()
    while True:
        last, before = outcome.kills == kills, set(_half_written(store.root))
        process = subprocess.Popen(command(store.root), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        killed = not last and _kill(process, store.root, rng, seconds)
        _, error = process.communicate()
        _wait_for_orphans(store)
        half = set(_half_written(store.root))
        seen = _check(store, seen, reference)
        if killed:
            outcome.kills += 1
            outcome.inside_write += bool(half - before)
            outcome.inside_checkpoint += any(_is_checkpoint(path, store.root) for path in half - before)
            print(
                f"{outcome.kills} killed, {outcome.inside_write} in a write, {outcome.inside_checkpoint} in that of a "
                f"checkpoint, {len(seen)} results",
                file=sys.stderr,
            )
            continue
        if process.returncode != 0 or len(seen) != len(reference) or half:
            raise BenchmarkError(
                f"a sweep ended with {process.returncode}, {len(seen)} of {len(reference)} results and {len(half)} "
                f"files half written: {error.decode(errors='replace')[-500:]}"
            )
        if left := [path.name for path in _entries(store.root / "partial") if path.suffix == ".pt"]:
            raise BenchmarkError(f"a sweep ended and left the checkpoints {', '.join(left)}")
        outcome.completed += 1
        if last:
            return outcome
        store, seen = ResultStore(folder / str(outcome.completed)), {}


def metrics_of(store: ResultStore) -> dict[str, str]:
    """Return the canonical ``metrics`` of every finished run."""
    results = {run_id: store.read(run_id) or {} for run_id in store.run_ids()}
    return {run_id: canonical_json(result["metrics"]) for run_id, result in results.items()}


def _kill(process: subprocess.Popen, root: Path, rng: random.Random, seconds: float) -> bool:
    """Kill the sweep at a random moment, or in a random write; returns whether it had not ended by itself."""
    aimed, deadline = rng.random() < 0.5, time.monotonic() + rng.uniform(0, seconds)
    at_checkpoint = rng.random() < 0.5
    to_pass, before, passed = rng.randrange(_WRITES_PASSED), set(_half_written(root)), set[Path]()
    while process.poll() is None:
        if aimed:
            new = set(_half_written(root)) - before
            passed.update(path for path in new if _is_checkpoint(path, root) == at_checkpoint)
            if len(passed) > to_pass:
                break
        elif time.monotonic() > deadline:
            break
        time.sleep(0.0002 if aimed else 0.01)
    if process.poll() is not None:
        return False
    if aimed:
        _kill_tree(process.pid)
    else:
        process.kill()
    return True


def _kill_tree(pid: int) -> None:
    """Kill a process and whatever it started, such that none of them sees another one die."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in task.read_text().split():
                _kill_tree(int(child))
        os.kill(pid, signal.SIGKILL)


def _half_written(root: Path) -> Iterator[Path]:
    for folder in (root / "runs", root / "partial", *_entries(root / "kept")):
        yield from (entry for entry in _entries(folder) if entry.name.endswith(".partial"))


def _is_checkpoint(path: Path, root: Path) -> bool:
    return path.parent == root / "partial"


def _entries(folder: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(folder)]
    except FileNotFoundError:
        return []


def _wait_for_orphans(store: ResultStore) -> None:
    """Wait until no process does a run any more: what the sweep started ends by itself when the sweep is gone."""
    for lock in (store.root / "partial").glob("*.lock"):
        with suppress(FileNotFoundError), lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)


def _check(store: ResultStore, seen: Mapping[str, bytes], reference: Mapping[str, str]) -> dict[str, bytes]:
    """Compare the folder with what was seen in it before, and with the unbroken sweep; return what is in it."""
    now = {run_id: store.run_path(run_id).read_bytes() for run_id in store.run_ids()}
    lost = [run_id for run_id in seen if now.get(run_id) != seen[run_id]]
    if lost:
        raise BenchmarkError(f"lost, or written a second time: {', '.join(lost)}")
    found = metrics_of(store)  # a half file cannot be read
    other = [run_id for run_id, metrics in found.items() if reference.get(run_id) != metrics]
    if other:
        raise BenchmarkError(f"not what an unbroken sweep gives: {', '.join(other)}")
    failed = store.failed_ids()
    if failed:
        raise BenchmarkError(f"recorded as failed: {', '.join(failed)}")
    return now


def main() -> None:
    """Do it with a real experiment, and record what came of it."""
    parser = arguments(__doc__, "kill_test.json")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--experiment", default="arms")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--checkpoint-every", type=float, default=0.0, metavar="SECONDS")
    options = parser.parse_args()
    print(f"seed {options.seed}", file=sys.stderr)

    def command(results: Path) -> list[str]:
        sweep = ["bench", "run", options.experiment, "--size", "smoke", "--results", str(results)]
        pace = ["--jobs", str(options.jobs), "--checkpoint-every", str(options.checkpoint_every)]
        return [sys.executable, "-m", "masterkey.cli.main", *sweep, *pace]

    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        unbroken = ResultStore(Path(folder) / "unbroken")
        subprocess.run(command(unbroken.root), check=True)  # decodes the pictures, if nobody did
        shutil.rmtree(unbroken.root)
        began = time.monotonic()
        subprocess.run(command(unbroken.root), check=True)
        seconds = time.monotonic() - began
        reference = metrics_of(unbroken)
        expected = {run.config.id for run in expected_runs(load_experiment(options.experiment, "smoke"), unbroken)}
        if expected != reference.keys():
            raise BenchmarkError(f"the unbroken sweep gave {len(reference)} of {len(expected)} results")
        kills, seed = options.kills, options.seed
        outcome = kill_sweeps(command, reference, Path(folder), kills=kills, seed=seed, seconds=seconds)
    result = {
        "command": " ".join(sys.argv[1:]),
        "seed": options.seed,
        **asdict(outcome),
        "runs_per_sweep": len(reference),
        "lost_duplicated_half_or_different": 0,
        "seconds": round(time.monotonic() - start, 1),
        "machine": describe_machine(),
    }
    record(options.output, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
