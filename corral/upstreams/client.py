"""The client of one other server that answers for a model: what is asked of it, and what it says of itself.

An answer that is streamed has a connection of its own (`engine/llama/exchange.py`), since every token passes there.
"""

import asyncio
import contextlib
import errno
import logging
import os
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator
from functools import cache
from urllib.parse import urlsplit

import aiohttp
import msgspec
from msgspec import Struct

from corral import __version__, telemetry
from corral.access import private_file
from corral.config.upstreams import Upstream
from corral.engine.base import Piece
from corral.engine.connecting import HANDSHAKE_SECONDS, connected, connection_socket, opened, within
from corral.engine.llama.exchange import Exchange, NotHttp
from corral.errors import ConfigError, CorralError, EngineRefused, UpstreamBusy, UpstreamError
from corral.upstreams import facts, via, wire
from corral.upstreams.answer import Answer
from corral.upstreams.events import DONE, EventReader
from corral.upstreams.facts import Facts
from corral.upstreams.silence import Silence

log = logging.getLogger(__name__)

LOSS_SECONDS = 9
"""Seconds after the last sign of a server's machine after which connections to it break."""

PROBE_TIMEOUT = 5.0
"""Seconds for an answer to the question whether it works, and to that for its models."""

ERROR_TIMEOUT = 5.0
"""Seconds for the body of an error."""

KEY_SECONDS = 1.0
"""Seconds for which a key is used before its file is read again."""

MAX_LIST = 4 << 20
"""Bytes of a list of models."""

NUMBER_BYTES = 32
"""Bytes of a number of a vector, at most."""

MAX_DIMENSIONS = 1 << 16

_LOST = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)
"""How a connection breaks whose other end is out of reach."""

BUSY_SECONDS = 1.0
"""Seconds for which a server that takes no more requests gets none, unless it says for how long; and at most."""
MOST_BUSY_SECONDS = 30.0


class Vectors(Struct, frozen=True):
    """A vector for each text, and the tokens of all texts together."""

    vectors: list[list[float]]
    tokens: int


