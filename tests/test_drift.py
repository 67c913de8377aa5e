"""Structure and drift: equations 1 to 5 and 9 against numpy and scikit-learn, groupings, phenotypes, figures."""

import math

import numpy as np
import pytest
import torch
from samples import make_bank

from masterkey.analysis import plots
from masterkey.analysis.drift import drift, drift_between, histograms
from masterkey.analysis.phenotypes import phenotype
from masterkey.analysis.sample import sample_coefficients
from masterkey.analysis.structure import kernels, measure, survey_all
from masterkey.bank import Bank
from masterkey.errors import MasterkeyError
from masterkey.metadata import Layer, Metadata, Source

pytest.importorskip("sklearn", reason="needs masterkey[test]")
pytest.importorskip("matplotlib", reason="needs masterkey[analysis]")


def bank_of(name, *layers):
    tensors = {f"layers.{i}": layer for i, layer in enumerate(layers)}
    described = tuple(Layer(each, tuple(layer.shape[2:]), len(layer)) for each, layer in tensors.items())
    return Bank(tensors, Metadata(name, "depthwise", Source("model", name), described, "forward"))


def smooth(n, k, seed, tilt=0.0):
    """Filters with a spectrum of their own, so that components have an order."""
    generator = torch.Generator().manual_seed(seed)
    filters = torch.randn(n, k * k, generator=generator) * torch.linspace(3, 0.3, k * k) + tilt
    return (filters * torch.rand(n, 1, generator=generator)).view(n, 1, k, k)


@pytest.fixture(scope="module")
def three():
    return [
        bank_of("a", smooth(400, 3, 0), smooth(300, 3, 1)),
        bank_of("b", smooth(500, 3, 2, tilt=0.5), smooth(100, 3, 3)),
        bank_of("c", smooth(700, 3, 4, tilt=-1.0)),
    ]


@pytest.fixture(scope="module")
def structure(three):
    return measure(survey_all(three), (3, 3))


def groups_of(structure):
    return {label: [i for i, at in enumerate(structure.layers) if at.bank == label] for label in "abc"}


def test_everything_equals_the_reference(three, structure):
    from masterkey.benchmarks.scripts import analysis_reference

    reference = analysis_reference.analyse(
        {bank.name: [layer.flatten(1).double().numpy() for layer in bank.layers.values()] for bank in three}
    )
    found = drift(structure, groups_of(structure))
    np.testing.assert_allclose(structure.explained, reference["explained"], atol=1e-6)
    np.testing.assert_allclose(found.total, reference["drift"], atol=1e-5)
    # a component may have the opposite sign there
    ends, others = (np.sort(np.abs([each["low"], each["high"]]), axis=0) for each in (vars(structure), reference))
    np.testing.assert_allclose(ends, others, atol=1e-5)
    assert structure.counts.sum(axis=(0, 2)).tolist() == [2000] * 9


def test_components_are_orthonormal_and_coefficients_rebuild_the_filters(three, structure):
    np.testing.assert_allclose(structure.components @ structure.components.T, np.eye(9), atol=1e-12)
    layer = three[0].layers["layers.0"]
    rebuilt = structure.coefficients(layer) @ structure.components + structure.mean
    rows = layer.flatten(1).numpy()
    np.testing.assert_allclose(rebuilt, rows / np.abs(rows).max(axis=1, keepdims=True), atol=1e-6)
    assert structure.explained.sum() == pytest.approx(1) and (np.diff(structure.explained) <= 0).all()


def test_drift_is_symmetric_and_zero_for_the_same(three, structure):
    found = drift(structure, groups_of(structure))
    assert (found.total == found.total.T).all() and (np.diag(found.total) == 0).all()
    assert (found.components >= 0).all()
    assert [(first, second) for first, second, *_ in found.pairs()] == [("a", "b"), ("a", "c"), ("b", "c")]
    there, back = drift_between(three[0], three[1]), drift_between(three[1], three[0])
    np.testing.assert_allclose(there[3, 3].total, back[3, 3].total, rtol=1e-9)
    assert drift_between(three[0], three[0])[3, 3].total.max() == 0


