"""Banks that others have published."""

from collections.abc import Iterator
from dataclasses import dataclass

from huggingface_hub import HfApi

from .access import Access
from .refusals import patiently, refusals
from .repository import licence_of

_TAG = "masterkey"
_MOST = 1000


@dataclass(frozen=True)
class PublishedBank:
    """A repository that is tagged as a bank; whether it is one shows when it is loaded."""

    repo_id: str
    licence: str | None
    private: bool


def list_published(access: Access) -> list[PublishedBank]:
    """Ask the Hub for the repositories tagged ``masterkey``, sorted by name.

    Raises:
        HubError: it cannot be asked.
    """

    def ask() -> Iterator[PublishedBank]:
        for info in HfApi(library_name="masterkey").list_models(
            filter=_TAG, limit=_MOST, cardData=True, token=access.token
        ):
            yield PublishedBank(info.id, licence_of(info.card_data), bool(info.private))

    with refusals("the list of published banks"):
        return sorted(patiently(lambda: list(ask())), key=lambda bank: bank.repo_id)
