"""Files made of blobs for the engine, in a folder beside the blobs. Knows where they lie, not what is in them.

A blob has a folder here, and in it one for each key (rules and engine); that one appears by rename, whole and with a
record of its files, so nothing half-made is ever found. It may be deleted at any time, since it can be made again. Who
makes one has the lock of the blob's folder. Ollama looks at `blobs` and `manifests` only.
"""

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from corral.errors import InvalidName, StoreError
from corral.messages import Progress
from corral.names import Digest, parse_digest
from corral.store import disk
from corral.store.disk import FileState
from corral.system import locks
from corral.system.files import exists

_RECORD = "made.json"
_TEMPORARY = ".new-"

_STATUS = "preparing the model for the engine"
_NO_DIGEST = "0" * 19
"""Has clients draw a bar, as they do for each digest of a pull."""

Way = Literal["clone", "ranges", "copy"]
"""How a file came to be: on the blob's own disk blocks but for its header, on stretches of them, or written anew."""


class MadeFile(Struct, frozen=True):
    """One file of a record: its name in the folder, its bytes, when it was written (ns), and how many bytes it shares
    with the blob."""

    name: str
    size: int
    mtime_ns: int
    shared: int = 0


class Made(Struct, frozen=True):
    """What was made of a blob. `text` and `projector` are names of files, the first of a set; empty: there is none."""

    files: tuple[MadeFile, ...]
    text: str = ""
    projector: str = ""
    way: Way = "copy"

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    @property
    def disk_bytes(self) -> int:
        """Those that are not shared with the blob."""
        return self.size - sum(file.shared for file in self.files)


class Entry(Struct, frozen=True):
    """A folder that was made: whose blob it is of, what is in it, and when it was last used, in seconds."""

    digest: Digest
    folder: Path
    made: Made
    used: float

    @property
    def text(self) -> Path | None:
        return self.folder / self.made.text if self.made.text else None

    @property
    def projector(self) -> Path | None:
        return self.folder / self.made.projector if self.made.projector else None


def step(completed: int = 0, total: int = 0) -> Progress:
    """How many bytes are written, while something is made; without a `total`, that it is waited for."""
    return Progress(_STATUS, _NO_DIGEST if total else "", total, completed)


class Claim:
    """The right to make something of a blob, until `release`. `folder` is new and empty; it goes with the release."""

    def __init__(self, parent: Path, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._parent = parent
        self.folder = disk.temporary(parent, _TEMPORARY)

    def publish(self, key: str, made: Made) -> None:
        """Puts what lies in `folder` in its place, flushed; what was there before goes."""
        target = self._parent / key
        with disk.explained(target, "writing"):
            disk.write_whole(self.folder / _RECORD, msgspec.json.encode(made), disk.temporary(self.folder, _TEMPORARY))
            disk.flush_folder(self.folder)
            shutil.rmtree(target, ignore_errors=True)
            self.folder.rename(target)
            disk.flush_folder(self._parent)

    def release(self) -> None:
        """Lets others go on; removes what was not published."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._descriptor is not None:
            os.close(self._descriptor)


class Derived:
    """The folder of all that was made. Its calls block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, digest: Digest, key: str, *, use: bool = True) -> Entry | None:
        """What was made, if its files are as they were written; `use` counts as one."""
        entry = self._read(digest, self._of(digest) / key)
        if entry is not None and use:
            with suppress(OSError):
                os.utime(entry.folder / _RECORD)
        return entry

    def claim(self, digest: Digest) -> Claim | None:
        """The right to make something of the blob; None while another has it. What died half-made is removed."""
        parent = self._of(digest)
        with disk.explained(parent, "making"):
            for _ in range(_TRIES):
                parent.mkdir(parents=True, exist_ok=True)
                descriptor = _locked(parent)
                if descriptor == _HELD:
                    return None
                for leftover in parent.glob(f"{_TEMPORARY}*"):
                    shutil.rmtree(leftover, ignore_errors=True)
                claim = Claim(parent, descriptor)
                with suppress(FileNotFoundError):  # another has just removed the folder, empty as it was
                    claim.folder.mkdir()
                    if descriptor is None or os.fstat(descriptor).st_ino == parent.stat().st_ino:
                        return claim
                claim.release()
        return None

    def entries(self) -> list[Entry]:
        """All there is, the least recently used first."""
        found = []
        for parent in _folders(self.folder):
            try:
                digest = parse_digest(parent.name)
            except InvalidName:
                continue
            found += [entry for one in _folders(parent) if (entry := self._read(digest, one)) is not None]
        return sorted(found, key=lambda entry: entry.used)

    def delete(self, entry: Entry) -> None:
        """Removes what was made; its blob stays."""
        shutil.rmtree(entry.folder, ignore_errors=True)
        with suppress(OSError):
            entry.folder.parent.rmdir()  # if it is empty now

    def forget(self, digest: Digest) -> None:
        """When the blob goes: removes all that was made of it."""
        shutil.rmtree(self._of(digest), ignore_errors=True)
        with suppress(OSError):
            self.folder.rmdir()

    def tidy(self, blobs: Path, unused_seconds: float) -> None:
        """Removes what belongs to blobs that are gone, what was not used for so long, and what died half-made."""
        for parent in _folders(self.folder):
            if not exists(blobs / parent.name):
                shutil.rmtree(parent, ignore_errors=True)
                continue
            with suppress(StoreError, InvalidName):
                claim = self.claim(parse_digest(parent.name))
                if claim is not None:
                    claim.release()
        for entry in self.entries():
            if entry.used <= time.time() - unused_seconds:
                self.delete(entry)
        for parent in _folders(self.folder):
            with suppress(OSError):
                parent.rmdir()
        with suppress(OSError):
            self.folder.rmdir()

    def _of(self, digest: Digest) -> Path:
        return self.folder / digest.filename

    def _read(self, digest: Digest, folder: Path) -> Entry | None:
        try:
            with disk.open_regular(folder / _RECORD) as file:
                used = os.fstat(file.fileno()).st_mtime
                made = msgspec.json.decode(file.read(), type=Made)
            for one in made.files:
                if Path(one.name).name != one.name:
                    return None
                state = FileState.of((folder / one.name).stat())
                if (state.size, state.mtime_ns) != (one.size, one.mtime_ns):
                    return None
        except (OSError, StoreError, ValueError):
            return None
        if {made.text, made.projector} - {"", *(one.name for one in made.files)}:
            return None
        return Entry(digest, folder, made, used)


_HELD = -1
_TRIES = 10
"""How often a folder may be removed while it is being locked."""


def _locked(folder: Path) -> int | None:
    """An open folder with its lock, `_HELD` when another has it, None where folders cannot be locked."""
    descriptor = locks.open_folder(folder)
    if descriptor is None:
        return None
    outcome = locks.take(descriptor)
    if outcome == "taken":
        return descriptor
    os.close(descriptor)
    return _HELD if outcome == "held" else None


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return []
