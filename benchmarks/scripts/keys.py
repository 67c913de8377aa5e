"""Keys of the real 7x7 banks against the eight published ones; variance explained; scale-space models of the eight.

    python -m masterkey.benchmarks.scripts.keys -o benchmarks/results/keys.json

The banks are MCUNet and two ProxylessNAS (MBConv filters, ImageNet-1k); the published keys are ConvNeXt V2 Tiny's
(CC BY 4.0, Babaiee, Kiasari, Lindeberg). All are read from ``$MASTERKEY_DATA/checkpoints``. Keys found are matched one
to one to the published ones so that the sum of |cosine| is largest (Hungarian method); both are centred, a key and its
negative count as the same. Controls, which give the level of chance, are filters drawn at random and the real ones with
the pixels of each shuffled, both with the norms of the real ones. Nothing but dead filters is pruned, so that all three
are treated alike.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

import masterkey
from masterkey.analysis.scale_space_fit import fit_scale_space
from masterkey.bank import Bank
from masterkey.closed_form.scale_space import FORMS, scale_space_filters
from masterkey.distill import METHODS, Prepared, explained, match, prepare
from masterkey.shapes import shapes_of

from ..data.catalogue import data_folder
from ..measure import describe_machine
from .record import arguments, record

CHECKPOINTS = data_folder() / "checkpoints"
PUBLISHED = CHECKPOINTS / "convnextv2_tiny_8_master_key_filters.txt"
NETWORKS = ("mcunet-320kb-1mb_imagenet", "proxyless-w0.25-r112_imagenet", "proxyless-w0.3-r176_imagenet")
NAMES = ("forward-y", "backward-x", "backward-y", "forward-x", "central-x", "central-y", "sharpened", "gaussian")
SEEDS = 3


def noise_like(bank: Bank, seed: int) -> Bank:
    """The bank with every filter replaced by white noise of the same norm."""
    generator = torch.Generator().manual_seed(seed)
    layers = {}
    for name, tensor in bank.layers.items():
        noise = torch.randn(tensor.shape, generator=generator)
        layers[name] = noise * (tensor.flatten(1).norm(dim=1) / noise.flatten(1).norm(dim=1)).view(-1, 1, 1, 1)
    return Bank(layers, bank.metadata)


SOURCES: dict[str, Callable[[Bank, int], Bank]] = {
    "real": lambda bank, seed: bank,
    "random": noise_like,
    "shuffled pixels": lambda bank, seed: bank.pixel_shuffled(seed),
}


def figures(prepared: Prepared, published: Tensor, curve: bool) -> dict[str, Any]:
    """Match, and what is explained, of one bank by one method."""
    keys = prepared.distilled(8).bank.layers["keys.weight"].flatten(1)
    cosines = [round(abs(cosine), 4) for _, cosine in match(keys, published)]
    result: dict[str, Any] = {"cosines": cosines, "mean": round(sum(cosines) / len(cosines), 4)}
    result["explained by 8"] = round(explained(prepared.unit, keys), 4)
    if curve:
        result["explained by 1 to 32"] = [round(share, 4) for _, share in prepared.curve()]
    return result


def compare(bank: Bank, published: Tensor, idealised: Tensor, sources: Sequence[str], seeds: int) -> dict[str, Any]:
    """Filters of every source by every method and seed; with several seeds, curves for the first."""
    result: dict[str, Any] = {"filters": len(bank)}
    for source in sources:
        result[source] = {}
        for method in METHODS:
            runs = []
            for seed in range(seeds):
                prepared = prepare(SOURCES[source](bank, seed), method, seed, duplicates=1, random=None)
                runs.append(figures(prepared, published, curve=seeds > 1 and seed == 0))
            mean = round(sum(run["mean"] for run in runs) / seeds, 4)
            result[source][method] = {"seeds": runs, "mean match": mean}
            print(f"{bank.name}: {source}, {method}: match {mean}", flush=True)
        given = {"published": published, "scale-space-8": idealised}
        shares = {name: round(explained(prepared.unit, keys), 4) for name, keys in given.items()}
        result[source]["explained by given keys"] = shares
    return result


def models(published: Tensor) -> list[dict[str, Any]]:
    """Scale-space parameters of each published key (8, 7, 7): ours in its form, the published set, our best form."""
    rows = []
    best = fit_scale_space(published)
    computed = shapes_of(scale_space_filters((7, 7))).unit
    cosines = (computed * shapes_of(published).unit).sum(1)
    for number, (name, form) in enumerate(zip(NAMES, FORMS, strict=True)):
        key = published[number : number + 1]
        row: dict[str, Any] = {
            "key": number + 1,
            "form": name,
            "published": {"sigma_x": form.sigma_x, "sigma_y": form.sigma_y, "cosine": round(float(cosines[number]), 4)},
            "fitted": _fitted(key, [name], form.gamma or None),
            "best of all forms": {"form": best.names[int(best.form[number])], **_fitted(key, None, None)},
        }
        if form.gamma:
            row["fitted, gamma free"] = _fitted(key, [name], None)
        rows.append(row)
    return rows


def _fitted(key: Tensor, forms: list[str] | None, gamma: float | None) -> dict[str, float]:
    fit = fit_scale_space(key, gamma=gamma) if forms is None else fit_scale_space(key, forms, gamma)
    columns = {"sigma_x": fit.sigma_x, "sigma_y": fit.sigma_y, "gamma": fit.gamma, "cosine": fit.cosine}
    return {name: round(float(column), 4) for name, column in columns.items()} | {"error": round(float(fit.error), 4)}


def main() -> None:
    """Compute, print and record."""
    parser = arguments(__doc__, "keys.json")
    options = parser.parse_args()
    planes = Bank.from_checkpoint(PUBLISHED).layers["keys.weight"][:, 0]
    published = shapes_of(planes).unit
    idealised = shapes_of(scale_space_filters((7, 7))).unit
    banks = [Bank.from_checkpoint(CHECKPOINTS / f"{name}.pth").select(kernel=7) for name in NETWORKS]
    everything = masterkey.join(banks).renamed("all three")
    result = {
        "machine": describe_machine(),
        "command": "python -m masterkey.benchmarks.scripts.keys",
        "match": "sum of |cosine| largest (Hungarian), both centred, sign allowed; dead filters left out",
        "scale-space": models(planes),
        "banks": {
            everything.name: compare(everything, published, idealised, tuple(SOURCES), SEEDS),
            **{bank.name: compare(bank, published, idealised, ["real"], 1) for bank in banks},
        },
    }
    record(options.output, result)


if __name__ == "__main__":
    main()
