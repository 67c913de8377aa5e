"""The analysis as one would write it down with numpy and scikit-learn: the measure of ``analysis.py``.

Straightforward and vectorised; everything is in memory at once. It shares no code with the package.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

Layers = Mapping[str, Sequence[NDArray[Any]]]  # bank -> layers (n, K)


def quality(layer: NDArray[Any]) -> tuple[float, float]:
    """S (eq. 6) and H (eq. 7) of one layer."""
    largest = np.abs(layer).max(axis=1)
    sparsity = float((largest <= 0.05 * largest.max()).mean())
    ratios = PCA().fit(layer).explained_variance_ratio_
    ratios = ratios[ratios > 0]
    return sparsity, float(-(ratios * np.log10(ratios)).sum())


def analyse(banks: Layers, bins: int = 70, epsilon: float = 1e-12) -> dict[str, Any]:
    """Quality of every layer; basis, explained variance, histograms and drift between banks."""
    qualities = [quality(layer) for layers in banks.values() for layer in layers]
    scaled = {}
    for bank, layers in banks.items():
        filters = np.concatenate(list(layers))
        largest = np.abs(filters).max(axis=1, keepdims=True)
        scaled[bank] = np.divide(filters, largest, out=filters.copy(), where=largest > 0)
    everything = np.concatenate(list(scaled.values()))
    pca = PCA().fit(everything)
    coefficients = {bank: pca.transform(filters) for bank, filters in scaled.items()}
    low = np.min([each.min(axis=0) for each in coefficients.values()], axis=0)
    high = np.max([each.max(axis=0) for each in coefficients.values()], axis=0)
    counts = np.array(
        [
            [np.histogram(each[:, i], bins=bins, range=(low[i], high[i]))[0] for i in range(len(low))]
            for each in coefficients.values()
        ]
    )
    shares = np.maximum(counts / counts.sum(axis=2, keepdims=True), epsilon)
    shares /= shares.sum(axis=2, keepdims=True)
    drift = np.zeros((len(banks), len(banks)))
    for a, p in enumerate(shares):
        for b, q in enumerate(shares):
            symmetric = (p * np.log(p / q)).sum(axis=1) + (q * np.log(q / p)).sum(axis=1)
            drift[a, b] = pca.explained_variance_ratio_ @ symmetric
    return {
        "sparsity": np.array([s for s, _ in qualities]),
        "entropy": np.array([h for _, h in qualities]),
        "explained": pca.explained_variance_ratio_,
        "low": low,
        "high": high,
        "counts": counts,
        "drift": drift,
    }
