"""The file of keys: read whole, changed by one process at a time, replaced in one step. Blocks."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import msgspec
from msgspec import Struct

from corral.access.keys import Key, Wish, check, make, named
from corral.errors import BadRequest, ConfigError, NotFound
from corral.system import locks, private_files
from corral.system.files import can_be_changed_by_others

FILE_NAME = "corral-keys.json"
MAX_KEYS = 1000
_MAX_BYTES = 16 << 20

Stamp: TypeAlias = tuple[int, int, int] | None
"""Changes whenever the file does; None: there is none."""


class _Keys(Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    keys: list[Key]


class KeyFile:
    """The keys of one server, which may be changed while it runs. A file that cannot be used is a `ConfigError`."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME

    def stamp(self) -> Stamp:
        try:
            state = self.path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from error
        return state.st_mtime_ns, state.st_ino, state.st_size

    def read(self) -> tuple[Key, ...]:
        """All keys, the oldest first; none where there is no file."""
        try:
            with open(self.path, "rb") as file:
                if can_be_changed_by_others(os.fstat(file.fileno())):
                    raise self._unusable(f"others may write it; `chmod 600 {self.path}` ends that")
                data = file.read(_MAX_BYTES + 1)
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from error
        return self._decoded(data)

    def add(self, wish: Wish) -> tuple[Key, str]:
        """A new key and its secret; `BadRequest` for a name that another key has, and as `keys.make`."""
        key, secret = make(wish)
        with self._turn():
            keys = self.read()
            if named(keys, key.name) is not None:
                raise BadRequest(f'there is a key "{key.name}" already; revoke it first, or choose another name')
            if len(keys) >= MAX_KEYS:
                raise BadRequest(f"there are {MAX_KEYS} keys already, which is as many as may be")
            self._write((*keys, key))
        return key, secret

    def revoke(self, text: str) -> Key:
        """Takes out the key of an id or a name, and returns it; `NotFound` when there is none."""
        with self._turn():
            keys = self.read()
            key = named(keys, text)
            if key is None:
                raise NotFound(f'there is no key "{text[:64]}"; `corral keys list` shows those there are')
            self._write(tuple(one for one in keys if one is not key))
        return key

    def _decoded(self, data: bytes) -> tuple[Key, ...]:
        try:
            found = msgspec.json.decode(data, type=_Keys)
            if found.version != 1 or len(data) > _MAX_BYTES:
                raise BadRequest("it is of another version")
            for key in found.keys:
                check(key)
        except (msgspec.MsgspecError, BadRequest, UnicodeDecodeError) as error:
            raise self._unusable(str(error)) from error
        return tuple(found.keys)

    def _write(self, keys: tuple[Key, ...]) -> None:
        try:
            private_files.write(self.path, msgspec.json.format(msgspec.json.encode(_Keys(1, list(keys)))) + b"\n")
        except OSError as error:
            raise ConfigError(f'cannot write the keys to "{self.path}": {error.strerror or error}') from error

    def _unusable(self, reason: str) -> ConfigError:
        return ConfigError(f'the keys in "{self.path}" cannot be used: {reason}')

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Waits until no other process changes the file."""
        try:
            lock = private_files.opened(self.path.with_suffix(".lock"))
        except OSError as error:
            raise ConfigError(f'cannot write the keys to "{self.path}": {error.strerror or error}') from error
        with os.fdopen(lock, "wb") as stream:
            locks.wait(stream.fileno())
            yield
