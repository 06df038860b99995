"""Blobs: files named after the SHA-256 of their bytes. Knows how one comes to be, not what it holds.

A blob appears by rename, whole, under its own digest; until then its bytes lie under a name of random digits (spec cli
§8). Writing what is there already leaves the file and renews its time, which keeps it from the next prune.
"""

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from corral.errors import BadRequest, DiskFull, NotFound, StoreError
from corral.names import Digest
from corral.store import disk
from corral.store.adoptions import Adoptions, hash_file

How = Literal["reflink", "hardlink", "copy"]


class DigestMismatch(BadRequest):
    """The bytes have another digest than the caller expected. They stay stored under their own (spec api §12)."""

    def __init__(self, expected: Digest, actual: Digest) -> None:
        super().__init__(f'digest mismatch, expected "{expected}", got "{actual}"')
        self.expected = expected
        self.actual = actual


class BlobMissing(StoreError):
    """A manifest was not written, because one of its blobs is not in the store."""

    def __init__(self, digest: Digest) -> None:
        super().__init__(f'blob "{digest}" is missing')


@dataclass(frozen=True, slots=True)
class Adopted:
    """A local file's blob. `created` is false when its bytes were in the store already; `how` they came to be there."""

    digest: Digest
    size: int
    created: bool
    how: How


class Blobs:
    """A folder of blobs, and the records of those that are hard links."""

    def __init__(self, folder: Path, adoptions: Adoptions) -> None:
        self.folder = folder
        self.adoptions = adoptions

    def path(self, digest: Digest) -> Path:
        return self.folder / digest.filename

    def size(self, digest: Digest) -> int | None:
        """Bytes of the blob; None when there is none."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            return None

    def checked_path(self, digest: Digest) -> Path:
        """Where a blob's bytes can be read from; see `Store.open_path`."""
        path = self.path(digest)
        with disk.explained(path, "reading"):
            if not path.is_file():
                raise NotFound(f'blob "{digest}" not found')
            self.adoptions.check(digest, path)
        return path

    def touched(self, digest: Digest) -> float:
        """When the blob was last written or asked for, in seconds since the epoch."""
        return self.adoptions.touched(digest) or self.path(digest).stat().st_mtime

    def delete(self, digest: Digest) -> int:
        """Removes a blob; the bytes it had."""
        path = self.path(digest)
        size = path.lstat().st_size
        path.unlink()
        self.adoptions.forget(digest)
        return size

    def publish(self, written: Path, digest: Digest, size: int) -> bool:
        """Moves finished bytes to the blob's name, unless there is a sound blob. True when the blob is new."""
        if self.touch(digest, size):
            return False
        try:
            written.replace(self.path(digest))
        except PermissionError:
            if self.size(digest) != size:  # Windows does not replace a file that is mapped
                raise
            return False
        self.adoptions.forget(digest)
        return True

    def touch(self, digest: Digest, size: int) -> bool:
        """Keeps an existing blob from the next prune; false when there is none of this size, or it was changed."""
        if self.size(digest) != size:
            return False
        try:
            self.adoptions.check(digest, self.path(digest))
        except StoreError:
            return False
        if not self.adoptions.touch(digest):
            with suppress(OSError):  # another's file, a disk for reading only: prunes have no power over them either
                os.utime(self.path(digest))
        return True

    def adopt(self, source: Path, link: bool, progress: Callable[[int], None] | None) -> Adopted:
        """Makes a blob of a file's bytes; see `Store.adopt`."""
        with disk.explained(source, "reading"):
            source = source.resolve(strict=True)
            opened = disk.open_regular(source)
        with opened as file:
            target = disk.temporary(self.folder, "sha256-")
            with disk.explained(target, "writing"):
                self.folder.mkdir(parents=True, exist_ok=True)
                is_clone = disk.clone(file, target)
            with disk.explained(source, "reading"):
                try:
                    if is_clone:
                        return self._adopt_clone(target, progress)
                    if link and disk.hard_link(source, target):
                        return self._adopt_link(file, source, target, progress)
                finally:
                    target.unlink(missing_ok=True)
                return self._adopt_copy(file, progress)

    def _adopt_clone(self, target: Path, progress: Callable[[int], None] | None) -> Adopted:
        with disk.open_regular(target) as file:
            digest = hash_file(file, progress)
            size = os.fstat(file.fileno()).st_size
        return Adopted(digest, size, self.publish(target, digest, size), "reflink")

    def _adopt_link(self, file: FileIO, source: Path, target: Path, progress: Callable[[int], None] | None) -> Adopted:
        disk.claim(file)  # and with it the link, which is as old as the file, from a prune
        before = os.fstat(file.fileno())
        digest = hash_file(file, progress)
        after = os.fstat(file.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise StoreError(f'"{source}" is being written to')
        created = self.publish(target, digest, after.st_size)
        if created:
            self.adoptions.record(digest, self.path(digest), source)
        return Adopted(digest, after.st_size, created, "hardlink")

    def _adopt_copy(self, file: FileIO, progress: Callable[[int], None] | None) -> Adopted:
        require_space(self.folder, os.fstat(file.fileno()).st_size)
        with BlobWriter(self) as writer:
            while chunk := file.read(disk.COPY_BYTES):
                writer.write(chunk)
                if progress is not None:
                    progress(writer.size)
            digest, created = writer.commit()
            return Adopted(digest, writer.size, created, "copy")


class BlobWriter:
    """Takes bytes, hashing them on the way, and makes a blob of them at `commit`. Without a commit nothing is left.

    Use as a context manager, from one thread at a time. Errors: `DiskFull`, `StoreError`.
    """

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._hash = hashlib.sha256()
        self._file: FileIO | None = None
        self._path = disk.temporary(blobs.folder, "sha256-")
        self.size = 0

    def __enter__(self) -> Self:
        with disk.explained(self._path, "writing"):
            self._blobs.folder.mkdir(parents=True, exist_ok=True)
            self._file = disk.create(self._path)
            disk.claim(self._file)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        rest = memoryview(chunk)
        self._hash.update(rest)
        self.size += len(rest)
        with disk.explained(self._path, "writing"):
            while rest:
                rest = rest[self._opened.write(rest) :]

    @property
    def digest(self) -> Digest:
        """Of what has been written so far."""
        return Digest(self._hash.hexdigest())

    def commit(self, expected: Digest | None = None) -> tuple[Digest, bool]:
        """The digest, and whether the blob is new. With another `expected` digest: stored, then `DigestMismatch`."""
        digest = self.digest
        with disk.explained(self._path, "writing"):
            disk.flush(self._opened)
            self._close()
            created = self._blobs.publish(self._path, digest, self.size)
        if expected is not None and digest != expected:
            raise DigestMismatch(expected, digest)
        return digest, created

    @property
    def _opened(self) -> FileIO:
        if self._file is None:
            raise ValueError("a BlobWriter is used as a context manager, and commits once")
        return self._file

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def require_space(folder: Path, size: int) -> None:
    """`DiskFull` when `size` bytes do not fit on the disk that holds `folder`."""
    with disk.explained(folder, "reading"):
        free = disk.free_bytes(folder)
    if size > free:
        raise DiskFull(f'no space left on the disk that holds "{folder}": {size} bytes are needed, {free} are free')
