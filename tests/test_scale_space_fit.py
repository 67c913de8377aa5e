"""Scale-space fits: parameters that were put in come out, by an independent construction of the models."""

import itertools

import numpy as np
import pytest
import torch
from scipy.special import ive

import masterkey
from masterkey.analysis.scale_space_fit import FORMS, LARGEST_GAMMA, fit_scale_space
from masterkey.closed_form.scale_space import FORMS as PAPER
from masterkey.closed_form.scale_space import axis_differences, scale_space_filters
from masterkey.errors import MasterkeyError

PUBLISHED = ("forward-y", "backward-x", "backward-y", "forward-x", "central-x", "central-y", "sharpened", "gaussian")


def plane(form: str, sigma_x: float, sigma_y: float, k: int, gamma: float = 0.0) -> np.ndarray:
    """By scipy's Bessel functions and shifts of a large plane; y points up."""
    n = np.arange(-k, k + 1)
    across, down = (ive(n, sigma**2) for sigma in (sigma_x, sigma_y))
    large = np.outer(down, across)
    right, left = np.roll(large, -1, 1), np.roll(large, 1, 1)
    up, below = np.roll(large, 1, 0), np.roll(large, -1, 0)
    made = {
        "forward-y": up - large,
        "backward-y": large - below,
        "central-y": (up - below) / 2,
        "forward-x": right - large,
        "backward-x": large - left,
        "central-x": (right - left) / 2,
        "gaussian": large,
        "sharpened": large - gamma * (right + left + up + below - 4 * large),
    }[form]
    # rows run down and y up: value at row r is f(y = -r), and up(y) = f(y + 1) is the row above
    return made[k - k // 2 : k + k // 2 + 1, k - k // 2 : k + k // 2 + 1]


@pytest.mark.parametrize("k", [3, 5, 7, 9])
def test_parameters_come_out_again(k):
    scales = [0.6, 0.85, 1.1] if k > 3 else [0.5, 0.7]
    cases = [(form, x, y) for form, x, y in itertools.product(FORMS, scales, scales) if form != "sharpened"]
    filters = torch.tensor(np.stack([-3.0 * plane(form, x, y, k) + 0.5 for form, x, y in cases]))
    fit = fit_scale_space(filters)
    assert [fit.names[number] for number in fit.form] == [form for form, _, _ in cases]
    # a central difference of three samples has one shape, whatever its scale
    known_x, known_y = (torch.tensor([k > 3 or form != f"central-{axis}" for form, _, _ in cases]) for axis in "xy")
    assert torch.allclose(fit.sigma_x[known_x], torch.tensor([x for _, x, _ in cases])[known_x], atol=0.011)
    assert torch.allclose(fit.sigma_y[known_y], torch.tensor([y for _, _, y in cases])[known_y], atol=0.011)
    assert fit.cosine.max() < -0.9999
    assert fit.error.max() < 2e-4


def test_gamma_comes_out_again():
    filters = torch.tensor(np.stack([plane("sharpened", 0.7, 0.8, 7, gamma) for gamma in (0.3, 0.5, 1.0)]))
    fit = fit_scale_space(filters, ["sharpened"])
    assert fit.cosine.min() > 0.9999
    models = [
        plane("sharpened", float(x), float(y), 7, float(g))
        for x, y, g in zip(fit.sigma_x, fit.sigma_y, fit.gamma, strict=True)
    ]
    cosines = [np.corrcoef(model.ravel(), f.ravel())[0, 1] for model, f in zip(models, filters.numpy(), strict=True)]
    assert cosines == pytest.approx(fit.cosine.tolist(), abs=1e-4)
    # scales and gamma trade off against each other; with gamma given the scales are determined
    fixed = fit_scale_space(filters[1:2], ["sharpened"], gamma=0.5)
    assert float(fixed.sigma_x) == pytest.approx(0.7, abs=0.01)
    assert float(fixed.sigma_y) == pytest.approx(0.8, abs=0.01)
    assert float(fixed.gamma) == 0.5


def test_no_gamma_that_is_given_is_better_than_a_free_one():
    """Where the peak is out of range, the best one in range may be at either end."""
    filters = torch.randn(100, 7, 7, generator=torch.Generator().manual_seed(2))
    free = fit_scale_space(filters, ["sharpened"]).cosine.abs()
    for gamma in (0.0, 0.5, LARGEST_GAMMA):
        fixed = fit_scale_space(filters, ["sharpened"], gamma=gamma).cosine.abs()
        assert (fixed > free + 0.02).float().mean() < 0.1  # both climb from a grid, and may end on a lower hill


def test_no_grid_point_of_a_plain_search_is_better():
    generator = torch.Generator().manual_seed(1)
    filters = torch.randn(4, 5, 5, generator=generator) + torch.tensor(plane("central-x", 1.0, 0.8, 5)) * 30
    fit = fit_scale_space(filters, [form for form in FORMS if form != "sharpened"])
    for row, f in enumerate(filters.numpy()):
        best = max(
            abs(np.corrcoef(plane(form, x, y, 5).ravel(), f.ravel())[0, 1])
            for form in FORMS
            if form != "sharpened"
            for x, y in itertools.product(np.arange(0.1, 2.9, 0.1), repeat=2)
        )
        assert abs(float(fit.cosine[row])) > best - 1e-4


def test_the_closed_form_bank_fits_itself_with_the_published_scales():
    fits = [
        fit_scale_space(f, [name], form.gamma or None)
        for f, name, form in zip(scale_space_filters((7, 7)), PUBLISHED, PAPER, strict=True)
    ]
    assert [float(fit.sigma_x) for fit in fits] == pytest.approx([form.sigma_x for form in PAPER], abs=0.003)
    assert [float(fit.sigma_y) for fit in fits] == pytest.approx([form.sigma_y for form in PAPER], abs=0.003)


def test_the_published_keys(data_dir):
    keys = masterkey.Bank.from_checkpoint(data_dir / "checkpoints/convnextv2_tiny_8_master_key_filters.txt")
    filters = keys.layers["keys.weight"][:, 0]
    free = fit_scale_space(filters)
    assert [free.names[number] for number in free.form[:6]] == list(PUBLISHED[:6])
    assert float(free.cosine.abs().mean()) == pytest.approx(0.9395, abs=5e-4)


def test_constant_and_one_by_k_filters():
    fit = fit_scale_space(torch.ones(1, 7, 7))
    assert float(fit.cosine) == 0
    row = fit_scale_space(torch.tensor(plane("forward-x", 0.8, 0.8, 7))[3:4][None])
    assert row.names[int(row.form)] == "forward-x"


@pytest.mark.parametrize("kernel", [(4, 4), (6, 6), (6, 5), (5, 8)])
def test_even_sides_are_those_of_the_next_odd_cropped(kernel):
    scales = [0.6, 0.9]
    cases = [(form, x, y) for form, x, y in itertools.product(FORMS, scales, scales) if form != "sharpened"]
    whole = np.stack([2.0 * plane(form, x, y, 9) - 0.3 for form, x, y in cases])
    # of a plane of 9x9 the one with its middle where an odd side of one more has it, less its last row and column
    top, left = (4 - side // 2 for side in kernel)
    filters = torch.tensor(whole[:, top : top + kernel[0], left : left + kernel[1]])
    fit = fit_scale_space(filters)
    assert fit.cosine.min() > 0.9999
    assert [fit.names[number] for number in fit.form] == [form for form, _, _ in cases]
    assert torch.allclose(fit.sigma_x, torch.tensor([x for _, x, _ in cases]), atol=0.011)
    assert torch.allclose(fit.sigma_y, torch.tensor([y for _, _, y in cases]), atol=0.011)


def test_the_closed_form_bank_of_even_kernels_fits_itself():
    for f, name, form in zip(scale_space_filters((6, 6)), PUBLISHED, PAPER, strict=True):
        fit = fit_scale_space(f, [name], form.gamma or None)
        assert abs(float(fit.cosine)) > 0.99999
        assert float(fit.sigma_x) == pytest.approx(form.sigma_x, abs=0.003)


def test_the_smallest_kernels_have_a_fit():
    generator = torch.Generator().manual_seed(0)
    for kernel in ((2, 2), (1, 2), (4, 1)):
        fit = fit_scale_space(torch.randn(5, *kernel, generator=generator))
        assert bool(torch.isfinite(fit.cosine).all()) and float(fit.error.max()) <= 1


@pytest.mark.parametrize("kernel", [(1, 7), (7, 1)])
def test_along_a_side_of_one_nothing_is_told_apart(kernel):
    """Every operator is a number there: a Gaussian is no difference, and has no scale across."""
    tables = [axis_differences(7, sigma) for sigma in (0.6, 1.0, 1.5)]
    filters = torch.stack([table["smooth"].view(kernel).float() for table in tables])
    fit = fit_scale_space(torch.cat([filters, -filters]))
    assert {fit.names[form] for form in fit.form.tolist()} == {"gaussian"}
    along, across = (fit.sigma_x, fit.sigma_y) if kernel[0] == 1 else (fit.sigma_y, fit.sigma_x)
    assert bool(across.isnan().all()) and along.tolist() == pytest.approx(2 * [0.6, 1.0, 1.5], abs=0.003)
    assert torch.equal(fit.cosine.sign(), torch.tensor([1.0, 1, 1, -1, -1, -1])) and float(fit.error.min()) >= 0
    other = "y" if kernel[0] == 1 else "x"
    with pytest.raises(MasterkeyError, match=rf"have no side along which forward-{other} would differ"):
        fit_scale_space(filters, [f"forward-{other}"])


def test_a_single_weight_is_refused():
    with pytest.raises(MasterkeyError, match="larger than 1x1"):
        fit_scale_space(torch.ones(2, 1, 1))


def test_an_unknown_form_is_refused():
    with pytest.raises(MasterkeyError, match=r"no scale-space form .*'diagonal'.*forward-y"):
        fit_scale_space(torch.ones(1, 7, 7), ["diagonal"])
    with pytest.raises(MasterkeyError, match="no scale-space form was given"):
        fit_scale_space(torch.ones(1, 7, 7), [])
    with pytest.raises(MasterkeyError, match="gamma is nan, which is no finite number"):
        fit_scale_space(torch.ones(1, 7, 7), gamma=float("nan"))


def test_the_callers_default_type_changes_nothing():
    filters = torch.randn(5, 7, 7, generator=torch.Generator().manual_seed(0))
    expected = fit_scale_space(filters, ["sharpened"])
    torch.set_default_dtype(torch.float64)
    try:
        found = fit_scale_space(filters, ["sharpened"])
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found.cosine, expected.cosine) and found.cosine.dtype == torch.float32
