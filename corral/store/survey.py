"""What state a store's folder is in: models with missing files, files without a model. Changes nothing."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from corral.errors import StoreError, reason_of
from corral.names import Digest, Name
from corral.store.manifest import Layer, Stored
from corral.store.prune import BLOB, PARTIAL, TEMPORARY


@dataclass(frozen=True, slots=True)
class Damage:
    """A file of a model that is not as its manifest says; `size`: the bytes it has, None: it is not there."""

    name: Name
    layer: Layer
    size: int | None


@dataclass(frozen=True, slots=True)
class Survey:
    """The state of a store. Sizes are in bytes; the pairs are how many files, and how many bytes."""

    models: Sequence[Stored]
    broken: Sequence[tuple[str, str]]
    """Manifests and folders of manifests that cannot be read, relative to their folder, and why."""
    damaged: Sequence[Damage]
    unreadable: Sequence[Path]
    """Blobs that this user may not read."""
    unnamed: tuple[int, int]
    """Blobs that no manifest names, nor one that is being fetched."""
    partial: tuple[int, int]
    """Downloads that stopped halfway."""
    temporary: tuple[int, int]
    """What writers left behind, or are just writing."""


def survey(models: Sequence[Stored], broken: Sequence[tuple[str, str]], blobs: Path, expected: set[Digest]) -> Survey:
    """Of models that could be read, manifests that could not, and blobs of models that are being fetched.

    `StoreError` when the blobs cannot be listed.
    """
    files = _files(blobs)
    damaged = [
        Damage(model.name, layer, files.get(layer.digest.filename))
        for model in models
        for layer in model.manifest.blobs
        if files.get(layer.digest.filename) != layer.size
    ]
    named = {layer.digest for model in models for layer in model.manifest.blobs} | expected
    found = {name: size for name, size in files.items() if BLOB.match(name)}
    unnamed = [size for name, size in found.items() if Digest(name.removeprefix("sha256-")) not in named]
    partial = [size for name, size in files.items() if PARTIAL.match(name)]
    downloads = {match[1] for name in files if (match := PARTIAL.match(name))}
    temporary = [size for name, size in files.items() if TEMPORARY.match(name)]
    return Survey(
        models=models,
        broken=broken,
        damaged=damaged,
        unreadable=[path for path in (blobs / name for name in sorted(found)) if _is_shut(path)],
        unnamed=(len(unnamed), sum(unnamed)),
        partial=(len(downloads), sum(partial)),
        temporary=(len(temporary), sum(temporary)),
    )


def _is_shut(path: Path) -> bool:
    """Whether it is there and this user may not read it: a server beside us may have deleted it meanwhile."""
    return not os.access(path, os.R_OK) and path.exists()


def _files(folder: Path) -> dict[str, int]:
    """The names of files and their sizes; what has holes, as a download, counts by the blocks it has."""
    found = {}
    try:
        for entry in os.scandir(folder):
            with suppress(OSError):  # it has gone meanwhile, or is a link that leads nowhere
                if entry.is_file():
                    status = entry.stat()
                    held = getattr(status, "st_blocks", 1 << 60) * 512
                    found[entry.name] = min(status.st_size, held) if PARTIAL.match(entry.name) else status.st_size
    except FileNotFoundError:
        pass
    except OSError as error:
        raise StoreError(f'reading "{folder}" failed: {reason_of(error)}') from error
    return found
