"""Cosines of the eight idealised filters with the eight published master keys of ConvNeXt V2 Tiny.

    python -m masterkey.benchmarks.cosines -o benchmarks/results/cosines.json

Both are centred (their mean taken off) before they are compared. The keys are read from
``$MASTERKEY_DATA/checkpoints/convnextv2_tiny_8_master_key_filters.txt`` (CC BY 4.0, Babaiee, Kiasari, Lindeberg).
"""

import argparse
import json
import os
from pathlib import Path

import masterkey
from masterkey.closed_form.scale_space import FORMS, scale_space_filters

KEYS = Path("checkpoints/convnextv2_tiny_8_master_key_filters.txt")


def main() -> None:
    """Compute, print and record the eight cosines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/cosines.json"))
    options = parser.parse_args()
    keys = masterkey.Bank.from_checkpoint(Path(os.environ.get("MASTERKEY_DATA", "../shared/data")) / KEYS)
    published = keys.layers["keys.weight"].double().flatten(1)
    computed = scale_space_filters((7, 7)).double().flatten(1)
    published = published - published.mean(1, keepdim=True)
    computed = computed - computed.mean(1, keepdim=True)
    cosines = ((published * computed).sum(1) / (published.norm(dim=1) * computed.norm(dim=1))).tolist()
    mean = sum(map(abs, cosines)) / len(cosines)
    for number, (form, cosine) in enumerate(zip(FORMS, cosines, strict=True), start=1):
        print(f"{number}  {cosine:+.4f}  {form}")
    print(f"mean of sizes {mean:.4f}")
    result = {"cosines": [round(cosine, 4) for cosine in cosines], "mean_of_sizes": round(mean, 4), "keys": keys.sha256}
    options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
