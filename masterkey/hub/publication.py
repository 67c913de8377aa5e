"""Every built-in bank that is published: what would go where, and then its going there."""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from ..catalog import Recipe
from ..errors import MasterkeyError
from ..format import WEIGHTS_NAME
from ..index import index
from .publish import check_repo_id, push_files, read_folder

if TYPE_CHECKING:
    from ..bank import Bank


@dataclass(frozen=True)
class Publication:
    """One bank and its repository.

    ``files`` are names and sizes in bytes. Of a bank that is not built they are empty, and ``weights`` is what its
    filters will take. ``problem`` says why a bank that is built cannot be published.
    """

    bank: str
    repo_id: str
    licence: str
    built: bool
    files: dict[str, int]
    weights: int
    problem: str | None = None

    @property
    def state(self) -> str:
        """Built, refused or not built, in words."""
        return ("refused" if self.problem else "built") if self.built else "not built"

    @property
    def size(self) -> str:
        """Bytes of all files; of the filters alone where there are none yet."""
        return f"{sum(self.files.values()):,}" if self.files else f"filters {self.weights:,}"


def plan_publication(recipe: Recipe, folder: Path, namespace: str, allow_degenerate: bool = False) -> Publication:
    """Say what would go where, for the bank that is built in ``folder`` or not built yet; nothing is sent.

    Raises:
        PublishError: ``namespace`` cannot be one.
    """
    repo_id = f"{namespace}/{recipe.name}"
    check_repo_id(repo_id)
    layers = index()[recipe.name].layers
    weights = 4 * sum(layer.filters * prod(layer.kernel) for layer in layers)
    if not (folder / WEIGHTS_NAME).exists():
        return Publication(recipe.name, repo_id, recipe.terms, False, {}, weights)
    try:
        _, files = _checked(recipe, folder, repo_id, allow_degenerate)
    except MasterkeyError as error:
        return Publication(recipe.name, repo_id, recipe.terms, True, {}, weights, str(error))
    sizes = {name: len(data) for name, data in files.items()}
    return Publication(recipe.name, repo_id, recipe.terms, True, sizes, weights)


def publish_recipe(
    recipe: Recipe,
    folder: Path,
    namespace: str,
    private: bool,
    token: str | None,
    create_pr: bool,
    allow_degenerate: bool = False,
) -> str:
    """Publish a recipe's bank from ``folder``, building it there first if it is not built; return the address.

    Raises:
        MasterkeyError: it could not be built, does not verify or does not pass the quality gate, or was not taken; see
            ``push_files``.
    """
    repo_id = f"{namespace}/{recipe.name}"
    check_repo_id(repo_id)
    if not (folder / WEIGHTS_NAME).exists():
        from ..build import build_folder

        build_folder(recipe, folder, token=token, allow_degenerate=allow_degenerate)
    bank, files = _checked(recipe, folder, repo_id, allow_degenerate)
    return push_files(bank, files, repo_id, private, token, create_pr, allow_degenerate)


def _checked(recipe: Recipe, folder: Path, repo_id: str, allow_degenerate: bool) -> tuple["Bank", dict[str, bytes]]:
    from ..build import check_built

    bank, files = read_folder(folder, repo_id, allow_degenerate)
    check_built(bank, recipe)
    return bank, files
