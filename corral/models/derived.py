"""What the engine is given of a model whose files it would not load as they were published: found, or made once.

`corral.published` says which files these are and what is to be made of them, `deriving` writes it in a child process,
`corral.store.derived` keeps it. Who asks for a file that is being made, here or by another server, waits for that.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import aclosing, suppress
from pathlib import Path

from msgspec import Struct

from corral import published
from corral.cage import Cage
from corral.errors import CorralError, DiskFull
from corral.gguf import GGUF
from corral.golang.units import byte_text
from corral.job import Job
from corral.messages import Progress
from corral.models.model import Model
from corral.names import Digest, parse_digest
from corral.store import Store, disk
from corral.store.derived import Claim, Entry, Made, step

log = logging.getLogger(__name__)

_LOOK_AGAIN = 0.1
"""Seconds between looks at whether another has made the file."""

_LOG_EVERY = 5.0
"""Seconds between two lines of the log about a file in the making."""


class EngineFiles(Struct, frozen=True):
    """What a worker is to load, and what of it was made for it."""

    model: str
    projectors: tuple[str, ...]
    derived: tuple[Entry, ...] = ()

    @property
    def use(self) -> "DerivedUse | None":
        """What was made, in bytes; None where nothing was."""
        made = [entry.made for entry in self.derived]
        return DerivedUse(sum(one.size for one in made), sum(one.disk_bytes for one in made)) if made else None


class DerivedUse(Struct, frozen=True):
    """What the engine is given instead of a model's own files: all bytes, those that take room, and whether they are
    there yet; else the numbers are those of files that share nothing."""

    size: int
    disk: int
    made: bool = True


class Deriver:
    """The derived files of one server. `engine` names the build that models are loaded with now, for which they are
    made; it may read files.

    `most_bytes`: what all of them may take on the disk together, 0 for as much as there is; the least recently used go
    first. `in_use` gives the paths of the blobs that are loaded, whose files stay. `cage`: how the child process that
    writes them is shut in.
    """

    def __init__(
        self,
        store: Store,
        engine: Callable[[], str],
        most_bytes: int = 0,
        in_use: Callable[[], Collection[str]] = tuple,
        cage: Cage = Cage(),  # noqa: B008 - frozen
    ) -> None:
        self._store = store
        self._engine = engine
        self._most = most_bytes
        self._in_use = in_use
        self._cage = cage
        self._given: dict[str, EngineFiles] = {}
        self._rules: dict[Path, str] = {}
        """By which rules something is made of a blob, whose bytes never change; empty where nothing is."""

    def key(self, rules: str) -> str:
        """The name of what is made by these rules for the engine that is chosen now. Blocking."""
        return f"{rules}-{self._engine()}"

    def know(self, model: Model) -> None:
        """Takes over what is known of a model's files, whose headers are then not read again at each load."""
        with suppress(CorralError):
            self._rules[model.weights] = model.file.rules
        with suppress(CorralError):
            if model.projector_file is not None:
                self._rules[model.projectors[0]] = model.projector_file.rules

    async def files(
        self,
        model: str,
        projectors: Sequence[str],
        label: str,
        report: Callable[[Progress], None] = lambda step: None,
    ) -> EngineFiles:
        """The files to load, made where they are missing; `report` gets the steps of that.

        `label` names the model in the log. Errors as those of `Making.steps`.
        """
        entries: list[Entry] = []
        text, encoders = model, list(projectors)
        made = await self._ready(Path(model), label, report)
        if made is not None:
            entries.append(made)
            text = str(made.text or model)
            if made.projector is not None and not encoders:
                encoders = [str(made.projector)]
        for number, path in enumerate(projectors):
            made = await self._ready(Path(path), label, report)
            if made is not None and made.projector is not None:
                entries.append(made)
                encoders[number] = str(made.projector)
        self._given[model] = EngineFiles(text, tuple(encoders), tuple(entries))
        return self._given[model]

    def use_by(self, model: str) -> DerivedUse | None:
        """What the last worker for a model was given instead of its files; `model` is the path of its weights."""
        given = self._given.get(model)
        return None if given is None else given.use

    async def steps(self, paths: Sequence[Path]) -> AsyncGenerator[Progress, None]:
        """Makes what is missing for these blobs, with progress as a pull shows it. Errors: `Making.steps`."""
        for path in paths:
            making = Making(self, path)
            async with aclosing(making.steps()) as steps:
                async for one in steps:
                    yield one

    def use_of(self, model: Model) -> DerivedUse | None:
        """What is or will be made of the model's files; None where the engine is given them as they are. Blocking."""
        files = [(model.weights, model.file)]
        if model.projector_file is not None:
            files.append((model.projectors[0], model.projector_file))
        uses = [self._use_of(path, file) for path, file in files if file.rules]
        if not uses:
            return None
        return DerivedUse(sum(use.size for use in uses), sum(use.disk for use in uses), all(use.made for use in uses))

    def _use_of(self, path: Path, file: published.File) -> DerivedUse:
        entry = self._store.derived.find(parse_digest(path.name), self.key(file.rules), use=False)
        if entry is None:
            size = _sizes(file, shares=False)
            return DerivedUse(size, size, made=False)
        return DerivedUse(entry.made.size, entry.made.disk_bytes)

    async def _ready(self, path: Path, label: str, report: Callable[[Progress], None]) -> Entry | None:
        making = Making(self, path)
        began, shown = time.monotonic(), -math.inf
        async with aclosing(making.steps()) as steps:
            async for one in steps:
                report(one)
                if time.monotonic() > shown + _LOG_EVERY:
                    shown = time.monotonic()
                    done = 100 * one.completed // one.total if one.total else 0
                    log.info("model %s: %s, %d %%", label, one.status, done)
        if making.entry is not None and shown > 0:
            made, seconds = making.entry.made, time.monotonic() - began
            log.info(
                "model %s: %s were made for the engine in %.1f s, which take %s on the disk",
                *(label, byte_text(made.size), seconds, byte_text(made.disk_bytes)),
            )
        return making.entry

    # For `Making`

    @property
    def store(self) -> Store:
        return self._store

    @property
    def cage(self) -> Cage:
        return self._cage

    async def rules_of(self, path: Path) -> str:
        """By which rules something is made of a blob; `ModelFileError` for one that cannot be loaded."""
        if path not in self._rules:
            self._rules[path] = (await self._store.run(published.read, path)).rules
        return self._rules[path]

    def make_room(self, digest: Digest, file: published.File) -> None:
        """Deletes files not used for longest until a new one fits; `DiskFull` with how much it takes, and why."""
        folder = self._store.derived.folder
        with disk.explained(folder, "making"):
            folder.mkdir(parents=True, exist_ok=True)
            sizes = _sizes(file, shares=disk.can_clone(folder))
        entries = [entry for entry in self._store.derived.entries() if entry.digest != digest]
        loaded = set(self._in_use())
        idle = [entry for entry in entries if str(self._store.blob_path(entry.digest)) not in loaded]
        kept = sum(entry.made.disk_bytes for entry in entries)
        while idle and ((self._most and kept + sizes > self._most) or disk.free_bytes(folder) < sizes):
            oldest = idle.pop(0)
            log.info("files made for the engine of %s are deleted to make room", oldest.digest)
            self._store.derived.delete(oldest)
            kept -= oldest.made.disk_bytes
        free = disk.free_bytes(folder)
        if free < sizes:
            raise DiskFull(
                "the engine cannot load this model's file as it was published, and what it can load is made of it: "
                f'{byte_text(sizes)} are needed for that on the disk that holds "{folder}", {byte_text(free)} are free'
            )


