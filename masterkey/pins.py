"""A known bank's filters are held to the hash that the index states."""

from typing import TYPE_CHECKING

from .errors import BankFormatError
from .index import IndexEntry, index

if TYPE_CHECKING:
    from .bank import Bank


def check_pinned(bank: "Bank", known: IndexEntry) -> None:
    """Check a bank's filters against the index, where it states their hash.

    Raises:
        BankFormatError: they are others.
    """
    if known.sha256 is not None and bank.sha256 != known.sha256:
        raise BankFormatError(
            f"{bank.name}: its filters hash to {bank.sha256[:16]}…, but {known.sha256[:16]}… is expected; its source "
            f"{bank.metadata.source.id} has changed or is damaged, so nothing of it is used"
        )


def check_known(bank: "Bank") -> "Bank":
    """Return a bank that somebody published; one under a built-in bank's name must be that bank.

    What was made of the bank since is not held to its hash, nor is one of another commit of the source.

    Raises:
        BankFormatError: its filters are others.
    """
    known = index().get(bank.name)
    about = bank.metadata
    if known and not about.transformations and about.source.revision in (known.revision, None):
        check_pinned(bank, known)
    return bank
