"""Files as systems differ in them: how they are opened, whether they can share disk blocks, who owns them.

Knows nothing of what is in them.
"""

import ctypes
import errno
import os
import struct
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
"""Flags of every file that is opened: its bytes as they are (Windows), and not for children (POSIX)."""

WITHOUT_WAITING = getattr(os, "O_NONBLOCK", 0)
"""The flag for what may be a pipe, whose writer is not to be waited for."""

NOT_A_LINK = getattr(os, "O_NOFOLLOW", 0)
"""The flag for what is not to be a symbolic link; 0 where no system call says so."""

_FICLONE, _FICLONERANGE = 0x40049409, 0x4020940D
_AT_FDCWD = -2
_DEFAULT_BLOCK = 4096


class Cloning(Protocol):
    """How files come to share disk blocks, copy on write. Each returns False where the file system cannot."""

    def whole(self, source: int, target: Path, create: Callable[[Path], int]) -> bool:
        """Makes `target`, which must not be there, a clone of an open file; `create` makes it where it has to be."""
        ...

    def stretch(self, source: int, offset: int, target: int, target_offset: int, length: int) -> bool:
        """Has a stretch of an open file be one of another. Offsets and length are multiples of a block."""
        ...


class LinuxCloning:
    """ioctl_ficlonerange(2). `fcntl`: the module of that name."""

    def __init__(self, fcntl: ModuleType) -> None:
        self._fcntl = fcntl

    def whole(self, source: int, target: Path, create: Callable[[Path], int]) -> bool:
        descriptor = create(target)
        try:
            self._fcntl.ioctl(descriptor, _FICLONE, source)
        except OSError:
            target.unlink()
            return False
        finally:
            os.close(descriptor)
        return True

    def stretch(self, source: int, offset: int, target: int, target_offset: int, length: int) -> bool:
        try:
            self._fcntl.ioctl(target, _FICLONERANGE, struct.pack("<qQQQ", source, offset, length, target_offset))
        except OSError:
            return False
        return True


class MacCloning:
    """fclonefileat(2), which knows whole files only. `library`: the C library."""

    def __init__(self, library: Any) -> None:
        self._library = library

    def whole(self, source: int, target: Path, create: Callable[[Path], int]) -> bool:
        return bool(self._library.fclonefileat(source, _AT_FDCWD, os.fsencode(target), 0) == 0)

    def stretch(self, source: int, offset: int, target: int, target_offset: int, length: int) -> bool:
        return False


class NoCloning:
    """Windows: its block cloning is there on ReFS only, and by calls that Python's library does not have."""

    def whole(self, source: int, target: Path, create: Callable[[Path], int]) -> bool:
        return False

    def stretch(self, source: int, offset: int, target: int, target_offset: int, length: int) -> bool:
        return False


def _cloning() -> Cloning:
    found: Cloning = NoCloning()
    if sys.platform == "linux":
        import fcntl

        found = LinuxCloning(fcntl)
    elif sys.platform == "darwin":
        found = MacCloning(ctypes.CDLL(None))
    return found


CLONING = _cloning()


class Positional(Protocol):
    """Reading and writing at a place of an open file, by several threads at once. Each does what it can, and says how
    many bytes that was."""

    def read(self, descriptor: int, buffer: memoryview, offset: int) -> int: ...

    def write(self, descriptor: int, chunks: Sequence[bytes | memoryview], offset: int) -> int: ...


class PosixPositional:
    """preadv(2), pwritev(2)."""

    def __init__(self, preadv: Callable[..., int], pwritev: Callable[..., int]) -> None:
        self._preadv = preadv
        self._pwritev = pwritev

    def read(self, descriptor: int, buffer: memoryview, offset: int) -> int:
        return self._preadv(descriptor, [buffer], offset)

    def write(self, descriptor: int, chunks: Sequence[bytes | memoryview], offset: int) -> int:
        return self._pwritev(descriptor, chunks, offset)


class SeekingPositional:
    """Where no call takes a place (Windows): seeking and reading, one thread after the other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def read(self, descriptor: int, buffer: memoryview, offset: int) -> int:
        with self._lock:
            os.lseek(descriptor, offset, os.SEEK_SET)
            data = os.read(descriptor, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def write(self, descriptor: int, chunks: Sequence[bytes | memoryview], offset: int) -> int:
        with self._lock:
            os.lseek(descriptor, offset, os.SEEK_SET)
            return os.write(descriptor, b"".join(chunks))


def _positional() -> Positional:
    if sys.platform == "win32":
        return SeekingPositional()
    return PosixPositional(os.preadv, os.pwritev)


_POSITIONAL = _positional()
read_into, write_at = _POSITIONAL.read, _POSITIONAL.write


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """At most so many bytes from a place of an open file; none at its end."""
    buffer = bytearray(size)
    count = read_into(descriptor, memoryview(buffer), offset)
    return bytes(buffer) if count == size else bytes(buffer[:count])


def exists(path: Path) -> bool:
    """Whether there is something. `OSError` where that cannot be said, which Python from 3.14 on would call no."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # no file has a name with a zero byte
        return False
    return True


def flush_folder(folder: Path) -> None:
    """Puts the names in a folder on the disk; nothing happens where folders cannot be opened. `OSError`."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY | BINARY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_nameless(folder: Path) -> int:
    """A new file for writing, in a folder but without a name (open(2), O_TMPFILE). `OSError` also where none can be."""
    if sys.platform != "linux":
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    return os.open(folder, os.O_TMPFILE | os.O_WRONLY | BINARY, 0o644)


def give_name(descriptor: int, path: Path) -> None:
    """Gives a nameless file one. `FileExistsError` where there is one of that name."""
    # Without src_dir_fd the link in /proc is not followed.
    os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor, follow_symlinks=True)


def block_size(path: Path) -> int:
    """Bytes of a block of the file system that holds `path`."""
    if sys.platform == "win32":
        return _DEFAULT_BLOCK
    return os.statvfs(path).f_bsize


def copy_range(source: int, target: int, length: int) -> int | None:
    """Copies at most so many bytes within the system, from where both files are; None where there is no such call."""
    if sys.platform != "linux":
        return None
    return os.copy_file_range(source, target, length)


def is_ours(status: os.stat_result) -> bool:
    """Whether a file belongs to the user of this process; where files have no numbers of users, each does."""
    if sys.platform == "win32":
        return True
    return status.st_uid == os.getuid()


def can_be_changed_by_others(status: os.stat_result) -> bool:
    """Whether other users may write to a file, as far as its mode says; it says nothing on Windows."""
    return sys.platform != "win32" and bool(status.st_mode & 0o022)
