"""Read parts of a remote file by Range requests: neighbours in one, a few at a time, every answer checked."""

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any

from huggingface_hub import constants
from huggingface_hub.utils import get_session, hf_raise_for_status

from ..errors import HubError
from .refusals import CutShortError, patiently, refusals

Span = tuple[int, int]  # the first byte, and the one after the last

# Ranges closer than this are read as one. A request more costs a round trip, some 50 ms shared by four in flight;
# in that time a line of 5 MB/s carries 64 kB. Checkpoints of ConvNeXts have filters further apart than that.
GAP = 64 * 1024
IN_FLIGHT = 4


class RangeIgnoredError(HubError):
    """A server that sends the whole file whatever range is asked for."""


class ChangedError(HubError):
    """A file that was replaced while it was read."""


@dataclass(frozen=True)
class _Version:
    """What must be the same in every answer."""

    size: int
    etag: str | None
    commit: str | None


class RangeReader:
    """Parts of one remote file, all of one version.

    Args:
        url: where the file is.
        headers: what to send along; a token only where it belongs.
        name: what to call the file in messages.
        size: of the file in bytes, as announced; None takes the first answer's word for it.
    """

    def __init__(self, url: str, headers: Mapping[str, str], name: str, size: int | None = None) -> None:
        self.name = name
        self._url = url
        self._headers = dict(headers)
        self._size = size
        self._version: _Version | None = None
        self._lock = Lock()

    @property
    def size(self) -> int:
        """The file's size in bytes; asks for one byte if nothing was read yet."""
        if self._size is None:
            self.read([(0, 1)])
        assert self._size is not None
        return self._size

    def read(self, spans: Sequence[Span]) -> list[bytes]:
        """Return the bytes of each span, in the order given; a span may reach beyond the end of the file.

        Raises:
            RangeIgnoredError: the server does not do ranges; nothing but headers was read.
            ChangedError: the answers are of different versions of the file.
            HubError: refused, broken off, or not the bytes that were asked for.
        """
        wanted = merged(spans)
        with refusals(self.name), ThreadPoolExecutor(IN_FLIGHT) as pool:
            try:
                blocks = list(pool.map(lambda span: patiently(lambda: self._fetch(span)), wanted))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        begins = [begin for begin, _ in wanted]
        return [_cut_out(span, begins, blocks) for span in spans]

    def first(self, count: int) -> bytes:
        """Return the first ``count`` bytes, fewer if the file is shorter."""
        return self.read([(0, count)])[0]

    def _fetch(self, span: Span) -> bytes:
        begin, end = span
        headers = {**self._headers, "Range": f"bytes={begin}-{end - 1}", "Accept-Encoding": "identity"}
        session: Any = get_session()
        with session.stream("GET", self._url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT) as response:
            if response.status_code == 416 and response.headers.get("Content-Range") == "bytes */0":
                raise HubError(f"{self.name} is empty")
            hf_raise_for_status(response)
            if response.status_code == 200:
                if "html" in response.headers.get("Content-Type", ""):
                    raise HubError(f"{self.name}: a web page came instead, the login of a network or proxy perhaps")
                raise RangeIgnoredError(f"{self.name}: the server does not send parts of files")
            length = self._check(response, begin, end)
            data = bytearray()
            for piece in response.iter_raw():
                data += piece
                if len(data) > length:
                    raise HubError(f"{self.name}: the server sent more bytes than were asked for")
        if len(data) < length:
            raise CutShortError(f"{self.name}: the connection ended after {len(data):,} of {length:,} bytes; try again")
        return bytes(data)

    def _check(self, response: Any, begin: int, end: int) -> int:
        """Check the headers of an answer; return how many bytes must follow."""
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response.headers.get("Content-Range", ""))
        if response.status_code != 206 or not found:
            raise HubError(f"{self.name}: the server answered a request for a part with {response.status_code}")
        first, last, size = map(int, found.groups())
        with self._lock:
            stated = self._size if self._size is not None else size
            commit = response.headers.get(constants.HUGGINGFACE_HEADER_X_REPO_COMMIT)
            version = _Version(size, response.headers.get("ETag"), commit)
            known = self._version = self._version or version
            self._size = stated
        if version != known:
            raise ChangedError(f"{self.name} was replaced while it was read; try again")
        if size != stated:
            raise HubError(f"{self.name} has {size:,} bytes, but {stated:,} were announced; try again")
        if (first, last + 1) != (begin, min(end, size)):
            raise HubError(f"{self.name}: the server sent bytes {first} to {last}, not {begin} to {end - 1}")
        return last + 1 - first


def merged(spans: Sequence[Span], gap: int = GAP) -> list[Span]:
    """Join spans that overlap or are less than ``gap`` bytes apart; in ascending order."""
    joined: list[Span] = []
    for begin, end in sorted(spans):
        if joined and begin - joined[-1][1] < gap:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((begin, end))
    return joined


def _cut_out(span: Span, begins: Sequence[int], blocks: Sequence[bytes]) -> bytes:
    i = max(i for i, begin in enumerate(begins) if begin <= span[0])
    return blocks[i][span[0] - begins[i] : span[1] - begins[i]]
