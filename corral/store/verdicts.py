"""What is known of a blob as a model's file: whether it passed the checks, and how loading it went. One record a blob.

A cache but for what the user decided: a record that is missing or cannot be read means that nothing is known. Knows
neither the checks nor an engine; `corral.models.quarantine` says what follows.
"""

from contextlib import suppress
from pathlib import Path

import msgspec

from corral.errors import InvalidName
from corral.names import Digest, parse_digest
from corral.store import disk
from corral.system.files import exists

_TEMPORARY = "new-"
_MOST = 1 << 16
"""Bytes that are read of a record."""


class Verdict(msgspec.Struct, frozen=True):
    """What came of a blob. Empty: nothing is known."""

    rules: str = ""
    """By which rules it was checked."""
    problem: str = ""
    """Why it did not pass; empty: it did."""
    engine: str = ""
    """The build of the engine that the next three are about."""
    loaded: bool = False
    """Whether it has been loaded."""
    crashes: int = 0
    """Loads that ended in a crash, one after the other, before it was."""
    crash: str = ""
    """How the last of them ended."""
    released: str = ""
    """The user loads it in spite of that: by which rules, or `always`."""


class Verdicts:
    """The records, in a folder that other programs do not look at, under the blobs' own file names. Calls block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, digest: Digest) -> Verdict:
        try:
            with open(self._folder / digest.filename, "rb") as file:
                return msgspec.json.decode(file.read(_MOST), type=Verdict)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return Verdict()

    def put(self, digest: Digest, verdict: Verdict) -> None:
        """`StoreError` when it cannot be written."""
        if verdict == self.get(digest):
            return
        with disk.explained(self._folder, "writing"):
            self._folder.mkdir(parents=True, exist_ok=True)
            temporary = disk.temporary(self._folder, _TEMPORARY)
            disk.write_whole(self._folder / digest.filename, msgspec.json.encode(verdict), temporary)

    def all(self) -> dict[Digest, Verdict]:
        """Those of all blobs."""
        digests = []
        for file in self._folder.iterdir() if self._folder.is_dir() else ():
            with suppress(InvalidName):  # what other programs leave behind
                digests.append(parse_digest(file.name))
        return {digest: self.get(digest) for digest in sorted(digests, key=str)}

    def forget(self, digest: Digest) -> None:
        """When the blob goes."""
        with suppress(OSError):
            (self._folder / digest.filename).unlink()

    def tidy(self, blobs: Path) -> None:
        """Removes what belongs to blobs that are gone, and what was never finished."""
        with suppress(OSError):
            for file in list(self._folder.iterdir()):
                if not exists(blobs / file.name):
                    file.unlink()
