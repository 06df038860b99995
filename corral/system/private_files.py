"""Files that only their user may read, and small files that are there whole or not at all. Blocks."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from corral.system.files import BINARY

MODE = 0o600


def opened(path: Path) -> int:
    """The descriptor of a private file to write to, made with its folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | BINARY, MODE)


def opener(path: str, flags: int) -> int:
    """What `open` takes to make a private file."""
    return os.open(path, flags, MODE)


def write(path: Path, data: bytes, mode: int = MODE) -> None:
    """Replaces a file by one with these bytes, which are on the disk before it gets its name."""
    with _written(path, data, mode) as temporary:
        temporary.replace(path)


def create(path: Path, data: bytes) -> bool:
    """Makes a private file as `write` does, unless there is one; whether it did. Of several processes that do so at the
    same time, the first to finish makes it."""
    with _written(path, data, MODE) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            temporary.rename(path)
    return True


@contextlib.contextmanager
def _written(path: Path, data: bytes, mode: int) -> Iterator[Path]:
    """A new file beside `path` with these bytes, on the disk; it goes with the block unless it was renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
