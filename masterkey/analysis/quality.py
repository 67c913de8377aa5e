"""Which layers of a bank are degenerate: sparse, of low diversity, or random (eq. 6 to 8; docs/analysis.md)."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10
from typing import Literal

from ..bank import Bank
from ..errors import QualityError
from ..host import on_host
from ..metadata import Kernel
from .sources import FilterSource, as_filters
from .survey import NEAR_ZERO, LayerSums, survey
from .thresholds import randomness_threshold
from .workers import workers

Verdict = Literal["good", "sparse", "low diversity", "random", "not assessable"]
DEGENERATE: tuple[Verdict, ...] = ("sparse", "low diversity", "random")

MOSTLY_SPARSE = 0.5  # S above this: a tenth of the paper's layers
LOW_DIVERSITY = log10(2)  # H below this: less spread than two equally strong components have
FEWEST = 2  # n / K below this: too few filters for H to mean anything
_LEAST_AREA = 3  # of two components H is never above LOW_DIVERSITY, whatever the filters are
REFUSED_SHARE = 0.5  # of the assessable filters in degenerate layers: then a bank does not pass the gate


@dataclass(frozen=True)
class LayerQuality:
    """A layer's figures and verdict.

    ``sparsity`` is S (eq. 6), with ``near_zero`` of the layer's largest |weight| as epsilon; ``entropy`` H (eq. 7) of
    the centred raw filters and ``entropy_about_zero`` the same without centring, ``threshold`` T_H(n) (eq. 8).
    ``depth`` runs from 0 (input) to 1 (output).
    """

    bank: str
    layer: str
    kernel: Kernel
    filters: int
    depth: float
    near_zero: float
    sparse_filters: int
    sparsity: float
    entropy: float
    entropy_about_zero: float
    threshold: float
    verdict: Verdict


@dataclass(frozen=True)
class GateVerdict:
    """Whether a bank is fit to be built and published, in one sentence, and what that rests on."""

    passed: bool
    sentence: str
    layers: tuple[LayerQuality, ...]


@on_host()
def assess(filters: FilterSource, near_zero: float = NEAR_ZERO) -> list[LayerQuality]:
    """Assess every layer of a bank, by itself, its path or its name, or an array; reads the filters once, in order.

    Args:
        filters: see ``masterkey.analysis.sources``.
        near_zero: epsilon of eq. 6, as a share of the layer's largest |weight|.

    Raises:
        BankFormatError: they are not what their file promises.
        MasterkeyError: no such bank, an array that does not hold filters, or ``near_zero`` is no share.
    """
    with workers() as pool:
        return qualities(pool.submit(survey, as_filters(filters), near_zero).result())


def qualities(layers: Sequence[LayerSums]) -> list[LayerQuality]:
    """Assess layers that have been read."""
    return [_quality(layer) for layer in layers]


@on_host()
def gate(filters: FilterSource) -> GateVerdict:
    """Judge a whole bank: refused if more than half of its assessable filters are in degenerate layers.

    A bank of few filters, such as eight keys, cannot be assessed and passes.

    Raises:
        BankFormatError: the filters are not what their file promises.
    """
    return judge(assess(filters))


def is_judged(bank: Bank) -> bool:
    """Whether the gate is for this bank: not for computed ones, which are rules and some of them random on purpose.

    What was made of a computed bank, such as its pixels shuffled, counts as computed too.
    """
    return bank.metadata.source.kind != "computed"


def require_quality(bank: Bank) -> None:
    """Let a bank pass the gate on its way to a folder or to the Hub; computed banks always do.

    Raises:
        QualityError: more than half of its assessable filters are in degenerate layers; one sentence says in how many.
    """
    if is_judged(bank) and not (verdict := gate(bank)).passed:
        raise QualityError(
            f"{bank.name} does not pass the quality gate: {verdict.sentence}; masterkey analyze shows every layer, and "
            "--allow-degenerate (allow_degenerate=True) lets the bank pass"
        )


def judge(of: Sequence[LayerQuality]) -> GateVerdict:
    """Judge a whole bank by layers that have been assessed, as ``gate`` does."""
    layers = tuple(of)
    assessable = [layer for layer in layers if layer.verdict != "not assessable"]
    total = sum(layer.filters for layer in assessable)
    if not total:
        return GateVerdict(True, "no layer has enough filters to be assessed", layers)
    found = [layer for layer in assessable if layer.verdict in DEGENERATE]
    share = sum(layer.filters for layer in found) / total
    kinds = [
        f"{sum(layer.verdict == kind for layer in found)} {kind}"
        for kind in DEGENERATE
        if any(layer.verdict == kind for layer in found)
    ]
    what = f"{len(found)} of {len(assessable)} assessable layers are degenerate" + (
        f" ({', '.join(kinds)}), with {share:.0%} of their filters" if found else ""
    )
    return GateVerdict(share <= REFUSED_SHARE, what, layers)


def _quality(layer: LayerSums) -> LayerQuality:
    info, n = layer.info, layer.info.filters
    area = info.kernel[0] * info.kernel[1]
    sparsity, entropy, about_zero = layer.sparse / n, layer.raw.entropy(), layer.raw.entropy_about_zero()
    threshold = randomness_threshold(n, info.kernel)
    verdict: Verdict = "good"
    if sparsity > MOSTLY_SPARSE:
        verdict = "sparse"
    elif area < _LEAST_AREA or n < FEWEST * area:
        verdict = "not assessable"
    # copies of one filter differ by noise alone once they are centred: only about zero do they look alike
    elif min(entropy, about_zero) < LOW_DIVERSITY:
        verdict = "low diversity"
    elif entropy > threshold:
        verdict = "random"
    return LayerQuality(
        bank=info.bank,
        layer=info.name,
        kernel=info.kernel,
        filters=n,
        depth=info.depth,
        near_zero=layer.near_zero,
        sparse_filters=layer.sparse,
        sparsity=sparsity,
        entropy=entropy,
        entropy_about_zero=about_zero,
        threshold=threshold,
        verdict=verdict,
    )
