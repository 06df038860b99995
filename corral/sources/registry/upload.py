"""One blob on its way to a registry: part after part, or in parallel where the registry sends the parts elsewhere.

Knows bytes and their digest, not what they mean. Rules: spec cli §9.3. A plain registry takes the parts one after the
other and can be asked how much it has; Ollama's answers each with an address of its own to put the part.
"""

import asyncio
import hashlib
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, MutableMapping
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
from corral.sources.registry.http import Contradiction, Interrupted, StatusError, is_passing, shown
from corral.sources.registry.ledger import part_bytes
from corral.sources.registry.limits import Limits
from corral.sources.registry.parallel import first_error
from corral.sources.registry.repository import Repository, resolve
from corral.sources.registry.retry import patiently, pause
from corral.sources.registry.transfer import PROGRESS_SECONDS
from corral.store import Layer, disk

P = ParamSpec("P")
T = TypeVar("T")

_READ_BYTES = 1 << 20
_PARALLEL_PARTS = 16
_COMMIT_SECONDS = 1800.0
"""A registry may read all of a blob again before it says that it has it."""

_PART_SECONDS = 120.0
"""How long it may take over its answer once it has all of a part."""

_STORED_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,18})\Z", re.ASCII)


class _UploadLostError(SourceError):
    """The registry does not know the upload any more: it begins anew."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the next part goes, and how many bytes the registry has."""

    location: URL
    offset: int = 0


