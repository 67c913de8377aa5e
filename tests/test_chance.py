"""The level of chance of the drift, against labels that are really permuted."""

from itertools import combinations

import numpy as np
import pytest
import torch

from masterkey.analysis import plots
from masterkey.analysis.chance import DRAWS, chance, drawn_by_chance
from masterkey.analysis.drift import drift, drift_between
from masterkey.analysis.structure import measure, survey_all
from masterkey.extract import from_state_dict


def bank_of(name, filters):
    return from_state_dict({"0.weight": filters}, name=name)


def drawn(n, seed, tilt=0.0):
    """Filters with components of their own order, and some of a few kinds: histograms with tails and with peaks."""
    generator = torch.Generator().manual_seed(seed)
    filters = torch.randn(n, 9, generator=generator) * torch.linspace(3, 0.3, 9)
    filters[: n // 4] = torch.eye(9)[torch.randint(9, (n // 4,), generator=generator)]
    filters[:, 0] += tilt
    return filters.view(n, 1, 3, 3)


@pytest.mark.parametrize("sizes", [(40, 70), (30, 900), (400, 400)])
def test_the_mean_is_that_of_permuted_labels(sizes):
    filters = torch.cat([drawn(n, seed) for seed, n in enumerate(sizes)])
    structure = measure(survey_all([bank_of("all", filters)]), (3, 3))

    def permuted(seed):
        """D between two groups of filters, dealt out anew."""
        order = torch.randperm(len(filters), generator=torch.Generator().manual_seed(seed))
        parts = filters[order].split(sizes)
        counts = np.stack([counted(structure, part) for part in parts])
        shares = np.maximum(counts / counts.sum(axis=2, keepdims=True), 1e-12)
        shares /= shares.sum(axis=2, keepdims=True)
        return ((shares[0] - shares[1]) * np.log(shares[0] / shares[1])).sum(axis=1) @ structure.explained

    expected = np.array([permuted(seed) for seed in range(100)])
    parts = filters.split(sizes)
    found = drift_between(bank_of("first", parts[0]), bank_of("second", parts[1]))[3, 3]
    levels = drawn_by_chance(found, 0, 1, draws=100)
    error = np.hypot(expected.std(), levels.std()) / 10
    assert abs(levels.mean() - expected.mean()) < 3.5 * error
    assert levels.std() == pytest.approx(expected.std(), rel=0.35)


def counted(structure, filters):
    """Histograms (K, bins) on the structure's ranges."""
    coefficients = structure.coefficients(filters)
    ranges = zip(structure.low, structure.high, strict=True)
    return np.stack([np.histogram(coefficients[:, i], bins=70, range=ends)[0] for i, ends in enumerate(ranges)])


def test_samples_of_one_distribution_are_not_above_chance_and_others_are():
    banks = [bank_of(str(seed), drawn(150, seed)) for seed in range(8)]
    structure = measure(survey_all([*banks, bank_of("other", drawn(150, 9, tilt=4.0))]), (3, 3))
    found = drift(structure, {str(number): [number] for number in range(9)})
    level = chance(found)
    same = [level.above[a, b] for a, b in combinations(range(8), 2)]
    assert len(same) == 28 and sum(same) <= 4  # one in twenty-one is expected
    assert level.above[8, :8].all() and level.above[:8, 8].all()
    assert (level.mean == level.mean.T).all() and (level.largest >= level.mean).all()
    assert not np.diag(level.above).any()
    drifts = found.total[:8, :8][np.triu_indices(8, 1)]
    assert drifts.mean() == pytest.approx(level.mean[:8, :8][np.triu_indices(8, 1)].mean(), rel=0.1)


def test_a_pair_has_its_level_whatever_else_is_compared():
    structure = measure(survey_all([bank_of(str(seed), drawn(60, seed)) for seed in range(3)]), (3, 3))
    three = drift(structure, {"0": [0], "1": [1], "2": [2]})
    two = drift(structure, {"2": [2], "1": [1]})
    assert chance(three).mean[1, 2] == chance(two).mean[0, 1] == drawn_by_chance(three, 1, 2).mean()
    assert len(drawn_by_chance(three, 1, 2)) == DRAWS
    coarse = drift(structure, {"1": [1], "2": [2]}, epsilon=1e-2)
    assert chance(coarse).mean[0, 1] < chance(two).mean[0, 1]  # a bin that one group fills costs less


def test_very_many_filters_are_drawn_with_replacement(monkeypatch):
    structure = measure(survey_all([bank_of("few", drawn(60, 0)), bank_of("many", drawn(4000, 1))]), (3, 3))
    found = drift(structure, {"few": [0], "many": [1]})
    exact = drawn_by_chance(found, 0, 1, draws=100).mean()
    monkeypatch.setattr("masterkey.analysis.chance._LARGEST", 1000)
    assert drawn_by_chance(found, 0, 1, draws=100).mean() == pytest.approx(exact, rel=0.1)
    monkeypatch.undo()
    counts = found.counts * 10**6  # numpy's own draws without replacement end at 10**9
    huge = type(found)(**{**vars(found), "counts": counts})
    assert 0 < drawn_by_chance(huge, 0, 1).mean() < 1e-3


def test_the_map_brackets_what_is_not_above_chance():
    pytest.importorskip("matplotlib", reason="needs masterkey[analysis]")
    banks = [bank_of("a", drawn(100, 0)), bank_of("b", drawn(100, 1)), bank_of("c", drawn(100, 2, tilt=4.0))]
    structure = measure(survey_all(banks), (3, 3))
    found = drift(structure, {"a": [0], "b": [1], "c": [2]})
    texts = [text.get_text() for text in plots.drift_map(found, chance=chance(found)).axes[0].texts]
    assert [text.startswith("(") for text in texts] == [False, True, False, True, False, False, False, False, False]
    lines = plots.decile_box({"1": [0.1, 0.2], "2": [0.3]}, by_chance={"1": 0.15, "2": 0.25}).axes[0].collections
    assert [segment[:, 1].tolist() for segment in lines[0].get_segments()] == [[0.15, 0.15], [0.25, 0.25]]


def test_filters_that_differ_by_rounding_alone_do_not_drift():
    filters = torch.randn(1, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    sizes = torch.linspace(0.1, 3, 200).view(-1, 1, 1, 1)
    found = drift_between(bank_of("a", filters * sizes[:120]), bank_of("b", filters * sizes[120:]))[5, 5]
    assert found.counts[:, :, 1:].any()  # scaled, they are not the same to the bit
    assert not found.explained.any() and not found.total.any() and not chance(found).above.any()
