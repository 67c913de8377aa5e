"""Runs that did not learn."""

import pytest
from report_runs import SCRATCH, experiment, write_run

from masterkey.benchmarks.overview import describe_run, find_run
from masterkey.benchmarks.stalled import has_stalled
from masterkey.benchmarks.store import ResultStore


@pytest.mark.parametrize(
    ("losses", "stalled"),
    [
        ([1.84, 1.83, 1.83, 1.82, 1.70, 1.40], True),  # begins to learn when it is too late
        ([1.84, 1.80, 1.78, 1.75, 1.72, 1.70], False),
        ([1.84, 1.78, 1.72, 1.84, 1.84, 1.84], False),  # learned, and forgot: another fault
        ([1.84, 1.90, 2.10, 2.10, 2.10, 2.10], True),
        ([1.84, 1.84, 1.84], False),  # too short to say
        ([], False),
    ],
)
def test_the_loss_has_to_fall_in_the_first_half(losses, stalled):
    assert has_stalled(losses) is stalled


@pytest.mark.parametrize(("fall", "warned"), [(0.0, True), (0.1, False)])
def test_bench_show_says_it(tmp_path, fall, warned):
    store = ResultStore(tmp_path)
    run, *_ = experiment([SCRATCH]).plan(store)
    write_run(run, store, 2.7, 1.0, fall=fall)
    warning = describe_run(find_run(store, run.config.id), [])["warning"]
    assert (warning is not None and warning.startswith("it did not learn")) is warned
