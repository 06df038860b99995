"""What the store asks of the operating system: locks, flushed writes, links, and its errors as sentences.

Knows no digest and no manifest. Where a system or a file system lacks something, the next best way is taken.
"""

import ctypes
import errno
import os
import secrets
import shutil
import stat
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from corral.errors import DiskFull, StoreError

if sys.platform != "win32":  # there, two processes are kept apart by renames alone
    import fcntl

COPY_BYTES = 1 << 20
"""How much is read, hashed and written at a time."""

_FICLONE = 0x40049409
_FICLONERANGE = 0x4020940D
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
        reason = (error.strerror or str(error)).lower()
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
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _lock(descriptor, folder, seconds, closing)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path, seconds: float, closing: threading.Event) -> None:
    if sys.platform == "win32":
        return
    deadline = time.monotonic() + seconds
    pause = 0.001
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            left = deadline - time.monotonic()
        except OSError:  # a file system without locks
            return
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
    if sys.platform != "win32":
        with suppress(OSError):
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_claimed(path: Path) -> bool:
    """Whether this process or another is working on this file or in this folder (see `claim`)."""
    if sys.platform == "win32":
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def temporary(folder: Path, prefix: str) -> Path:
    """A name no other file has: `prefix` and random decimal digits, as the layout asks for (spec cli §8)."""
    return folder / f"{prefix}{secrets.randbelow(10**18):018d}"


def create(path: Path) -> FileIO:
    """A new file for writing, mode 0644 less the umask; it must not exist."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags, 0o644), "wb", buffering=0)


def flush(file: FileIO) -> None:
    """Puts a file's bytes on the disk, so that the rename that follows never names a hole after a power cut."""
    file.flush()
    os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Puts the names in a folder on the disk; nothing happens where a system cannot do that."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # some network file systems
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
            _give_name(file, path)
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
            _give_name(file, path)
        path.unlink()
    except OSError:
        return False
    return True


def _nameless(folder: Path) -> FileIO:
    """A new file for writing, in a folder but without a name."""
    if sys.platform != "linux":
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    return os.fdopen(os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o644), "wb", buffering=0)


def _give_name(file: FileIO, path: Path) -> None:
    opened = f"/proc/self/fd/{file.fileno()}"
    os.link(opened, path, src_dir_fd=file.fileno(), follow_symlinks=True)  # without src_dir_fd it is not followed


def open_regular(path: Path | str) -> FileIO:
    """Opens a plain file for reading. Devices, pipes and folders, which could block or never end, are refused."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise StoreError(f'"{path}" is not a file')
    except BaseException:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb", buffering=0)


def clone(source: FileIO, target: Path) -> bool:
    """Makes `target` share the source's disk blocks, copy on write. False where the file system cannot."""
    if sys.platform == "darwin":
        function = ctypes.CDLL(None).fclonefileat
        return bool(function(source.fileno(), -2, os.fsencode(target), 0) == 0)  # -2: AT_FDCWD
    if sys.platform != "linux":
        return False
    with create(target) as file:
        try:
            fcntl.ioctl(file.fileno(), _FICLONE, source.fileno())
        except OSError:
            done = False
        else:
            done = True
    if not done:
        target.unlink()
    return done


def clone_range(source: FileIO, offset: int, target: FileIO, target_offset: int, length: int) -> bool:
    """Makes a stretch of `target` share the source's disk blocks, copy on write. False where that cannot be.

    Offsets and length must be multiples of `block_size`.
    """
    if sys.platform != "linux":
        return False
    try:
        fcntl.ioctl(
            target.fileno(), _FICLONERANGE, struct.pack("<qQQQ", source.fileno(), offset, length, target_offset)
        )
    except OSError:
        return False
    return True


def clone_part(source: FileIO, offset: int, size: int, target: Path) -> bool:
    """Makes `target` a file of a stretch of the source, sharing its disk blocks but for the rest of the last one.

    False where that cannot be; there is no `target` then.
    """
    block = block_size(target.parent)
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
            file.write(bytes(block_size(folder)))
        with open_regular(first) as file:
            return clone(file, second)
    except OSError:
        return False
    finally:
        for path in (first, second):
            path.unlink(missing_ok=True)


_TRIAL = ".new-trial-"


def block_size(path: Path) -> int:
    """Bytes of a block of the file system that holds `path`."""
    return os.statvfs(path).f_bsize if sys.platform != "win32" else 4096


def copy_range(source: FileIO, offset: int, target: FileIO, length: int) -> Iterator[int]:
    """Appends bytes of one file to another, within the system where it can; yields how many are done so far.

    `OSError`, also when the source ends before.
    """
    done = 0
    source.seek(offset)
    in_system = hasattr(os, "copy_file_range")
    while done < length:
        wanted = min(_COPIED_AT_ONCE, length - done)
        copied = 0
        if in_system:
            try:
                copied = os.copy_file_range(source.fileno(), target.fileno(), wanted)  # type: ignore[attr-defined,unused-ignore]
            except OSError as error:
                if error.errno in _FULL or done:
                    raise
                in_system = False
                continue
        else:
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
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free