class Making:
    """What is made of one blob: iterate `steps` to its end, then `entry` is there; None: the blob itself is loaded."""

    entry: Entry | None = None

    def __init__(self, deriver: Deriver, path: Path) -> None:
        self._deriver = deriver
        self._path = path

    async def steps(self) -> AsyncGenerator[Progress, None]:
        """Progress while it is made, none where there is nothing to do, and one step while another program makes it.

        `ModelFileError` for a file that cannot be loaded, `StoreError`, `DiskFull`.
        """
        store = self._deriver.store
        if self._path.parent != store.blobs_folder:
            return
        rules = await self._deriver.rules_of(self._path)
        if not rules:
            return
        digest, key = parse_digest(self._path.name), await store.run(self._deriver.key, rules)
        has_waited = False
        while (entry := await store.run(store.derived.find, digest, key)) is None:
            claim = await self._claim(digest)
            if claim is None:
                if not has_waited:
                    yield step()
                has_waited = True
                await asyncio.sleep(_LOOK_AGAIN)
                continue
            try:
                if await store.run(store.derived.find, digest, key) is None:
                    async with aclosing(self._make(claim, digest, key, rules)) as steps:
                        async for one in steps:
                            yield one
            finally:
                await store.run(claim.release)
        self.entry = entry

    async def _claim(self, digest: Digest) -> Claim | None:
        """The claim, which is given back even when this is cancelled while a thread gets it."""
        store = self._deriver.store
        claiming = asyncio.ensure_future(store.run(store.derived.claim, digest))
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            claiming.add_done_callback(_release)
            raise

    async def _make(self, claim: Claim, digest: Digest, key: str, rules: str) -> AsyncGenerator[Progress, None]:
        store = self._deriver.store
        file = await store.run(published.read, self._path)
        yield step(0, _sizes(file, shares=False))
        await store.run(self._deriver.make_room, digest, file)
        job = Job(
            "corral.models.deriving:derive",
            Made,
            "preparing the model",
            cage=self._deriver.cage,
            source=self._path,
            rules=rules,
            target=claim.folder,
        )
        shown = -1
        async with aclosing(job.steps()) as steps:
            async for one in steps:
                part = 100 * one.completed // one.total if one.total else 0
                if part > shown:
                    shown = part
                    yield one
        await store.run(claim.publish, key, job.result)


def _release(claiming: asyncio.Future[Claim | None]) -> None:
    if not claiming.cancelled() and claiming.exception() is None and (claim := claiming.result()) is not None:
        claim.release()


def _sizes(file: published.File, *, shares: bool) -> int:
    """Bytes that writing takes at most; where blocks may be shared, without what the blob has."""
    text = file.text if file.derives_text else None
    projector: GGUF | None = file.projector if file.published_gguf.kind != "projector" else file.text
    texts = 0 if text is None else min(text.size, 2 * text.data_offset + _ENDS) if shares else text.size
    if projector is None:
        return texts
    ends = len(projector.tensors) * _TENSOR_ENDS
    own = min(projector.size, 2 * projector.data_offset + file.computed_bytes + ends) if shares else projector.size
    return texts + own


_ENDS = 1 << 20
"""Room for the blocks at the ends of a text's shared stretches."""
_TENSOR_ENDS = 1 << 15
"""The same for a tensor of a projector, or all of it where it is smaller."""
