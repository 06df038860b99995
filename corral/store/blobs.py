"""Blobs: files named after the SHA-256 of their bytes. Knows how one comes to be, not what it holds.

A blob appears by rename, whole, under its own digest; until then its bytes lie under a name of random digits (spec cli
§8). Writing what is there already leaves the file and renews its time, which keeps it from the next prune.
"""

import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

from corral.errors import BadRequest, DiskFull, NotFound, StoreError
from corral.names import Digest
from corral.store import disk
from corral.store.adoptions import Adoptions, hash_file
from corral.store.disk import FileState

_BLOB = re.compile(r"sha256-[0-9a-f]{64}\Z")

How = Literal["reflink", "hardlink", "copy"]


class Companion(Protocol):
    """What else there is of blobs: it goes with them."""

    def forget(self, digest: Digest) -> None: ...


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


@dataclass(frozen=True, slots=True)
class _Seen:
    """A blob's file as it was last looked at; `problem` is the sentence when its bytes are not the blob's."""

    state: FileState
    problem: str = ""


class Blobs:
    """A folder of blobs, the records of those that are hard links, and what was made of blobs for the engine.

    How a blob's file was is remembered: when it was touched since, its bytes are hashed before they are trusted again.
    `closing` ends the hashing.
    """

    def __init__(
        self,
        folder: Path,
        adoptions: Adoptions,
        companions: Sequence[Companion],
        closing: threading.Event,
    ) -> None:
        self.folder = folder
        self.adoptions = adoptions
        self._companions = companions
        self._closing = closing
        self._seen: dict[Digest, _Seen] = {}

    def path(self, digest: Digest) -> Path:
        return self.folder / digest.filename

    def size(self, digest: Digest) -> int | None:
        """Bytes of the blob; None when there is none."""
        path = self.path(digest)
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            return None
        if path.is_symlink() and (record := self.adoptions.find(digest)) is not None and record.beginning:
            return min(record.beginning, size)
        return size

    def checked_path(self, digest: Digest) -> Path:
        """Where a blob's bytes can be read from; see `Store.open_path`."""
        path = self.path(digest)
        with disk.explained(path, "reading"):
            if not path.is_file():
                disk.check_links(self.folder)
                raise NotFound(f'blob "{digest}" not found')
            self._check(digest, path)
        return path

    def state(self, digest: Digest) -> FileState | None:
        """The blob's file as it is now; None when there is none that can be looked at."""
        try:
            return FileState.of(self.path(digest).stat())
        except OSError:
            return None

    def _check(self, digest: Digest, path: Path) -> None:
        """`StoreError` when the bytes are not the blob's.

        They are hashed when the file was touched since it was last looked at, or, where it is a hard link to a file of
        the user's, since its record was made.
        """
        state = FileState.of(path.stat())
        seen = self._seen.get(digest)
        if seen is None or seen.state != state:
            seen = _Seen(state, self._problem(digest, path, state, is_known=seen is not None))
            self._seen[digest] = seen
        if seen.problem:
            raise StoreError(seen.problem)

    def _problem(self, digest: Digest, path: Path, state: FileState, *, is_known: bool) -> str:
        """What `_Seen` has; `is_known`: the file was looked at before, and was in another state."""
        record = self.adoptions.find(digest)
        if record is not None and record.is_of(state):
            return ""
        if record is None and not is_known:
            return ""
        with disk.open_regular(path) as file:
            if hash_file(file, self._go_on, 0 if record is None else record.beginning) == digest:
                if record is not None:
                    with suppress(OSError):  # where nothing can be written, it is hashed again by the next server
                        self.adoptions.record(digest, state, Path(record.source), record.beginning)
                return ""
        if record is None:
            return f'the blob "{digest}" was changed on the disk: remove the model, and pull or create it anew'
        return (
            f'the file "{record.source}" was changed after it became the blob "{digest}": '
            "restore it, or remove the model and create it anew"
        )

    def _go_on(self, _: int) -> None:
        if self._closing.is_set():
            raise StoreError(disk.CLOSING)

    def touched(self, digest: Digest) -> float:
        """When the blob was last written or asked for, in seconds since the epoch."""
        return self.adoptions.touched(digest) or self.path(digest).stat().st_mtime

    def delete(self, digest: Digest) -> int:
        """Removes a blob, with all that was made of it; the bytes it had."""
        path = self.path(digest)
        size = path.lstat().st_size
        path.unlink()
        self._forget(digest)
        for companion in self._companions:
            companion.forget(digest)
        return size

    def _forget(self, digest: Digest) -> None:
        """When the blob's file is gone or a new one."""
        self._seen.pop(digest, None)
        self.adoptions.forget(digest)

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
        self._forget(digest)
        return True

    def touch(self, digest: Digest, size: int) -> bool:
        """Keeps an existing blob from the next prune; false when there is none of this size, or it was changed."""
        if self.size(digest) != size:
            return False
        try:
            self._check(digest, self.path(digest))
        except StoreError:
            return False
        if not self.adoptions.touch(digest):
            self._renew_time(digest)
        return True

    def _renew_time(self, digest: Digest) -> None:
        """Sets the time of a blob's file to now; bytes that were just checked need not be hashed for that again."""
        path, seen = self.path(digest), self._seen.get(digest)
        with suppress(OSError), disk.open_regular(path) as file:
            before = FileState.of(os.fstat(file.fileno()))
            os.utime(path)  # not for another's file or a disk for reading only: prunes have no power over them either
            after = FileState.of(os.fstat(file.fileno()))
            if seen is not None and seen.state == before and (before.size, before.inode) == (after.size, after.inode):
                self._seen[digest] = _Seen(after)

    def find_same(self, size: int, chunks: Iterable[bytes]) -> Digest | None:
        """The digest of so many bytes for which there is a blob already; read only where one of that size is."""
        if not self._has_one_of(size):
            return None
        state = hashlib.sha256()
        for chunk in chunks:
            state.update(chunk)
        digest = Digest(state.hexdigest())
        return digest if self.touch(digest, size) else None

    def _has_one_of(self, size: int) -> bool:
        with suppress(OSError), os.scandir(self.folder) as entries:
            return any(_BLOB.match(entry.name) and entry.stat().st_size == size for entry in entries)
        return False

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
                return self._adopt_copy(file, 0, None, progress)

    def adopt_part(self, source: Path, offset: int, size: int, progress: Callable[[int], None] | None) -> Adopted:
        """Makes a blob of a stretch of a file; see `Store.adopt_part`."""
        with disk.explained(source, "reading"):
            opened = disk.open_regular(source)
        with opened as file:
            if offset + size > os.fstat(file.fileno()).st_size:
                raise StoreError(f'"{source}" is being written to')
            target = disk.temporary(self.folder, "sha256-")
            try:
                with disk.explained(target, "writing"):
                    self.folder.mkdir(parents=True, exist_ok=True)
                    is_clone = disk.clone_part(file, offset, size, target)
                if is_clone:
                    return self._adopt_clone(target, progress)
            finally:
                target.unlink(missing_ok=True)
            with disk.explained(source, "reading"):
                return self._adopt_copy(file, offset, size, progress)

    def link_beginning(self, source: Path, digest: Digest, size: int, progress: Callable[[int], None] | None) -> None:
        """Makes a blob of the first bytes of a file, in place; see `Store.link_beginning`."""
        with disk.explained(source, "reading"):
            source = source.resolve(strict=True)
            opened = disk.open_regular(source)
        path = self.path(digest)
        with opened as file:
            state = FileState.of(os.fstat(file.fileno()))
            record = self.adoptions.find(digest)
            if record is not None and record.is_of(state) and record.beginning == size and _leads_to(path, source):
                return
            with disk.explained(source, "reading"):
                actual = hash_file(file, progress, size)
            if actual != digest:
                raise StoreError(f'the weights in "{source}" are damaged: get the file anew')
            with disk.explained(path, "writing"):
                self.folder.mkdir(parents=True, exist_ok=True)
                target = disk.temporary(self.folder, "sha256-")
                try:
                    target.symlink_to(source)
                    target.replace(path)
                finally:
                    target.unlink(missing_ok=True)
                self._seen.pop(digest, None)
                self.adoptions.record(digest, state, source, size)

    def way(self, source: Path) -> How:
        """How `adopt` would come by a file's bytes; see `Store.way`."""
        folder = disk.nearest(self.folder)
        target = disk.temporary(folder, "sha256-")
        with disk.explained(source, "reading"):
            opened = disk.open_regular(source)
        with opened as file, disk.explained(folder, "writing to"):
            try:
                if disk.clone(file, target):
                    return "reflink"
                return "hardlink" if disk.hard_link(source, target) else "copy"
            finally:
                target.unlink(missing_ok=True)

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
        if known := self._is_blob(file, digest):
            target.unlink()
        created = not known and self.publish(target, digest, after.st_size)
        if known or created:  # names come and go with the change time: what was just hashed need not be hashed again
            self.adoptions.record(digest, FileState.of(os.fstat(file.fileno())), source)
        return Adopted(digest, after.st_size, created, "hardlink")

    def _is_blob(self, file: FileIO, digest: Digest) -> bool:
        """Whether a file is a hard link of this blob already."""
        state = self.state(digest)
        return state is not None and state.inode == os.fstat(file.fileno()).st_ino

    def _adopt_copy(
        self, file: FileIO, offset: int, size: int | None, progress: Callable[[int], None] | None
    ) -> Adopted:
        """`size` None: up to the file's end, wherever that is: some files of the system say that they have none."""
        expected = os.fstat(file.fileno()).st_size if size is None else size
        if (known := self.find_same(expected, _chunks(file, offset, size, progress))) is not None:
            return Adopted(known, expected, False, "copy")
        require_space(self.folder, expected)
        with BlobWriter(self) as writer:
            for chunk in _chunks(file, offset, size, progress):
                writer.write(chunk)
            digest, created = writer.commit()
            return Adopted(digest, writer.size, created, "copy")


