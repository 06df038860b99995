"""Notes of models that are being fetched: their manifests. A prune leaves the blobs alone that they name."""

import time
from contextlib import suppress
from pathlib import Path

from corral.errors import StoreError
from corral.names import Digest
from corral.store import disk
from corral.store.manifest import Manifest, parse_manifest
from corral.store.prune import PARTIAL_LIFETIME, TEMPORARY_PREFIX


class Expected:
    """The notes in one folder. A note of `PARTIAL_LIFETIME` and more counts no longer: the fetching was given up."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, manifest: Manifest) -> None:
        """`StoreError` when it cannot be written."""
        path = self._folder / manifest.digest.filename
        with disk.explained(path, "writing"):
            self._folder.mkdir(exist_ok=True)
            disk.write_whole(path, manifest.raw, disk.temporary(self._folder, TEMPORARY_PREFIX))

    def remove(self, manifest: Manifest) -> None:
        """If it cannot be removed, a later prune will."""
        with suppress(OSError):
            (self._folder / manifest.digest.filename).unlink(missing_ok=True)
            self._folder.rmdir()  # if it is empty now

    def blobs(self) -> set[Digest]:
        """The blobs of models that are being fetched. Changes nothing."""
        found: set[Digest] = set()
        for path in self._files():
            with suppress(OSError, StoreError):
                if not _is_old(path) and not path.name.startswith(TEMPORARY_PREFIX):
                    found.update(layer.digest for layer in parse_manifest(path.read_bytes()).blobs)
        return found

    def delete_old(self) -> None:
        """Deletes notes that count no longer, and the folder when it is empty."""
        with suppress(OSError):
            for path in self._files():
                if _is_old(path):
                    path.unlink(missing_ok=True)
            self._folder.rmdir()

    def _files(self) -> list[Path]:
        try:
            return sorted(path for path in self._folder.iterdir() if path.is_file())
        except OSError:
            return []


def _is_old(path: Path) -> bool:
    return path.stat().st_mtime <= time.time() - PARTIAL_LIFETIME
