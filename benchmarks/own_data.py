"""The data sets that an experiment names: looked for before the first run, not by every run on its own."""

from pathlib import Path
from typing import TYPE_CHECKING

from .config import COLUMNS, BenchmarkError, DataConfig
from .data.catalogue import resolve
from .data.hub import find_source
from .data.image_folder import passed_over
from .experiment import Experiment
from .store import ResultStore
from .sweep import expected_runs

if TYPE_CHECKING:
    from .data import Data

_PAIRS = 10**8  # of pictures, looked at for copies: a few seconds


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
    from .data import Data, load_data  # needs numpy and Pillow, which listing and planning do without

    seen: dict[DataConfig, Data] = {}
    for run in expected_runs(experiment, store):
        data = run.config.data
        if not (Path(data.name).is_absolute() and Path(data.name).is_dir()):
            continue
        result = store.read(run.config.id)
        if data not in seen:
            were_left_out = result is not None and "skipped_pictures" in result["metrics"]
            seen[data] = load_data(data, skip_corrupt=skip_corrupt or were_left_out)
        if result is not None and result["metrics"]["data_sha256"] != seen[data].sha256:
            raise BenchmarkError(
                f"the pictures in {data.name} are not those that run {run.config.id} saw: their figures cannot stand "
                "side by side; give another folder with --results, or bring the pictures back"
            )
    return list(dict.fromkeys(remark for data in seen.values() for remark in _remarks(data)))


def _remarks(data: "Data") -> list[str]:
    from .near_copies import near_copies

    said = []
    if outside := passed_over(Path(data.name)):
        named = ", ".join(outside[:3]) + (", ..." if len(outside) > 3 else "")
        said.append(f"{data.name}: {len(outside):,} files are no picture of a class and are passed over: {named}")
    untested = sorted({*range(len(data.classes))}.difference(data.evaluate.labels.tolist()))
    if untested:
        named = ", ".join(data.classes[number] for number in untested[:3]) + (", ..." if len(untested) > 3 else "")
        said.append(f"{data.name}: {len(untested)} of {len(data.classes)} classes have no picture to judge on: {named}")
    if len(data.train.labels) * len(data.evaluate.labels) <= _PAIRS and (copies := near_copies(data)):
        said.append(
            f"{data.name}: {len(copies):,} of the {len(data.evaluate.labels):,} pictures to judge on are copies, or "
            "nearly, of one that is learnt from, so any arm can know them by heart"
        )
    return said
