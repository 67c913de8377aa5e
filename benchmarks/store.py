"""Where runs are kept: one JSON a run, whole or not there."""

import json
import os
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from masterkey.atomic import write_atomically
from masterkey.metadata import canonical_json

from .config import BenchmarkError, RunConfig
from .errors import DivergedError
from .schema import problem_of_failure, problem_of_result

VERSION = 1
WEIGHTS_NAME = "weights.safetensors"


@dataclass(frozen=True)
class ResultStore:
    """A folder of results.

    ``runs/ID.json`` is a finished run, ``failed/ID.json`` one that raised an error, ``kept/ID/`` the weights that a
    run from scratch ended with, ``partial/ID.pt`` the checkpoint of an unfinished one; the last two are not committed.
    """

    root: Path

    def run_path(self, run_id: str) -> Path:
        """The file of a finished run."""
        return self.root / "runs" / f"{run_id}.json"

    def failed_path(self, run_id: str) -> Path:
        """The file of a failed run."""
        return self.root / "failed" / f"{run_id}.json"

    def kept_path(self, run_id: str) -> Path:
        """The folder of the weights that a run kept."""
        return self.root / "kept" / run_id

    def partial_path(self, run_id: str) -> Path:
        """The checkpoint of an unfinished run."""
        return self.root / "partial" / f"{run_id}.pt"

    def read(self, run_id: str) -> dict[str, Any] | None:
        """Return a finished run as ``{"version", "metrics", "machine"}``, or None if it is not finished.

        Raises:
            BenchmarkError: the file is there, but not of this version or configuration, or not whole; it is left alone.
        """
        path = self.run_path(run_id)
        result = _read(path)
        if result is None:
            return None
        if result.get("version") != VERSION:
            found = result.get("version")
            raise BenchmarkError(
                f"{path} is of version {found!r:.40}, this harness writes {VERSION}; use another folder"
            )
        if problem := problem_of_result(result, run_id):
            raise BenchmarkError(f"{path} {problem}; move it away to run it again")
        return result

    def is_usable(self, run_id: str) -> bool:
        """Whether a run's weights are here, and whole, for other runs to take."""
        return self.read(run_id) is not None and _is_whole(self.kept_path(run_id) / WEIGHTS_NAME)

    def write(self, config: RunConfig, metrics: dict[str, Any], machine: dict[str, Any]) -> None:
        """Record a finished run, which must not be there yet; ``metrics`` in canonical bytes.

        Raises:
            SaveError: the disk is full or the folder cannot be written; the run can be done again.
        """
        result = {
            "version": VERSION,
            "metrics": {"id": config.id, "config": config.to_dict(), **metrics},
            "machine": machine,
        }
        write_atomically(self.run_path(config.id), (canonical_json(result) + "\n").encode())
        self.failed_path(config.id).unlink(missing_ok=True)

    def write_failure(self, config: RunConfig, error: BaseException) -> None:
        """Record that a run failed, and how."""
        failure = {
            "config": config.to_dict(),
            "error": type(error).__name__,
            "message": str(error),
            "traceback": "".join(traceback.format_exception(error)),
            "id": config.id,
        }
        write_atomically(self.failed_path(config.id), (canonical_json(failure) + "\n").encode())

    def read_failure(self, run_id: str) -> dict[str, Any] | None:
        """Return how a run failed, or None if it did not.

        Raises:
            BenchmarkError: the file is there, but is no record of that run; it is left alone.
        """
        path = self.failed_path(run_id)
        failure = _read(path)
        if failure is not None and (problem := problem_of_failure(failure, run_id)):
            raise BenchmarkError(f"{path} {problem}; remove it to run it again")
        return failure

    def has_diverged(self, run_id: str) -> bool:
        """Whether a run failed because its loss was no number any more: as final as a result.

        Raises:
            BenchmarkError: as ``read_failure``.
        """
        failure = self.read_failure(run_id)
        return failure is not None and failure["error"] == DivergedError.__name__

    def run_ids(self) -> list[str]:
        """Return the ids of all finished runs, sorted."""
        return _ids(self.root / "runs")

    def failed_ids(self) -> list[str]:
        """Return the ids of all failed runs, sorted."""
        return _ids(self.root / "failed")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise BenchmarkError(f"{path} cannot be read ({error}); move it away to run it again") from error
    if not isinstance(content, dict):
        raise BenchmarkError(f"{path} holds no record of a run but a {type(content).__name__}; move it away")
    return content


def _is_whole(weights: Path) -> bool:
    """Whether a file of weights is there, as long as its header says; no tensor is read."""
    from safetensors import SafetensorError, safe_open  # here, because listing does without

    try:
        with safe_open(weights, framework="np"):
            return True
    except (OSError, SafetensorError):
        return False


def _ids(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.json"))


def default_store() -> ResultStore:
    """Return the store at ``$MASTERKEY_RESULTS``, else ``benchmarks/results`` in the working directory."""
    return ResultStore(Path(os.environ.get("MASTERKEY_RESULTS") or "benchmarks/results").expanduser())
