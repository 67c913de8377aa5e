"""From a revision to a commit: the Hub's word, or the last known one where the Hub cannot be asked."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import HubError
from .access import Access
from .bank_cache import BankCache
from .refusals import UnreachableError
from .repository import COMMIT, Repository, look_up

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pinned:
    """A repository at one commit; what else the Hub says of it is only asked for where it is needed."""

    repo_id: str
    commit: str
    access: Access
    known: Repository | None = None

    def repository(self) -> Repository:
        """Return what the Hub says of the repository at this commit.

        Raises:
            HubError: the network must not be used, or the Hub refuses.
        """
        if self.access.offline:
            raise HubError(f"{self.repo_id} is damaged in the cache, and {self.access.offline}, so it was not fetched")
        return self.known or look_up(self.repo_id, self.commit, self.access)


def pinned(
    name: str,
    repo_id: str,
    revision: str | None,
    access: Access,
    has: Callable[[str], bool],
    last: str | None = None,
) -> Pinned:
    """Say which commit ``revision`` is now; no network is used for a commit that ``has`` says is in the cache.

    Where the Hub cannot be reached, or must not be asked, the last known commit is taken, if it is in the cache.

    Args:
        name: what the user calls what is wanted.
        repo_id: the repository.
        revision: a branch, a tag or a commit; None is ``main``.
        access: cache, token, and whether the network may be used.
        has: whether what is wanted of a commit is in the cache.
        last: the last known commit, if not from our own cache.

    Raises:
        UnreachableError: the Hub cannot be reached, and what is wanted is not in the cache.
        HubError: no such repository or revision; or offline, and what is wanted is not in the cache.
    """
    cache = BankCache(repo_id, access)
    if revision and COMMIT.fullmatch(revision) and has(revision):
        return Pinned(repo_id, revision, access)
    known = cache.commit(revision) or last
    usable = known is not None and has(known)
    if access.offline:
        if usable and known:
            return Pinned(repo_id, known, access)
        asked = f"{name} --revision {revision}" if revision else name
        raise HubError(
            f"{name} is not in the cache, and {access.offline}, so it was not fetched; fetch it beforehand, where "
            f"there is a network, with: masterkey download {asked}"
        )
    try:
        repository = look_up(repo_id, revision, access)
    except UnreachableError as error:
        if not usable or known is None:
            raise UnreachableError(f"{error}; {name} is not in the cache either") from error
        _log.warning("%s; the cached commit %s is used", error, known[:8])
        return Pinned(repo_id, known, access)
    cache.remember(revision, repository.commit)
    return Pinned(repo_id, repository.commit, access, repository)
