"""Families: planted truth is found, by a generator that shares no code with the detector.

Thresholds and grids were set on other seeds (1 and 2) of such a generator; the seeds here were used for nothing else.
"""

import numpy as np
import pytest
import torch

import masterkey
from masterkey.analysis.families import FAMILIES, LABELS, NONE, classify, shares, shares_by_layer
from masterkey.analysis.families_line import classify_along, sweep
from masterkey.distill import autoencoder
from masterkey.errors import MasterkeyError
from masterkey.shapes import shapes_of

EACH = 100
AXES = {"x": 0.0, "y": np.pi / 2}


def planted_plane(kind: str, draw: np.random.Generator, k: int) -> np.ndarray:
    """One clean filter, pixel by pixel."""
    middle = (k - 1) / 2
    cx, cy = draw.uniform(-0.6, 0.6, 2)
    sigma, stretch = draw.uniform(0.7, 1.2), draw.uniform(0.9, 1.6)
    turn = AXES.get(kind.split()[-1])
    if turn is None:  # oblique: well between the axes
        turn = draw.uniform(np.pi / 6, np.pi / 3) + draw.choice([0, np.pi / 2])
    sx, sy = draw.uniform(0.7, 1.8, 2)
    core, wider, weight = draw.uniform(0.55, 0.85), draw.uniform(1.5, 2.0), draw.uniform(0.8, 1.1)
    thin, long, tilt = draw.uniform(0.45, 0.7), draw.uniform(2.5, 4), draw.choice([0, np.pi / 4])
    plane = np.zeros((k, k))
    if kind == "delta":
        plane[draw.integers(1, k - 1), draw.integers(1, k - 1)] = 1
        return plane
    for row in range(k):
        for column in range(k):
            x, y = column - middle - cx, middle - row - cy
            along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
            bell = np.exp(-(along**2) / (2 * sigma**2) - across**2 / (2 * (stretch * sigma) ** 2))
            if kind == "gaussian":
                value = np.exp(-(x**2) / (2 * sx**2) - y**2 / (2 * sy**2))
            elif kind == "dog":
                inner = np.exp(-(x**2 + y**2) / (2 * core**2)) / core**2
                outer = np.exp(-(x**2 + y**2) / (2 * (wider * core) ** 2)) / (wider * core) ** 2
                value = inner - weight * outer
            elif kind.startswith("derivative"):
                value = -along / sigma**2 * bell
            elif kind.startswith("second"):
                value = (along**2 / sigma**4 - 1 / sigma**2) * bell
            else:
                one, other = x * np.cos(tilt) + y * np.sin(tilt), y * np.cos(tilt) - x * np.sin(tilt)
                arm = [
                    np.exp(-(a**2) / (2 * thin**2) - b**2 / (2 * (long * thin) ** 2))
                    for a, b in ((one, other), (other, one))
                ]
                value = sum(arm)
            plane[row, column] = value
    return plane


def planted(noise: float, seed: int, k: int = 7) -> tuple[torch.Tensor, np.ndarray]:
    """EACH filters of every family at any strength, sign and offset, with noise of ``noise`` times their norm."""
    draw = np.random.default_rng(seed)
    filters, truth = [], []
    for number, kind in enumerate(LABELS):
        for _ in range(EACH):
            disturbance = draw.normal(size=(k, k))
            disturbance -= disturbance.mean()
            disturbance /= np.linalg.norm(disturbance)
            shape = disturbance
            if kind != "none":
                clean = planted_plane(kind, draw, k)
                clean -= clean.mean()
                shape = clean / np.linalg.norm(clean) + noise * disturbance
            filters.append(shape * draw.choice([-1, 1]) * draw.uniform(0.1, 3) + draw.normal())
            truth.append(number)
    return torch.tensor(np.stack(filters), dtype=torch.float32), np.array(truth)


def rates(found: np.ndarray, truth: np.ndarray) -> dict[str, tuple[float, float]]:
    """Precision and recall of every label."""
    result = {}
    for number, name in enumerate(LABELS):
        right = np.sum((found == number) & (truth == number))
        result[name] = (right / max(1, np.sum(found == number)), right / np.sum(truth == number))
    return result


@pytest.mark.parametrize(("noise", "least"), [(0.1, 0.95), (0.25, 0.95), (0.5, 0.7)])
def test_planted_families_are_found(noise, least):
    filters, truth = planted(noise, seed=1001 + int(100 * noise))
    for name, (precision, recall) in rates(classify(filters).label.numpy(), truth).items():
        assert precision >= least, (name, precision, recall)
        assert recall >= least, (name, precision, recall)


