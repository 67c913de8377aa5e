"""Cosines of the eight idealised filters, and of eight keys learnt here, with the published keys of ConvNeXt V2 Tiny.

    python -m masterkey.benchmarks.scripts.cosines -o benchmarks/results/cosines.json

All are centred (their mean taken off) before they are compared. The idealised ones stand in the published order; learnt
ones are matched one to one, and so are their shuffled pixels, which says what chance gives. The published keys are read
from ``$MASTERKEY_DATA/checkpoints/convnextv2_tiny_8_master_key_filters.txt`` (CC BY 4.0, Babaiee, Kiasari, Lindeberg).
"""

from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from masterkey import Bank
from masterkey.analysis.families import LABELS, classify
from masterkey.closed_form.scale_space import FORMS, scale_space_filters
from masterkey.distill import mean_match

from ..data.catalogue import data_folder
from .record import arguments, record

KEYS = Path("checkpoints/convnextv2_tiny_8_master_key_filters.txt")
LEARNT = "convnext-atto.tiny-imagenet.8-keys"
_DRAWS = 200


def centred(filters: Tensor) -> Tensor:
    """Return filters (n, …) as rows (n, d) of mean 0 and norm 1, in double precision."""
    rows = filters.double().flatten(1)
    rows = rows - rows.mean(1, keepdim=True)
    return F.normalize(rows, dim=1)


def main() -> None:
    """Compute, print and record the eight cosines."""
    parser = arguments(__doc__, "cosines.json")
    options = parser.parse_args()
    keys = Bank.from_checkpoint(data_folder() / KEYS)
    published, computed = centred(keys.layers["keys.weight"]), centred(scale_space_filters((7, 7)))
    cosines = (published * computed).sum(1).tolist()
    mean = sum(map(abs, cosines)) / len(cosines)
    for number, (form, cosine) in enumerate(zip(FORMS, cosines, strict=True), start=1):
        print(f"{number}  {cosine:+.4f}  {form}")
    print(f"mean of sizes {mean:.4f}")
    learnt = Bank.from_pretrained(LEARNT)
    matches = {
        "with the published": mean_match(centred(learnt.layers["keys.weight"]), published),
        "with scale-space-8": mean_match(centred(learnt.layers["keys.weight"]), computed),
    }
    families = [LABELS[number] for number in classify(learnt.layers["keys.weight"][:, 0]).label]
    print(f"{LEARNT}: {', '.join(families)}")
    chance = [
        mean_match(centred(learnt.pixel_shuffled(seed).layers["keys.weight"]), published) for seed in range(_DRAWS)
    ]
    matches |= {"shuffled, mean": sum(chance) / _DRAWS, "shuffled, largest": max(chance)}
    print(f"{LEARNT}: mean |cosine| of the best match " + ", ".join(f"{k} {v:.3f}" for k, v in matches.items()))
    result = {
        "cosines": [round(cosine, 4) for cosine in cosines],
        "mean_of_sizes": round(mean, 4),
        "keys": keys.sha256,
        LEARNT: {"sha256": learnt.sha256, "families": families, "draws": _DRAWS}
        | {name: round(value, 4) for name, value in matches.items()},
    }
    record(options.output, result)


if __name__ == "__main__":
    main()
