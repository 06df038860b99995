"""Conversations that engines keep while their models are not loaded: folders beside the blobs, bounded in bytes.

A blob has a folder here, and in it one for each way in which it is loaded (engine, context, KV type, …). What is in it
is the engine's business: files of one stem are one conversation, last used when the newest of them was touched, and
`new-` stands before the name of what is being written. All of it is the user's alone, and may be deleted at any time.
"""

import shutil
import time
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from corral.names import Digest
from corral.store import disk
from corral.system.files import exists

ABANDONED_SECONDS = 3600.0
"""After which a file that was not finished is taken for the remains of an engine that died."""


class Conversation(Struct, frozen=True):
    """The files of one conversation, their bytes, and when they were last used, in seconds."""

    files: tuple[Path, ...]
    size: int
    used: float


class Conversations:
    """The folder of all of them. Its calls block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def place(self, digest: Digest, key: str) -> Path:
        """The folder for a blob that is loaded in the way `key` names, made if need be. Errors: `StoreError`."""
        place = self.folder / digest.filename / key
        with disk.explained(place, "making"):
            for folder in (self.folder, place.parent, place):
                folder.mkdir(mode=0o700, exist_ok=True)
                folder.chmod(0o700)
        return place

    def all(self) -> list[Conversation]:
        """Those that are finished, the least recently used first."""
        groups: dict[Path, list[Path]] = {}
        for file in self._files():
            if not file.name.startswith("new-"):
                groups.setdefault(file.with_suffix(""), []).append(file)
        found = []
        for files in groups.values():
            with suppress(OSError):
                states = [file.stat() for file in files]
                size, used = sum(state.st_size for state in states), max(state.st_mtime for state in states)
                found.append(Conversation(tuple(sorted(files)), size, used))
        return sorted(found, key=lambda one: one.used)

    def trim(self, most_bytes: int) -> None:
        """Removes the least recently used ones, until all take no more than `most_bytes` bytes."""
        kept = self.all()
        excess = sum(one.size for one in kept) - most_bytes
        for one in kept:
            if excess <= 0:
                return
            for file in one.files:  # the record goes first: .json is before .state
                with suppress(OSError):
                    file.unlink()
            excess -= one.size

    def forget(self, digest: Digest) -> None:
        """When the blob goes: removes its conversations."""
        shutil.rmtree(self.folder / digest.filename, ignore_errors=True)
        with suppress(OSError):
            self.folder.rmdir()

    def tidy(self, blobs: Path) -> None:
        """Removes what belongs to blobs that are gone, and what was never finished."""
        with suppress(OSError):
            for parent in list(self.folder.iterdir()):
                if not exists(blobs / parent.name):
                    shutil.rmtree(parent, ignore_errors=True)
        for file in self._files():
            is_alone = not exists(file.with_suffix(".json"))
            with suppress(OSError):
                if is_alone and file.stat().st_mtime < time.time() - ABANDONED_SECONDS:
                    file.unlink()

    def _files(self) -> list[Path]:
        return [file for file in self.folder.glob("*/*/*") if file.suffix in (".state", ".json")]
