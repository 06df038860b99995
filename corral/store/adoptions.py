"""Records of the blobs that are hard links to a file of the user's, who may write into it.

A reflink needs no record: its bytes are its own. The records lie beside the blobs, in a folder other programs do not
look at; `check` compares the file with its record and, when the file was touched, hashes it again.
"""

import hashlib
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from io import FileIO
from pathlib import Path

import msgspec

from corral.errors import StoreError
from corral.names import Digest
from corral.store import disk

_TEMPORARY = ".new-"
"""What a record that is being written is called; it may be another process that writes."""


class _Record(msgspec.Struct):
    """Size and time of the file when it was last hashed and had the blob's digest."""

    size: int
    mtime_ns: int
    source: str


class Adoptions:
    """The records, one file a blob, under the blob's own file name."""

    def __init__(self, folder: Path, closing: threading.Event) -> None:
        self._folder = folder
        self._closing = closing

    def record(self, digest: Digest, blob: Path, source: Path) -> None:
        status = blob.stat()
        self._folder.mkdir(parents=True, exist_ok=True)
        data = msgspec.json.encode(_Record(status.st_size, status.st_mtime_ns, str(source)))
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
                    is_dropped = not (blobs / path.name).exists()
                if is_dropped:
                    path.unlink()

    def check(self, digest: Digest, blob: Path) -> None:
        """`StoreError` when the blob is shared with a file whose bytes have been changed since.

        Hashes the whole blob when the file's time or size is another, and ends early when the store is closed.
        """
        try:
            record = msgspec.json.decode(self._path(digest).read_bytes(), type=_Record)
        except FileNotFoundError:
            return
        except (msgspec.DecodeError, UnicodeDecodeError):
            record = _Record(-1, -1, "?")
        status = blob.stat()
        if (status.st_size, status.st_mtime_ns) == (record.size, record.mtime_ns):
            return
        with disk.open_regular(blob) as file:
            unchanged = hash_file(file, self._go_on) == digest
        if not unchanged:
            raise StoreError(
                f'the file "{record.source}" was changed after it became the blob "{digest}": '
                "restore it, or remove the model and create it anew"
            )
        with suppress(OSError):  # where nothing can be written, it is hashed again next time
            self.record(digest, blob, Path(record.source))

    def _go_on(self, _: int) -> None:
        if self._closing.is_set():
            raise StoreError(disk.CLOSING)

    def _path(self, digest: Digest) -> Path:
        return self._folder / digest.filename


def hash_file(file: FileIO, progress: Callable[[int], None] | None = None) -> Digest:
    """The digest of all that is left to read of an open file; `progress` gets the bytes read so far."""
    state = hashlib.sha256()
    buffer = memoryview(bytearray(disk.COPY_BYTES))
    done = 0
    while count := file.readinto(buffer):
        state.update(buffer[:count])
        done += count
        if progress is not None:
            progress(done)
    return Digest(state.hexdigest())
