"""Records of the blobs that are links to a file of the user's, who may write into it.

A reflink needs no record: its bytes are its own. The records lie beside the blobs, in a folder other programs do not
look at; `Blobs` compares the file with its record and, when the file was touched, hashes it again.
"""

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from io import FileIO
from pathlib import Path

import msgspec

from corral.names import Digest
from corral.store import disk
from corral.store.disk import FileState
from corral.system.files import exists

_TEMPORARY = ".new-"
"""What a record that is being written is called; it may be another process that writes."""


class Adoption(msgspec.Struct, frozen=True):
    """Size, times and inode of the file when it was last hashed and had the blob's digest; 0: not noted.

    `beginning`: the blob is so many bytes that the file begins with; 0: all of it.
    """

    size: int
    mtime_ns: int
    source: str
    inode: int = 0
    ctime_ns: int = 0
    beginning: int = 0

    def is_of(self, state: FileState) -> bool:
        """Whether the file has not been touched since."""
        return FileState(self.size, self.mtime_ns, self.inode, self.ctime_ns) == state


class Adoptions:
    """The records, one file a blob, under the blob's own file name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def record(self, digest: Digest, state: FileState, source: Path, beginning: int = 0) -> None:
        """`state`: the file's when it was hashed."""
        self._folder.mkdir(parents=True, exist_ok=True)
        data = msgspec.json.encode(
            Adoption(state.size, state.mtime_ns, str(source), state.inode, state.ctime_ns, beginning)
        )
        disk.write_whole(self._path(digest), data, disk.temporary(self._folder, _TEMPORARY))

    def touched(self, digest: Digest) -> float | None:
        """When the blob was last used, by the record's time; None without a record. The file's time is the user's."""
        try:
            return self._path(digest).stat().st_mtime
        except FileNotFoundError:
            return None

    def touch(self, digest: Digest) -> bool:
        """Sets the record's time to now; false when there is no record, as the blob is no hard link."""
        try:
            os.utime(self._path(digest))
        except FileNotFoundError:
            return False
        except OSError:  # there is a record, though its time cannot be set
            return True
        return True

    def forget(self, digest: Digest) -> None:
        self._path(digest).unlink(missing_ok=True)

    def forget_missing(self, blobs: Path, oldest: float) -> None:
        """Drops the records of blobs that are gone, and what was left half-written before the time `oldest`."""
        if not self._folder.is_dir():
            return
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):
                if path.name.startswith(_TEMPORARY):
                    is_dropped = path.stat().st_mtime <= oldest
                else:
                    is_dropped = not exists(blobs / path.name)
                if is_dropped:
                    path.unlink()

    def find(self, digest: Digest) -> Adoption | None:
        """The record of a blob; None when there is none, as the blob is no hard link."""
        try:
            return msgspec.json.decode(self._path(digest).read_bytes(), type=Adoption)
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, UnicodeDecodeError):
            return Adoption(-1, -1, "?")

    def _path(self, digest: Digest) -> Path:
        return self._folder / digest.filename


def hash_file(file: FileIO, progress: Callable[[int], None] | None = None, size: int = 0) -> Digest:
    """The digest of all that is left to read of an open file, or of the next `size` bytes of it, where that is not 0.

    `progress` gets the bytes read so far.
    """
    state = hashlib.sha256()
    buffer = memoryview(bytearray(disk.COPY_BYTES))
    done = 0
    while count := file.readinto(buffer[: min(size - done, disk.COPY_BYTES)] if size else buffer):
        state.update(buffer[:count])
        done += count
        if progress is not None:
            progress(done)
    return Digest(state.hexdigest())
