"""The transfer matrix: what stands on the diagonal, arrows, triangles."""

import pytest
from report_runs import RANDOM, SCRATCH, SELFFER, experiment, finish, rows

from masterkey.benchmarks.config import BenchmarkError
from masterkey.benchmarks.report.matrix import crosses, matrix_columns
from masterkey.benchmarks.report.section import make_section, plain_text
from masterkey.benchmarks.store import ResultStore

TARGETS = ["food", "pets", "flowers"]


@pytest.fixture
def store(tmp_path):
    return ResultStore(tmp_path / "results")


def matrix_section(store, arms, figures, targets=TARGETS):
    """``figures`` by arm and target: the accuracies of both seeds."""
    what = experiment(arms, "matrix", targets=targets)
    finish(what, store, lambda run: figures[run.arm][targets.index(run.target)][run.config.seed])
    return make_section(what, store, None)


FROM = {"name": "from", "vary": {"bank": ["scratch:food", "scratch:pets", "scratch:flowers"]}}
FIGURES = {
    "scratch": [(80.0, 80.0), (36.3, 36.3), (66.0, 66.0)],
    "random": [(70.0, 70.0), (30.0, 30.0), (60.0, 60.0)],
    "from/scratch:food": [(79.0, 79.0), (61.0, 62.0), (66.0, 68.0)],
    "from/scratch:pets": [(78.0, 79.0), (52.0, 52.8), (66.04, 66.04)],
    "from/scratch:flowers": [(79.2, 79.0), (50.0, 50.2), (66.0, 66.0)],
}


@pytest.mark.parametrize("explicit", [True, False])
def test_matrix_arrows(store, explicit):
    """The diagonal is the arm that comes from the target itself, or the one named selffer."""
    arms, figures = [SCRATCH, RANDOM, FROM], FIGURES
    if not explicit:
        elsewhere = [
            {"name": f"from/scratch:{a}", "bank": f"scratch:{a}", "targets": [b for b in TARGETS if a != b]}
            for a in TARGETS
        ]
        arms = [SCRATCH, RANDOM, SELFFER, *elsewhere]
        figures = {**FIGURES, "selffer": [FIGURES[f"from/scratch:{t}"][i] for i, t in enumerate(TARGETS)]}
    section = matrix_section(store, arms, figures)
    matrix = section.tables["matrix"]
    assert matrix_columns(section.results, matrix) == ["food", "pets", "flowers", "scratch", "random"]
    grid = crosses(matrix, "convnext_atto")
    shown = {
        target: [f"{grid[target][column].figure}{grid[target][column].glyph}" for column in TARGETS]
        for target in TARGETS
    }
    assert shown == {
        # 79.0 against 80.0 in both seeds; -1 and 0 hold zero; +0.2 and 0 too
        "food": ["79.0▼", "\N{MINUS SIGN}0.5▽", "+0.1△"],
        # +9.0 and +9.2; diagonal 52.4 against 36.3, as in the seed; -2.0 and -2.6: two seeds settle nothing
        "pets": ["+9.1▲", "52.4▲", "\N{MINUS SIGN}2.3▽"],
        # 0 and +2; +0.04 is shown as 0.0 and gets no arrow; diagonal as scratch
        "flowers": ["+1.0△", "0.0", "66.0"],
    }
    assert [grid[target][target].direction for target in TARGETS] == ["down", "up", "level"]
    assert str(grid["pets"]["scratch"].figure) == "36.3" and grid["pets"]["scratch"].glyph == ""


def test_triangles_and_mutual_harm(store):
    harm = {**FIGURES, "from/scratch:pets": [(78.0, 79.0), (52.0, 52.8), (65.0, 65.1)]}
    section = matrix_section(store, [SCRATCH, RANDOM, FROM], harm)
    counts = {r["part"]: (r["better"], r["worse"], r["pairs"]) for r in rows(section, "triangles")}
    assert counts == {"all": (3, 3, 6), "below the diagonal": (2, 1, 3), "above the diagonal": (1, 2, 3)}
    said = " ".join(map(plain_text, section.sentences))
    assert "3 of 6 pairs, 2 of 3 pairs below the diagonal, 1 of 3 pairs above the diagonal." in said
    assert "each does worse with the other's filters: flowers and pets." in said


def test_matrix_refuses_two_arms_from_one_source(store):
    again = {"name": "trained", "bank": "scratch:food", "inject": {"freeze": False}, "targets": ["pets"]}
    figures = {**FIGURES, "trained": [(1.0, 1.0)] * 3}
    with pytest.raises(BenchmarkError, match=r"from/scratch:food and trained both come from food"):
        matrix_section(store, [SCRATCH, RANDOM, FROM, again], figures)
