"""Fit eq. 8, the randomness threshold, for 5x5 and 7x7 filters, and test it and the paper's constants for 3x3.

For each kernel and number of filters n (from a quarter of K, the weights of a filter, to about 2^14, two steps an
octave), many layers are drawn from a standard normal distribution; the sigmoid is fitted, by least squares, to the
least entropy found. It is then lowered until no least entropy lies under it. Fresh layers, drawn from a normal and
a uniform distribution, tell how many random layers each threshold finds, that of kernels not fitted included.

python -m masterkey.benchmarks.scripts.thresholds
"""

from math import log2, log10, sqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import curve_fit

from masterkey.analysis.thresholds import FITTED, Sigmoid, constants

from ..measure import describe_machine
from .record import arguments, record

FIT = (5, 7)
CHECK = (2, 3, 4, 5, 6, 7, 9, 11)
LARGEST = 2**14
LAYERS = 200
FIT_SEED, CHECK_SEED = 0, 1


def sizes(least: float) -> list[int]:
    """Numbers of filters, two an octave, from ``least``."""
    steps = range(round(2 * log2(LARGEST / least)) + 1)
    return [round(least * sqrt(2) ** step) for step in steps]


def entropies(n: int, area: int, layers: int, generator: torch.Generator, uniform: bool = False) -> NDArray[Any]:
    """Entropies (eq. 7) of ``layers`` random layers of ``n`` filters, straight from their singular values."""
    found = []
    for _ in range(layers):
        filters = torch.empty(n, area, dtype=torch.float64)
        filters = filters.uniform_(-1, 1, generator=generator) if uniform else filters.normal_(generator=generator)
        centred = filters - filters.mean(dim=0)
        # the eigenvalues of the small product are the squares of the singular values
        shares = torch.linalg.eigvalsh(centred.T @ centred).clamp_min(0)
        shares = shares[shares > 1e-14 * shares.sum()] / shares.sum()  # fewer filters than weights
        found.append(-(shares * shares.log10()).sum().item())
    return np.array(found)


def fit(area: int) -> tuple[Sigmoid, dict[str, Any]]:
    """Fit the sigmoid for kernels of ``area`` weights; return it with its errors."""
    generator = torch.Generator().manual_seed(FIT_SEED)
    counts = sizes(area / 4)
    least = np.array([entropies(n, area, LAYERS, generator).min() for n in counts])

    def curve(x: NDArray[Any], *parameters: float) -> NDArray[Any]:
        height, middle, steepness, base = parameters
        return height / (1 + np.exp(-steepness * (x - middle))) + base

    start = (log10(area) + 0.3, log2(area) - 1.0, 0.9, -0.3)
    found, _ = curve_fit(curve, np.log2(counts), least, p0=start, maxfev=20_000)
    misses = curve(np.log2(counts), *found) - least
    lowered = float(misses.max())
    rounded = Sigmoid(*(round(float(value), 4) for value in (*found[:3], found[3] - lowered - 5e-5)))
    errors = {
        "least_squares": dict(zip(Sigmoid._fields, (round(float(value), 4) for value in found), strict=True)),
        "rms_error": round(float(np.sqrt((misses**2).mean())), 5),
        "largest_error": round(float(np.abs(misses).max()), 5),
        "lowered_by": round(lowered, 5),
        "least_entropy": {str(n): round(float(value), 5) for n, value in zip(counts, least, strict=True)},
    }
    return rounded, errors


def check(kernel: int, layers: int = 20) -> dict[str, Any]:
    """Share of fresh random layers that the threshold in use finds, and how far it lies below the least of them."""
    generator = torch.Generator().manual_seed(CHECK_SEED)
    area, gaps, found, drawn = kernel**2, [], 0, 0
    for n in sizes(2 * area):
        threshold = constants((kernel, kernel)).at(n)
        for uniform in (False, True):
            values = entropies(n, area, layers, generator, uniform)
            gaps.append(float(values.min() - threshold))
            found += int((values > threshold).sum())
            drawn += layers
    return {
        "constants": "fitted" if area in FITTED else "by the rule",
        "random_layers": drawn,
        "found": round(found / drawn, 4),
        "threshold_below_least": [round(min(gaps), 4), round(max(gaps), 4)],
    }


def main() -> None:
    """Fit, check against what the package uses, print and record."""
    parser = arguments(__doc__, "thresholds.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {"machine": describe_machine(), "fitted": {}, "check": {}}
    result["how"] = f"{LAYERS} layers a size, seed {FIT_SEED}; checked on fresh ones, seed {CHECK_SEED}"
    for kernel in FIT:
        sigmoid, errors = fit(kernel**2)
        in_use = FITTED[kernel**2] == sigmoid
        result["fitted"][f"{kernel}x{kernel}"] = {"constants": sigmoid._asdict(), "in_use": in_use, **errors}
        print(f"{kernel}x{kernel}: {sigmoid}, least squares within {errors['largest_error']}, in use: {in_use}")
    for kernel in CHECK:
        result["check"][f"{kernel}x{kernel}"] = check(kernel)
        print(f"{kernel}x{kernel}: {result['check'][f'{kernel}x{kernel}']}")
    record(options.output, result)


if __name__ == "__main__":
    main()
