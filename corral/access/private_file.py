"""Files that only their owner reads, replaced in one step. Blocks. Standard library only: quick commands read one."""

import contextlib
import os
import secrets
from pathlib import Path

MODE = 0o600


def opened(path: Path) -> int:
    """The descriptor of a private file to write to, made with its folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), MODE)


def opener(path: str, flags: int) -> int:
    """What `open` takes to make a private file."""
    return os.open(path, flags, MODE)


def write(path: Path, data: bytes) -> None:
    """Replaces a file by one with these bytes, which are on the disk before it gets its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
