"""A file on the Hub or behind a URL: parts of it, or the whole of it, checked against what was announced."""

import hashlib
import logging
import re
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers

from ..errors import HubError, UnreadableError
from ..format import opened
from .access import Access
from .ranges import RangeReader
from .refusals import UnwritableError, patiently, refusals

_log = logging.getLogger(__name__)


class RemoteFile(Protocol):
    """What is needed of a file to take filters out of it."""

    @property
    def name(self) -> str:
        """What to call it in messages."""

    @property
    def suffix(self) -> str:
        """The end of its name that says what kind of file it is, in lower case."""

    @property
    def sha256(self) -> str | None:
        """SHA-256 of the whole file as the server announces it, None if it does not."""

    def reader(self) -> RangeReader:
        """Return what reads parts of it."""

    def whole(self) -> AbstractContextManager[Path]:
        """Give the path of the whole file on this machine."""


@dataclass(frozen=True)
class HubFile:
    """A file of a repository, at one commit."""

    repo_id: str
    commit: str
    path: str
    access: Access

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return f"hf://{self.repo_id}/{self.path}"

    @property
    def suffix(self) -> str:
        """The end of its name that says what kind of file it is, in lower case."""
        return PurePosixPath(self.path).suffix.lower()

    @property
    def size(self) -> int | None:
        """Its size in bytes, as announced."""
        size: int | None = self._announced.size
        return size

    @property
    def sha256(self) -> str | None:
        """SHA-256 of the whole file as announced; files in git itself, not in LFS, have none."""
        return self._etag if len(self._etag) == 64 else None

    def reader(self) -> RangeReader:
        """Return what reads parts of it."""
        location = self._announced.location
        at_hub = urlsplit(location)[:2] == urlsplit(constants.ENDPOINT)[:2]
        # the second host is shown no token: its URL is signed
        headers = build_hf_headers(token=self.access.token if at_hub else False, library_name="masterkey")
        return RangeReader(location, headers, self.name, self.size)

    def sibling(self, path: str) -> "HubFile":
        """Return another file of the same commit, by its path beside this one."""
        return HubFile(self.repo_id, self.commit, str(PurePosixPath(self.path).with_name(path)), self.access)

    @contextmanager
    def whole(self) -> Iterator[Path]:
        """Give the whole file: out of huggingface_hub's cache, or a temporary one where that cannot be written.

        Raises:
            HubError: it cannot be fetched, or is not the file that the Hub announced.
            UnreadableError: it is in the cache and cannot be read; it stays.
        """
        if cached := self.cached():
            if self.is_as_published(cached):
                yield cached
                return
            self.forget()
        try:
            path = self._fetched(self.access.hub_cache)
        except UnwritableError:
            _log.warning("the cache %s cannot be written; %s is not kept", self.access.hub_cache, self.name)
        else:
            yield path
            return
        with tempfile.TemporaryDirectory() as folder:
            yield self._fetched(Path(folder))

    def cached(self) -> Path | None:
        """Return the whole file as huggingface_hub's cache has it, None if it has not.

        Raises:
            UnreadableError: the cache cannot be looked into.
        """
        try:
            found = try_to_load_from_cache(self.repo_id, self.path, self.access.hub_cache, self.commit)
        except OSError as error:
            raise UnreadableError(
                f"cannot look for {self.name} in the cache {self.access.hub_cache}: {error.strerror or error}"
            ) from error
        return Path(found) if isinstance(found, str) else None

    def is_as_published(self, path: Path) -> bool:
        """Whether ``path`` has the hash that the Hub announces; asks it.

        Raises:
            UnreadableError: the file cannot be read.
            HubError: the Hub cannot be asked.
        """
        return _hashes_to(path, self._etag)

    def forget(self) -> None:
        """Take the file out of huggingface_hub's cache."""
        if path := self.cached():
            _remove(path)

    @cached_property
    def _announced(self) -> Any:
        """The Hub's word for location, size and hash: one HEAD request."""
        url = hf_hub_url(self.repo_id, self.path, revision=self.commit)
        with refusals(self.name):
            return patiently(
                lambda: get_hf_file_metadata(url, token=self.access.token, timeout=constants.HF_HUB_ETAG_TIMEOUT)
            )

    @property
    def _etag(self) -> str:
        return self._announced.etag or ""

    def _fetched(self, cache: Path) -> Path:
        announced = self._etag  # asked for beforehand and with our own patience: hf_hub_download would wait minutes
        with refusals(self.name):
            path = Path(
                hf_hub_download(
                    self.repo_id,
                    self.path,
                    revision=self.commit,
                    cache_dir=cache,
                    token=self.access.token,
                    library_name="masterkey",
                )
            )
        if not _hashes_to(path, announced):
            _remove(path)
            raise HubError(f"{self.name} arrived damaged: its hash is not the announced {announced[:16]}…; try again")
        return path


@dataclass(frozen=True)
class UrlFile:
    """A file behind a URL of no repository; it is read anew each time."""

    url: str

    @property
    def name(self) -> str:
        """The URL without what may be a secret: its query, and the name and password before the host."""
        parts = urlsplit(self.url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()

    @property
    def suffix(self) -> str:
        """The end of its name that says what kind of file it is, in lower case."""
        return PurePosixPath(unquote(urlsplit(self.url).path)).suffix.lower()

    @property
    def sha256(self) -> None:
        """Nobody announces one."""

    def reader(self) -> RangeReader:
        """Return what reads parts of it."""
        return RangeReader(self.url, self._headers, self.name)

    @contextmanager
    def whole(self) -> Iterator[Path]:
        """Give the whole file, in a temporary folder.

        Raises:
            HubError: it cannot be fetched.
        """
        with tempfile.TemporaryDirectory() as folder:
            name = PurePosixPath(unquote(urlsplit(self.name).path)).name
            path = Path(folder) / "".join(sign for sign in name if sign.isprintable())
            with refusals(self.name), path.open("wb") as file:
                http_get(self.url, file, headers=self._headers)
            yield path

    @property
    def _headers(self) -> dict[str, str]:
        return build_hf_headers(token=False, library_name="masterkey")


def _remove(path: Path) -> None:
    """Remove a file from huggingface_hub's cache: the name in the snapshot, and the content it links to."""
    blob = path.resolve()
    path.unlink(missing_ok=True)
    blob.unlink(missing_ok=True)


def _hashes_to(path: Path, announced: str) -> bool:
    """Compare a file with its ETag: SHA-256 in LFS, git's SHA-1 of a blob in git; any other cannot be compared."""
    if not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", announced):
        return True
    with opened(path) as file:
        if len(announced) == 64:
            return hashlib.file_digest(file, "sha256").hexdigest() == announced
        data = file.read()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest() == announced
