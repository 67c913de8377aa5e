"""Folders of pictures that an experiment names: looked at before the first run, not by every run on its own."""

from pathlib import Path

from .data.hub import find_source
from .experiment import Experiment


def check_folders(experiment: Experiment) -> None:
    """See that every folder which the experiment's targets name by its path is a data set; read no picture.

    Raises:
        BenchmarkError: a folder does not exist or has another layout (what was found is said).
    """
    data = experiment.raw.get("data", {})
    for target in experiment.targets:
        name = str(data.get(target, {}).get("name", target))
        if Path(name).is_absolute():
            find_source(name)
