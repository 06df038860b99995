"""A bundle's model in a store of its own, with its weights where they are: in the bundle."""

from collections.abc import Callable
from pathlib import Path

from corral.errors import CorralError
from corral.llamafile import bundles
from corral.messages import Progress
from corral.models.assemble import throttled_progress
from corral.names import Digest, Name
from corral.sources.files import adopt_layer
from corral.store import Store


def place(path: Path, cache: Path, report: Callable[[Progress], None]) -> tuple[Name, Path]:
    """The model's name, and the folder of the store, below the cache, in which it is.

    The weights are hashed when the bundle was not seen there before, or was touched since; the other layers are copied.
    `ModelFileError`, `StoreError`; nothing is in the store then that was not.
    """
    found = bundles.read(path)
    root = cache / f"model-{bundles.digest_of(found.manifest).short}"
    store = Store(root)
    try:
        created: list[Digest] = []
        try:
            for digest, stretch in found.files.items():
                count = throttled_progress(report, "checking the weights", str(digest), stretch.size)
                if digest == found.weights:
                    store.link_beginning(path, digest, stretch.size, count)
                elif not store.touch(digest, stretch.size):
                    adopt_layer(path, digest, stretch, store, created)
            if not _is_there(store, found):
                store.write_manifest(found.name, found.manifest)
        except BaseException:
            store.discard(created)
            raise
    finally:
        store.close()
    return found.name, root


def _is_there(store: Store, found: bundles.Bundle) -> bool:
    try:
        return store.manifest(found.name).manifest.raw == found.manifest
    except CorralError:
        return False