class Upload:
    """Sends one blob. `sessions` remembers, by blob address, the uploads that were begun and not finished.

    `is_first`: nothing was heard of the registry yet, so when nobody answers, that is the end; later it is waited for.
    """

    def __init__(
        self,
        repository: Repository,
        layer: Layer,
        path: Path,
        *,
        is_first: bool = False,
        limits: Limits,
        executor: Executor,
        sessions: MutableMapping[URL, URL],
    ) -> None:
        self._repository = repository
        self._layer = layer
        self._path = path
        self._is_first = is_first
        self._limits = limits
        self._executor = executor
        self._sessions = sessions
        self._url = repository.blob_url(layer.digest)
        self._part_bytes = limits.part_bytes or part_bytes(layer.size)
        self._descriptor = -1  # of the blob, while it is sent
        self._stored = 0
        self._flying: dict[int, int] = {}
        self._completed = 0
        self._is_redirecting = False
        self._reached: URL | None = None
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
        if await self._is_there():
            return
        with disk.explained(self._path, "reading"):
            opened = disk.open_regular(self._path)
        with opened as file:
            self._descriptor = file.fileno()
            try:
                await self._send_at_last()
            finally:
                if self._reached is not None:
                    self._sessions[self._url] = self._reached

    async def _send_at_last(self) -> None:
        """Sends it all, from the beginning again whenever the registry has forgotten what it had."""
        for _ in range(self._limits.attempts + 1):
            try:
                place = await self._begin()
                if place is not None:
                    await self._send(place)
            except _UploadLostError as error:
                lost, self._reached = error, None
                continue
            self._reached = None
            return
        raise Interrupted(f"max retries exceeded: {lost}") from lost

    async def _is_there(self) -> bool:
        try:
            size = await patiently(
                lambda: self._repository.blob_size(self._layer.digest), self._limits, self._may_help_to_ask_again
            )
        except NotFound:
            return False
        if size not in (None, self._layer.size):
            raise Contradiction(f'the registry has {size} bytes of "{self._layer.digest}", not {self._layer.size}')
        return True

    def _may_help_to_ask_again(self, error: SourceError) -> bool:
        """Not where nobody is there: the first question of a push says so at once."""
        return is_passing(error) and not (self._is_first and isinstance(error, Unreachable))

    async def _begin(self) -> _Place | None:
        """Goes on with an upload that was begun earlier, or begins one; None when the blob is there by a mount."""
        known = self._sessions.pop(self._url, None)  # ours alone now: another push of the blob begins its own
        if known is not None and (place := await self._ask(known)) is not None:
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
                    raise Contradiction(f'"{shown(url)}" answered with the status {response.status}')
                return _Place(self._next_location(response))

        return await self._patiently(begin)

    async def _send(self, place: _Place) -> None:
        self._stored = place.offset
        starts = range(0, self._layer.size, self._part_bytes)
        try:
            async with asyncio.TaskGroup() as group:
                hashes = group.create_task(self._hash_parts(starts))
                free = asyncio.Semaphore(_PARALLEL_PARTS)
                for start in starts:
                    if self._end(start) <= place.offset:
                        continue
                    place, direct = await self._patch(place, start)
                    self._reached = place.location if direct is None else None
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
        """Sends what is missing of a part: where the next one goes, and where this one is wanted instead, if it is."""
        end = self._end(start)
        attempt = 0
        while True:
            try:
                return await self._patch_once(place, start, end)
            except SourceError as error:
                if isinstance(error, StatusError) and error.code in (404, 416) and not self._is_redirecting:
                    raise _UploadLostError(str(error)) from error
                if not is_passing(error):
                    raise
                await pause(attempt, error, self._limits)
            attempt += 1
            if not self._is_redirecting:
                asked = await self._ask(place.location)
                if asked is None:
                    raise _UploadLostError("the registry does not know the upload any more")
                place = asked
                if place.offset >= end:
                    return place, None

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
            self._repository.check_redirect(response.url, target)
            return _Place(following, end), target

    async def _put(self, url: URL, start: int) -> None:
        """Sends a whole part to where the registry wants it."""
        end = self._end(start)

        async def put() -> None:
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(end - start)}
            async with self._sending("PUT", url, headers, start, end):
                self._stored += end - start

        await self._patiently(put)

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
            if not is_passing(error) and not (isinstance(error, StatusError) and error.code == 404):
                raise
            if not await self._is_there():  # it may have been the answer alone that was lost
                raise _UploadLostError(str(error)) from error

    async def _ask(self, location: URL) -> _Place | None:
        """How much of an upload the registry has; None if it knows nothing of it, or does not say."""

        async def ask() -> _Place | None:
            async with (
                self._repository.http.answer_time("GET", location),
                self._repository.open("GET", location, follow=()) as response,
            ):
                if response.status != 204:
                    return None
                match = _STORED_RANGE.match(response.headers.get("Range", ""))
                last = int(match[1]) if match else 0  # "0-0" is what registries say of an empty upload
                return _Place(self._next_location(response), last + 1 if last else 0)

        try:
            return await self._patiently(ask)
        except StatusError:
            return None

    def _next_location(self, response: aiohttp.ClientResponse) -> URL:
        location = response.headers.get("Docker-Upload-Location", "")
        if not location and response.status != 307:
            location = response.headers.get("Location", "")
        if not location:
            return response.url
        target = resolve(response.url, location)
        self._repository.check_redirect(response.url, target)
        return target

    @asynccontextmanager
    async def _sending(
        self, method: str, url: URL, headers: Mapping[str, str], start: int, end: int
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            async with (
                asyncio.timeout(self._limits.stall) as patience,
                self._repository.open(
                    method, url, headers=headers, data=lambda: self._body(start, end, patience), follow=()
                ) as response,
            ):
                yield response
        except TimeoutError as error:
            raise Interrupted(f"upload stalled: nothing was taken for {self._limits.stall:g} s") from error
        finally:
            self._flying.pop(start, None)

    async def _body(self, start: int, end: int, patience: asyncio.Timeout) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        position = start
        while position < end:
            chunk = await self._in_thread(os.pread, self._descriptor, min(_READ_BYTES, end - position), position)
            if not chunk:
                raise StoreError(f'"{self._path}" was cut short by somebody else')
            yield chunk
            position += len(chunk)
            patience.reschedule(loop.time() + (self._limits.stall if position < end else _PART_SECONDS))
            self._flying[start] = position - start
            self._completed = max(self._completed, min(self._stored + sum(self._flying.values()), self._layer.size))

    async def _hash_parts(self, starts: Iterable[int]) -> list[bytes]:
        return [await self._in_thread(self._md5, start, self._end(start)) for start in starts]

    def _md5(self, start: int, end: int) -> bytes:
        hashed = hashlib.md5(usedforsecurity=False)
        while start < end and (chunk := os.pread(self._descriptor, min(_READ_BYTES, end - start), start)):
            hashed.update(chunk)
            start += len(chunk)
        return hashed.digest()

    def _end(self, start: int) -> int:
        return min(start + self._part_bytes, self._layer.size)

    async def _patiently(self, action: Callable[[], Awaitable[T]]) -> T:
        return await patiently(action, self._limits)

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
