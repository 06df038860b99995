"""One repository of one registry, as the OCI distribution API shows it. Knows requests, not what is done with answers.

Protocol: spec cli §9. Redirects are followed by hand: each target is judged, and no credentials go to another host.
"""

import re
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import aiohttp
from yarl import URL

from corral.errors import CorralError, NotFound, SourceError, Unauthorized
from corral.names import Digest, Name
from corral.sources.registry.auth import Authenticator, parse_challenges
from corral.sources.registry.errors import Contradiction, Interrupted, StatusError, redacted
from corral.sources.registry.http import Body, Http, read_all, refuse_compressed, status_error
from corral.store.manifest import MAX_MANIFEST_BYTES, Manifest, MediaType

_MAX_REDIRECTS = 5
REDIRECTS = (301, 302, 303, 307, 308)


class Repository:
    """`<host>/v2/<namespace>/<model>`: manifests by tag, blobs by digest."""

    def __init__(self, http: Http, authenticator: Authenticator, name: Name) -> None:
        self.http = http
        self.name = name
        self._authenticator = authenticator
        self._base = http.origin / "v2" / name.namespace / name.model

    def manifest_url(self) -> URL:
        """The manifest of the name's tag."""
        return self._base / "manifests" / self.name.tag

    def blob_url(self, digest: Digest) -> URL:
        """A blob, whether the registry has it or not."""
        return self._base / "blobs" / str(digest)

    def uploads_url(self) -> URL:
        """Where uploads of blobs begin."""
        return URL(f"{self._base}/blobs/uploads/")

    @asynccontextmanager
    async def open(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str] | None = None,
        data: Callable[[], Body] | None = None,
        follow: Collection[int] = REDIRECTS,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The head of a good answer, with our credentials sent, and redirects followed where the status is in `follow`.

        `data` makes the body anew for each attempt. `StatusError` from 400 on, `Unauthorized` if we have no access.
        """
        is_challenged = False
        for _ in range(_MAX_REDIRECTS + 2):
            is_own = self.http.is_own(url)
            authorization = self._authenticator.header if is_own else ""
            sent = {**(headers or {}), **({"Authorization": authorization} if authorization else {})}
            async with self.http.send(method, url, headers=sent, data=data() if data else None) as response:
                if response.status == 401 and is_own and not is_challenged:
                    is_challenged = True
                    challenges = parse_challenges(response.headers.getall("WWW-Authenticate", []))
                elif response.status in follow and (target := self._target(response)):
                    check_redirect(url, target)
                    url = target
                    continue
                elif response.status in REDIRECTS and follow:
                    raise Contradiction(f'"{redacted(url)}" redirects to nowhere')
                elif response.status == 401 and is_own:
                    raise Unauthorized("unauthorized: access denied")
                elif response.status >= 400:
                    raise await status_error(response)
                else:
                    yield response
                    return
            await self._authenticator.answer(challenges, authorization)
        raise SourceError(f'"{redacted(url)}": too many redirects')

    async def manifest(self) -> bytes:
        """The manifest of the name's tag, byte for byte. `NotFound` if there is none."""
        with missing_is_not_found():
            try:
                return await self._manifest(MediaType.MANIFEST)
            except StatusError as error:
                if error.code not in (404, 406):
                    raise
                missing = error
            try:  # some registries hide one of OCI's kind from those who ask for the other alone
                return await self._manifest(MediaType.OCI_MANIFEST)
            except CorralError:
                raise missing from None

    async def _manifest(self, media_type: MediaType) -> bytes:
        url = self.manifest_url()
        async with (
            self.http.answer_time("GET", url),
            self.open("GET", url, headers={"Accept": str(media_type)}) as response,
        ):
            return await read_all(response, MAX_MANIFEST_BYTES)

    async def blob_size(self, digest: Digest) -> int | None:
        """Bytes of a blob as the registry states them, None if it does not say. `NotFound` if it is not there."""
        url = self.blob_url(digest)
        with missing_is_not_found():
            async with self.http.answer_time("HEAD", url), self.open("HEAD", url) as response:
                return response.content_length

    async def put_manifest(self, manifest: Manifest) -> None:
        """Gives the name's tag a manifest whose blobs are all there."""
        url = self.manifest_url()
        headers = {"Content-Type": str(manifest.media_type)}
        async with (
            self.http.answer_time("PUT", url),
            self.open("PUT", url, headers=headers, data=lambda: manifest.raw, follow=()),
        ):
            pass

    def _target(self, response: aiohttp.ClientResponse) -> URL | None:
        """Where an answer sends us, if it does; a good one only by naming another host."""
        location = response.headers.get("Location", "")
        target = resolve(response.url, location) if location else None
        if target is not None and response.status == 200 and (self.http.is_own(target) or not target.host):
            return None
        return target


