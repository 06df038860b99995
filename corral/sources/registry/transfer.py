"""One blob on its way into the store: slices fetched in parallel, in order, hashed as they arrive, kept if we stop.

Knows bytes and their digest, not what they mean. Rules: spec cli §9.2. A part has a ledger; what is asked for in one
request is a slice, much smaller than a part, so that the file grows nearly from front to back: its beginning can be
hashed while the rest arrives, and the digest is known with the last byte.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial as partial_call
from typing import ParamSpec, TypeVar

from aiohttp import StreamReader

from corral.errors import CorralError, NotFound, SourceError, StoreError
from corral.messages import Progress
from corral.names import Digest
from corral.sources.registry.errors import Contradiction, Interrupted
from corral.sources.registry.ledger import Partial, Span, arrived, open_partial
from corral.sources.registry.limits import TransferLimits
from corral.sources.registry.parallel import first_error
from corral.sources.registry.repository import BlobSource
from corral.sources.registry.retry import retry
from corral.store import Layer, Store

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

PROGRESS_SECONDS = 0.06
"""Between two lines of progress (spec api §15.3)."""

_POLL_SECONDS = 0.25
_HASH_AHEAD_BYTES = 32 << 20


class _WrongBytesError(Contradiction):
    """The bytes that came are not the blob's: none of them can be kept."""


class DigestMismatchError(_WrongBytesError):
    """What came is not what was asked for (spec api §15.3)."""

    def __init__(self, wanted: Digest, actual: Digest) -> None:
        super().__init__(f"digest mismatch, file must be downloaded again: want {wanted}, got {actual}")


class _StalledError(SourceError):
    """No connection has brought data for so long that the transfer ends."""


def is_stored(store: Store, layer: Layer) -> bool:
    """Whether the store has a layer, whole and sound. Blocking."""
    try:
        store.open_path(layer.digest)
        return store.blob_size(layer.digest) == layer.size
    except (NotFound, StoreError):
        return False


@dataclass(slots=True)
class _Slice:
    """What is still to come, of what one request asks for: from `position` (inclusive) to `end` (exclusive)."""

    position: int
    end: int


