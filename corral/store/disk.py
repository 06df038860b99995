"""What the store asks of the operating system: locks, flushed writes, links, and its errors as sentences.

Knows no digest and no manifest. Where a system or a file system lacks something, the next best way is taken.
"""

import errno
import os
import secrets
import shutil
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from corral.errors import DiskFull, StoreError, reason_of
from corral.system import files, locks

COPY_BYTES = 1 << 20
"""How much is read, hashed and written at a time."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True, slots=True)
class FileState:
    """What tells whether a file was touched: its size in bytes, its times, and which file it is.

    The modification time can be set to what it was. The change time cannot, but a new name or new rights change it, too
    (stat(2)); on Windows it is when the file was made.
    """

    size: int
    mtime_ns: int
    inode: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> "FileState":
        return cls(status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns)


@contextmanager
def explained(path: Path, doing: str) -> Iterator[None]:
    """Turns an `OSError` into the sentence a person reads: `DiskFull` or `StoreError`, naming `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFull(f'no space left on the disk while {doing} "{path}"') from error
        reason = reason_of(error)
        raise StoreError(f'{doing} "{path}" failed: {reason}') from error


def check_links(folder: Path) -> None:
    """`StoreError` where a folder, or one that it is in, is a link to what is not there (an unmounted disk).

    A folder that is missing is empty. That one need not be.
    """
    for place in (folder, *folder.parents):
        if place.is_symlink() and not place.exists():
            raise StoreError(f'"{place}" is a link to "{place.readlink()}", which is not there')


@contextmanager
def locked(folder: Path, seconds: float, closing: threading.Event) -> Iterator[None]:
    """Holds the folder's advisory lock: one process, and one thread of it, at a time.

    `StoreError` when another has held it for so many seconds, or when `closing` is set meanwhile. Where folders cannot
    be locked (Windows, some network file systems) nothing is held: files still appear whole, by rename, and what is
    lost is only the order between a delete and a write at the same moment.
    """
    descriptor = locks.open_folder(folder)
    if descriptor is None:
        yield
        return
    try:
        _lock(descriptor, folder, seconds, closing)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path, seconds: float, closing: threading.Event) -> None:
    deadline = time.monotonic() + seconds
    pause = 0.001
    while locks.take(descriptor) == "held":
        left = deadline - time.monotonic()
        if left <= 0:
            raise StoreError(
                f'the folder "{folder}" has been locked by another program for {seconds:g} s: '
                "try again when it has finished its work on the models"
            )
        if closing.wait(min(pause, left)):
            raise StoreError(CLOSING)
        pause = min(pause * 2, 0.05)


CLOSING = "the server is stopping"


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """A new folder, claimed while the block lasts and then removed with all that is in it."""
    with explained(path, "making"):
        path.mkdir(parents=True)
    try:
        with locked(path, 0, threading.Event()):  # so new a folder is locked by no other
            yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def claim(file: FileIO) -> None:
    """Marks an open file as being worked on, for `is_claimed`; the mark goes when the file is closed."""
    locks.take(file.fileno())


def is_claimed(path: Path) -> bool:
    """Whether this process or another is working on this file or in this folder (see `claim`)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | files.BINARY)
    except (FileNotFoundError, PermissionError):  # also a folder, where folders cannot be opened
        return False
    try:
        return locks.take(descriptor, shared=True) == "held"
    finally:
        os.close(descriptor)


def temporary(folder: Path, prefix: str) -> Path:
    """A name no other file has: `prefix` and random decimal digits, as the layout asks for (spec cli §8)."""
    return folder / f"{prefix}{secrets.randbelow(10**18):018d}"


def create(path: Path) -> FileIO:
    """A new file for writing, mode 0644 less the umask; it must not exist."""
    return os.fdopen(_created(path), "wb", buffering=0)


def _created(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | files.BINARY, 0o644)


def flush(file: FileIO) -> None:
    """Puts a file's bytes on the disk, so that the rename that follows never names a hole after a power cut."""
    file.flush()
    os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Puts the names in a folder on the disk; nothing happens where a system cannot do that."""
    with suppress(OSError):  # some network file systems
        files.flush_folder(folder)


def write_all(file: FileIO, data: bytes | bytearray | memoryview) -> None:
    """Writes all of it: a disk that is nearly full takes a part, and refuses the next one."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def write_whole(path: Path, data: bytes, temporary_path: Path) -> None:
    """Writes a file so that others see the old one or the new one, never a part."""
    try:
        with create(temporary_path) as file:
            write_all(file, data)
            flush(file)
        temporary_path.replace(path)
    finally:
        temporary_path.unlink(missing_ok=True)


@contextmanager
def appearing(path: Path, temporary_path: Path) -> Iterator[FileIO]:
    """A new file for writing, which is at `path`, whole and flushed, when the block ends well.

    Where the system can, it has no name before, so that nothing is left of it even when the process is killed;
    elsewhere it has the temporary one. `FileExistsError` when the file has appeared meanwhile (elsewhere it is
    replaced).
    """
    if _can_be_nameless(temporary_path):
        with _nameless(path.parent) as file:
            yield file
            flush(file)
            files.give_name(file.fileno(), path)
        return
    try:
        with create(temporary_path) as file:
            yield file
            flush(file)
        temporary_path.rename(path)
    finally:
        with suppress(OSError):  # what is wrong with the folder has been said
            temporary_path.unlink(missing_ok=True)


def _can_be_nameless(path: Path) -> bool:
    """Whether a file without a name can get one in this folder, tried at `path`; not on every file system."""
    try:
        with _nameless(path.parent) as file:
            files.give_name(file.fileno(), path)
        path.unlink()
    except OSError:
        return False
    return True


def _nameless(folder: Path) -> FileIO:
    """A new file for writing, in a folder but without a name."""
    return os.fdopen(files.open_nameless(folder), "wb", buffering=0)


def open_regular(path: Path | str) -> FileIO:
    """Opens a plain file for reading. Devices, pipes and folders, which could block or never end, are refused."""
    descriptor = os.open(path, os.O_RDONLY | files.WITHOUT_WAITING | files.BINARY)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise StoreError(f'"{path}" is not a file')
    except BaseException:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb", buffering=0)


def clone(source: FileIO, target: Path) -> bool:
    """Makes `target` share the source's disk blocks, copy on write. False where the file system cannot."""
    return files.CLONING.whole(source.fileno(), target, _created)


def clone_range(source: FileIO, offset: int, target: FileIO, target_offset: int, length: int) -> bool:
    """Makes a stretch of `target` share the source's disk blocks, copy on write. False where that cannot be.

    Offsets and length must be multiples of `block_size`.
    """
    return files.CLONING.stretch(source.fileno(), offset, target.fileno(), target_offset, length)


def clone_part(source: FileIO, offset: int, size: int, target: Path) -> bool:
    """Makes `target` a file of a stretch of the source, sharing its disk blocks but for the rest of the last one.

    False where that cannot be; there is no `target` then.
    """
    block = files.block_size(target.parent)
    with create(target) as file:
        whole = size // block * block
        if whole and not offset % block and clone_range(source, offset, file, 0, whole):
            file.seek(whole)
            source.seek(offset + whole)
            write_all(file, source.read(size - whole))
            return True
    target.unlink()
    return False


def can_clone(folder: Path) -> bool:
    """Whether files in this folder can share disk blocks, as tried with one; the folder must exist."""
    first, second = temporary(folder, _TRIAL), temporary(folder, _TRIAL)
    try:
        with create(first) as file:
            file.write(bytes(files.block_size(folder)))
        with open_regular(first) as file:
            return clone(file, second)
    except OSError:
        return False
    finally:
        for path in (first, second):
            path.unlink(missing_ok=True)


_TRIAL = ".new-trial-"


def copy_range(source: FileIO, offset: int, target: FileIO, length: int) -> Iterator[int]:
    """Appends bytes of one file to another, within the system where it can; yields how many are done so far.

    `OSError`, also when the source ends before.
    """
    done = 0
    source.seek(offset)
    in_system = True
    while done < length:
        wanted = min(_COPIED_AT_ONCE, length - done)
        copied: int | None = None
        if in_system:
            try:
                copied = files.copy_range(source.fileno(), target.fileno(), wanted)
            except OSError as error:
                if error.errno in _FULL or done:
                    raise
            in_system = copied is not None
        if copied is None:
            chunk = source.read(min(wanted, COPY_BYTES))
            copied = len(chunk)
            write_all(target, chunk)
        if not copied:
            raise OSError(errno.EIO, "the file became shorter while it was read")
        done += copied
        yield done


_COPIED_AT_ONCE = 64 << 20


def hard_link(source: Path, target: Path) -> bool:
    """Gives the file a second name. False where that is not possible: another disk, no right, no such feature."""
    try:
        os.link(source, target)
    except OSError:
        return False
    return True


def free_bytes(path: Path) -> int:
    """Bytes free for us on the disk that holds `path`, or will hold it."""
    return shutil.disk_usage(nearest(path)).free


def nearest(path: Path) -> Path:
    """A path, or the nearest folder above it that is there."""
    while not files.exists(path) and path != path.parent:
        path = path.parent
    return path
