"""One blob on its way to a registry: part after part, or in parallel where the registry sends the parts elsewhere.

Knows bytes and their digest, not what they mean. Rules: spec cli §9.3. A plain registry takes the parts one after the
other and can be asked how much it has; Ollama's answers each with an address of its own to put the part.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

import aiohttp
from yarl import URL

from corral import names
from corral.errors import InvalidName, NotFound, SourceError, StoreError, Unreachable
from corral.messages import Progress
from corral.sources.registry.errors import Contradiction, Interrupted, StatusError, is_retryable, redacted
from corral.sources.registry.limits import TransferLimits
from corral.sources.registry.parallel import first_error
from corral.sources.registry.repository import Repository, check_redirect, resolve
from corral.sources.registry.retry import retry
from corral.sources.registry.transfer import PROGRESS_SECONDS
from corral.store import Layer, disk
from corral.system.files import read_at

P = ParamSpec("P")
T = TypeVar("T")

_READ_BYTES = 1 << 20
_PARALLEL_PARTS = 16
_COMMIT_SECONDS = 1800.0
"""A registry may read all of a blob again before it says that it has it."""

_PART_SECONDS = 120.0
"""How long it may take over its answer once it has all of a part."""

_MAX_UNFINISHED = 1000

_STORED_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,18})\Z", re.ASCII)


class _UploadLostError(SourceError):
    """The registry does not know the upload any more: it begins anew."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the next part goes, and how many bytes the registry has."""

    location: URL
    offset: int = 0


class UnfinishedUploads:
    """Where uploads that were begun and not finished can go on, by the blob's URL.

    Of more than `most` the oldest are forgotten, as registries themselves forget them after a while.
    """

    def __init__(self, most: int = _MAX_UNFINISHED) -> None:
        self._most = most
        self._locations: dict[URL, URL] = {}

    def take(self, blob: URL) -> URL | None:
        """The upload's location, for one caller alone: another push of the same blob begins an upload of its own."""
        return self._locations.pop(blob, None)

    def put(self, blob: URL, location: URL) -> None:
        """Notes where the upload of a blob can go on."""
        self._locations.pop(blob, None)
        self._locations[blob] = location
        if len(self._locations) > self._most:
            del self._locations[next(iter(self._locations))]


