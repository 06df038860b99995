"""Manifests on disk: which there are, how their names are spelled, how they are put in place and removed.

Knows nothing of the blobs they name. The caller holds the folder's lock where it changes something.
"""

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

from corral.errors import InvalidName, ModelNotFound, StoreError, reason_of
from corral.names import Digest, Name
from corral.store import disk
from corral.store.manifest import MAX_MANIFEST_BYTES, Manifest, Stored, parse_manifest
from corral.store.prune import TEMPORARY_PREFIX

logger = logging.getLogger(__name__)

_Place: TypeAlias = tuple[str, ...]
"""A path relative to the manifests folder: host, namespace, model, tag. For a long list, `Path` is too slow."""

_KEPT_BYTES = 1 << 14
_parsed = lru_cache(1024)(parse_manifest)
"""For manifests of up to `_KEPT_BYTES`, which lists and references read again and again."""


@dataclass(frozen=True, slots=True)
class _UnreadableFolder:
    """A folder of manifests that cannot be read, and why; `path` is relative to the manifests folder."""

    path: Path
    reason: str


class Manifests:
    """The manifests below one folder, in folders of host, namespace and model. Errors: `StoreError`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: Name) -> Path:
        return self.folder / name.path

    def resolve(self, name: Name) -> Name:
        """The name as it is spelled on disk, part by part ignoring case; itself where nothing matches (spec api §3)."""
        return Name(*_spelling(self.folder, name.path.parts))

    def read(self, name: Name) -> Stored:
        """The model of that very name; `FileNotFoundError`, or `StoreError` when its manifest is broken."""
        path = self._below((name.host, name.namespace, name.model, name.tag))
        try:
            with disk.open_regular(path) as file:
                status = os.fstat(file.fileno())
                raw = file.read(min(status.st_size, MAX_MANIFEST_BYTES) + 1)
        except (NotADirectoryError, IsADirectoryError):
            raise FileNotFoundError(path) from None
        except FileNotFoundError:
            disk.check_links(self.folder)
            raise
        except PermissionError as error:
            raise StoreError(f'reading "{path}" failed: permission denied') from error
        manifest = _parsed(raw) if len(raw) <= _KEPT_BYTES else parse_manifest(raw)
        return Stored(name, manifest, manifest.digest, status.st_mtime, manifest.size)

    def readable(self, name: Name) -> Manifest | None:
        """What lies under a name, None where there is nothing or it is broken."""
        try:
            return self.read(name).manifest
        except (FileNotFoundError, StoreError):
            return None

    def list(self) -> list[Stored]:
        """All models, newest first to the second, then by path. What cannot be read is left out, with a warning."""
        models, broken = self.surveyed()
        for path, reason in broken:
            logger.warning("skipping %s/%s: %s", self.folder.name, path, reason)
        return sorted(models, key=lambda stored: -int(stored.modified))

    def surveyed(self) -> tuple[Sequence[Stored], Sequence[tuple[str, str]]]:
        """All models that can be read, and what cannot be: paths relative to the folder, and why."""
        models: list[Stored] = []
        files, folders = self._files()
        broken = [(str(folder.path), folder.reason) for folder in folders]
        for place in files:
            try:
                models.append(self.read(_name_of(place)))
            except FileNotFoundError:
                if os.path.lexists(self._below(place)):
                    broken.append(("/".join(place), "a link that leads nowhere"))
            except (StoreError, InvalidName) as error:
                broken.append(("/".join(place), str(error)))
        return models, broken

    def references(self) -> set[Digest]:
        """Every blob some manifest names; `StoreError` when a manifest cannot be read, which may name any."""
        models, broken = self.surveyed()
        for path, reason in broken:
            raise StoreError(f'"{path}": {reason}')
        return {layer.digest for model in models for layer in model.manifest.blobs}

    def put(self, name: Name, raw: bytes) -> None:
        """Puts a manifest in place, whole, over what lies there."""
        path = self.path(name)
        with disk.explained(path, "writing"):
            temporary = disk.temporary(self.folder, TEMPORARY_PREFIX)
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                disk.write_whole(path, raw, temporary)
            except FileNotFoundError:  # another program has just removed the folder, empty as it was
                path.parent.mkdir(parents=True, exist_ok=True)
                disk.write_whole(path, raw, temporary)

    def remove(self, name: Name) -> None:
        """Removes the manifest of that very name, and folders that are empty then; `ModelNotFound`."""
        path = self.path(name)
        try:
            with disk.explained(path, "deleting"):
                path.unlink()
        except StoreError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise ModelNotFound(str(name)) from None
            raise
        for folder in list(path.parents)[:3]:
            with suppress(OSError):  # another tag still lies there
                folder.rmdir()

    def _files(self) -> tuple[Sequence[_Place], Sequence[_UnreadableFolder]]:
        """Where files lie in the place of a manifest, in the order of their parts, and which folders cannot be read.

        What other programs leave behind (`.DS_Store`) is passed over. A folder that cannot be read is not taken for
        empty, which would cost its models their blobs. For the same reason a link that leads nowhere (to a disk that
        is not mounted today) is listed like a manifest, wherever it lies. `StoreError` when nothing can be read.
        """
        with disk.explained(self.folder, "reading"):
            try:
                next(self.folder.iterdir(), None)
            except FileNotFoundError:
                disk.check_links(self.folder)
        folders: list[_Place] = [()]
        files: list[_Place] = []
        unreadable: list[_UnreadableFolder] = []
        for level in ("host", "namespace", "model", "tag"):
            entries = []
            for folder in folders:
                try:
                    entries += [((*folder, entry.name), entry) for entry in os.scandir(self._below(folder))]
                except FileNotFoundError:
                    continue
                except OSError as error:
                    unreadable.append(_UnreadableFolder(Path(*folder), reason_of(error)))
            visible = [(place, entry) for place, entry in entries if not entry.name.startswith(".")]
            folders = [place for place, entry in visible if entry.is_dir()]
            files += [
                place
                for place, entry in visible
                if (not entry.is_dir() if level == "tag" else entry.is_symlink() and not Path(entry.path).exists())
            ]
        return sorted(files), unreadable

    def _below(self, place: _Place) -> str:
        return "/".join((str(self.folder), *place))


def _name_of(place: _Place) -> Name:
    """The name of the model whose manifest lies there; `InvalidName`."""
    if len(place) != 4:
        raise InvalidName("invalid model name")
    return Name(*place)


def _spelling(folder: Path, parts: tuple[str, ...]) -> tuple[str, ...]:
    """`parts` as they are spelled below `folder`, as far down as something matches; the exact spelling goes first."""
    if not parts:
        return ()
    try:
        entries = [entry.name for entry in folder.iterdir() if entry.name.lower() == parts[0].lower()]
    except OSError:
        return parts
    entries.sort(key=lambda entry: (entry != parts[0], entry))
    below = [(entry, *_spelling(folder / entry, parts[1:])) for entry in entries]
    for spelling in below:
        if os.path.lexists(folder.joinpath(*spelling)):
            return spelling
    return below[0] if below else parts