def test_parameters_and_residuals_are_those_of_the_planted_filters():
    draw = np.random.default_rng(3)
    filters = torch.tensor(np.stack([-2 * planted_plane("gaussian", draw, 9) + 1 for _ in range(40)]))
    fits = classify(filters)
    assert fits.cosine.min() > 0.999
    assert fits.cosines[:, FAMILIES.index("gaussian")].max() < -0.999
    again = np.random.default_rng(3)
    for row in range(40):
        cx, cy = again.uniform(-0.6, 0.6, 2)
        again.uniform(0.7, 1.2), again.uniform(0.9, 1.6)
        again.uniform(np.pi / 6, np.pi / 3), again.choice([0, np.pi / 2])
        sx, sy = again.uniform(0.7, 1.8, 2)
        again.uniform(0.55, 0.85), again.uniform(1.5, 2.0), again.uniform(0.8, 1.1)
        again.uniform(0.45, 0.7), again.uniform(2.5, 4), again.choice([0, np.pi / 4])
        found = {name: float(values[row]) for name, values in fits.parameters["gaussian"].items()}
        assert found == pytest.approx({"x": cx, "y": cy, "width_x": sx, "width_y": sy}, abs=0.05)


def test_what_is_not_explained_is_none_and_a_lower_threshold_takes_more():
    filters = torch.randn(500, 7, 7, generator=torch.Generator().manual_seed(5))
    fits = classify(filters)
    assert shares(fits.label)["none"] > 0.99
    assert torch.equal(fits.at(0.85), fits.label)
    assert (fits.at(0.3) == NONE).double().mean() < (fits.at(0.5) == NONE).double().mean() < 1
    assert sum(shares(fits.label).values()) == pytest.approx(1)


def test_shares_by_layer():
    rows = shares_by_layer({"a": torch.tensor([0, 0, NONE]), "b": torch.tensor([1]), "c": torch.tensor([2])})
    assert [(row["layer"], row["depth"], row["filters"]) for row in rows] == [("a", 0, 3), ("b", 0.5, 1), ("c", 1, 1)]
    assert rows[0]["delta"] == pytest.approx(2 / 3)


def test_the_code_line_finds_families_and_agrees_with_the_models():
    """Two planted families with noise, and pure noise: the line's threshold tells them apart."""
    draw = np.random.default_rng(77)
    clean = {kind: planted_plane(kind, draw, 5) for kind in ("gaussian", "derivative x")}
    filters, truth = [], []
    for kind in [*clean] * 150:
        shape = clean[kind] - clean[kind].mean()
        disturbance = draw.normal(size=(5, 5)) / 5
        filters.append(shape / np.linalg.norm(shape) + 0.2 * disturbance)
        truth.append(LABELS.index(kind))
    filters += [*draw.normal(size=(60, 5, 5))]
    truth += [NONE] * 60
    planes = torch.tensor(np.stack(filters), dtype=torch.float32)
    unit = shapes_of(planes).unit
    line = classify_along(autoencoder.train(unit, 0, steps=600), unit, (5, 5))
    found = line.at(0.8)
    assert (found == torch.tensor(truth)).double().mean() > 0.95
    decoded = line.loss - (1 - line.cosine**2)  # the best multiple of a shape leaves 1 - cosine^2
    assert float(decoded.min()) > -1e-4
    rows = sweep(line, classify(planes).label, [0.5, 0.8, 0.99])
    assert [row["assigned"] for row in rows] == sorted((row["assigned"] for row in rows), reverse=True)
    assert rows[1]["agreement"] > 0.95
    assert rows[1]["purity"] > 0.95
    assert rows[1]["neither"] == pytest.approx(60 / 360, abs=0.03)


def test_real_filters_against_their_controls(data_dir):
    bank = masterkey.Bank.from_checkpoint(data_dir / "checkpoints/mcunet-320kb-1mb_imagenet.pth").select(kernel=7)
    explained = [
        1 - shares(classify(torch.cat([layer[:, 0] for layer in each.layers.values()])).label)["none"]
        for each in (bank, bank.pixel_shuffled(0))
    ]
    assert explained[0] > 2 * explained[1]


def test_constant_filters_and_small_kernels():
    assert classify(torch.full((2, 3, 3), 0.5)).label.tolist() == [NONE, NONE]
    with pytest.raises(MasterkeyError, match=r"\|cosine\|, from 0 to 1, not 1\.5"):
        classify(torch.randn(4, 3, 3), threshold=1.5)
    with pytest.raises(MasterkeyError, match="3x3 or larger"):
        classify(torch.ones(2, 1, 7))