def _leads_to(path: Path, source: Path) -> bool:
    """Whether `path` is a symbolic link to that file."""
    return path.is_symlink() and path.resolve() == source


def _chunks(file: FileIO, offset: int, size: int | None, progress: Callable[[int], None] | None) -> Iterator[bytes]:
    """A stretch of a file, or what there is of it; `progress` gets the bytes read so far."""
    file.seek(offset)
    done = 0
    while chunk := file.read(disk.COPY_BYTES if size is None else min(disk.COPY_BYTES, size - done)):
        done += len(chunk)
        if progress is not None:
            progress(done)
        yield chunk


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
        self._hash.update(chunk)
        self.size += len(chunk)
        with disk.explained(self._path, "writing"):
            disk.write_all(self._opened, chunk)

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


class BlobFile:
    """An empty file among the blobs, for a child process to write; `publish` makes a blob of it.

    Use as a context manager; without `publish` nothing is left. Errors: `StoreError`.
    """

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self.path = disk.temporary(blobs.folder, "sha256-")

    def __enter__(self) -> Self:
        with disk.explained(self.path, "writing"):
            self._blobs.folder.mkdir(parents=True, exist_ok=True)
            self._file = disk.create(self.path)
            disk.claim(self._file)  # by what is written, not by the name: the writer opens it anew
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def publish(self, digest: Digest, size: int) -> bool:
        """Gives the file the blob's name, and says whether the blob is new. Digest and size are the writer's word."""
        with disk.explained(self.path, "writing"):
            if (actual := self.path.stat().st_size) != size:
                raise StoreError(f'"{self.path}" has {actual} bytes instead of {size}')
            disk.flush(self._file)
            return self._blobs.publish(self.path, digest, size)


def require_space(folder: Path, size: int) -> None:
    """`DiskFull` when `size` bytes do not fit on the disk that holds `folder`."""
    with disk.explained(folder, "reading"):
        free = disk.free_bytes(folder)
    if size > free:
        raise DiskFull(f'no space left on the disk that holds "{folder}": {size} bytes are needed, {free} are free')
