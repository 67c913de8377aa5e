"""The transfer matrix: what stands on the diagonal, arrows, triangles."""

import pytest
from report_runs import RANDOM, SCRATCH, SELFFER, experiment, finish, rows, write_run

from masterkey.benchmarks.config import BenchmarkError
from masterkey.benchmarks.data.catalogue import CATALOGUE
from masterkey.benchmarks.experiment import SIZES, load_experiment
from masterkey.benchmarks.report.matrix import crosses, matrix_columns
from masterkey.benchmarks.report.section import make_section, plain_text
from masterkey.benchmarks.store import ResultStore

TARGETS = ["food", "pets", "flowers"]


@pytest.fixture
def store(tmp_path):
    return ResultStore(tmp_path / "results")


def matrix_section(store, arms, figures, targets=TARGETS, **raw):
    """``figures`` by arm and target: the accuracies of both seeds; a source that is no target reaches 50."""
    what = experiment(arms, "matrix", targets=targets, **raw)

    def accuracy(run):
        return figures[run.arm][targets.index(run.target)][run.config.seed] if run.target in targets else 50.0

    finish(what, store, accuracy)
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
        # 79.0 against 80.0 in both seeds, so there is no interval; -1 and 0 hold zero; +0.2 and 0 too
        "food": ["79.0▽", "\N{MINUS SIGN}0.5▽", "+0.1△"],
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


def test_filters_of_no_data_are_no_pair(store):
    formula = {"name": "formula", "bank": "scale-space-8"}
    figures = {**FIGURES, "formula": [(99.0, 99.0)] * 3}
    with_it = matrix_section(store, [SCRATCH, RANDOM, FROM, formula], figures)
    assert rows(with_it, "triangles") == rows(matrix_section(store, [SCRATCH, RANDOM, FROM], FIGURES), "triangles")
    assert rows(with_it, "triangles", part="all")[0]["pairs"] == 6


def test_below_the_diagonal_the_source_is_larger(store):
    """Sources that are no targets have a place by size too; targets named the other way round change nothing."""
    arms = [SCRATCH, RANDOM, SELFFER, {"name": "from", "vary": {"bank": ["scratch:flowers", "scratch:imagenet"]}}]
    figures = {
        "scratch": [(30.0, 30.0), (40.0, 40.0)],
        "random": [(30.0, 30.0), (40.0, 40.0)],
        "selffer": [(50.0, 50.0), (60.0, 60.0)],
        "from/scratch:imagenet": [(55.0, 55.0), (59.0, 59.0)],
        "from/scratch:flowers": [(50.0, 50.0), (58.0, 58.0)],
    }
    section = matrix_section(store, arms, figures, ["flowers", "pets"], by_size=["imagenet", "pets", "flowers"])
    counts = {r["part"]: (r["better"], r["worse"], r["pairs"]) for r in rows(section, "triangles")}
    # imagenet into flowers +5, into pets -1; flowers into pets -2
    assert counts == {"all": (1, 2, 3), "below the diagonal": (1, 1, 2), "above the diagonal": (0, 1, 1)}
    matrix = section.tables["matrix"]
    assert matrix_columns(section.results, matrix) == ["imagenet", "pets", "flowers", "scratch", "random"]
    assert list(crosses(matrix, "convnext_atto")) == ["pets", "flowers"]


def test_arrows_against_the_original_accuracy(store):
    section = matrix_section(store, [SCRATCH, RANDOM, FROM], FIGURES, reference="scratch")
    grid = crosses(section.tables["matrix"], "convnext_atto")
    # 61 and 62 against scratch's 36.3; the diagonal is coloured against scratch either way
    assert f"{grid['pets']['food'].figure}{grid['pets']['food'].glyph}" == "+25.2▲"
    assert f"{grid['pets']['pets'].figure}{grid['pets']['pets'].glyph}" == "52.4▲"
    assert "the original accuracy (scratch)" in section.tables["matrix"].note
    assert "do better than scratch in" in plain_text(section.sentences[0])


def test_what_has_no_known_size_is_in_no_triangle(store):
    section = matrix_section(store, [SCRATCH, RANDOM, FROM], FIGURES, by_size=["food", "flowers"])
    counts = {r["part"]: r["pairs"] for r in rows(section, "triangles")}
    assert counts == {"all": 6, "below the diagonal": 1, "above the diagonal": 1}
    assert list(crosses(section.tables["matrix"], "convnext_atto")) == ["food", "flowers", "pets"]


@pytest.mark.parametrize("name", ["table4", "table5"])
@pytest.mark.parametrize("size", SIZES)
def test_every_source_of_the_tables_has_a_size(name, size):
    what = load_experiment(name, size)
    sources = {str(arm["bank"]).removeprefix("scratch:") for arm in what.arms if "scratch:" in str(arm.get("bank"))}
    order = [name for group in what.by_size for name in group]
    assert sources == set(order) and [target for target in order if target in what.targets] == what.targets
    if size == "paper":  # to one digit, as in the seed's Table 2: it has Sketch's 48,212 before CIFAR-10's 50,000
        pictures = {data: float(f"{CATALOGUE[data].size[1]:.0e}") for data in order}
        assert order == sorted(order, key=lambda data: -pictures[data])


