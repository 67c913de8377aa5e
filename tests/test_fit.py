"""The kernel rules: what cropping, padding, resampling and the rank-1 factor keep."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from masterkey.errors import PlanError
from masterkey.fit import KERNEL_RULES, crop_or_pad, fit_kernel, rank1_factor, resample, stretch

KERNELS = [(k, k) for k in range(2, 14)] + [(1, 11), (11, 1), (1, 5), (5, 1), (3, 8)]
SIDES = st.integers(1, 13)


def random_filters(n: int, kernel: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.randn(n, 1, *kernel, generator=torch.Generator().manual_seed(seed))


def norms(filters: Tensor) -> Tensor:
    return torch.linalg.vector_norm(filters, dim=(-2, -1))


def side_by_the_book(row: list[float], target: int) -> list[float]:
    """The parity rule word for word: even is odd k + 1 less the last entry, odd sides share their centre."""
    if len(row) == target:
        return row
    if len(row) % 2 == 0:
        row = [*row, 0.0]
    odd = target + 1 - target % 2
    margin = abs(odd - len(row)) // 2
    row = [0.0] * margin + row + [0.0] * margin if odd >= len(row) else row[margin : margin + odd]
    return row[:target]


@settings(deadline=None)
@given(source=SIDES, target=SIDES)
def test_crop_or_pad_is_the_parity_rule_on_each_axis(source: int, target: int) -> None:
    filters = torch.arange(1.0, source + 1).reshape(1, 1, 1, source)
    expected = torch.tensor(side_by_the_book(filters.flatten().tolist(), target))
    assert torch.equal(crop_or_pad(filters, (1, target)).flatten(), expected)
    assert torch.equal(crop_or_pad(filters.mT, (target, 1)).flatten(), expected)


@settings(deadline=None)
@given(source=st.tuples(SIDES, SIDES), more=st.tuples(st.integers(0, 9), st.integers(0, 9)))
def test_padding_then_cropping_gives_the_filter_back(source: tuple[int, int], more: tuple[int, int]) -> None:
    filters = random_filters(2, source)
    padded = crop_or_pad(filters, (source[0] + more[0], source[1] + more[1]))
    assert padded.shape[-2:] == (source[0] + more[0], source[1] + more[1])
    assert torch.equal(crop_or_pad(padded, source), filters)


@pytest.mark.parametrize("target", KERNELS)
def test_cropping_then_padding_keeps_the_centre_tap(target: tuple[int, int]) -> None:
    filters = random_filters(3, (7, 7))
    fitted = crop_or_pad(filters, target)
    assert torch.equal(fitted[..., target[0] // 2, target[1] // 2], filters[..., 3, 3])


@pytest.mark.parametrize(("source", "target"), [((3, 3), (7, 7)), ((1, 5), (5, 5)), ((5, 3), (9, 11))])
def test_padding_keeps_the_function(source: tuple[int, int], target: tuple[int, int]) -> None:
    filters = random_filters(4, source)
    image = torch.randn(2, 4, 12, 12, generator=torch.Generator().manual_seed(1))
    before = F.conv2d(image, filters, padding="same", groups=4)
    after = F.conv2d(image, fit_kernel(filters, target, "crop"), padding="same", groups=4)
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("target", KERNELS)
@pytest.mark.parametrize("source", [(7, 7), (4, 6), (1, 5), (5, 1)])
def test_every_kernel_fits_and_keeps_its_bytes(source: tuple[int, int], target: tuple[int, int]) -> None:
    filters = random_filters(3, source)
    for rule in ("crop", "resample"):
        fitted = fit_kernel(filters, target, rule)
        assert (fitted.shape, fitted.dtype) == ((3, 1, *target), torch.float32)
        assert torch.isfinite(fitted).all()
        assert torch.equal(fitted, fit_kernel(filters.clone(), target, rule))


@pytest.mark.parametrize("target", KERNELS)
def test_resampling_keeps_each_norm(target: tuple[int, int]) -> None:
    filters = random_filters(5, (7, 7)) * torch.tensor([1e-3, 0.1, 1.0, 50.0, 0.0]).reshape(5, 1, 1, 1)
    if 1 not in target:
        torch.testing.assert_close(norms(resample(filters, target)), norms(filters))
    assert not resample(filters, target)[4].any()


@pytest.mark.parametrize("target", KERNELS)
def test_stretch_is_linear(target: tuple[int, int]) -> None:
    one, two = random_filters(2, (7, 7)), random_filters(2, (7, 7), seed=1)
    combined = 2 * stretch(one, target) - 3 * stretch(two, target)
    torch.testing.assert_close(stretch(2 * one - 3 * two, target), combined, atol=1e-5, rtol=0)


def blob(side: int, sigma: float) -> Tensor:
    x = torch.arange(side) - side // 2
    return torch.exp(-(x[:, None] ** 2 + x**2) / (2 * sigma**2))[None, None]


@pytest.mark.parametrize("side", [5, 9, 10, 13])
def test_resampling_keeps_the_shape_and_cropping_does_not(side: int) -> None:
    scaled = blob(side, 1.5 * side / 7)
    fitted, padded = (fit_kernel(blob(7, 1.5), (side, side), rule) for rule in ("resample", "crop"))
    assert F.cosine_similarity(fitted.flatten(), scaled.flatten(), dim=0) > 0.99
    assert F.cosine_similarity(padded.flatten(), scaled.flatten(), dim=0) < 0.98


def test_detail_finer_than_the_new_grid_is_not_blown_up() -> None:
    antisymmetric = random_filters(3, (7, 7)) - random_filters(3, (7, 7)).flip(-1)
    # a width of one averages each row to rounding, and rounding at the filter's own norm would be noise
    assert norms(resample(antisymmetric, (7, 1))).max() < 1e-4


@pytest.mark.parametrize("source", [(7, 7), (8, 8), (4, 7)])
@pytest.mark.parametrize("target", [kernel for kernel in KERNELS if 1 not in kernel])
def test_resampling_keeps_the_centre_of_even_sides_too(source: tuple[int, int], target: tuple[int, int]) -> None:
    y, x = (torch.arange(side) - side // 2 for side in source)
    fitted = resample(torch.exp(-(y[:, None] ** 2 + x**2) / 4)[None, None], target)[0, 0]
    assert divmod(int(fitted.argmax()), target[1]) == (target[0] // 2, target[1] // 2)


@pytest.mark.parametrize("target", KERNELS)
def test_stretch_to_an_even_side_is_that_to_the_odd_one_without_its_last_entries(target: tuple[int, int]) -> None:
    filters = random_filters(3, (7, 7))
    odd = stretch(filters, (target[0] | 1, target[1] | 1))
    torch.testing.assert_close(stretch(filters, target), odd[..., : target[0], : target[1]])


def test_stretch_is_bicubic_antialiased_where_it_shrinks_and_keeps_constants() -> None:
    filters = random_filters(3, (7, 7))
    for target, antialias in (((5, 5), True), ((11, 11), False)):
        expected = F.interpolate(filters, target, mode="bicubic", antialias=antialias)
        torch.testing.assert_close(stretch(filters, target), expected)
    for target in KERNELS:
        torch.testing.assert_close(stretch(torch.ones(1, 1, 7, 7), target), torch.ones(1, 1, *target))


@settings(deadline=None)
@given(
    column=st.lists(st.floats(-2, 2, width=32), min_size=7, max_size=7),
    row=st.lists(st.floats(-2, 2, width=32), min_size=5, max_size=5),
)
def test_rank1_factors_of_a_separable_filter_are_its_own(column: list[float], row: list[float]) -> None:
    u, v = torch.tensor(column, dtype=torch.float64), torch.tensor(row, dtype=torch.float64)
    filters = torch.outer(u, v)[None, None]
    as_row, as_column = rank1_factor(filters, (1, 9)), rank1_factor(filters, (9, 1))
    assert (as_row.shape, as_column.shape) == ((1, 1, 1, 5), (1, 1, 7, 1))
    # up to the stated sign each is the factor times the other's length, so that the two give the filter back
    product = (as_column * as_row).abs()
    torch.testing.assert_close(product, filters.abs() * norms(filters), atol=1e-9, rtol=1e-6)
    torch.testing.assert_close(norms(as_row), norms(filters), atol=1e-9, rtol=1e-6)


def test_rank1_takes_the_best_approximation() -> None:
    filters = random_filters(4, (7, 5)).double()
    row = rank1_factor(filters, (1, 5))
    left = (filters @ row.mT) / row.square().sum((-2, -1), keepdim=True)
    sizes = torch.linalg.svdvals(filters)
    torch.testing.assert_close(norms(filters - left * row), sizes[..., 1:].square().sum(-1).sqrt())
    torch.testing.assert_close(norms(row), sizes[..., 0])


@pytest.mark.parametrize(
    ("dropped", "sign"),
    [
        ([0.5, -0.9, 0.5, 0.1, 0.0], 1),  # the sum decides, whatever the entries
        ([0.0, 1.0, 0.0, -1.0, 0.0], 1),  # antisymmetric, both as far from the centre: the first
        ([0.0, -1.0, 0.0, 1.0, 0.0], -1),
        ([0.0, -1.0, 1.0, 0.0, 0.0], 1),  # antisymmetric about a gap: the one at the centre
        ([0.0, 0.0, -1.0, 1.0, 0.0], -1),
        ([2.0, -1.0, 0.0, 1.0, -2.0], 1),  # the largest, not the nearest
    ],
)
def test_rank1_sign_is_that_of_the_dropped_vector(dropped: list[float], sign: int) -> None:
    kept = torch.tensor([0.5, -1.0, 2.0])
    filters = torch.outer(torch.tensor(dropped), kept)[None, None]
    expected = sign * kept * torch.tensor(dropped).norm()
    torch.testing.assert_close(rank1_factor(filters, (1, 3)).flatten(), expected)
    torch.testing.assert_close(rank1_factor(filters.mT, (3, 1)).flatten(), expected)


@pytest.mark.parametrize("target", [(1, 11), (11, 1), (1, 5), (7, 1)])
def test_one_dimensional_targets_go_through_the_factor_and_then_the_rule(target: tuple[int, int]) -> None:
    filters = random_filters(3, (7, 7))
    factor = rank1_factor(filters, target)
    assert torch.equal(fit_kernel(filters, target, "crop"), crop_or_pad(factor, target))
    torch.testing.assert_close(fit_kernel(filters, target, "resample"), resample(factor, target))


def test_one_dimensional_sources_stay_on_their_line() -> None:
    filters = random_filters(3, (1, 7))
    assert torch.equal(fit_kernel(filters, (1, 5), "crop"), filters[..., 1:6])
    for rule in ("crop", "resample"):
        plane = fit_kernel(filters, (9, 9), rule)
        assert not plane[..., torch.arange(9) != 4, :].any()
        torch.testing.assert_close(norms(plane), norms(filters))


def test_an_equal_kernel_is_the_same_tensor_and_any_other_is_refused_under_exact() -> None:
    filters = random_filters(2, (7, 7))
    assert all(fit_kernel(filters, (7, 7), rule) is filters for rule in KERNEL_RULES)
    with pytest.raises(PlanError, match=r"7x7.*5x3.*'exact'.*'crop' or 'resample'"):
        fit_kernel(filters, (5, 3), "exact")


def test_mistakes_are_named() -> None:
    filters = random_filters(2, (7, 7))
    with pytest.raises(PlanError, match=r"'stretch'.*'crop', 'resample', 'exact'"):
        fit_kernel(filters, (7, 7), "stretch")  # type: ignore[arg-type]
    for kernel in ((5, 5), (1, 1)):
        with pytest.raises(PlanError, match="1xk or kx1"):
            rank1_factor(filters, kernel)