class Upload:
    """Sends one blob.

    `is_first`: it is the first request to the registry, which is given up when it cannot be reached; later it is tried
    again. `unfinished`: what earlier uploads left, and where this one is noted if it does not end.
    """

    def __init__(
        self,
        repository: Repository,
        layer: Layer,
        path: Path,
        *,
        is_first: bool = False,
        limits: TransferLimits,
        executor: Executor,
        unfinished: UnfinishedUploads,
    ) -> None:
        self._repository = repository
        self._layer = layer
        self._path = path
        self._is_first = is_first
        self._limits = limits
        self._executor = executor
        self._unfinished = unfinished
        self._url = repository.blob_url(layer.digest)
        self._part_size = limits.part_size(layer.size)
        self.connections = 1 if layer.size <= self._part_size else limits.connections
        """How many of a push's it counts for: all when it has parts, which the registry may take side by side."""
        self._descriptor = -1  # of the blob, while it is sent
        self._stored = 0
        """Bytes that the registry has confirmed."""
        self._in_flight: dict[int, int] = {}
        """Bytes sent of each part that is not confirmed, by where the part begins."""
        self._completed = 0
        self._is_redirecting = False
        self._resume_at: URL | None = None
        """Where a later push can go on."""

    async def watch(self) -> AsyncGenerator[Progress, None]:
        """Sends it, and says how far it is every `PROGRESS_SECONDS` and at the end. Leaving early stops it."""
        task = asyncio.create_task(self._run(), name=f"push {self._layer.digest.short}")
        try:
            while not task.done():
                yield self._progress()
                await asyncio.wait((task,), timeout=PROGRESS_SECONDS)
            task.result()
            self._completed = self._layer.size
            yield self._progress()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait((task,))

    def _progress(self) -> Progress:
        digest = self._layer.digest
        return Progress(f"pushing {digest.short}", str(digest), self._layer.size, self._completed)

    async def _run(self) -> None:
        if await self._is_stored():
            return
        with disk.explained(self._path, "reading"):
            opened = disk.open_regular(self._path)
        with opened as file:
            self._descriptor = file.fileno()
            try:
                await self._send_until_stored()
            finally:
                if self._resume_at is not None:
                    self._unfinished.put(self._url, self._resume_at)

    async def _send_until_stored(self) -> None:
        """Sends it all, from the beginning again whenever the registry has forgotten what it had."""
        for _ in range(self._limits.retry.attempts + 1):
            try:
                place = await self._begin()
                if place is not None:
                    await self._send(place)
            except _UploadLostError as error:
                lost, self._resume_at = error, None
                continue
            self._resume_at = None
            return
        raise Interrupted(f"max retries exceeded: {lost}") from lost

    async def _is_stored(self) -> bool:
        """Whether the registry has the blob. `Contradiction` if it has another size there."""
        try:
            size = await retry(
                lambda: self._repository.blob_size(self._layer.digest),
                self._limits.retry,
                retryable=self._is_look_retryable,
            )
        except NotFound:
            return False
        if size not in (None, self._layer.size):
            raise Contradiction(f'the registry has {size} bytes of "{self._layer.digest}", not {self._layer.size}')
        return True

    def _is_look_retryable(self, error: SourceError) -> bool:
        """The first request of a push is not repeated when the registry cannot be reached."""
        return is_retryable(error) and not (self._is_first and isinstance(error, Unreachable))

    async def _begin(self) -> _Place | None:
        """Goes on with an upload that was begun earlier, or begins one; None when the blob is there by a mount."""
        known = self._unfinished.take(self._url)
        if known is not None and (place := await self._find_known(known)) is not None:
            return place
        url = self._repository.uploads_url()
        if source := _mountable(self._layer, self._repository.name):
            url = url.with_query({"mount": str(self._layer.digest), "from": source})

        async def begin() -> _Place | None:
            headers = {"Content-Length": "0"}
            async with (
                self._repository.http.answer_time("POST", url),
                self._repository.open("POST", url, headers=headers, follow=()) as response,
            ):
                if response.status == 201:
                    return None
                if response.status != 202:
                    raise Contradiction(f'"{redacted(url)}" answered with the status {response.status}')
                return _Place(self._next_location(response))

        return await self._retry(begin)

    async def _send(self, place: _Place) -> None:
        self._stored = place.offset
        starts = range(0, self._layer.size, self._part_size)
        try:
            async with asyncio.TaskGroup() as group:
                hashes = group.create_task(self._hash_parts(starts))
                free = asyncio.Semaphore(_PARALLEL_PARTS)
                for start in starts:
                    if self._end(start) <= place.offset:
                        continue
                    place, direct = await self._patch(place, start)
                    self._resume_at = place.location if direct is None else None
                    if direct is not None:
                        self._is_redirecting = True
                        await free.acquire()
                        put = group.create_task(self._put(direct, start))
                        put.add_done_callback(lambda _: free.release())
        except BaseExceptionGroup as errors:
            leaf = first_error(errors)
            raise leaf from leaf.__cause__
        await self._finish(place, hashes.result())

    async def _patch(self, place: _Place, start: int) -> tuple[_Place, URL | None]:
        """Sends what is missing of a part: where the next one goes, and where this one is wanted instead, if it is.

        `_UploadLostError` when the registry does not know the upload any more.
        """
        end = self._end(start)
        is_repeated = False

        async def patch() -> tuple[_Place, URL | None]:
            nonlocal place, is_repeated
            if is_repeated and not self._is_redirecting:
                place = await self._ask_again(place)
                if place.offset >= end:
                    return place, None
            is_repeated = True
            try:
                return await self._patch_once(place, start, end)
            except StatusError as error:
                if error.code in (404, 416) and not self._is_redirecting:
                    raise _UploadLostError(str(error)) from error
                raise

        return await self._retry(patch)

    async def _patch_once(self, place: _Place, start: int, end: int) -> tuple[_Place, URL | None]:
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(end - place.offset),
            "Content-Range": f"{place.offset}-{end - 1}",
            "X-Redirect-Uploads": "1",
        }
        if not self._is_redirecting:
            self._stored = place.offset
        async with self._sending("PATCH", place.location, headers, place.offset, end) as response:
            following = self._next_location(response)
            if response.status != 307:
                self._stored = end
                return _Place(following, end), None
            target = resolve(response.url, response.headers.get("Location", ""))
            check_redirect(response.url, target)
            return _Place(following, end), target

    async def _put(self, url: URL, start: int) -> None:
        """Sends a whole part to where the registry wants it."""
        end = self._end(start)

        async def put() -> None:
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(end - start)}
            async with self._sending("PUT", url, headers, start, end):
                self._stored += end - start

        await self._retry(put)

    async def _finish(self, place: _Place, hashes: list[bytes]) -> None:
        etag = f"{hashlib.md5(b''.join(hashes), usedforsecurity=False).hexdigest()}-{len(hashes)}"
        joint = "&" if place.location.raw_query_string else "?"
        url = URL(f"{place.location}{joint}digest={self._layer.digest}&etag={etag}", encoded=True)
        try:
            async with (
                self._repository.http.answer_time("PUT", url, _COMMIT_SECONDS),
                self._repository.open("PUT", url, headers={"Content-Length": "0"}, follow=()),
            ):
                pass
        except SourceError as error:
            if not is_retryable(error) and not (isinstance(error, StatusError) and error.code == 404):
                raise
            if not await self._is_stored():  # it may have been the answer alone that was lost
                raise _UploadLostError(str(error)) from error

    async def _find_known(self, location: URL) -> _Place | None:
        """Where an upload that was begun earlier goes on; None if the registry does not know it."""
        try:
            return await self._retry(lambda: self._ask(location))
        except StatusError:
            return None

    async def _ask_again(self, place: _Place) -> _Place:
        """How much the registry has of the upload under way, after a request has failed."""
        try:
            found = await self._ask(place.location)
        except StatusError as error:
            if is_retryable(error):
                raise
            found = None
        if found is None:
            raise _UploadLostError("the registry does not know the upload any more")
        return found

    async def _ask(self, location: URL) -> _Place | None:
        """How much of an upload the registry has; None if it does not say."""
        async with (
            self._repository.http.answer_time("GET", location),
            self._repository.open("GET", location, follow=()) as response,
        ):
            if response.status != 204:
                return None
            match = _STORED_RANGE.match(response.headers.get("Range", ""))
            last = int(match[1]) if match else 0  # "0-0" is what registries say of an empty upload
            return _Place(self._next_location(response), last + 1 if last else 0)

    def _next_location(self, response: aiohttp.ClientResponse) -> URL:
        location = response.headers.get("Docker-Upload-Location", "")
        if not location and response.status != 307:
            location = response.headers.get("Location", "")
        if not location:
            return response.url
        target = resolve(response.url, location)
        check_redirect(response.url, target)
        return target

    @asynccontextmanager
    async def _sending(
        self, method: str, url: URL, headers: Mapping[str, str], start: int, end: int
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            async with (
                asyncio.timeout(self._limits.stall) as stall_timeout,
                self._repository.open(
                    method, url, headers=headers, data=lambda: self._body(start, end, stall_timeout), follow=()
                ) as response,
            ):
                yield response
        except TimeoutError as error:
            raise Interrupted(f"upload stalled: nothing was taken for {self._limits.stall:g} s") from error
        finally:
            self._in_flight.pop(start, None)

    async def _body(self, start: int, end: int, stall_timeout: asyncio.Timeout) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        position = start
        while position < end:
            chunk = await self._in_thread(read_at, self._descriptor, min(_READ_BYTES, end - position), position)
            if not chunk:
                raise StoreError(f'"{self._path}" was cut short by another program')
            yield chunk
            position += len(chunk)
            stall_timeout.reschedule(loop.time() + (self._limits.stall if position < end else _PART_SECONDS))
            self._in_flight[start] = position - start
            self._completed = max(self._completed, min(self._stored + sum(self._in_flight.values()), self._layer.size))

    async def _hash_parts(self, starts: Iterable[int]) -> list[bytes]:
        return [await self._in_thread(self._md5, start, self._end(start)) for start in starts]

    def _md5(self, start: int, end: int) -> bytes:
        hashed = hashlib.md5(usedforsecurity=False)
        while start < end and (chunk := read_at(self._descriptor, min(_READ_BYTES, end - start), start)):
            hashed.update(chunk)
            start += len(chunk)
        return hashed.digest()

    def _end(self, start: int) -> int:
        return min(start + self._part_size, self._layer.size)

    async def _retry(self, action: Callable[[], Awaitable[T]]) -> T:
        return await retry(action, self._limits.retry)

    async def _in_thread(self, function: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
        call = partial(function, *arguments, **keywords)
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)


def _mountable(layer: Layer, target: names.Name) -> str:
    """`namespace/model` on the same registry that the layer was taken from; empty if there is none."""
    try:
        source = names.parse(layer.from_) if layer.from_ else target
    except InvalidName:
        return ""
    is_other = (source.namespace, source.model) != (target.namespace, target.model)
    return f"{source.namespace}/{source.model}" if is_other and source.host.lower() == target.host.lower() else ""
