"""The page's section on keys: what K keys explain, the keys found, what they resemble, and what was pruned before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..distill import METHODS, explained, match, mean_match
from ..distill.distillation import KEYS_NAME
from ..distill.greedy import MOST
from ..metadata import Kernel
from ..shapes import shapes_of
from .controls import CONTROLS
from .kernel_study import SEED, KernelStudy
from .known_keys import Known
from .page import Column, Picture, Section, Table, Value
from .plots import explained_over_keys, png_bytes, shapes_picture
from .report_values import rounded
from .scale_space_fit import fit_scale_space

KEYS = 8
_ALL = range(1, 33)
_FEW = (1, 2, 4, 8, 16, 32)  # k-means starts anew for every K
_ACROSS = 10  # keys side by side in a picture


@dataclass(frozen=True)
class KernelKeys:
    """The keys of one kernel's filters.

    Attributes:
        study: the filters.
        count: how many keys each method gives.
        keys: method -> (count, kh, kw), the key of most filters first.
        filters: method -> how many of the filters that pruning kept each key stands for.
        curves: source -> number of keys -> share of variance explained of all filters that are neither dead nor
            constant; sources are the methods, and ``kmeans`` on each control.
        known: name -> (P, kh, kw), keys to compare with.
        controls: source -> (count, d), what ``kmeans`` gives on each control: it resembles known keys by chance.
    """

    study: KernelStudy
    count: int
    keys: dict[str, Tensor]
    filters: dict[str, list[int]]
    curves: dict[str, dict[int, float]]
    known: Known
    controls: dict[str, Tensor]


def find_keys(study: KernelStudy, count: int, known: Known) -> KernelKeys | None:
    """Find ``count`` keys, or as many as there can be, by every method trained; None: pruning kept no filter.

    The controls are noise, and pixels shuffled, of all filters that are neither dead nor constant. Nothing is pruned of
    them, because the rule that leaves out filters without structure would leave next to nothing; so that shares
    compare, those of the real filters are over all that the controls are made of, pruned or not.
    """
    if not study.methods:
        return None
    count = min(count, len(study.kept), MOST)
    results = {name: prepared.distilled(count) for name, prepared in study.methods.items()}
    few = sorted({*_FEW, count})
    every = sorted({*_ALL, count})
    curves = {
        name: dict(each.curve(every if name == "greedy" else few, living=True)) for name, each in study.methods.items()
    }
    controls = {}
    for name, control in CONTROLS.items():
        unit = shapes_of(control(study.table.filters[study.alive], SEED)).unit
        keys_of = METHODS["kmeans"](unit, SEED)
        found = {keys: keys_of(keys) for keys in few if keys <= len(unit)}
        curves[f"kmeans, {name}"] = {keys: explained(unit, of) for keys, of in found.items()}
        controls[f"kmeans, {name}"] = found[count]
    return KernelKeys(
        study,
        count,
        {name: result.bank.layers[KEYS_NAME][:, 0] for name, result in results.items()},
        {name: result.assignment.counts(count) for name, result in results.items()},
        curves,
        known,
        controls,
    )


def keys_section(studies: Sequence[KernelStudy], known: Mapping[Kernel, Known], count: int = KEYS) -> Section:
    """Return what there is to say and see of ``count`` keys (1 to 50) of all filters, kernel by kernel.

    ``known`` are keys to compare with (``known_keys``).
    """
    attempts = [(study, find_keys(study, count, known[study.kernel])) for study in studies]
    found = [keys for _, keys in attempts if keys]
    said = [
        "Every filter f is replaced by a * key + b. What that leaves of its variance is its error; all filters count "
        "the same. Dead, constant and random filters and near duplicates are left out before keys are sought, but the "
        "share explained is that of all filters that are neither dead nor constant, whether keys were sought among "
        "them or not. The controls are as many random filters, and the same filters with their pixels shuffled; keys "
        "of their own are sought among all of them.",
        *(_sentence(study, keys) for study, keys in attempts),
    ]
    content: list[Table | Picture] = [picture for keys in found for picture in _pictures(keys)]
    content += [_keys_table(found), _match_table(found), _pairs_table(found), _curve_table(found)]
    content.append(_pruning_table(studies))
    kept = [part for part in content if isinstance(part, Picture) or part.rows]
    return Section("filter-keys", "Keys", said, kept)


def _unit(planes: Tensor) -> Tensor:
    return shapes_of(planes).unit


def _matched(keys: KernelKeys) -> list[tuple[str, str, Tensor, Tensor]]:
    """Every source of keys with every set of known ones: their names, and both as shapes."""
    sources = {name: _unit(planes) for name, planes in keys.keys.items()} | keys.controls
    return [
        (source, name, unit, _unit(planes)) for name, planes in keys.known.items() for source, unit in sources.items()
    ]


def _sentence(study: KernelStudy, keys: KernelKeys | None) -> str:
    counts = study.pruning.counts()
    pruned = ", ".join(f"{count:,} {reason}" for reason, count in counts.items() if count and reason != "kept")
    said = f"{study.size}: {study.drawn.sentence} {counts['kept']:,} are kept{f' ({pruned})' * bool(pruned)}."
    if keys is None:
        return f"{said} So there is nothing to find keys of."
    shares = [f"{curve[keys.count]:.0%} ({source})" for source, curve in keys.curves.items()]
    said += f" {keys.count} key{'s' * (keys.count != 1)} explain{'s' * (keys.count == 1)} {', '.join(shares)}."
    means = {
        name: [f"{mean_match(unit, known):.2f} ({source})" for source, of, unit, known in _matched(keys) if of == name]
        for name in keys.known
    }
    return said + "".join(f" Matched with {name}: mean |cosine| {', '.join(of)}." for name, of in means.items())


def _pictures(keys: KernelKeys) -> list[Picture]:
    size = keys.study.size
    curve = explained_over_keys(keys.curves, keys.count, f"Variance of {size} filters that keys explain")
    rows = {
        **{name: (planes, [f"{n:,}" for n in keys.filters[name]]) for name, planes in keys.keys.items()},
        **{name: (planes, [str(number + 1) for number in range(len(planes))]) for name, planes in keys.known.items()},
    }
    shapes = shapes_picture(rows, _ACROSS, f"Keys of {size} with the filters each stands for, and known keys")
    return [
        Picture(f"key-curve-{size}", "Share of variance explained over the number of keys", png_bytes(curve)),
        Picture(f"keys-{size}", f"The keys found of {size}, and known ones", png_bytes(shapes)),
    ]


def _keys_table(found: Sequence[KernelKeys]) -> Table:
    rows: list[dict[str, Value]] = [
        {"kernel": keys.study.size, "method": method, "key": number + 1, "filters": keys.filters[method][number], **fit}
        for keys in found
        for method, planes in keys.keys.items()
        for number, fit in enumerate(_fits(planes))
    ]
    columns = (
        Column("kernel", "kernel", "text"),
        Column("method", "method", "text"),
        Column("key", "key", "count"),
        Column("filters", "filters", "count"),
        Column("form", "scale-space form", "text"),
        Column("sigma_x", "sigma x"),
        Column("sigma_y", "sigma y"),
        Column("gamma", "gamma"),
        Column("cosine", "cosine"),
        Column("error", "error", "share"),
    )
    note = (
        "Of the filters kept, those that the key stands for; the scale-space model nearest to the key, in pixels; "
        "their cosine, and the share of the key's variance that the model leaves."
    )
    return Table("keys-found", "The keys found, with their scale-space models", columns, rows, note)


def _fits(planes: Tensor) -> list[dict[str, Value]]:
    """The scale-space model of each key; empty for 1x1, which has no scale."""
    if planes.shape[1:] == (1, 1):
        return [dict.fromkeys(("form", "sigma_x", "sigma_y", "gamma", "cosine", "error")) for _ in planes]
    fit = fit_scale_space(planes)
    columns: dict[str, list[Value]] = {
        "form": [fit.names[form] for form in fit.form.tolist()],
        **{name: rounded(getattr(fit, name)) for name in ("sigma_x", "sigma_y", "gamma", "cosine", "error")},
    }
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _match_table(found: Sequence[KernelKeys]) -> Table:
    rows: list[dict[str, Value]] = [
        {"kernel": keys.study.size, "known": name, "source": source, "mean": mean_match(unit, known)}
        for keys in found
        for source, name, unit, known in _matched(keys)
    ]
    columns = (
        Column("kernel", "kernel", "text"),
        Column("known", "known keys", "text"),
        Column("source", "keys found by", "text"),
        Column("mean", "mean |cosine|"),
    )
    note = "Matched one to one so that the sum of |cosine| is largest; the controls show what chance gives."
    return Table("key-match", "Match with known keys", columns, rows, note)


def _pairs_table(found: Sequence[KernelKeys]) -> Table:
    rows: list[dict[str, Value]] = [
        {
            "kernel": keys.study.size,
            "known": name,
            "known_key": number + 1,
            "source": source,
            "key": None if key is None else key + 1,
            "cosine": cosine,
        }
        for keys in found
        for source, name, unit, known in _matched(keys)
        if source in keys.keys
        for number, (key, cosine) in enumerate(match(unit, known))
    ]
    columns = (
        Column("kernel", "kernel", "text"),
        Column("known", "known keys", "text"),
        Column("known_key", "known key", "count"),
        Column("source", "keys found by", "text"),
        Column("key", "key", "count"),
        Column("cosine", "cosine"),
    )
    return Table("key-match-pairs", "Match with known keys, one by one", columns, rows, folded=True)


def _curve_table(found: Sequence[KernelKeys]) -> Table:
    rows: list[dict[str, Value]] = [
        {"kernel": keys.study.size, "source": source, "keys": count, "explained": share, "error": 1 - share}
        for keys in found
        for source, curve in keys.curves.items()
        for count, share in curve.items()
    ]
    columns = (
        Column("kernel", "kernel", "text"),
        Column("source", "method", "text"),
        Column("keys", "keys", "count"),
        Column("explained", "variance explained", "share"),
        Column("error", "error", "share"),
    )
    note = "Of all filters that are neither dead nor constant, real or control."
    return Table("key-curve", "Variance explained by K keys", columns, rows, note, folded=True)


def _pruning_table(studies: Sequence[KernelStudy]) -> Table:
    rows: list[dict[str, Value]] = [
        {"kernel": study.size, "filters": len(study.pruning.verdict), **study.pruning.counts()} for study in studies
    ]
    reasons = ("filters", "dead", "constant", "random", "duplicate", "kept")
    columns = (Column("kernel", "kernel", "text"), *(Column(reason, reason, "count") for reason in reasons))
    note = "By the first reason that holds; no filter of a kernel with a side below 5 is called random."
    return Table("key-pruning", "Filters left out before keys are sought", columns, rows, note)
