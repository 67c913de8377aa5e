"""What is looked at before the first run of an experiment, so that a slip does not show hours later."""

from .arm_calls import check_inject, check_steps
from .experiment import Experiment
from .own_banks import check_banks, check_names
from .own_data import check_folders, check_pictures
from .store import ResultStore
from .sweep import expected_runs


def check_experiment(experiment: Experiment, store: ResultStore, *, skip_corrupt: bool = False) -> list[str]:
    """See that everything an experiment names is known, and that what is here is what finished runs took.

    Returns:
        What is odd about pictures of one's own, and no reason to refuse them, a sentence each.

    Raises:
        MasterkeyError: what ``check_folders``, ``check_names``, ``check_steps``, ``check_inject``,
            ``check_banks`` and ``check_pictures`` refuse.
    """
    check_folders(experiment)
    check_names(experiment)
    for run in expected_runs(experiment, store):
        check_steps(run.config.arm)
        check_inject(run.config.arm)
    check_banks(experiment, store)
    return check_pictures(experiment, store, skip_corrupt=skip_corrupt)
