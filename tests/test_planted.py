"""The benchmark's generator of planted families and filters: what it draws is what it says."""

import ast
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from masterkey.benchmarks.scripts import planted_forms
from masterkey.benchmarks.scripts.planted_families import PLANTED, plant, score
from masterkey.benchmarks.scripts.planted_filters import (
    EACH,
    GOOD,
    UNLIKE,
    distinct,
    planted_filters,
    precision_and_recall,
)
from masterkey.benchmarks.scripts.planted_forms import drawn, forms, nearest, rendered


@pytest.fixture(autouse=True)
def fast_search(monkeypatch):
    monkeypatch.setattr(planted_forms, "_MEMBERS", 3_000)


def test_the_generator_imports_nothing_of_the_package():
    tree = ast.parse(Path(planted_forms.__file__).read_text())
    names = [
        alias.name if isinstance(node, ast.Import) else str(node.module)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    ]
    assert {name.partition(".")[0] for name in names} <= {"math", "collections", "dataclasses", "numpy"}


@pytest.mark.parametrize("name", forms(5))
def test_members_are_found_again_in_their_family(name):
    form, draw = forms(5)[name], np.random.default_rng(0)
    clean = rendered(form, drawn(form, 5, draw), 5)
    assert np.allclose(clean.sum(1), 0, atol=1e-9)
    assert np.allclose((clean**2).sum(1), 1)
    assert nearest(clean, form, 5, draw).min() > 0.99


def test_a_derivative_is_odd_along_its_direction_and_even_across_it():
    # left, up, spread, stretch, turn
    along_x = rendered(forms(7)["derivative"], np.array([[0, 0, 0.9, 1.3, 0.0]]), 7).reshape(7, 7)
    assert np.allclose(along_x, -along_x[:, ::-1])
    assert np.allclose(along_x, along_x[::-1])
    along_y = rendered(forms(7)["derivative"], np.array([[0, 0, 0.9, 1.3, np.pi / 2]]), 7).reshape(7, 7)
    assert np.allclose(np.rot90(along_x), along_y)


def test_a_filter_is_identifiable_until_the_noise_hides_how_it_differs():
    planted = plant(5, 3, seed=1)
    told = [planted.identifiable(noise) & (planted.truth != PLANTED.index("none")) for noise in (0.001, 0.1, 1.0, 10.0)]
    assert [int(mask.sum()) for mask in told] == sorted((int(mask.sum()) for mask in told), reverse=True)
    assert told[0].sum() > 10
    assert not told[-1].any()


def test_families_are_scored():
    planted = plant(7, 4, seed=2)
    found = score(planted, 0.05, seed=3)
    assert [found["all"][name]["planted"] for name in PLANTED] == [4] * len(PLANTED)
    assert sum(found["identifiable"][name]["planted"] for name in PLANTED) == planted.clean.shape[0] - found["left_out"]
    assert found["all"]["derivative"] == {"planted": 4, "precision": 1.0, "recall": 1.0}
    assert found["directions"] == 1.0


def test_filters_to_prune_are_told_apart_by_what_they_are():
    layer, truth = planted_filters(5, 0.0, seed=0)
    assert layer.shape == (GOOD + 3 * EACH, 1, 5, 5)
    assert Counter(truth) == {"kept": GOOD, "dead": EACH, "duplicate": EACH, "random": EACH}
    dead = [not filters.any() for filters in layer]
    assert dead == [kind == "dead" for kind in truth]


def test_filters_to_keep_are_unlike_each_other():
    chosen = distinct(GOOD, 3, np.random.default_rng(0))
    assert np.abs(chosen @ chosen.T - np.eye(GOOD)).max() < UNLIKE


def test_precision_and_recall():
    rows = precision_and_recall(Counter({("a", "a"): 8, ("a", "b"): 2, ("b", "b"): 2}), ("a", "b", "c"))
    assert rows["a"] == {"planted": 10, "precision": 1.0, "recall": 0.8}
    assert rows["b"] == {"planted": 2, "precision": 0.5, "recall": 1.0}
    assert rows["c"] == {"planted": 0, "precision": None, "recall": None}
    assert rows["mistakes"] == {"a called b": 2}
