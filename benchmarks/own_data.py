"""The data sets that an experiment names: looked for before the first run, not by every run on its own."""

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import COLUMNS, BenchmarkError, DataConfig
from .data.catalogue import resolve
from .data.hub import find_source
from .data.image_folder import find_image_folder, passed_over
from .experiment import Experiment
from .store import ResultStore
from .sweep import expected_runs

if TYPE_CHECKING:
    from .data import Data

_LOOKED_AT = 10_000  # pictures, for copies: about a second at 64 pixels and fourteen at 224


def check_folders(experiment: Experiment) -> None:
    """See that every target is a data set by its name, and that those here are of a known layout; read no picture.

    Raises:
        BenchmarkError: an unknown name, or a folder that does not exist or has another layout (what was found is said).
    """
    data = experiment.raw.get("data", {})
    for target in experiment.targets:
        own = data.get(target, {})
        where = resolve(str(own.get("name", target)))
        if isinstance(where, Path):
            find_source(str(where), {name: own[name] for name in COLUMNS if name in own})


def check_pictures(experiment: Experiment, store: ResultStore, *, skip_corrupt: bool = False) -> list[str]:
    """See that folders named by their path can be learnt from, and hold the pictures that finished runs saw.

    A run is named by its data set's name, so a folder that has changed would go on with the figures of the old one.

    Returns:
        What is odd about the pictures, and no reason to refuse them, a sentence each.

    Raises:
        BenchmarkError: the pictures cannot be used, or have changed since.
    """
    from .data import load_data  # needs numpy and Pillow, which listing and planning do without

    results: defaultdict[DataConfig, dict[str, dict[str, Any] | None]] = defaultdict(dict)
    for run in expected_runs(experiment, store):
        if Path(run.config.data.name).is_absolute() and Path(run.config.data.name).is_dir():
            results[run.config.data][run.config.id] = store.read(run.config.id)
    remarks: list[str] = []
    for config, runs in results.items():
        folder = Path(config.name).resolve()
        if store.root.resolve().is_relative_to(folder) and not (folder / "train").is_dir():  # classes side by side
            raise BenchmarkError(
                f"the results would lie in the folder of pictures {config.name}, as one of its classes; give another "
                "folder with --results"
            )
        finished = {run_id: result["metrics"] for run_id, result in runs.items() if result is not None}
        # where all is done nothing has to be decoded; else what was left out once has to be left out again
        were_left_out = len(finished) == len(runs) and any("skipped_pictures" in each for each in finished.values())
        data = load_data(config, skip_corrupt=skip_corrupt or were_left_out)
        for run_id, metrics in finished.items():
            if metrics["data_sha256"] != data.sha256:
                raise BenchmarkError(
                    f"the pictures in {config.name} are not those that run {run_id} saw: their figures cannot stand "
                    "side by side; give another folder with --results, or bring the pictures back"
                )
        remarks += _remarks(data) if len(finished) < len(runs) else []
    return list(dict.fromkeys(remarks))


def _remarks(data: "Data") -> list[str]:
    from .near_copies import near_copies

    said = []
    folder = Path(data.name)
    if find_image_folder(folder) is not None and (outside := passed_over(folder)):
        named = ", ".join(outside[:3]) + (", ..." if len(outside) > 3 else "")
        said.append(f"{data.name}: {len(outside):,} files are no picture of a class and are passed over: {named}")
    untested = sorted({*range(len(data.classes))}.difference(data.evaluate.labels.tolist()))
    if untested:
        named = ", ".join(data.classes[number] for number in untested[:3]) + (", ..." if len(untested) > 3 else "")
        said.append(f"{data.name}: {len(untested)} of {len(data.classes)} classes have no picture to judge on: {named}")
    if len(data.train.labels) + len(data.evaluate.labels) <= _LOOKED_AT and (copies := near_copies(data)):
        said.append(
            f"{data.name}: {len(copies):,} of the {len(data.evaluate.labels):,} pictures to judge on are copies, or "
            "nearly, of one that is learnt from, so any arm can know them by heart"
        )
    return said
