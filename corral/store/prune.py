"""What a prune deletes from a store's folder, and when (spec cli §2.2). Decides by names, times and references.

Whatever another process may just be adding is left alone: everything has a time of grace after its last touch, and a
file that is being written is claimed by its writer.
"""

import logging
import os
import re
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from corral.names import Digest
from corral.store import disk
from corral.store.blobs import Blobs
from corral.system.files import exists

logger = logging.getLogger(__name__)

GRACE = 3600.0
"""Seconds for which an unreferenced blob or a stray temporary file is left alone (spec cli §2.2)."""

PARTIAL_LIFETIME = 30 * 24 * 3600.0
"""Seconds after which a download that stopped halfway cannot be continued. Upstream throws it away after an hour, at
its next start; a download of days over a bad line is worth more than the room it takes."""

DERIVED_LIFETIME = 30 * 24 * 3600.0
"""Seconds after which a file that was made for the engine and not used since goes; it can be made again."""

TEMPORARY_PREFIX = ".corral-"
"""What begins so is ours: a manifest that is being written, a folder something is being unpacked in."""

BLOB = re.compile(r"sha256-([0-9a-f]{64})\Z")
_OLD_BLOB = re.compile(r"sha256:([0-9a-f]{64})(-partial.*)?\Z")
TEMPORARY = re.compile(r"sha256-[0-9]{1,20}\Z")
PARTIAL = re.compile(r"sha256-([0-9a-f]{64})-partial(-.*)?\Z")


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What a prune did. `complete` is false when a manifest could not be read, so that no blob was deleted."""

    renamed: int = 0
    deleted_blobs: int = 0
    deleted_temporaries: int = 0
    deleted_partials: int = 0
    freed: int = 0
    """Bytes."""
    removed_folders: int = 0
    complete: bool = True


def rename_old_blobs(folder: Path) -> int:
    """Gives blobs of the first versions (`sha256:…`) the name they have today (`sha256-…`); how many."""
    count = 0
    for path in _files(folder):
        if match := _OLD_BLOB.match(path.name):
            target = folder / (Digest(match[1]).filename + (match[2] or ""))
            with suppress(FileNotFoundError):
                if exists(target):
                    path.unlink()
                else:
                    path.rename(target)
                count += 1
    return count


def delete_blobs(blobs: Blobs, referenced: set[Digest], grace: float) -> tuple[int, int]:
    """Deletes blobs that no manifest names and that were not used for `grace` seconds: how many, how many bytes."""
    count = freed = 0
    oldest = time.time() - grace
    for path in _files(blobs.folder):
        match = BLOB.match(path.name)
        if match is None or Digest(match[1]) in referenced:
            continue
        with suppress(FileNotFoundError):
            if blobs.touched(Digest(match[1])) <= oldest and not disk.is_claimed(path):
                freed += blobs.delete(Digest(match[1]))
                count += 1
    blobs.adoptions.forget_missing(blobs.folder, oldest)
    return count, freed


def delete_temporaries(blobs: Path, manifests: Path, root: Path, grace: float) -> tuple[int, int]:
    """Deletes what writers that died left behind: how many files and folders, how many bytes of files."""
    oldest = time.time() - grace
    strays = [path for path in _files(blobs) if TEMPORARY.match(path.name)]
    strays += [path for path in _files(manifests) if path.name.startswith(TEMPORARY_PREFIX)]
    count, freed = _delete_older(strays, oldest)
    for folder in root.glob(f"{TEMPORARY_PREFIX}*/"):
        with suppress(FileNotFoundError):
            if folder.stat().st_mtime <= oldest and not folder.is_symlink() and not disk.is_claimed(folder):
                shutil.rmtree(folder, ignore_errors=True)
                count += 1
    return count, freed


def delete_partials(blobs: Path, grace: float) -> tuple[int, int]:
    """Deletes downloads that were not continued for `PARTIAL_LIFETIME`, and those whose blob has come meanwhile.

    A download's files count as one: all stay as long as the youngest does. How many files, how many bytes.
    """
    downloads: dict[str, list[Path]] = {}
    for path in _files(blobs):
        if match := PARTIAL.match(path.name):
            downloads.setdefault(match[1], []).append(path)
    count = freed = 0
    for hexadecimal, paths in downloads.items():
        lifetime = grace if exists(blobs / Digest(hexadecimal).filename) else PARTIAL_LIFETIME
        with suppress(FileNotFoundError):
            if max(path.stat().st_mtime for path in paths) <= time.time() - lifetime:
                deleted, size = _delete_older(paths, time.time() - lifetime)
                count, freed = count + deleted, freed + size
    return count, freed


def remove_empty_folders(manifests: Path) -> int:
    """Removes folders of hosts, namespaces and models that hold nothing any more; how many."""
    count = 0
    for folder, _, _ in os.walk(manifests, topdown=False):
        if Path(folder) != manifests:
            with suppress(OSError):  # not empty, or removed by another process
                Path(folder).rmdir()
                count += 1
    return count


def _delete_older(paths: list[Path], oldest: float) -> tuple[int, int]:
    count = freed = 0
    for path in paths:
        with suppress(FileNotFoundError):
            status = path.lstat()
            if status.st_mtime <= oldest and not disk.is_claimed(path):
                path.unlink()
                count, freed = count + 1, freed + min(status.st_size, getattr(status, "st_blocks", 1 << 60) * 512)
    return count, freed


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file())
    except FileNotFoundError:
        return []
