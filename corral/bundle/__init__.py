"""Bundles, as they are made: a model and the program that runs it in one file.

The weights' bytes stand first and are not changed, so the file stays a GGUF file. Behind them comes a zip archive: the
rest of the model, a program that Python starts (`bootstrap.py`), Corral's code and what it needs of packages. The form
is in docs/bundles.md; bundles are read in `corral.llamafile.bundles`.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from corral import __version__, gguf
from corral.background import Report
from corral.bundle.runtime import Runtime
from corral.bundle.tail import Tail, copied
from corral.errors import BadRequest, ModelFileError
from corral.llamafile import bundles
from corral.messages import Progress
from corral.names import Name
from corral.store import Layer, MediaType, Store, Stored, disk
from corral.store.blobs import require_space

__all__ = ["Runtime", "check_free", "check_weights", "layers_of", "write"]

_BOOTSTRAP = Path(__file__).with_name("bootstrap.py")


def write(name: Name, store: Store, runtime: Runtime, path: Path, report: Report, *, replaces: bool = False) -> int:
    """Writes a bundle of a model of the store to `path`, which appears when it is complete; its bytes.

    `BadRequest` where there is such a file and it is not to be replaced, or the model cannot be in a bundle,
    `ModelNotFound`, `StoreError` also for a blob that is damaged, `DiskFull`.
    """
    stored = store.manifest(name)
    weights, others = layers_of(stored)
    size = sum(layer.size for layer in (weights, *others)) + runtime.size
    with _appearing(path, size, replaces=replaces) as file:
        copied(store, weights, file, report)
        with Tail(file, weights.size) as tail:
            tail.add(bundles.DESCRIPTION, _description(stored, weights, runtime))
            tail.add("__main__.py", _BOOTSTRAP.read_bytes())
            tail.add(bundles.MANIFEST, stored.manifest.raw)
            for layer in others:
                tail.add_blob(bundles.member_of(layer.digest), store, layer, report)
            for member, source in runtime.files.items():
                tail.add_file(member, source)
        report(Progress("writing bundle"))
        return file.seek(0, os.SEEK_END)


def layers_of(stored: Stored) -> tuple[Layer, list[Layer]]:
    """The weights, and every other blob once; `BadRequest` for a model without weights in one GGUF file."""
    manifest = stored.manifest
    weights = [layer for layer in manifest.layers if layer.media_type == MediaType.MODEL]
    if len(weights) != 1:
        reason = "has its weights in several files" if weights else "has no weights in a GGUF file"
        raise BadRequest(f'"{stored.name}" {reason}: a bundle is made of one\ncreate a model of it in one file first')
    others = {layer.digest: layer for layer in manifest.blobs if layer.digest != weights[0].digest}
    return weights[0], list(others.values())


@contextmanager
def _appearing(path: Path, size: int, *, replaces: bool) -> Iterator[FileIO]:
    """A new file of about `size` bytes for writing, at `path` when the block ends well; `BadRequest`, `DiskFull`."""
    check_free(path, replaces=replaces)
    require_space(path.parent, size)
    with disk.explained(path, "writing"):
        target = disk.temporary(path.parent, ".corral-") if replaces else path
        try:
            with disk.appearing(target, disk.temporary(path.parent, ".corral-")) as file:
                yield file
            if replaces:
                target.replace(path)
        finally:
            if replaces:
                target.unlink(missing_ok=True)


def check_free(path: Path, *, replaces: bool) -> None:
    """`BadRequest` where no file may be written at `path`."""
    if path.is_dir():
        raise BadRequest(f'"{path}" is a folder')
    if os.path.lexists(path) and not replaces:
        raise BadRequest(f'"{path}" exists already; --force replaces it')
    if not path.parent.is_dir():
        raise BadRequest(f'no such folder: "{path.parent}"')


def check_weights(store: Store, weights: Layer) -> None:
    """`BadRequest` for weights that are one part of several."""
    try:
        split = gguf.read_structure(store.open_path(weights.digest)).split
    except ModelFileError:
        return  # a published layout, which is made anew where it is loaded
    if split is not None and split[1] > 1:
        raise BadRequest("the weights are one part of several: create a model of all of them first, which merges them")


def _description(stored: Stored, weights: Layer, runtime: Runtime) -> bytes:
    described = {
        "version": bundles.VERSION,
        "name": stored.name.full,
        "weights": {"digest": str(weights.digest), "size": weights.size},
        "manifest": str(stored.manifest.digest),
        "corral": __version__,
        "runtime": runtime.description,
    }
    return json.dumps(described, indent=1).encode()
