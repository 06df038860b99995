"""A file written from beginning to end and hashed meanwhile. Knows nothing of what is written."""

import hashlib
import queue
import threading
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

from msgspec import Struct

Chunk: TypeAlias = bytes | bytearray | memoryview


class Written(Struct, frozen=True):
    """A file that was written: its SHA-256 in 64 hexadecimal digits, and its bytes."""

    digest: str
    size: int


_AHEAD = 4
"""Chunks that may wait to be hashed."""


class HashedFile:
    """Makes the file at `path` and writes to it; a thread of its own computes SHA-256. Use as a context manager.

    A chunk must not be changed after it was given. `digest` (64 hexadecimal digits) and `size` are there after the
    block. Errors: `OSError`, as plain files have them; the file is then left as it is.
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
        self._file = open(self._path, "wb", buffering=0)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._chunks.put(None)
        self._thread.join()
        self._file.close()
        self.digest = self._hash.hexdigest()

    def write(self, chunk: Chunk) -> None:
        """Appends all of `chunk`; one of some megabytes is best."""
        view = memoryview(chunk).cast("B")
        self._chunks.put(view)
        self.size += len(view)
        while view:
            view = view[self._file.write(view) :]

    def _compute(self) -> None:
        while (chunk := self._chunks.get()) is not None:
            self._hash.update(chunk)
