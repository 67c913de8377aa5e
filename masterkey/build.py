"""From a recipe to its bank: fetch the source, check it against what the recipe promises, take its steps."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .analysis.quality import require_quality
from .bank import Bank
from .catalog import Recipe, recipes
from .create import build_timm
from .depthwise import require_layers
from .errors import RecipeError
from .extract import from_checkpoint
from .folder import bank_files, write_folder
from .format import WEIGHTS_NAME, read
from .index import IndexEntry, index, write_index
from .licence import licence_parts
from .metadata import Layer, Source
from .pins import check_pinned
from .shipped import shipped_bank


def build_bank(
    recipe: Recipe, *, source: str | Path | None = None, pinned: bool = True, **download_options: Any
) -> Bank:
    """Make the bank that a recipe describes.

    Args:
        recipe: a built-in one or one's own.
        source: a file of the source's weights, used instead of the recipe's source.
        pinned: hold a built-in bank to the commit and the hash that the index states, where it states them.
        download_options: for the source: revision, cache_dir, token, local_files_only.

    Raises:
        RecipeError: the source is not what the recipe says, or has to be downloaded by hand.
        CheckpointError: the source cannot be read.
        BankFormatError: a filter is NaN or infinite, or the filters are not those that the index pins.
        MasterkeyError: whatever else keeps the source from being fetched.
    """
    known = index().get(recipe.name) if _is_built_in(recipe) else None
    if recipe.rule == "trained" and source is None:
        if not _is_built_in(recipe):
            raise RecipeError(
                f"{recipe.name} is a recipe of your own for trained filters; say where they are: --source"
            )
        return shipped_bank(recipe)
    if recipe.rule == "computed":
        if source is not None:
            raise RecipeError(f"{recipe.name} is computed from a formula and takes no source")
        from .closed_form.banks import computed_bank

        return computed_bank(recipe.name, None, licence=recipe.licence)
    options = {name: value for name, value in download_options.items() if value is not None}
    revision = options.pop("revision", None) or recipe.revision or (known.revision if known and pinned else None)
    found = _source(recipe, source, revision, options, known if pinned else None)
    bank = _as_described(found, recipe, known)
    for operation, arguments in recipe.steps:
        try:
            bank = getattr(bank, operation)(**arguments)
        except (TypeError, ValueError) as error:  # the recipe is somebody's own file
            raise RecipeError(f"recipe {recipe.name}: step {operation} with {arguments}: {error}") from error
    bank = bank.renamed(recipe.name)  # a step may name what it makes
    if known and pinned:
        check_pinned(bank, known)
    return bank


def build_folder(
    recipe: Recipe,
    folder: Path,
    *,
    source: str | Path | None = None,
    pinned: bool = True,
    allow_degenerate: bool = False,
    **download_options: Any,
) -> Bank:
    """Make a recipe's bank and write it as a folder, with the recipe's words and figures on its card.

    A bank of weights that no name leads to is taken from the folder where that holds it already; what is missing beside
    it is written.

    ``allow_degenerate`` writes it even if most of its filters are in degenerate layers.

    Raises:
        QualityError: they are, and that is not allowed (``masterkey.analysis.quality.gate``); nothing is written.
        SaveError: the folder cannot be written; what it held before is intact.
        MasterkeyError: as ``build_bank``.
    """
    if source is None and recipe.rule == "extracted" and recipe.source is None and (folder / WEIGHTS_NAME).exists():
        bank = Bank(*read(folder / WEIGHTS_NAME))
        check_built(bank, recipe, pinned)
    else:
        bank = build_bank(recipe, source=source, pinned=pinned, **download_options)
    if not allow_degenerate:
        require_quality(bank)
    write_folder(folder, bank_files(bank, recipe=recipe))
    return bank


def lock_index(banks: Mapping[str, Bank], path: Path | None = None) -> list[str]:
    """Write hash and source commit of banks into the index (the package's own), and say what changed.

    What is known of other banks stays as it is.

    Raises:
        SaveError: the index cannot be written.
    """
    entries, changes = dict(index()), []
    for name, bank in banks.items():
        entry = index_entry(recipes()[name], bank)
        if entry != entries[name]:
            was, now = entries[name].sha256, bank.sha256
            changes.append(f"{name}: {was[:16] + '…' if was else 'not pinned'} -> {now[:16]}…")
        entries[name] = entry
    write_index(entries, path)
    return changes


def check_built(bank: Bank, recipe: Recipe, pinned: bool = True) -> None:
    """Check that a bank from a folder is the built-in one that ``recipe`` describes.

    Raises:
        RecipeError: another name, or other layers than the index states.
        BankFormatError: not the hash that the index states.
    """
    known = index().get(recipe.name, IndexEntry(()))
    if bank.name != recipe.name or (
        known.layers and not recipe.steps and _sizes(bank.metadata.layers) != _sizes(known.layers)
    ):
        raise RecipeError(f"the bank {bank.name} with {len(bank):,} filters is not {recipe.name}; build it anew")
    if pinned:
        check_pinned(bank, known)


def index_entry(recipe: Recipe, bank: Bank | None = None) -> IndexEntry:
    """Describe a recipe for the index: the layers of its architecture and, of its bank, hash and source commit.

    Layers of an architecture that timm has no name for stay what the index states; if it states none, they are the
    bank's.
    """
    known = index().get(recipe.name, IndexEntry(()))
    layers = architecture_layers(recipe.model) if recipe.model else known.layers
    if bank is not None and not layers and not recipe.steps:
        layers = bank.metadata.layers
    if bank is None:
        return IndexEntry(layers)
    commit = bank.metadata.source.revision or ""
    return IndexEntry(layers, bank.sha256, commit if re.fullmatch("[0-9a-f]{40}", commit) else None)


def architecture_layers(model: str) -> tuple[Layer, ...]:
    """Return the depthwise layers of timm's network ``model``, in forward order, without making its weights.

    Raises:
        UnknownNameError: timm has no such model.
        NoTargetLayersError: it has no depthwise layer.
    """
    with torch.device("meta"):
        network = build_timm(model)
    # as the index has them, which holds no factors
    return tuple(replace(layer.described(), factor=1.0) for layer in require_layers(network).layers)


def _is_built_in(recipe: Recipe) -> bool:
    return recipes().get(recipe.name) == recipe


def _source(
    recipe: Recipe, source: str | Path | None, revision: str | None, options: dict[str, Any], pin: IndexEntry | None
) -> Bank:
    if source is not None:
        return from_checkpoint(source)
    if recipe.source is None:
        what = recipe.name if _is_built_in(recipe) else "RECIPE.toml"
        raise RecipeError(
            f"{recipe.name} is made of {recipe.source_text}, which has to be downloaded by hand; then build it with: "
            f"masterkey build {what} --source FILE -o DIR"
        )
    from .names import expanded, load_bank

    if recipe.is_url and revision is None and pin and pin.sha256:
        from .hub.access import Access
        from .hub.extraction import bank_of_recipe

        where = {"cache_dir": expanded(options["cache_dir"])} if "cache_dir" in options else {}
        return bank_of_recipe(recipe, pin, Access(**options | where))
    return load_bank(recipe.source, revision, **options)


def _as_described(bank: Bank, recipe: Recipe, known: IndexEntry | None) -> Bank:
    """Check a source's filters against the recipe and say of them what the recipe says.

    Raises:
        RecipeError: the licence that the source states is another, or the layers are not the architecture's.
    """
    stated = bank.metadata.licence
    if stated and not set(licence_parts(stated)) <= set(licence_parts(recipe.licence)):
        raise RecipeError(
            f"{recipe.name} is under {recipe.licence} as its recipe says, but its source {bank.metadata.source.id} "
            f"says {stated}"
        )
    expected = known.layers if known else architecture_layers(recipe.model) if recipe.model else ()
    if expected:
        _check_layers(bank, expected, recipe)
    layers = tuple(replace(layer, factor=recipe.factor) for layer in expected or bank.metadata.layers)
    source = bank.metadata.source
    if recipe.run:  # wherever its weights lie: they are no part of the project
        source = Source("run", recipe.run, sha256_verified=source.sha256_verified)
    about = replace(
        bank.metadata,
        name=recipe.name,
        source=source,
        layers=layers,
        order="forward" if expected else bank.metadata.order,
        base_model=recipe.base_model,
        datasets=recipe.datasets,
        licence=recipe.licence,
    )
    return Bank({layer.name: bank.layers[layer.name] for layer in layers}, about)


def _check_layers(bank: Bank, expected: Sequence[Layer], recipe: Recipe) -> None:
    found, wanted = _sizes(bank.metadata.layers), _sizes(expected)
    if found == wanted:
        return
    name = min(found.items() ^ wanted.items())[0]
    shown = [
        f"{each[name][0]} filters of {each[name][1]}x{each[name][2]}" if name in each else "none"
        for each in (wanted, found)
    ]
    raise RecipeError(
        f"{bank.metadata.source.id} is not the source of {recipe.name}: layer {name} of "
        f"{recipe.model or recipe.name} has {shown[0]}, "
        f"there it has {shown[1]} ({len(wanted)} layers expected, {len(found)} found)"
    )


def _sizes(layers: Sequence[Layer]) -> dict[str, tuple[int, ...]]:
    return {layer.name: (layer.filters, *layer.kernel) for layer in layers}
