"""A remote checkpoint: in parts where that is possible, else whole."""

import logging
from dataclasses import dataclass

from ..checkpoint import SUFFIXES, TORCH_SUFFIXES, Checkpoint, Wanted, read_checkpoint
from ..errors import CheckpointError
from ..format import file_sha256
from ..metadata import Source
from .ranges import ChangedError, RangeIgnoredError
from .remote_file import HubFile, RemoteFile
from .remote_safetensors import INDEX_SUFFIX, read_safetensors, read_sharded
from .remote_torch import NotReadInPartsError, read_torch

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RemoteCheckpoint:
    """What was read, and what is known of the file: ``sha256_verified`` only if it was read in full."""

    checkpoint: Checkpoint
    sha256_announced: str | None
    sha256_verified: str | None = None

    def source(self, kind: str, id: str, file: str, revision: str | None = None) -> Source:
        """Say where the filters were taken from."""
        return Source(
            kind=kind,
            id=id,
            revision=revision,
            file=file,
            entry=self.checkpoint.entry,
            sha256_announced=self.sha256_announced,
            sha256_verified=self.sha256_verified,
        )


def read_remote(file: RemoteFile, wanted: Wanted) -> RemoteCheckpoint:
    """Read the tensors for which ``wanted(name, shape)`` holds out of a remote checkpoint.

    A file that was replaced while it was read is read once more from the start.

    Raises:
        CheckpointError: of an unknown kind, damaged, or a pickle that asks for more than tensors.
        HubError: it could not be read.
    """
    if not file.name.lower().endswith(INDEX_SUFFIX) and file.suffix not in SUFFIXES:
        raise CheckpointError(f"{file.name}: unknown kind of checkpoint {file.suffix!r}; known: {', '.join(SUFFIXES)}")
    try:
        return _read(file, wanted)
    except ChangedError:
        return _read(file, wanted)


def _read(file: RemoteFile, wanted: Wanted) -> RemoteCheckpoint:
    if isinstance(file, HubFile) and file.path.lower().endswith(INDEX_SUFFIX):
        return RemoteCheckpoint(read_sharded(file, wanted), None)
    try:
        if file.suffix == ".safetensors":
            return RemoteCheckpoint(read_safetensors(file.reader(), wanted), file.sha256)
        if file.suffix in TORCH_SUFFIXES:
            return RemoteCheckpoint(read_torch(file.reader(), wanted), file.sha256)
    except (RangeIgnoredError, NotReadInPartsError) as reason:
        _log.warning("%s; the whole file is downloaded", reason)
    with file.whole() as path:
        try:
            return RemoteCheckpoint(read_checkpoint(path, wanted), file.sha256, file_sha256(path))
        except CheckpointError as error:
            raise type(error)(str(error).replace(str(path), file.name)) from error