class Transfer:
    """A blob being fetched by one task, for any number of waiters; it stops when the last of them leaves."""

    def __init__(
        self, source: BlobSource, store: Store, layer: Layer, limits: TransferLimits, executor: Executor
    ) -> None:
        self.layer = layer
        self._source = source
        self._store = store
        self._blob = store.blob_path(layer.digest)
        self._limits = limits
        self._executor = executor
        self._slices: list[_Slice] = []
        self._next_slice = 0
        """The first slice that no connection has taken."""
        self._first_unfinished = 0
        self._missing_bytes = layer.size
        self._missing_in_ledgers = layer.size
        self._hashed = 0
        self._completed = 0
        """Bytes that have been reported as arrived; never less than before."""
        self._last_data = asyncio.get_running_loop().time()
        self._waiters = 0
        self._is_ranged: bool | None = None
        self._first_answer = asyncio.Event()
        self._written = asyncio.Event()
        self._checkpoint_due = asyncio.Event()
        self._start_known: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when `_completed` says what earlier attempts left."""
        self._task = asyncio.create_task(self._run(), name=f"pull {layer.digest.short}")

    @property
    def is_over(self) -> bool:
        """Whether it takes no more waiters."""
        return self._task.done() or self._task.cancelling() > 0

    async def watch(self) -> AsyncGenerator[Progress, None]:
        """How far it is, every `PROGRESS_SECONDS` and at the end, which comes with the blob in the store.

        Leaving early stops the transfer if there is no other waiter; what has arrived is kept.
        """
        self._waiters += 1
        try:
            await asyncio.wait((self._task, self._start_known), return_when=asyncio.FIRST_COMPLETED)
            while not self._task.done():
                yield self._progress(self._completed)
                await asyncio.wait((self._task,), timeout=PROGRESS_SECONDS)
            if self._task.cancelled():
                raise Interrupted("the download was stopped")
            self._task.result()
            yield self._progress(self.layer.size)
        finally:
            self._waiters -= 1
            if not self._waiters:
                await self.stop()

    async def stop(self) -> None:
        """Ends it, whatever waiters there are; what has arrived is kept."""
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait((self._task,))

    def _progress(self, completed: int) -> Progress:
        digest = self.layer.digest
        return Progress(f"pulling {digest.short}", str(digest), self.layer.size, completed)

    async def _run(self) -> None:
        async with self._source.http.hold():
            partial = await self._claim()
            if partial is None:
                return
            try:
                await self._fill(partial)
                actual = partial.actual_digest()
                if actual != self.layer.digest:
                    raise DigestMismatchError(self.layer.digest, actual)
                await self._in_thread(partial.commit, self._blob)
            except BaseException as error:
                await self._keep_or_remove(partial, error)
                raise
            finally:
                await self._in_thread(partial.close)

    async def _claim(self) -> Partial | None:
        """The partial file, once it is ours alone; None if meanwhile another process has finished the blob."""
        size = self.layer.size
        while True:
            partial = await self._open()
            if partial is not None and await self._is_wanted(partial):
                return partial
            if await self._is_stored():
                return None
            self._completed = max(self._completed, await self._in_thread(arrived, self._blob, size))
            self._set_start_known()
            await asyncio.sleep(_POLL_SECONDS)

    async def _open(self) -> Partial | None:
        """The partial file if it is free. When we are stopped meanwhile, its claim is given back."""
        part_size = self._limits.part_size(self.layer.size)
        opening = asyncio.ensure_future(self._in_thread(open_partial, self._blob, self.layer.size, part_size))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            if (partial := await opening) is not None:
                await self._in_thread(partial.close)
            raise

    async def _is_wanted(self, partial: Partial) -> bool:
        """Whether the blob is still to come; if it has come, or we are stopped while looking, the claim ends."""
        is_wanted = False
        try:
            is_wanted = not await self._is_stored()
            if not is_wanted:
                await self._in_thread(partial.remove)
        finally:
            if not is_wanted:
                await self._in_thread(partial.close)
        return is_wanted

    async def _is_stored(self) -> bool:
        return await self._in_thread(is_stored, self._store, self.layer)

    async def _fill(self, partial: Partial) -> None:
        """Fetches what is missing and hashes all of it."""
        slice_size = self._limits.slice_size(partial.total)
        self._slices = [
            _Slice(offset, min(offset + slice_size, end))
            for start, end in partial.missing
            for offset in range(start, end, slice_size)
        ]
        self._count_missing()
        self._set_start_known()
        self._missing_in_ledgers = self._missing_bytes
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._hash(partial))
                saver = group.create_task(self._save_regularly(partial))
                async with asyncio.TaskGroup() as fetchers:
                    for number in range(min(self._limits.connections_for(partial.total), len(self._slices))):
                        fetchers.create_task(self._fetch_slices(partial, is_first=number == 0))
                saver.cancel()
        except BaseExceptionGroup as errors:
            leaf = first_error(errors)
            raise leaf from leaf.__cause__

    async def _keep_or_remove(self, partial: Partial, error: BaseException) -> None:
        """Keeps what has arrived, to be gone on with, but nothing of what has proven wrong."""
        try:
            if isinstance(error, _WrongBytesError) or not self._completed:
                await self._in_thread(partial.remove)
            else:
                await self._in_thread(partial.save, self._missing())
        except CorralError as second:
            logger.warning("what has arrived of %s may be lost: %s", self.layer.digest, second)

    async def _fetch_slices(self, partial: Partial, *, is_first: bool) -> None:
        """Fetches one slice after the other that no other connection has taken."""
        if not is_first:  # the first answer says where the bytes are, and whether in ranges
            await self._first_answer.wait()
        while self._next_slice < len(self._slices):
            slice_ = self._slices[self._next_slice]
            self._next_slice += 1
            await self._fetch_slice(partial, slice_)

    async def _fetch_slice(self, partial: Partial, slice_: _Slice) -> None:
        at_last_failure = slice_.position

        def has_progressed() -> bool:
            nonlocal at_last_failure
            progress, at_last_failure = slice_.position - at_last_failure, slice_.position
            return progress >= self._limits.trickle_bytes

        async def fetch() -> None:
            while slice_.position < slice_.end:
                await self._request(partial, slice_)

        await retry(fetch, self._limits.retry, has_progressed=has_progressed)

    async def _request(self, partial: Partial, slice_: _Slice) -> None:
        """One request for what is missing of a slice, given up when it stalls.

        A stall is no error as long as some connection brings data; then the slice is to be asked for again at once.
        """
        try:
            async with (
                asyncio.timeout(self._limits.stall) as stall_timeout,
                self._source.open(slice_.position, slice_.end) as answer,
            ):
                skip = 0
                if not answer.is_ranged:
                    self._take_whole(slice_)
                    skip = slice_.position
                elif self._is_ranged is None:
                    self._is_ranged = True
                self._first_answer.set()
                await self._receive(partial, slice_, answer.stream, skip, stall_timeout)
        except TimeoutError as error:
            if asyncio.get_running_loop().time() - self._last_data >= self._limits.silence:
                raise _StalledError(f"download stalled: no data for {self._limits.silence:g} s") from error

    def _take_whole(self, slice_: _Slice) -> None:
        """Makes one slice of all that is missing, for a server that begins at the beginning whatever it is asked."""
        if self._is_ranged:
            raise Interrupted("the registry stopped answering in ranges")
        if self._is_ranged is None:
            self._is_ranged = False
            start = slice_.position
            for other in self._slices:
                other.position = other.end
            slice_.position, slice_.end = start, self.layer.size
            self._count_missing()

    async def _receive(
        self, partial: Partial, slice_: _Slice, stream: StreamReader, skip: int, stall_timeout: asyncio.Timeout
    ) -> None:
        """Writes what comes after the first `skip` bytes; what has come when the stream breaks off is written, too."""
        chunks: list[bytes] = []
        buffered = since_progress = 0
        try:
            while slice_.position + buffered < slice_.end:
                chunk = await stream.readany()
                if not chunk:
                    raise Interrupted("the answer ended early")
                since_progress += len(chunk)
                if since_progress >= self._limits.trickle_bytes:
                    since_progress = 0
                    self._last_data = asyncio.get_running_loop().time()
                    stall_timeout.reschedule(self._last_data + self._limits.stall)
                if skip:
                    skipped = min(skip, len(chunk))
                    skip, chunk = skip - skipped, chunk[skipped:]
                chunks.append(chunk)
                buffered += len(chunk)
                if slice_.position + buffered > slice_.end:
                    raise self._too_many()
                if buffered >= self._limits.write_bytes:
                    await self._write(partial, slice_, chunks, buffered)
                    buffered = 0
            if not self._is_ranged and await stream.readany():
                raise self._too_many()
        finally:
            if chunks:
                await self._write(partial, slice_, chunks, buffered)

    def _too_many(self) -> _WrongBytesError:
        return _WrongBytesError(f'"{self.layer.digest}" is larger than the {self.layer.size} bytes announced')

    async def _write(self, partial: Partial, slice_: _Slice, chunks: list[bytes], size: int) -> None:
        """Puts the chunks in their place and empties the list, in this order: writing them twice does no harm."""
        await self._in_thread(partial.write, slice_.position, chunks)
        chunks.clear()
        slice_.position += size
        self._missing_bytes -= size
        self._completed = max(self._completed, self.layer.size - self._missing_bytes)
        self._written.set()
        if self._missing_in_ledgers - self._missing_bytes >= self._limits.checkpoint_bytes:
            self._checkpoint_due.set()

    async def _hash(self, partial: Partial) -> None:
        """Follows the growing beginning of the file with the digest."""
        while self._hashed < self.layer.size:
            self._written.clear()
            end = min(self._first_missing(), self._hashed + _HASH_AHEAD_BYTES)
            if end == self._hashed:
                await self._written.wait()
                continue
            await self._in_thread(partial.hash, self._hashed, end)
            self._hashed = end

    async def _save_regularly(self, partial: Partial) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.checkpoint_seconds):
                    await self._checkpoint_due.wait()
            self._checkpoint_due.clear()
            if self._missing_in_ledgers != self._missing_bytes:
                self._missing_in_ledgers = self._missing_bytes
                await self._in_thread(partial.save, self._missing())

    def _set_start_known(self) -> None:
        if not self._start_known.done():
            self._start_known.set_result(None)

    def _first_missing(self) -> int:
        """Where the first byte that is still missing belongs; the blob's size when none is."""
        while self._first_unfinished < len(self._slices):
            slice_ = self._slices[self._first_unfinished]
            if slice_.position < slice_.end:
                return slice_.position
            self._first_unfinished += 1
        return self.layer.size

    def _missing(self) -> list[Span]:
        return [(slice_.position, slice_.end) for slice_ in self._slices if slice_.position < slice_.end]

    def _count_missing(self) -> None:
        self._missing_bytes = sum(end - start for start, end in self._missing())
        self._completed = max(self._completed, self.layer.size - self._missing_bytes)

    async def _in_thread(self, function: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
        call = partial_call(function, *arguments, **keywords)
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)
