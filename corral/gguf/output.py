"""A file written from beginning to end and hashed meanwhile. Knows nothing of what is written."""

import errno
import hashlib
import queue
import threading
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

from msgspec import Struct

from corral.errors import DiskFull, StoreError, reason_of

Chunk: TypeAlias = bytes | bytearray | memoryview

_AHEAD = 4
"""Chunks that may wait to be hashed."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Written(Struct, frozen=True):
    """A file that was written: its SHA-256 as 64 hexadecimal digits, and its bytes."""

    digest: str
    size: int


class HashedFile:
    """Makes the file at `path` and writes to it; a thread of its own computes SHA-256. Use as a context manager.

    A chunk must not be changed after it was given. `digest`, `size` and `written`, which is both, are there after the
    block. Errors: `DiskFull`, `StoreError`; the file is then left as it is.
    """

    digest: str
    size: int

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hash = hashlib.sha256()
        self._chunks: queue.Queue[Chunk | None] = queue.Queue(_AHEAD)
        self._thread = threading.Thread(target=self._compute, name="hash", daemon=True)
        self.size = 0

    def __enter__(self) -> Self:
        try:
            self._file = open(self._path, "wb", buffering=0)
        except OSError as error:
            raise self._explained(error) from error
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._chunks.put(None)
        self._thread.join()
        self.digest = self._hash.hexdigest()
        try:
            self._file.close()
        except OSError as failure:
            raise self._explained(failure) from failure

    @property
    def written(self) -> Written:
        return Written(self.digest, self.size)

    def write(self, chunk: Chunk) -> None:
        """Appends all of `chunk`; one of some megabytes is best."""
        view = memoryview(chunk).cast("B")
        self._chunks.put(view)
        self.size += len(view)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise self._explained(error) from error

    def _explained(self, error: OSError) -> StoreError:
        if error.errno in _FULL:
            return DiskFull(f'no space left on the disk while writing "{self._path}"')
        return StoreError(f'cannot write "{self._path}": {reason_of(error)}')

    def _compute(self) -> None:
        while (chunk := self._chunks.get()) is not None:
            self._hash.update(chunk)