def test_equation_4_by_hand():
    """Two distributions over 70 bins that share no bin: each logarithm is that of 1 over epsilon."""
    low, high = torch.zeros(10, 1, 1, 2), torch.zeros(10, 1, 1, 2)
    low[..., 0], high[..., 1] = 1.0, 1.0
    found = drift_between(bank_of("low", low), bank_of("high", high), renormalise=False)[1, 2]
    assert found.components[0, 1].tolist() == pytest.approx([2 * (1 - 1e-12) * math.log(1e12), 0.0], abs=1e-9)
    assert found.total[0, 1] == pytest.approx(2 * math.log(1e12), rel=1e-9)
    wide = drift_between(bank_of("low", low), bank_of("high", high), epsilon=0.5, renormalise=True)[1, 2]
    share = np.maximum(np.eye(70)[0], 0.5) / (1 + 69 * 0.5)
    expected = 2 * (share[0] - share[1]) * math.log(share[0] / share[1])
    assert wide.components[0, 1, 0] == pytest.approx(expected)


def test_scale_does_not_matter_but_shape_does(three):
    stronger = Bank(
        {name: layer * 4.0 for name, layer in three[0].layers.items()}, three[0].renamed("four times").metadata
    )
    assert drift_between(three[0], stronger)[3, 3].total[0, 1] == 0
    assert drift_between(three[0], three[0].pixel_shuffled(0).renamed("s"))[3, 3].total[0, 1] > 0.1


def test_histograms_have_at_least_epsilon_and_sum_to_one(structure):
    found = drift(structure, groups_of(structure))
    shares = histograms(found.counts)
    assert shares.min() >= 0.99e-12
    np.testing.assert_allclose(shares.sum(axis=2), 1, atol=1e-12)


# -- bad input ------------------------------------------------------------------------------------------------


def test_banks_of_different_kernels_are_refused_or_resized():
    three, five = bank_of("three", smooth(50, 3, 0)), bank_of("five", smooth(50, 5, 0))
    with pytest.raises(MasterkeyError, match=r"three has filters of 3x3, five of 5x5.*resize"):
        drift_between(three, five)
    found = drift_between(three, five, resize=(5, 5))
    assert list(found) == [(5, 5)] and found[5, 5].total[0, 1] > 0
    np.testing.assert_array_equal(drift_between(three, five, resize=5)[5, 5].total, found[5, 5].total)
    with pytest.raises(MasterkeyError, match="a side of the kernel size"):
        drift_between(three, five, resize=(5, 0))
    with pytest.raises(MasterkeyError, match="32x32 is the largest"):
        drift_between(three, five, resize=(1, 1001)) and drift_between(three, five, resize=33)


def test_mixed_kernels_are_compared_kernel_by_kernel():
    found = drift_between(make_bank("one", seed=0), make_bank("two", seed=1))
    assert list(found) == [(3, 3), (7, 7)]
    assert len(found[3, 3].explained) == 9 and len(found[7, 7].explained) == 49


@pytest.mark.parametrize("layer", [torch.full((6, 1, 3, 3), 0.5), torch.zeros(4, 1, 3, 3), smooth(1, 3, 0)])
def test_constant_filters_and_one_filter(layer):
    found = drift_between(bank_of("same", layer), bank_of("other", layer))[3, 3]
    assert found.total.tolist() == [[0, 0], [0, 0]]
    assert math.isfinite(drift_between(bank_of("one", layer), bank_of("many", smooth(50, 3, 1)))[3, 3].total[0, 1])


def test_empty_groups_unknown_kernels_and_equal_names_are_refused(three, structure):
    with pytest.raises(MasterkeyError, match="at least one layer each; empty: none here"):
        drift(structure, {"a": [0], "none here": []})
    with pytest.raises(MasterkeyError, match="no layer has the kernel 7x7"):
        measure(survey_all(three), (7, 7))
    with pytest.raises(MasterkeyError, match="two banks of the name a"):
        survey_all([three[0], three[0]])


# -- phenotypes -------------------------------------------------------------------------------------------------


def counts_of(values, low=-5.0, high=5.0):
    return np.histogram(values, bins=70, range=(low, high))[0]


def test_phenotypes_by_their_rules():
    draws = np.random.default_rng(0)
    normal = [counts_of(draws.normal(0, 1, 20_000)) for _ in range(2)]
    point = [counts_of(np.concatenate([np.full(15_000, 0.02), draws.normal(0, 1, 5_000)])) for _ in range(2)]
    spiky = counts_of(np.concatenate([draws.normal(0, 1, 14_000), np.full(3_000, -2.5), np.full(3_000, 2.0)]))
    two = counts_of(np.concatenate([draws.normal(-2.5, 0.6, 10_000), draws.normal(2.5, 0.6, 10_000)]))
    assert phenotype(*normal) == "sun"
    assert phenotype(*point) == "point"
    assert phenotype(spiky, normal[0]) == phenotype(normal[0], spiky) == "spikes"
    assert phenotype(two, normal[0]) == phenotype(normal[0], two) == "symbols"


