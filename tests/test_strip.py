"""README's picture shows every run, and nothing else."""

from statistics import fmean, stdev
from xml.etree import ElementTree

import pytest
from report_runs import BANK, PLACE, RANDOM, SCRATCH, by_arm, experiment, finish

from masterkey.benchmarks.report.results import collect
from masterkey.benchmarks.report.strip import strip
from masterkey.benchmarks.store import ResultStore

SVG = "{http://www.w3.org/2000/svg}"
RUNS = {"scratch": [40.0, 44.0], "random": [41.0], "bank": [50.0, 57.0]}


@pytest.fixture
def picture(tmp_path) -> ElementTree.Element:
    """The picture of three arms, one of which has one of its two runs, and a fourth has none."""
    what = experiment([SCRATCH, RANDOM, BANK, {"name": "waits", "bank": "random-8"}])
    finish(what, ResultStore(tmp_path), by_arm(RUNS))
    drawn = strip(collect(what, ResultStore(tmp_path)), *PLACE, "Pets <b>", {"bank": "the closed form"})
    return ElementTree.fromstring(drawn)


def texts(picture, anchor: str, style: str = "") -> list[str]:
    found = [text for text in picture.iter(f"{SVG}text") if text.get("text-anchor") == anchor]
    return [text.text for text in found if style in text.get("class", "")]


def test_every_run_is_a_dot_in_the_row_of_its_arm(picture):
    rows = {}
    for dot in picture.iter(f"{SVG}circle"):
        rows.setdefault(dot.get("cy"), []).append(float(dot.get("cx")))
    best, middle, worst = rows.values()
    assert [len(best), len(middle), len(worst)] == [2, 2, 1]  # by their means
    pixels_a_point = (best[1] - best[0]) / 7
    assert middle[1] - middle[0] == pytest.approx(4 * pixels_a_point, abs=0.11)
    assert best[0] - worst[0] == pytest.approx(9 * pixels_a_point, abs=0.11)


def test_means_and_deviations_are_those_of_the_runs(picture):
    assert texts(picture, "end", "value") == [f"{fmean(RUNS[arm]):.1f}" for arm in ("bank", "scratch", "random")]
    assert texts(picture, "end", "tick") == [f"{stdev(RUNS[arm]):.1f}" for arm in ("bank", "scratch")]


def test_names_are_those_given_and_controls_are_quiet(picture):
    assert texts(picture, "end", "quiet") == ["scratch", "random"]
    assert "the closed form" in texts(picture, "end") and "waits" not in texts(picture, "end")
    assert texts(picture, "start", "title") == ["Pets <b>"]


def test_it_stands_alone(picture):
    style = picture.find(f"{SVG}style").text
    assert "--paper" in style and "url(" not in style
    assert not [part for part in picture.iter() if any("href" in key for key in part.attrib)]
