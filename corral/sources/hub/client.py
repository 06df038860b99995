"""Asks Hugging Face's hub, or a mirror that speaks its API: `/api/models`, `/api/models/ID`, the beginning of a file.

Every answer is bounded and checked; what is wrong with one repository's costs that repository alone. Asked without an
account: a gated model is found, and what cannot be read of it is left out.
Source: the hub's documentation of its API, and of what `huggingface_hub` reads.
"""

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import aiohttp
import msgspec
from msgspec import Struct
from yarl import URL

from corral.errors import CorralError, ModelFileError, SourceError, Unreachable
from corral.gguf import read_beginning
from corral.gguf.file import MAX_LAYERS
from corral.sources.hub.files import File, Quantisation, quantisations
from corral.sources.registry.client import USER_AGENT
from corral.sources.registry.errors import Contradiction, printable, redacted
from corral.sources.registry.http import Http, read_all, refuse_compressed, status_error
from corral.sources.registry.repository import REDIRECTS, check_redirect, resolve

T = TypeVar("T")

ANSWER_SECONDS = 15.0
"""How long one answer may take. Several are asked for at a time."""
MAX_ANSWER = 4 << 20
"""Bytes of one answer: some hundreds of files at about 300 bytes each, and a model's whole chat template."""
BEGINNING_BYTES = 64 << 10
"""Bytes read of a model's file: what comes before its vocabulary, with the numbers of layers and heads."""
MAX_FILES = 5000
AT_ONCE = 6
"""Requests on their way at the same time."""
_MAX_REDIRECTS = 5
_MAX_COUNT = 1 << 53
_MAX_ELEMENTS = 1 << 32

_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}/[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}\Z")
_WORD = re.compile(r"[A-Za-z0-9_.-]{1,40}\Z")


@dataclass(frozen=True, slots=True)
class Found:
    """A repository with GGUF files. What the hub does not say is 0, empty or None."""

    id: str
    """`owner/name`."""
    downloads: int
    """In the last 30 days."""
    likes: int
    updated: datetime | None
    gated: bool
    """Whether its files are only for those who have agreed to something."""
    architecture: str = ""
    parameters: int = 0
    context_length: int = 0
    """Tokens that it was trained on."""
    quantisations: tuple[Quantisation, ...] = ()
    cache_elements: int | None = None
    """Numbers that the KV cache keeps of a token, by the beginning of a file; None where it could not be read."""
    error: str = ""
    """Why its files are not known."""


class _WireFile(Struct):
    rfilename: str
    size: int | None = None


class _WireGguf(Struct):
    total: int | float | None = None
    architecture: str | None = None
    context_length: int | float | None = None


class _WireModel(Struct):
    id: str
    downloads: int | None = None
    likes: int | None = None
    lastModified: str | None = None  # noqa: N815 - the hub's own name
    gated: bool | str | None = None
    siblings: list[_WireFile] | None = None
    gguf: _WireGguf | None = None


class _WireListed(Struct):
    id: str


class Hub:
    """The hub at one address. Every search has connections of its own, which end with it."""

    def __init__(self, address: str) -> None:
        """`address`: http or https, perhaps with a path (`config.hub`)."""
        self._address = URL(address)

    async def search(self, text: str, limit: int) -> tuple[Found, ...]:
        """At most `limit` repositories with GGUF files whose names have the text, those most downloaded first.

        `Unreachable` without a connection, another `SourceError` for an answer that is none.
        """
        try:
            async with _Search(self._address).connected() as search:
                return await search.run(text, limit)
        except Unreachable as error:
            raise Unreachable(f'models are looked for at "{redacted(self._address)}": {error}') from error