class Client:
    """One server, asked for one model, which is called `model` here. `silence`: seconds without a word after which an
    answer is given up. Errors are `UpstreamError` and its kinds, and `EngineRefused` where the request is to blame."""

    def __init__(self, upstream: Upstream, model: str, silence: float, server_id: via.ServerId) -> None:
        self.upstream = upstream
        self.name = upstream.name
        self.model = upstream.model or model
        self.facts = Facts()
        self._silence = silence
        self._server_id = server_id
        address = urlsplit(upstream.url)
        self._host, self._port, self._path = address.hostname or "", address.port or 80, address.path
        self._is_encrypted = address.scheme == "https"
        self._netloc = address.netloc
        self._key, self._key_read = "", float("-inf")
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def stream(self, path: str, body: bytes, answer: Answer) -> AsyncGenerator[Piece, None]:
        """The pieces of an answer, as `answer` reads them; the last one has the `finish`. Closing it ends the work."""
        async with self._streamed(path, body) as exchange:
            with contextlib.closing(Silence(exchange, self._silence)) as silence:
                try:
                    is_over = False
                    while not is_over:
                        silence.begins()
                        events = await exchange.events()
                        silence.ends()
                        is_over = not events
                        for data in events:
                            if data == DONE:
                                is_over = True
                                break
                            piece = answer.read(data)
                            if piece is not None:
                                silence.broken()
                                yield piece
                                if answer.is_over:
                                    is_over = True
                                    break
                except OSError as error:
                    raise self._lost(error) from error
        yield answer.finished()

    async def embed(self, body: bytes, texts: int) -> Vectors:
        """A vector for each of so many texts."""
        data = await self._asked("POST", "/v1/embeddings", body, MAX_LIST + texts * MAX_DIMENSIONS * NUMBER_BYTES)
        return await asyncio.to_thread(self._vectors, data, texts)

    async def probe(self) -> None:
        """Asks whether it works; raises why it does not. Some servers have no `/health`."""
        try:
            await self._asked("GET", "/health", None, MAX_LIST, PROBE_TIMEOUT)
        except (EngineRefused, _NoSuchRoute):
            await self.look()

    async def look(self) -> None:
        """Asks what it has, and keeps what it says of the model."""
        data = await self._asked("GET", "/v1/models", None, MAX_LIST, PROBE_TIMEOUT)
        names = (self.model, f"{self.model}:latest")
        listed = await asyncio.to_thread(facts.listed, self.name, data, names)
        self.facts = await self._with_more(listed)

    async def _with_more(self, listed: Facts) -> Facts:
        """The facts of its list, with what it says by another route. Where that fails they do without."""
        route = facts.more_route(listed)
        try:
            match route:
                case "/api/show":
                    body = msgspec.json.encode({"model": self.model})
                    data = await self._asked("POST", route, body, MAX_LIST, PROBE_TIMEOUT)
                    return await asyncio.to_thread(facts.shown, self.name, data, listed)
                case "/props":
                    data = await self._asked("GET", route, None, MAX_LIST, PROBE_TIMEOUT)
                    return await asyncio.to_thread(facts.properties, self.name, data, listed)
        except CorralError as error:
            log.debug('%s when asked by %s what its model "%s" can do', error, route, self.model)
        return listed

    # Connections

    @contextlib.asynccontextmanager
    async def _streamed(self, path: str, body: bytes) -> AsyncIterator[Exchange]:
        """A good answer whose head has come; its connection is closed at the end of the block."""
        head = await self._head(path, len(body))
        exchange = await self._connected()
        try:
            try:
                exchange.send(head + body)
                await within(self._silence, exchange.answered())
                if exchange.status != 200:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(ERROR_TIMEOUT):
                            await exchange.whole()
                    raise self._refusal(path, exchange.status, exchange.headers, exchange.taken())
            except OSError as error:
                raise self._lost(error) from error
            kind = exchange.headers.get(b"content-type", b"").decode("latin-1")
            if not kind.lower().startswith("text/event-stream"):
                shown = wire.message_of(kind) or "nothing that it names"
                raise UpstreamError(self.name, f"answers with {shown[:80]} where a stream of events was asked for")
            yield exchange
        finally:
            exchange.close()

    async def _connected(self) -> Exchange:
        encryption = await asyncio.to_thread(_encryption) if self._is_encrypted else None

        def new() -> Exchange:
            return Exchange(EventReader(self.name))

        try:
            return await opened(new, self._host, self._port, loss_seconds=LOSS_SECONDS, encryption=encryption)
        except OSError as error:
            raise self._unreached(error) from error

    async def _reach(self) -> None:
        """Connects, and no more: a server that cannot be reached is told from one that is slow."""
        try:
            (await connected(self._host, self._port, LOSS_SECONDS)).close()
        except OSError as error:
            raise self._unreached(error) from error

    async def _asked(
        self, method: str, path: str, body: bytes | None, most: int, seconds: float | None = None
    ) -> bytes:
        """The body of a good answer, of so many bytes at most."""
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=HANDSHAKE_SECONDS, sock_read=self._read_timeout)
        headers = await self._headers()
        await self._reach()
        try:
            async with self._connections().request(
                method,
                self.upstream.url + path,
                data=body,
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                data = await _read(response.content, most if response.status == 200 else MAX_LIST)
                if data is None:
                    raise UpstreamError(self.name, f"does not end its answer: it has more than {most} bytes")
                if response.status != 200:
                    given = {name.lower().encode(): value.encode() for name, value in response.headers.items()}
                    raise self._refusal(path, response.status, given, data)
                return data
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise self._unreached(error) from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._lost(error) from error

    @property
    def _read_timeout(self) -> float | None:
        return None if self._silence == float("inf") else self._silence

    def _connections(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=0, force_close=True, socket_factory=lambda address: connection_socket(address[0], LOSS_SECONDS)
            )
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        return self._session

    async def _head(self, path: str, size: int) -> bytes:
        headers = {
            "Host": self._netloc,
            "Accept": "text/event-stream",
            "Connection": "close",
            "Content-Length": str(size),
            **await self._headers(),
        }
        lines = (f"POST {self._path}{path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()))
        return "\r\n".join((*lines, "", "")).encode("latin-1", "replace")

    async def _headers(self) -> dict[str, str]:
        key, request_id = await self._secret(), telemetry.request_id.get()
        return {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"corral/{__version__}",
            via.HEADER: self._server_id.header(),
            **({"Authorization": f"Bearer {key}"} if key else {}),
            **({"X-Request-Id": request_id} if request_id else {}),
        }

    async def _secret(self) -> str:
        """The key; empty where it wants none. `UpstreamError` where its file cannot be used."""
        if self.upstream.key_file is not None and time.monotonic() - self._key_read > KEY_SECONDS:
            try:
                self._key = await asyncio.to_thread(private_file.read_secret, self.upstream.key_file)
            except ConfigError as error:
                raise UpstreamError(self.name, f"cannot be asked: its key file {error}") from error
            self._key_read = time.monotonic()
        return self._key

    # What it says

    def _vectors(self, data: bytes, texts: int) -> Vectors:
        found = wire.decoded(self.name, wire.decode_embeddings, data)
        rows = sorted(found.data, key=lambda row: row.index)
        if [row.index for row in rows] != list(range(texts)):
            raise UpstreamError(self.name, f"made {len(rows)} vectors of {texts} texts", is_gone=False)
        lengths = {len(row.embedding) for row in rows}
        if len(lengths) > 1 or not 0 < max(lengths, default=1) <= MAX_DIMENSIONS:
            raise UpstreamError(self.name, f"made vectors of {sorted(lengths)[:5]} numbers", is_gone=False)
        tokens = (found.usage.prompt_tokens if found.usage else None) or 0
        return Vectors([row.embedding for row in rows], tokens if 0 <= tokens < 1 << 31 else 0)

    def _unreached(self, error: OSError) -> UpstreamError:
        if isinstance(error, TimeoutError) and error.errno is None:
            return UpstreamError(self.name, "cannot be reached: it does not answer a connection")
        reason = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
        if isinstance(reason, ssl.SSLError | ssl.CertificateError):
            return UpstreamError(self.name, f"cannot be reached: {getattr(reason, 'verify_message', '') or reason}")
        by_system = os.strerror(reason.errno) if reason.errno and reason.errno > 0 else reason.strerror or str(reason)
        return UpstreamError(self.name, f"cannot be reached: {by_system.lower()}")

    def _lost(self, error: Exception) -> UpstreamError:
        if isinstance(error, OSError) and error.errno in _LOST:
            return UpstreamError(self.name, "cannot be reached any more: its machine does not answer")
        if isinstance(error, TimeoutError):
            return UpstreamError(self.name, f"has said nothing for {self._silence:g} seconds")
        if isinstance(error, NotHttp | aiohttp.ClientResponseError | aiohttp.ClientPayloadError):
            return UpstreamError(self.name, "answers what is no HTTP, or breaks off in the middle")
        return UpstreamError(self.name, f"broke the connection: {str(error)[:200].lower() or 'without a word'}")

    def _refusal(self, path: str, status: int, headers: dict[bytes, bytes], body: bytes) -> CorralError:
        """The error for an answer that is none. What the server says of a key is left out, since it may repeat it."""
        if status in (401, 403):
            refused = "refuses the key in its key file" if self._key else "wants a key, and has no `key_file` here"
            return UpstreamError(self.name, f"{refused} (status {status})")
        if 300 <= status < 400:
            return UpstreamError(self.name, "answers with a redirect, which is not followed")
        said = self._said(body)
        because = f": {said}" if said else ""
        if status == 404 and path == "/health":
            return _NoSuchRoute(self.name, "has no /health")
        if status == 404:
            return UpstreamError(self.name, f'has no model "{self.model}", or no {path}{because}', is_gone=False)
        if status in (408, 429) or (status == 503 and b"retry-after" in headers):
            wait = _seconds(headers.get(b"retry-after", b""))
            return UpstreamBusy(self.name, f"takes no more requests now{because}", wait)
        if 400 <= status < 500:
            return EngineRefused(
                f'upstream "{self.name}" refuses the request{because or f" with status {status}"}', code=400
            )
        is_gone = status in (502, 503, 504)
        return UpstreamError(self.name, f"answers with status {status}{because}", is_gone=is_gone)

    def _said(self, body: bytes) -> str:
        """The sentence of an error's body, without our key."""
        try:
            said = wire.message_of(msgspec.json.decode(body[:MAX_LIST]))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return ""
        return said.replace(self._key, "…") if self._key else said


class _NoSuchRoute(UpstreamError):
    """The server has no such route."""


async def _read(content: aiohttp.StreamReader, most: int) -> bytes | None:
    """A whole body; None where it has more bytes."""
    parts: list[bytes] = []
    size = 0
    async for part in content.iter_any():
        parts.append(part)
        size += len(part)
        if size > most:
            return None
    return b"".join(parts)


def _seconds(text: bytes) -> float:
    """What `Retry-After` says, within bounds."""
    return min(MOST_BUSY_SECONDS, max(BUSY_SECONDS, float(text))) if text.isdigit() else BUSY_SECONDS


@cache
def _encryption() -> ssl.SSLContext:
    """Reads the certificates of this machine, which takes some time."""
    return ssl.create_default_context()
