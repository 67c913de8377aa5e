"""One sentence for whatever the Hub, a server or the network refuses; and trying again, a few times."""

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from json import JSONDecodeError
from typing import TypeVar

from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ..errors import HubError, MasterkeyError

Result = TypeVar("Result")

_PAUSES = (0.5, 1.0, 2.0)  # seconds before the second, third and last attempt
_LONGEST_PAUSE = 30.0  # however long a server asks us to stay away
# What a folder answers that cannot be written to, or cannot be made.
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
_BUSY = (408, 429, 500, 502, 503, 504)


class UnreachableError(HubError):
    """A server that cannot be reached now, or has no time now: what is in a cache may be used instead."""


class UnwritableError(HubError):
    """A cache that cannot be written: the file can still be used without being kept."""


class CutShortError(HubError):
    """A response that ended too early: worth another attempt."""


def patiently(call: Callable[[], Result]) -> Result:
    """Call, and call again after a pause where the server is busy or the connection broke: four times in all.

    A server that does not answer within the time limit is not asked again.
    """
    for pause in _PAUSES:
        try:
            return call()
        except Exception as error:
            if not _worth_another_attempt(error):
                raise
            time.sleep(_asked_for(error) or pause)
    return call()


@contextmanager
def refusals(what: str) -> Iterator[None]:
    """Turn what huggingface_hub and the network raise into a ``HubError`` about ``what``.

    Raises:
        UnreachableError: no connection, no answer in time, or a server that is too busy.
        HubError: anything else that the Hub refuses, or that did not arrive whole.
    """
    try:
        yield
    except MasterkeyError:
        raise
    except LocalEntryNotFoundError as error:
        cause = error.__cause__
        if isinstance(cause, Exception):
            raise _explained(what, cause) from error
        raise HubError(f"{what} is not in the cache") from error
    except (HFValidationError, LocalTokenNotFoundError) as error:
        raise HubError(f"{what}: {_first_sentence(error)}") from error
    except JSONDecodeError as error:
        raise _not_the_hub(what) from error
    except Exception as error:
        if not isinstance(error, OSError) and "HTTPError" not in _families(error) and not _closed_meanwhile(error):
            raise
        raise _explained(what, error) from error


def _explained(what: str, error: Exception) -> HubError:
    families = _families(error)
    if isinstance(error, GatedRepoError):
        return HubError(
            f"{what} is gated: accept its terms at {constants.ENDPOINT}, then give a token of that account that may "
            "read it, with --token, HF_TOKEN or `hf auth login`"
        )
    if isinstance(error, RepositoryNotFoundError):
        return HubError(
            f"{what}: {constants.ENDPOINT} has no such repository, or it is private; check the name, or give a token "
            "that may read it, with --token, HF_TOKEN or `hf auth login`"
        )
    if isinstance(error, RevisionNotFoundError):
        return HubError(f"{what}: the repository is there, but it has no such revision")
    if isinstance(error, EntryNotFoundError):
        return HubError(f"{what}: the repository is there, but it has no such file")
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status in (401, 403):
            return HubError(
                f"{what} may not be read with the token given ({status}); give one that may read it, with --token, "
                "HF_TOKEN or `hf auth login`"
            )
        if status in _BUSY:
            said = "asks for fewer requests" if status == 429 else "has a problem of its own"
            return UnreachableError(f"{what}: the server {said} ({status}) and still did after 4 attempts; try later")
        missing = "there is no such file" if status in (404, 410) else "the server refused it"
        return HubError(f"{what}: {missing} ({status})")
    if isinstance(error, OfflineModeIsEnabled):
        return UnreachableError(f"{what} was not fetched, because HF_HUB_OFFLINE is set")
    if isinstance(error, FileMetadataError):
        return _not_the_hub(what)
    if "TooManyRedirects" in families:
        return HubError(f"{what}: the server sends us round in circles (too many redirects)")
    if "TimeoutException" in families:
        return UnreachableError(
            f"{what}: no answer within the time limit; try later, or set HF_HUB_DOWNLOAD_TIMEOUT and "
            "HF_HUB_ETAG_TIMEOUT to more seconds"
        )
    if "ConnectError" in families or isinstance(error, ConnectionError):
        return UnreachableError(f"{what}: {constants.ENDPOINT} cannot be reached; check the network and HF_ENDPOINT")
    if "HTTPError" in families or _closed_meanwhile(error):
        return UnreachableError(f"{what}: the connection broke ({_first_sentence(error)}); try again")
    if isinstance(error, OSError) and error.strerror:
        kind = UnwritableError if error.errno in _UNWRITABLE else HubError
        return kind(f"{what} could not be kept: {error.strerror}" + (f": {error.filename}" if error.filename else ""))
    if "onsistency check" in str(error):
        return HubError(f"{what} did not arrive whole: its size is not the one that the server announced; try again")
    return HubError(f"{what}: {_first_sentence(error)}")


def _not_the_hub(what: str) -> HubError:
    return HubError(
        f"{what}: what answered is not the Hub, a login page or a proxy perhaps; open {constants.ENDPOINT} in a "
        "browser, or check HF_ENDPOINT"
    )


def _families(error: Exception) -> set[str]:
    """Names of an exception's classes: huggingface_hub 1 talks through httpx, 2 through httpx2, alike in names."""
    return {cls.__name__ for cls in type(error).__mro__}


def _worth_another_attempt(error: Exception) -> bool:
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in _BUSY
    broken = {"ReadError", "WriteError", "CloseError", "RemoteProtocolError", "CutShortError"}
    return bool(broken & _families(error)) or _closed_meanwhile(error)


def _closed_meanwhile(error: Exception) -> bool:
    """Whether another thread's failure has closed the client that all share."""
    return isinstance(error, RuntimeError) and "client has been closed" in str(error)


def _asked_for(error: Exception) -> float | None:
    """Seconds after which a busy server wants to be asked again."""
    after = error.response.headers.get("Retry-After", "") if isinstance(error, HfHubHTTPError) else ""
    return min(float(after), _LONGEST_PAUSE) if after.isdigit() else None


def _first_sentence(error: Exception) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    return "".join(letter if letter.isprintable() else "?" for letter in words)[:200].rstrip(".:; ")
