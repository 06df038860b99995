"""Files that only their owner writes, replaced in one step. Blocks. Standard library only: quick commands read one."""

import contextlib
import os
import secrets
from pathlib import Path

from corral.errors import ConfigError
from corral.system import files

MODE = 0o600
_MAX_SECRET = 4096


def opened(path: Path) -> int:
    """The descriptor of a private file to write to, made with its folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), MODE)


def opener(path: str, flags: int) -> int:
    """What `open` takes to make a private file."""
    return os.open(path, flags, MODE)


def read_secret(path: Path) -> str:
    """The secret that is all there is in a file. `ConfigError` for a file that others may write, and for one that holds
    no secret; none of it is in the sentence."""
    try:
        with open(path, "rb") as file:
            if files.can_be_changed_by_others(os.fstat(file.fileno())):
                raise ConfigError(f'others may write "{path}"; `chmod 600 {path}` ends that')
            data = file.read(_MAX_SECRET + 1)
    except OSError as error:
        raise ConfigError(f'"{path}" cannot be read: {(error.strerror or str(error)).lower()}') from error
    text = data.decode("latin-1").strip()
    if len(data) > _MAX_SECRET or not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigError(f'"{path}" must hold one key and nothing else')
    return text


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
