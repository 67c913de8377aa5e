"""The computed filters against their definitions and, for the scale-space forms, the published keys."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from masterkey.closed_form.gaussian import sample_measured, sample_smooth, smooth_covariance
from masterkey.closed_form.scale_space import FORMS, discrete_gaussian, scale_space_filters
from masterkey.errors import PlanError
from masterkey.fit import crop_or_pad, rank1_factor, stretch

KERNELS = [(k, k) for k in range(2, 14)] + [(31, 31), (1, 11), (11, 1), (1, 5), (5, 1), (1, 2), (3, 8)]
ROW, COLUMN = -2, -1


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("n", "s", "bessel"),  # I_n(s), from mpmath at 30 digits
    [
        (0, 0.5, 1.0634833707413235193),
        (1, 0.5, 0.25789430539089631636),
        (3, 1.2, 0.039359003064890024444),
        (30, 0.25, 2.3729336310903371665e-60 * math.exp(0.25)),
        (20, 100.0, 0.0053879576269663273678 * math.exp(100)),
    ],
)
def test_discrete_gaussian_is_the_scaled_bessel_function(n: int, s: float, bessel: float) -> None:
    weights = discrete_gaussian(31, s)
    assert weights[31 + n].item() * math.exp(s) == pytest.approx(bessel, rel=1e-14, abs=0)
    assert torch.equal(weights, weights.flip(0))


def test_discrete_gaussian_sums_to_one_and_has_its_variance() -> None:
    for s in (0.0, 0.2, 1.5, 30.0, 100.0):
        weights, n = discrete_gaussian(120, s), torch.arange(-120, 121)
        assert weights.sum().item() == pytest.approx(1, abs=1e-13)
        assert (weights * n**2).sum().item() == pytest.approx(s, abs=1e-10)
    with pytest.raises(ValueError, match="0 to 100"):
        discrete_gaussian(3, -0.1)


@pytest.mark.parametrize("kernel", KERNELS)
def test_scale_space_filters_have_unit_norm_and_the_same_bytes(kernel: tuple[int, int]) -> None:
    filters = scale_space_filters(kernel)
    assert (filters.shape, filters.dtype) == ((8, 1, *kernel), torch.float32)
    torch.testing.assert_close(torch.linalg.vector_norm(filters, dim=(-2, -1)), torch.ones(8, 1))
    assert torch.equal(filters, scale_space_filters(kernel))


@pytest.mark.parametrize("kernel", [(1, 1), (0, 3), (3, -1)])
def test_a_kernel_that_is_not_spatial_is_refused(kernel: tuple[int, int]) -> None:
    with pytest.raises(PlanError, match=f"{kernel[0]}x{kernel[1]}"):
        scale_space_filters(kernel)


def published_keys(path: Path) -> Tensor:
    lines = [line.split() for line in path.read_text().splitlines()]
    rows = [[float(word) for word in words] for words in lines if words and words[0] != "Filter"]
    return torch.tensor(rows).reshape(8, 7, 7)


def test_the_forms_match_the_published_keys(data_dir: Path) -> None:
    keys = published_keys(data_dir / "checkpoints" / "convnextv2_tiny_8_master_key_filters.txt")
    ours = scale_space_filters((7, 7))[:, 0]
    centred = [(filters - filters.mean((-2, -1), keepdim=True)).flatten(1) for filters in (ours, keys)]
    cosines = F.cosine_similarity(*centred)
    expected = torch.tensor([0.837, -0.939, -0.910, 0.906, 0.946, 0.954, 0.987, 0.997])
    torch.testing.assert_close(cosines, expected, atol=0.002, rtol=0)
    assert cosines.abs().mean() >= 0.93


def test_derivatives_at_a_large_kernel_sum_to_zero_and_have_the_symmetry_of_their_form() -> None:
    filters = scale_space_filters((31, 31))[:, 0].double()
    assert filters[:6].sum((-2, -1)).abs().max() < 1e-6
    # one-sided differences are antisymmetric about half a pixel: mirrored, they need moving by one
    moves = ((ROW, 1), (COLUMN, 1), (ROW, -1), (COLUMN, -1), (COLUMN, 0), (ROW, 0))
    for plane, (axis, move) in zip(filters[:6], moves, strict=True):
        torch.testing.assert_close(plane.flip(axis).roll(move, axis), -plane, atol=1e-7, rtol=0)
        assert torch.equal(plane.flip(COLUMN if axis == ROW else ROW), plane)
    for plane in filters[6:]:
        assert plane.sum() > 0.8  # the Laplacian sums to zero, the Gaussian does not
        assert torch.equal(plane, plane.flip(ROW)) and torch.equal(plane, plane.flip(COLUMN))


def test_signs_are_those_of_the_forms_with_y_up_and_x_to_the_right() -> None:
    filters = scale_space_filters((7, 7))[:, 0]
    above, centre, below = filters[:, 2:5, 3].unbind(1)
    left, _, right = filters[:, 3, 2:5].unbind(1)
    # positive where the step that the difference looks at climbs
    assert below[0] > 0 > centre[0]  # G(y + 1) - G(y)
    assert centre[1] > 0 > right[1]  # G(x) - G(x - 1)
    assert centre[2] > 0 > above[2]  # G(y) - G(y - 1)
    assert left[3] > 0 > centre[3]  # G(x + 1) - G(x)
    assert left[4] > 0 > right[4]
    assert below[5] > 0 > above[5]
    assert (centre[6:] > right[6:]).all()


def test_operators_act_before_the_crop() -> None:
    small, large = (scale_space_filters((k, k))[:, 0] for k in (3, 13))
    torch.testing.assert_close(F.normalize(large[:, 5:8, 5:8].flatten(1)), small.flatten(1))


@pytest.mark.parametrize("kernel", [(2, 2), (4, 4), (8, 8), (12, 12), (3, 8), (8, 3)])
def test_even_sides_drop_the_last_row_or_column(kernel: tuple[int, int]) -> None:
    odd = scale_space_filters((kernel[0] | 1, kernel[1] | 1))[..., : kernel[0], : kernel[1]]
    torch.testing.assert_close(F.normalize(odd.flatten(1)), scale_space_filters(kernel).flatten(1))


@pytest.mark.parametrize("k", [2, 3, 5, 8, 11, 31])
def test_one_dimensional_filters_are_the_factors_of_the_square_ones(k: int) -> None:
    square = scale_space_filters((k, k))
    row, column = scale_space_filters((1, k)), scale_space_filters((k, 1))
    separable = [i for i, form in enumerate(FORMS) if form.gamma == 0]
    torch.testing.assert_close((column @ row)[separable].abs(), square[separable].abs(), atol=1e-6, rtol=0)
    assert F.cosine_similarity((column @ row)[6].flatten(), square[6].flatten(), dim=0) > 0.98
    # the signs do not depend on the kernel
    assert ((crop_or_pad(scale_space_filters((1, 13)), (1, k)) * row).sum((-2, -1)) > 0.5).all()
    assert ((crop_or_pad(scale_space_filters((13, 1)), (k, 1)) * column).sum((-2, -1)) > 0.5).all()


@pytest.mark.parametrize("kernel", [*KERNELS[:12], (1, 11), (5, 1), (3, 8)])
def test_smooth_covariance_is_one_of_trace_one(kernel: tuple[int, int]) -> None:
    for depth in (0.0, 0.5, 1.0):
        covariance = smooth_covariance(kernel, depth)
        assert torch.equal(covariance, covariance.T)
        assert covariance.trace().item() == pytest.approx(1)
        assert torch.linalg.eigvalsh(covariance).min() > -1e-12
        assert covariance.diagonal().argmax() == kernel[0] // 2 * kernel[1] + kernel[1] // 2


def test_smooth_covariance_is_the_stated_formula() -> None:
    # 7x7 at depth 0: window 1.05 and correlation length 0.7 pixels; the centre against its right neighbour
    covariance = smooth_covariance((7, 7), 0.0)
    ratio = covariance[24, 25] / covariance[24, 24]
    assert ratio.item() == pytest.approx(math.exp(-1 / (2 * 1.05**2) - 1 / (2 * 0.7**2)))
    # an even side is cut from the odd one
    odd = smooth_covariance((9, 9), 0.3).reshape(9, 9, 9, 9)[:8, :8, :8, :8].reshape(64, 64)
    torch.testing.assert_close(smooth_covariance((8, 8), 0.3), odd / odd.trace())


def test_smooth_filters_widen_with_depth() -> None:
    positions = torch.cartesian_prod(*[torch.arange(7.0) - 3] * 2).square().sum(-1).double()
    spread = [(smooth_covariance((7, 7), d).diagonal() * positions).sum().item() for d in (0, 0.5, 1)]
    assert 2 * spread[0] < spread[1] < spread[2]
    for depth in (-0.1, 1.1):
        with pytest.raises(PlanError, match="relative depth of 0"):
            smooth_covariance((7, 7), depth)


def second_moment(filters: Tensor) -> Tensor:
    flat = filters.flatten(1).double()
    return flat.T @ flat / len(flat)


def expected_error(covariance: Tensor, n: int) -> float:
    """Root mean square Frobenius distance of the second moment of n Gaussian draws from its expectation."""
    return math.sqrt((covariance.trace().item() ** 2 + covariance.square().sum().item()) / n)


@pytest.mark.parametrize("kernel", [(5, 5), (4, 6), (1, 11)])
def test_smooth_draws_converge_to_the_stated_covariance(kernel: tuple[int, int]) -> None:
    draws = sample_smooth(20_000, kernel, 0.6, seeded())
    assert (draws.shape, draws.dtype) == ((20_000, 1, *kernel), torch.float32)
    stated = smooth_covariance(kernel, 0.6)
    assert torch.dist(second_moment(draws), stated).item() < 2 * expected_error(stated, 20_000)
    assert torch.dist(second_moment(draws), smooth_covariance(kernel, 0.0)) > 0.1
    assert draws.square().sum((-3, -2, -1)).mean().item() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("kernel", [(7, 7), (4, 4), (11, 11), (3, 9)])
def test_measured_draws_converge_to_the_resampled_second_moment(kernel: tuple[int, int]) -> None:
    filters = 0.2 * torch.randn(30, 1, 7, 7, generator=seeded(1)) + scale_space_filters((7, 7))[4]
    draws = sample_measured(filters, 20_000, kernel, seeded())
    assert (draws.shape, draws.dtype) == ((20_000, 1, *kernel), torch.float32)
    stated = second_moment(stretch(filters, kernel))  # W S W^T: the resampling is linear
    assert torch.dist(second_moment(draws), stated).item() < 2 * expected_error(stated, 20_000)
    # zero mean although the source's mean is not
    assert draws.mean(0).norm() < 3 * (stated.trace() / 20_000).sqrt()


def test_draws_repeat_with_their_seed_and_fit_one_dimensional_kernels() -> None:
    filters = torch.randn(30, 1, 7, 7, generator=seeded(1))
    for draw in (
        lambda seed: sample_smooth(30, (1, 7), 0.5, seeded(seed)),
        lambda seed: sample_measured(filters, 30, (1, 7), seeded(seed)),
    ):
        assert torch.equal(draw(3), draw(3))
        assert not torch.equal(draw(3), draw(4))
    for kernel in ((1, 7), (7, 1)):
        factors = rank1_factor(sample_measured(filters, 30, (7, 7), seeded()), kernel)
        torch.testing.assert_close(sample_measured(filters, 30, kernel, seeded()), factors)
