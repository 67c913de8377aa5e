"""The quality of every real bank at hand, layer by layer, with the random initial weights of networks as a check.

The real banks are the checkpoints in ``$MASTERKEY_DATA/checkpoints`` (three networks of ImageNet-1k and the eight
published keys) and those that were trained here and ship in the package.

python -m masterkey.benchmarks.scripts.quality
"""

from collections import Counter
from pathlib import Path

from masterkey import Bank
from masterkey.analysis.page import csv_bytes
from masterkey.analysis.page.content import Table
from masterkey.analysis.quality import gate
from masterkey.analysis.report_quality import LAYER_COLUMNS, layer_row
from masterkey.atomic import write_atomically
from masterkey.catalog import recipes

from ..data.catalogue import data_folder
from .record import arguments

CHECKPOINTS = ("*.pth", "*.txt")
UNTRAINED = ("convnext_atto", "mobilenetv3_large_100", "mixnet_s")


def banks(folder: Path) -> list[Bank]:
    """Every real bank at hand, and the untrained networks."""
    files = sorted(path for pattern in CHECKPOINTS for path in folder.glob(pattern))
    shipped = [Bank.from_pretrained(name) for name, recipe in recipes().items() if recipe.rule == "trained"]
    untrained = [Bank.from_model(name, pretrained=False).renamed(f"{name}, untrained") for name in UNTRAINED]
    return [Bank.from_checkpoint(path) for path in files] + shipped + untrained


def main() -> None:
    """Assess, print a line a bank, and record."""
    parser = arguments(__doc__, "quality.csv")
    options = parser.parse_args()
    rows = []
    for bank in banks(data_folder() / "checkpoints"):
        verdict = gate(bank)
        rows += [layer_row(layer) for layer in verdict.layers]
        counts = Counter(layer.verdict for layer in verdict.layers)
        print(f"{bank.name}: {'passed' if verdict.passed else 'refused'}, {verdict.sentence}; {dict(counts)}")
    write_atomically(options.output, csv_bytes(Table("quality", "Quality", LAYER_COLUMNS, rows)))


if __name__ == "__main__":
    main()
