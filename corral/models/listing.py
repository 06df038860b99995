"""What lists show of the models of a store: looked for on disk, and kept for as long as nothing there has changed.

`store.watch` says whether something has, where that can be known; elsewhere each list looks again.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from corral.background import Threads
from corral.errors import CorralError
from corral.models.index import Index, Signature, Summary
from corral.names import Digest
from corral.store import MediaType, Store, Stored
from corral.store.watch import Watch

log = logging.getLogger(__name__)

_SHORT = 100
"""Models that are looked through in less time than it takes to have a thread do it."""

_DEPTH = 3
"""Folders below that of the manifests: of a host, a namespace and a model, in which each tag is a file."""

_TURN = 1.0
"""Seconds for which one list may make summaries before another has its turn."""

_SUMMARISED = frozenset({MediaType.CONFIG, MediaType.MODEL, MediaType.PROJECTOR, MediaType.TEMPLATE, MediaType.PROMPT})
"""The layers a summary is made of."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A model as lists show it."""

    stored: Stored
    summary: Summary


@dataclass(frozen=True, eq=False)
class Listing:
    """All models, newest first: the same object while nothing changes, so that what is made of it can be kept, too."""

    models: Sequence[Listed]


@dataclass(slots=True)
class _Look:
    """The store as it was at a moment, and what has been asked of it since."""

    stored: Sequence[Stored]
    digests: Collection[str]
    summaries: dict[Digest, Summary | None]
    """None for a model whose config is broken."""
    watch: Watch
    listing: Listing | None = None


class Lists:
    """The lists of one store, for an event loop: what needs the disk is done in threads. Errors: `StoreError`.

    `summarise` reads a model's files. `setting` is what its summaries depend on besides.
    """

    def __init__(self, store: Store, index: Index, setting: str, summarise: Callable[[Stored], Summary]) -> None:
        self._store = store
        self._index = index
        self._setting = setting
        self._summarise_one = summarise
        self._seen: _Look | None = None
        self._looking = asyncio.Lock()
        self._summarisers = Threads("models-index", 1)
        self._summarising = asyncio.Lock()
        self._unwatched_for = ""

    async def all(self) -> Listing:
        """Those whose config can be read; the others are left out with a warning."""
        look = await self._now()
        if look.listing is None:
            look.listing = Listing(await self._listed(look, look.stored))
        return look.listing

    async def some(self, wanted: Callable[[Stored], bool]) -> list[Listed]:
        """The wanted ones of those; no file of another one is read."""
        look = await self._now()
        if len(look.stored) <= _SHORT:
            found = [stored for stored in look.stored if wanted(stored)]
        else:
            found = await self._store.run(lambda: [stored for stored in look.stored if wanted(stored)])
        return await self._listed(look, found)

    async def look(self) -> None:
        """Has the index forget models that are gone."""
        await self._now()

    def close(self) -> None:
        """Ends what waits for its turn."""
        self._summarisers.close()
        if self._seen is not None:
            self._seen.watch.close()

    async def _now(self) -> _Look:
        """The store as it is, or was at a moment since the call. Calls at the same time share a look."""
        called = time.monotonic()
        if self._seen is not None and self._seen.watch.is_right:
            return self._seen
        async with self._looking:
            seen = self._seen
            if seen is None or not (seen.watch.began >= called or seen.watch.is_right):
                self._seen = seen = await self._store.run(self._look, seen)
        return seen

    async def _listed(self, look: _Look, found: Sequence[Stored]) -> list[Listed]:
        while missing := [stored for stored in found if stored.digest not in look.summaries]:
            async with self._summarising:  # so that one list goes on with what another has begun
                look.summaries |= await self._summarisers.run(self._summarise, missing, look.digests)
        return [Listed(stored, summary) for stored in found if (summary := look.summaries[stored.digest]) is not None]

    def _look(self, before: _Look | None) -> _Look:
        """The store, with the summaries that the index has. The index forgets models that are gone."""
        if before is not None:
            before.watch.close()
        store, watch = self._store, Watch()
        watch.add_tree(store.manifests_folder, _DEPTH)  # before it is read: nothing may change unnoticed in between
        stored = store.list()
        digests = {one.digest.hex for one in stored}
        self._index.save(digests)
        blobs = {digest for one in stored for digest in _summarised(one)}
        watch.add_files(store.blobs_folder, (store.blob_path(digest).name for digest in blobs))
        self._say(watch.blind_for)
        states = {digest: store.size_and_time(digest) for digest in blobs}
        summaries: dict[Digest, Summary | None] = {}
        for one in stored:
            known = tuple(states[digest] for digest in _summarised(one))
            if (summary := self._index.get(one.digest.hex, self._setting, known)) is not None:
                summaries[one.digest] = summary
        return _Look(stored, digests, summaries, watch)

    def _say(self, unwatched_for: str) -> None:
        if unwatched_for and unwatched_for != self._unwatched_for:
            log.info("each list of models looks at the disk: %s", unwatched_for)
        self._unwatched_for = unwatched_for

    def _summarise(self, missing: Sequence[Stored], digests: Collection[str]) -> dict[Digest, Summary | None]:
        """Summaries of the first of these, as many as are made within `_TURN` seconds; None for a broken config.

        They are saved in the index, which keeps no others than those of `digests`.
        """
        end = time.monotonic() + _TURN
        summaries: dict[Digest, Summary | None] = {}
        for stored in missing:
            known = signature(stored, self._store)
            summary = self._index.get(stored.digest.hex, self._setting, known)
            try:
                summary = summary or self._summarise_one(stored)
                self._index.put(stored.digest.hex, self._setting, known, summary)
            except CorralError as error:
                log.warning("%s is left out: %s", stored.name, error)
            summaries[stored.digest] = summary
            if time.monotonic() > end:
                break
        self._index.save(digests)
        return summaries


def signature(stored: Stored, store: Store) -> Signature:
    """What tells the index whether a summary was made of the blobs as they are."""
    return tuple(store.size_and_time(digest) for digest in _summarised(stored))


def _summarised(stored: Stored) -> Sequence[Digest]:
    return [layer.digest for layer in stored.manifest.blobs if layer.media_type in _SUMMARISED]
