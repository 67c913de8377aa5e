"""What the Hub says of a repository: its commit, its files, and the licence and data sets that its card states."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import HfApi, constants

from ..errors import HubError
from ..licence import joint_licence
from .access import Access
from .refusals import patiently, refusals

COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True)
class Repository:
    """A repository at one commit."""

    repo_id: str
    commit: str
    files: tuple[str, ...]
    licence: str | None
    datasets: tuple[str, ...]


def look_up(repo_id: str, revision: str | None, access: Access) -> Repository:
    """Ask the Hub for a repository: one request.

    Raises:
        UnreachableError: the Hub cannot be reached, or is too busy.
        HubError: no such repository or revision, or it may not be read.
    """
    what = f"{repo_id}@{revision}" if revision else repo_id
    with refusals(what):
        info = patiently(
            lambda: HfApi(library_name="masterkey").model_info(
                repo_id, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT, token=access.token
            )
        )
    if not info.sha or not COMMIT.fullmatch(info.sha):  # it becomes the name of a folder
        raise HubError(f"{what}: the Hub says nothing of a commit, so what answered may not be the Hub")
    card: Any = info.card_data or {}
    return Repository(
        repo_id=repo_id,
        commit=info.sha,
        files=tuple(sibling.rfilename for sibling in info.siblings or ()),
        licence=licence_of(card),
        datasets=tuple(_texts(card.get("datasets"))),
    )


def licence_of(card: Any) -> str | None:
    """Return the licence that a card's front matter states, by its own name where the Hub calls it ``other``."""
    licence = (card or {}).get("license")
    if licence == "other":
        licence = card.get("license_name") or licence
    return joint_licence(_texts(licence))


def _texts(value: Any) -> Sequence[str]:
    """Return a text or a list of texts of a card as a list; what else people write there is left out."""
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str) and text and text.isprintable()]