class _Search:
    """One search, and its connections."""

    def __init__(self, address: URL) -> None:
        self._address = address
        self._http = Http(address, trusted=False, user_agent=USER_AGENT, answer_seconds=ANSWER_SECONDS)
        self._turns = asyncio.Semaphore(AT_ONCE)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator["_Search"]:
        async with self._http.hold():
            yield self

    async def run(self, text: str, limit: int) -> tuple[Found, ...]:
        asked = {"search": text, "filter": "gguf", "sort": "downloads", "direction": "-1", "limit": str(limit)}
        listed = await self._get(self._url("api/models").with_query(asked), list[_WireListed])
        ids = list(dict.fromkeys(model.id for model in listed if _ID.match(model.id)))
        return tuple(await asyncio.gather(*map(self._look, ids[:limit])))

    async def _look(self, id_: str) -> Found:
        """What a repository has; what is not known of it is left out."""
        async with self._turns:
            try:
                found = _found(
                    id_, await self._get(self._url(f"api/models/{id_}").with_query(blobs="true"), _WireModel)
                )
            except CorralError as error:
                return Found(id_, 0, 0, None, False, error=str(error))
            if found.quantisations:
                with suppress(CorralError):  # the file is gated, say
                    return replace(found, cache_elements=await self._cache_elements(id_, found.quantisations[0]))
            return found

    async def _cache_elements(self, id_: str, model: Quantisation) -> int:
        url = self._url(f"{id_}/resolve/main/{model.first}")
        size = min(BEGINNING_BYTES, model.first_size)
        async with (
            self._http.answer_time("GET", url),
            self._open(url, {"Range": f"bytes=0-{size - 1}"}) as response,
        ):
            data = await _first_bytes(response, size)
        return await asyncio.to_thread(_cache_elements, data, model.first_size)

    async def _get(self, url: URL, kind: type[T]) -> T:
        async with self._http.answer_time("GET", url), self._open(url) as response:
            data = await read_all(response, MAX_ANSWER)
        return await asyncio.to_thread(_decoded, data, kind, url)

    @asynccontextmanager
    async def _open(self, url: URL, headers: Mapping[str, str] | None = None) -> AsyncIterator[aiohttp.ClientResponse]:
        """A good answer, also from where the hub sends us on to: a renamed repository, the storage of a file."""
        for _ in range(_MAX_REDIRECTS + 1):
            async with self._http.send("GET", url, headers=headers) as response:
                location = response.headers.get("Location", "")
                if response.status not in REDIRECTS or not location:
                    if response.status not in (200, 206):
                        raise await status_error(response)
                    yield response
                    return
                target = resolve(response.url, location)
                check_redirect(url, target)
                url = target
        raise SourceError(f'"{redacted(url)}": too many redirects')

    def _url(self, path: str) -> URL:
        return self._address.joinpath(*path.split("/"))


async def _first_bytes(response: aiohttp.ClientResponse, size: int) -> bytes:
    """The beginning of a body; a server that does not know ranges sends more."""
    refuse_compressed(response)
    data = b""
    while len(data) < size and (more := await response.content.read(size - len(data))):
        data += more
    return data


def _decoded(data: bytes, kind: type[T], url: URL) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else printable(str(error))[:200]
        raise Contradiction(f'the answer of "{redacted(url)}" is not understood: {reason}') from error


def _cache_elements(data: bytes, size: int) -> int:
    """Of a GGUF file of `size` bytes that begins so. `ModelFileError` where the beginning does not say."""
    with tempfile.TemporaryDirectory(prefix="corral-") as folder:
        path = Path(folder, "beginning.gguf")
        path.write_bytes(data)
        beginning = read_beginning(path, size)
        if beginning.block_count is None or beginning.block_count > MAX_LAYERS:
            raise ModelFileError("the beginning of the file does not say how many layers there are")
        elements = beginning.kv_bytes_per_token(1.0)
    if not 0 <= elements <= _MAX_ELEMENTS:
        raise ModelFileError(f"the beginning of the file amounts to {elements} numbers for each token")
    return elements


def _found(id_: str, said: _WireModel) -> Found:
    files = (File(file.rfilename, file.size) for file in (said.siblings or ())[:MAX_FILES] if file.size is not None)
    gguf = said.gguf or _WireGguf()
    return Found(
        id_,
        downloads=_count(said.downloads),
        likes=_count(said.likes),
        updated=_moment(said.lastModified or ""),
        gated=said.gated not in (None, False),
        architecture=gguf.architecture if _WORD.match(gguf.architecture or "") and gguf.architecture else "",
        parameters=_count(gguf.total),
        context_length=_count(gguf.context_length),
        quantisations=quantisations(id_, (file for file in files if 0 < file.size <= _MAX_COUNT)),
    )


def _count(value: float | None) -> int:
    """A count that makes sense, else 0."""
    return int(value) if value is not None and 0 <= value <= _MAX_COUNT else 0


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
