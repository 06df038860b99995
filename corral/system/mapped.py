"""Files that are mapped into this process's memory. On Linux only; elsewhere there is nothing to see or to do."""

import ctypes
import mmap
import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec import Struct


class Mapped(Struct, frozen=True):
    """A stretch of memory that shows a file: its first address and its bytes."""

    begin: int
    size: int


def mapped(files: Collection[Path]) -> list[Mapped]:
    """Where these files are mapped into this process (`/proc/self/maps`, proc_pid_maps(5))."""
    if sys.platform != "linux":
        return []
    names = {str(file.resolve()) for file in files}
    found = []
    with suppress(OSError):
        for line in Path("/proc/self/maps").read_text(errors="surrogateescape").splitlines():
            span, *_, name = [*line.split(maxsplit=5), ""][:6]
            if name in names:
                begin, end = (int(text, 16) for text in span.split("-"))
                found.append(Mapped(begin, end - begin))
    return found


def let_go(stretches: Sequence[Mapped]) -> None:
    """Gives back what has been read of them: the file stays in the system's cache, and is mapped again where it is read
    (madvise(2)). Memory that is locked stays."""
    if sys.platform == "linux":
        library = ctypes.CDLL(None, use_errno=True)
        for one in stretches:
            library.madvise(ctypes.c_void_p(one.begin), ctypes.c_size_t(one.size), mmap.MADV_DONTNEED)


def own_memory() -> int:
    """Bytes of main memory that are this process's alone, and no file's; 0 where that is not known."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) << 10
    return 0
