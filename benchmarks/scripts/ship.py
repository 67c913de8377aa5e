"""Put the banks that were trained here into the package: their files beside the recipes, their hashes into the index.

    masterkey bench run sources --size small
    python -m masterkey.benchmarks.scripts.ship

A recipe with ``rule = "trained"`` names the run whose network's filters it is; the run's weights are read from the
folder of results. A bank that the quality gate refuses is not written.
"""

import argparse
import sys
from importlib.resources import as_file, files
from pathlib import Path

from masterkey.analysis.quality import require_quality
from masterkey.atomic import write_atomically
from masterkey.bank import Bank
from masterkey.build import build_bank
from masterkey.catalog import Recipe, recipes
from masterkey.errors import MasterkeyError
from masterkey.extract import from_model
from masterkey.format import encode
from masterkey.index import IndexEntry, index, write_index

from ..arms import trained_network
from ..store import WEIGHTS_NAME, ResultStore, default_store


def ship(recipe: Recipe, store: ResultStore, folder: Path) -> Bank:
    """Make a trained bank out of its run's weights and put its file into ``folder``.

    The index states the layers of the whole network, as for every bank, and the hash of what the recipe's steps leave.

    Raises:
        BenchmarkError: the run has not been done here.
        QualityError: the gate refuses the bank; file and index stay as they were.
        SaveError: file or index cannot be written.
    """
    run = recipe.run or ""
    layers = from_model(trained_network(run, store)).metadata.layers
    before = index()
    write_index({**before, recipe.name: IndexEntry(layers)})  # what the weights are checked against
    try:
        bank = build_bank(recipe, source=store.kept_path(run) / WEIGHTS_NAME, pinned=False)
        require_quality(bank)
        write_atomically(folder / f"{recipe.name}.safetensors", encode(bank.layers, bank.metadata))
    except MasterkeyError:
        write_index(before)
        raise
    write_index({**before, recipe.name: IndexEntry(layers, bank.sha256)})
    print(f"{recipe.name}: {len(bank):,} filters")
    return bank


def main() -> int:
    """Ship every trained bank."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with as_file(files("masterkey.banks")) as folder:
        try:
            for recipe in recipes().values():
                if recipe.rule == "trained":
                    ship(recipe, default_store(), folder)
        except MasterkeyError as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
