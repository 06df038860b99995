"""Locks on open files: advisory, let go when the file is closed, also by the end of the process that holds it.

On POSIX systems flock(2), which takes folders, too. On Windows one byte far behind the end of the file (LockFileEx by
`msvcrt.locking`), so that its contents can still be read; folders cannot be opened there, and so not be locked.
"""

import errno
import os
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Literal, Protocol, TypeAlias

Outcome: TypeAlias = Literal["taken", "held", "impossible"]
"""`held`: another has it; `impossible`: this file system has no locks."""

LOCKED_BYTE = 1 << 40
"""The place of the byte that is locked on Windows."""

_HELD = {errno.EACCES, errno.EAGAIN, errno.EDEADLK, getattr(errno, "EDEADLOCK", errno.EDEADLK)}
_PAUSE = 0.02
"""Seconds between two tries to get a lock where the system cannot wait for one as long as it takes."""


class Locks(Protocol):
    """How files are locked here."""

    def take(self, descriptor: int, *, shared: bool = False) -> Outcome:
        """Locks an open file for this process if that can be had at once; `shared` beside others that share it."""
        ...

    def wait(self, descriptor: int) -> None:
        """Locks an open file for this process as soon as it can be had; at once where there are no locks."""
        ...

    def open_folder(self, folder: Path) -> int | None:
        """An open folder, to be locked; None where folders cannot be. `OSError`."""
        ...


class PosixLocks:
    """`fcntl`: the module of that name."""

    def __init__(self, fcntl: ModuleType) -> None:
        self._fcntl = fcntl

    def take(self, descriptor: int, *, shared: bool = False) -> Outcome:
        kind = self._fcntl.LOCK_SH if shared else self._fcntl.LOCK_EX
        try:
            self._fcntl.flock(descriptor, kind | self._fcntl.LOCK_NB)
        except BlockingIOError:
            return "held"
        except OSError:
            return "impossible"
        return "taken"

    def wait(self, descriptor: int) -> None:
        try:
            self._fcntl.flock(descriptor, self._fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL):
                raise

    def open_folder(self, folder: Path) -> int | None:
        return os.open(folder, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))


class WindowsLocks:
    """`msvcrt`: the module of that name. There is no sharing: a shared lock is tried for and let go."""

    def __init__(self, msvcrt: ModuleType) -> None:
        self._msvcrt = msvcrt

    def take(self, descriptor: int, *, shared: bool = False) -> Outcome:
        outcome = self._locking(descriptor, self._msvcrt.LK_NBLCK)
        if shared and outcome == "taken":
            self._locking(descriptor, self._msvcrt.LK_UNLCK)
        return outcome

    def wait(self, descriptor: int) -> None:
        while self.take(descriptor) == "held":
            time.sleep(_PAUSE)

    def open_folder(self, folder: Path) -> int | None:
        return None

    def _locking(self, descriptor: int, mode: int) -> Outcome:
        place = os.lseek(descriptor, 0, os.SEEK_CUR)
        try:
            os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
            self._msvcrt.locking(descriptor, mode, 1)
        except OSError as error:
            return "held" if error.errno in _HELD else "impossible"
        finally:
            os.lseek(descriptor, place, os.SEEK_SET)
        return "taken"


def _here() -> Locks:
    if sys.platform == "win32":
        import msvcrt

        return WindowsLocks(msvcrt)
    import fcntl

    return PosixLocks(fcntl)


_LOCKS = _here()
take, wait, open_folder = _LOCKS.take, _LOCKS.wait, _LOCKS.open_folder