def some(distribution, n, draws):
    """Draws of a simple distribution; a number is the share of them that has one single value."""
    if isinstance(distribution, float):
        return np.concatenate([draws.normal(size=n - int(distribution * n)), np.full(int(distribution * n), 1.0)])
    if distribution == "two":
        return np.concatenate([draws.normal(-1.5, 1, n // 2), draws.normal(1.5, 1, n // 2)])
    return getattr(draws, distribution)(size=n) if distribution != "t" else draws.standard_t(5, n)


@pytest.mark.parametrize(
    ("distribution", "expected"),
    [
        ("normal", "sun"),
        ("uniform", "symbols"),
        ("laplace", "symbols"),
        ("t", "symbols"),
        ("exponential", "symbols"),
        ("two", "symbols"),
        (0.05, "spikes"),
        (0.15, "spikes"),
        (0.7, "point"),
    ],
)
@pytest.mark.parametrize("n", [500, 5_000, 50_000])
def test_phenotypes_of_simple_distributions(distribution, expected, n):
    """On the range of the draws themselves, as in a bank that is analysed alone; the paper's sun is Gaussian-like."""
    draws = np.random.default_rng(2)
    found = []
    for _ in range(10):
        found.append(phenotype(*(np.histogram(some(distribution, n, draws), bins=70)[0] for _ in range(2))))
    assert found.count(expected) >= (10 if n > 500 else 8), found


def test_a_heavy_tail_is_no_hotspot():
    """Student's t with 3 degrees of freedom: the tail stretches the range until the middle fills a few bins."""
    draws = np.random.default_rng(3)
    found = [phenotype(*(np.histogram(draws.standard_t(3, 5_000), bins=70)[0] for _ in range(2))) for _ in range(20)]
    assert found.count("symbols") >= 12 and "sun" not in found


def test_a_hotspot_at_the_end_of_the_range_is_found():
    draws = np.random.default_rng(4)
    flat = np.histogram(draws.uniform(size=5_000), bins=70)[0]
    for place in (0, 1, 68, 69):
        spiked = flat + 500 * (np.arange(70) == place)
        assert phenotype(spiked, flat) == "spikes"


def test_few_normal_filters_are_a_sun_too():
    draws = np.random.default_rng(1)
    for _ in range(20):
        assert phenotype(counts_of(draws.normal(0, 1.5, 500)), counts_of(draws.normal(0, 1.5, 500))) == "sun"


# -- pictures ---------------------------------------------------------------------------------------------------


def test_a_layer_may_have_no_filter_in_a_sample(structure):
    assert structure.coefficients(torch.zeros(0, 3, 3)).shape == (0, len(structure.components))


def test_samples_are_the_coefficients_of_filters_spread_over_all_layers(three, structure):
    read, groups = survey_all(three), groups_of(structure)
    everything = sample_coefficients(structure, read, groups)
    assert {label: len(rows) for label, rows in everything.items()} == {"a": 700, "b": 600, "c": 700}
    expected = np.concatenate([structure.coefficients(layer) for layer in three[0].layers.values()])
    # not to the bit: on some CPUs a product of a part of the rows sums in another order
    np.testing.assert_allclose(everything["a"], expected, rtol=1e-9, atol=1e-12)
    few = sample_coefficients(structure, read, groups, most=100)
    np.testing.assert_allclose(few["a"], expected[::7], rtol=1e-9, atol=1e-12)


def test_every_plot_is_a_figure_and_the_same_picture_again(three, structure):
    groups = groups_of(structure)
    found = drift(structure, groups)
    points = sample_coefficients(structure, survey_all(three), groups, most=50)

    def draw():
        yield plots.basis_picture(structure)
        yield plots.ridges(structure, groups)
        yield plots.drift_map(found)
        yield plots.component_box(found)
        yield plots.decile_box({"1": [0.1, 0.2, 0.4], "2": [0.3]})
        yield plots.phenotype_scatter(structure, groups, points)

    first, again = ([plots.png_bytes(each) for each in draw()] for _ in range(2))
    assert first == again
    assert all(png.startswith(b"\x89PNG") for png in first)


def test_the_heat_map_holds_every_value(structure):
    found = drift(structure, groups_of(structure))
    axes = plots.drift_map(found).axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), found.total)
    assert [text.get_text() for text in axes.texts] == [f"{value:.2g}" for value in found.total.ravel()]


def test_kernels_leaves_single_weights_out():
    read = survey_all([bank_of("m", smooth(9, 3, 0), torch.ones(4, 1, 1, 1), smooth(9, 1, 0).expand(-1, -1, 1, 5))])
    assert kernels(read) == [(1, 5), (3, 3)]