def test_matrix_refuses_two_arms_from_one_source(store):
    again = {"name": "trained", "bank": "scratch:food", "inject": {"freeze": False}, "targets": ["pets"]}
    figures = {**FIGURES, "trained": [(1.0, 1.0)] * 3}
    with pytest.raises(BenchmarkError, match=r"from/scratch:food and trained both come from food"):
        matrix_section(store, [SCRATCH, RANDOM, FROM, again], figures)


# --- triples: two sources, and a target that is neither ---

FOUR = ["imagenet", "food", "pets", "flowers"]


def triples_section(store, by_target, by_size=FOUR):
    """Sources are FOUR; ``by_target`` has the accuracies of the three others in each of its targets."""
    arms = [SCRATCH, RANDOM, SELFFER]
    arms += [
        {"name": source, "bank": f"scratch:{source}", "targets": [target for target in by_target if target != source]}
        for source in FOUR
    ]

    def accuracy(run):
        if run.arm not in FOUR or run.target not in by_target:
            return 50.0
        value = by_target[run.target].get(run.arm, ())
        seed = run.config.seed
        return value + seed if isinstance(value, float) else value[seed] if seed < len(value) else None

    what = experiment(arms, "matrix", targets=list(by_target), by_size=by_size)
    finish(what, store, accuracy)
    return make_section(what, store, None)


def test_sources_of_one_size_are_no_triple(store):
    figures = {"pets": {"imagenet": 60.0, "food": 61.0, "flowers": 58.0}}
    section = triples_section(store, figures, [["imagenet", "food"], "pets", "flowers"])
    found = {(row["larger"], row["smaller"]) for row in section.tables["triples"].rows}
    assert found == {("imagenet", "flowers"), ("food", "flowers")}
    assert "better in 2 of 2 triples" in " ".join(map(plain_text, section.sentences))


def test_triples_compare_two_sources_on_a_third_data_set(store):
    section = triples_section(
        store,
        {
            "pets": {"imagenet": 60.0, "food": (55.0, 57.0), "flowers": 58.0},
            "flowers": {"imagenet": 60.0, "food": 60.04, "pets": 59.0},
        },
    )
    found = {
        (r["target"], r["larger"], r["smaller"]): (round(r["difference"], 2), r["better"], r["reading"])
        for r in rows(section, "triples")
    }
    assert found == {
        ("pets", "imagenet", "food"): (4.5, "larger", "open"),  # +5 and +4
        ("pets", "imagenet", "flowers"): (2.0, "larger", "no interval"),  # the same in both seeds
        ("pets", "food", "flowers"): (-2.5, "smaller", "open"),
        ("flowers", "imagenet", "food"): (-0.04, "tie", "no interval"),
        ("flowers", "imagenet", "pets"): (1.0, "larger", "no interval"),
        ("flowers", "food", "pets"): (1.04, "larger", "no interval"),
    }
    said = [plain_text(sentence) for sentence in section.sentences]
    assert (
        "convnext_atto: of two other data sets, the filters of the larger one do better in 4 of 5 triples, at least "
        "three quarters; a fair coin gives as many or more with probability 0.19."  # (5 + 1) / 32
    ) in said


def test_triples_of_which_fewer_than_three_quarters_go_to_the_larger_source(store):
    section = triples_section(store, {"pets": {"imagenet": 60.0, "food": 55.0, "flowers": 58.0}})
    assert "in 2 of 3 triples, fewer than three quarters; a fair coin" in plain_text(section.sentences[1])


def test_triples_without_runs_are_told(store):
    part = {"pets": {"imagenet": 60.0, "food": 55.0, "flowers": (58.0,)}, "flowers": {"imagenet": 60.0}}
    said = " ".join(plain_text(sentence) for sentence in triples_section(store, part).sentences)
    assert "in 2 of 3 triples" in said
    assert (
        "; 3 of 6 are left out, as runs are missing or a source did not learn; 2 of those that are counted lack" in said
    )


def test_a_target_is_no_source_of_its_own_triple(store):
    section = triples_section(store, {"food": {"imagenet": 60.0, "pets": 55.0, "flowers": 58.0}})
    assert {(r["larger"], r["smaller"]) for r in rows(section, "triples")} == {
        ("imagenet", "pets"),
        ("imagenet", "flowers"),
        ("pets", "flowers"),
    }


def test_a_source_that_did_not_learn_is_in_no_triple(store):
    section = triples_section(store, {"pets": {"imagenet": 60.0, "food": 55.0, "flowers": 58.0}})
    for run in section.experiment.plan(store):
        for source in run.needs:
            if source.target == "food":
                write_run(source, store, 2.0, 1.0, fall=0.0)
    section = make_section(section.experiment, store, None)
    assert {(r["larger"], r["smaller"]) for r in rows(section, "triples")} == {("imagenet", "flowers")}
    assert "Warning: food on pets took what such a run had learnt." in section.tables["arms"].note


def test_without_two_sources_there_is_no_triple(store):
    arms = [SCRATCH, RANDOM, SELFFER, {"name": "from", "bank": "scratch:food"}]
    what = experiment(arms, "matrix", by_size=["food", "pets"])
    finish(what, store, lambda run: 50.0)
    section = make_section(what, store, None)
    assert not section.tables["triples"].rows
    assert "triples" not in " ".join(map(plain_text, section.sentences))