@dataclass(frozen=True, slots=True)
class BlobAnswer:
    """Bytes of a blob on their way: those asked for, or all of them when `is_ranged` is false."""

    is_ranged: bool
    stream: aiohttp.StreamReader


class BlobSource:
    """Where the bytes of one blob come from: the registry itself, or the address it sends us to, once we know it."""

    def __init__(self, repository: Repository, digest: Digest, size: int) -> None:
        self.http = repository.http
        self._repository = repository
        self._url = repository.blob_url(digest)
        self._size = size
        self._direct: URL | None = None

    @asynccontextmanager
    async def open(self, start: int, end: int) -> AsyncIterator[BlobAnswer]:
        """The bytes from `start` (inclusive) to `end` (exclusive), or the whole blob from a server without ranges.

        A server may give fewer bytes than asked. `Contradiction` if its answer is at odds with itself or the question.
        """
        url = self._direct or self._url
        headers = {"Range": f"bytes={start}-{end - 1}"}
        try:
            with missing_is_not_found():
                async with self._repository.open("GET", url, headers=headers, follow=_BLOB_REDIRECTS) as response:
                    if url is self._url and not self.http.is_own(response.url):
                        self._direct = response.url
                    refuse_compressed(response)
                    if response.status == 206:
                        self._check_range(response, start, end)
                    else:
                        self._check_whole(response)
                    yield BlobAnswer(response.status == 206, response.content)
        except (StatusError, NotFound) as error:
            if url is not self._direct or getattr(error, "code", 404) not in (401, 403, 404, 410):
                raise
            self._direct = None  # such addresses are signed for a time; the registry gives us a new one
            raise Interrupted(str(error)) from error

    def _check_range(self, response: aiohttp.ClientResponse, start: int, end: int) -> None:
        given = response.headers.get("Content-Range", "")
        if match := _CONTENT_RANGE.match(given):
            first, last = int(match[1]), int(match[2])
            if first == start <= last < end and match[3] in (None, str(self._size)):
                return
        asked = f"bytes {start}-{end - 1}/{self._size}"
        raise Contradiction(f'"{redacted(response.url)}" answered with the range "{given[:80]}", not "{asked}"')

    def _check_whole(self, response: aiohttp.ClientResponse) -> None:
        where, size = f'"{redacted(response.url)}"', response.content_length
        if response.status != 200:
            raise Contradiction(f"{where} answered with the status {response.status}")
        if size not in (None, self._size):
            raise Contradiction(f"{where} has {size} bytes, {self._size} were announced")


@contextmanager
def missing_is_not_found() -> Iterator[None]:
    """Says 404 in the words that clients look for (spec api §15.3)."""
    try:
        yield
    except StatusError as error:
        if error.code == 404:
            raise NotFound("file does not exist") from error
        raise


def check_redirect(source: URL, target: URL) -> None:
    """`SourceError` where following would leave the web, or leave encryption behind."""
    if target.scheme not in ("http", "https") or not target.host:
        raise SourceError(f'"{redacted(source)}" redirects to "{redacted(target)}", which is no web address')
    if source.scheme == "https" and target.scheme == "http":
        raise SourceError(f'"{redacted(source)}" redirects to "{redacted(target)}", which is not encrypted')


def resolve(base: URL, location: str) -> URL:
    """A `Location`, which may be relative, exactly as the server wrote it: signatures do not survive re-quoting."""
    try:
        target = URL(location, encoded=True)
        target = base.join(target).with_fragment(None) if not target.absolute else target.with_fragment(None)
        _ = target.port  # asking for it checks it
        return target
    except ValueError as error:
        raise SourceError(f'"{redacted(base)}" redirects to "{location[:200]}", which is no web address') from error


_BLOB_REDIRECTS = (*REDIRECTS, 200)
"""Ollama's registry may also name the direct address in a 200 (spec cli §9.2)."""

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(?:(\d{1,18})|\*)\Z", re.ASCII)
