"""What was found under the names that are asked for, so that the next request for one need not look at the disk.

Kept as long as nothing that was looked at has changed (`store.watch`); where that cannot be known, nothing is kept.
"""

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

from corral.names import Name
from corral.store import FileState, Store, Stored
from corral.store.watch import Watch

T = TypeVar("T")

_NAMES = 16
"""Names that are watched at once: a system gives all programs of a user 128 such watches."""

_BLIND_SECONDS = 60.0
"""How long no other watch is tried after one that could not note every change."""


@dataclass(frozen=True, slots=True)
class Look:
    """A model, how the files of its blobs are, and what watches all of that, if anything does."""

    stored: Stored
    state: tuple[FileState | None, ...]
    watch: Watch


class Found(Generic[T]):
    """What was made of the last names that were asked for. Belongs to an event loop, but for `look`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: OrderedDict[Name, tuple[Look, T]] = OrderedDict()
        self._blind_until, self._blind_for = 0.0, ""

    def get(self, name: Name) -> T | None:
        """What was made of the model under this name, if it still is the same. Takes microseconds."""
        kept = self._kept.get(name)
        if kept is None or not kept[0].watch.is_right:
            return None
        self._kept.move_to_end(name)
        return kept[1]

    def put(self, name: Name, look: Look, made: T) -> None:
        """Keeps what was made of the model that a look has found."""
        if not look.watch.is_right:
            return
        old = self._kept.pop(name, None)
        self._kept[name] = look, made
        if old is None and len(self._kept) > _NAMES:
            _, old = self._kept.popitem(last=False)
        if old is not None:
            old[0].watch.close()

    def look(self, name: Name) -> Look:
        """Looks for a model. Blocks; errors as those of `Store.manifest`."""
        began, store = time.monotonic(), self._store
        watch = Watch(self._blind_for if began < self._blind_until else "")
        try:
            watch.add_path(store.manifests_folder, name.path.parts)
            stored = store.manifest(name)
            if stored.name != name:  # it is spelled otherwise: another one may come that is spelled like this
                watch.close()
                return Look(stored, store.state(stored.manifest), watch)
            watch.add_files(store.blobs_folder, (store.blob_path(blob.digest).name for blob in stored.manifest.blobs))
            if watch.blind_for and began >= self._blind_until:
                self._blind_until, self._blind_for = began + _BLIND_SECONDS, watch.blind_for
            return Look(stored, store.state(stored.manifest), watch)
        except BaseException:
            watch.close()
            raise

    def close(self) -> None:
        for look, _ in self._kept.values():
            look.watch.close()
