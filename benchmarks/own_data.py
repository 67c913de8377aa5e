"""The data sets that an experiment names: looked for before the first run, not by every run on its own."""

from pathlib import Path

from .config import COLUMNS, BenchmarkError, DataConfig
from .data.catalogue import resolve
from .data.hub import find_source
from .experiment import Experiment
from .store import ResultStore
from .sweep import expected_runs


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


def check_pictures(experiment: Experiment, store: ResultStore, *, skip_corrupt: bool = False) -> None:
    """See that the finished runs on folders named by their path saw the pictures that lie there now.

    A run is named by its data set's name, so a folder that has changed would go on with the figures of the old one.

    Raises:
        BenchmarkError: the pictures have changed since.
    """
    from .data import load_data  # needs numpy and Pillow, which listing and planning do without

    seen: dict[DataConfig, str] = {}
    for run in expected_runs(experiment, store):
        data = run.config.data
        is_here = Path(data.name).is_absolute() and Path(data.name).is_dir()
        result = store.read(run.config.id) if is_here else None
        if result is None:
            continue
        if data not in seen:
            seen[data] = load_data(data, skip_corrupt=skip_corrupt or "skipped_pictures" in result["metrics"]).sha256
        if result["metrics"]["data_sha256"] != seen[data]:
            raise BenchmarkError(
                f"the pictures in {data.name} are not those that run {run.config.id} saw: their figures cannot stand "
                "side by side; give another folder with --results, or bring the pictures back"
            )
