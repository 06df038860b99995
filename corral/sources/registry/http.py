"""HTTP to servers that are not trusted: every answer is bounded, every address judged. Knows no registry.

One `Http` serves one operation against one server, its origin. Where that server sends us on to another, the connection
is made only to addresses it has no business keeping from the world: a public server may not reach into our network.
"""

import asyncio
import email.utils
import socket
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TypeAlias

import aiohttp
from yarl import URL

from corral.errors import Unreachable
from corral.sources.registry.addresses import AddressPolicy, check_address, is_address, is_public
from corral.sources.registry.errors import (
    Contradiction,
    StatusError,
    operation,
    printable,
    redacted,
    translate_errors,
)
from corral.sources.registry.proxies import is_socks, proxy_for, socks_connector

Body: TypeAlias = bytes | AsyncIterable[bytes]

ANSWER_SECONDS = 60.0
"""How long a server may take over an answer that is not a blob, unless another time is given."""

_CONNECT_SECONDS = 15.0
_READ_BYTES = 512 << 10
_ERROR_BYTES = 4 << 10
_MAX_PAUSE = 60.0


class Http:
    """Requests to `origin` and to where it sends us on. Its connections close when the last `hold` ends."""

    def __init__(self, origin: URL, *, trusted: bool, user_agent: str, answer_seconds: float = ANSWER_SECONDS) -> None:
        """`trusted`: where we cannot tell that this server is public, it may send us to private addresses."""
        self.origin = origin.origin()
        self._trusted = trusted
        self._answer_seconds = answer_seconds
        self._headers = {"User-Agent": user_agent, "Accept-Encoding": "identity"}
        self._sessions: dict[tuple[AddressPolicy, URL | None], aiohttp.ClientSession] = {}
        """By where their connections may go, and the SOCKS proxy that makes them; other proxies go with a request."""
        self._addresses: set[str] = set()
        self._holds = 0

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Keeps the connections open for as long as the block lasts."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            if not self._holds:
                sessions, self._sessions = self._sessions, {}
                for session in sessions.values():
                    await session.close()

    def is_own(self, url: URL) -> bool:
        """Whether a URL is of the very server this is for: the only one that may see credentials."""
        return url.origin() == self.origin

    @asynccontextmanager
    async def send(
        self, method: str, url: URL, *, headers: Mapping[str, str] | None = None, data: Body | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer's head, its body still to be read; redirects are answers. The caller bounds the time.

        `Unreachable` if there is no connection, `Interrupted` if it breaks, now or inside the block.
        """
        with translate_errors(method, url):
            proxy = await asyncio.to_thread(proxy_for, url)
            policy = self._policy(url, proxied=proxy is not None)
            by_socks = proxy is not None and is_socks(proxy)
            session = self._session(policy, proxy if by_socks else None)
            async with session.request(
                method,
                url,
                headers=headers,
                data=data,
                proxy=None if by_socks else proxy,
                allow_redirects=False,
            ) as response:
                yield response

    async def fetch(
        self, method: str, url: URL, *, limit: int, headers: Mapping[str, str] | None = None, data: Body | None = None
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        """A whole small answer of at most `limit` bytes, in good time. Error statuses are answers too."""
        async with self.answer_time(method, url), self.send(method, url, headers=headers, data=data) as response:
            return response, await read_all(response, limit)

    @asynccontextmanager
    async def answer_time(self, method: str, url: URL, seconds: float | None = None) -> AsyncIterator[None]:
        """Gives the block so many seconds, by default those of every answer; `Unreachable` when they are over."""
        seconds = self._answer_seconds if seconds is None else seconds
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError as error:
            raise Unreachable(f"{operation(method, url)}: no whole answer in {seconds:g} seconds") from error

    def _policy(self, url: URL, *, proxied: bool) -> AddressPolicy:
        """Where a connection for a URL may go. `RefusedAddressError` if a proxy would be asked for a forbidden one."""
        if self.is_own(url):
            return AddressPolicy.PROXIED if proxied else AddressPolicy.ORIGIN
        policy = AddressPolicy.PUBLIC if self._is_public() else AddressPolicy.LOCAL
        if not proxied:
            return policy
        if url.host and is_address(url.host):
            check_address(policy, url.host)
        return AddressPolicy.PROXIED

    def _is_public(self) -> bool:
        """Whether this server was, at any time, found at a public address; if we cannot tell, unless it is trusted."""
        if not self._addresses:  # a proxy connects for us
            return not self._trusted
        return any(is_public(address) for address in self._addresses)

    def _session(self, policy: AddressPolicy, socks: URL | None) -> aiohttp.ClientSession:
        key = (policy, socks)
        if key not in self._sessions:
            connector = socks_connector(socks) if socks else None
            self._sessions[key] = aiohttp.ClientSession(
                connector=connector or aiohttp.TCPConnector(limit=0, socket_factory=self._socket_factory(policy)),
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                read_bufsize=_READ_BYTES,
            )
        return self._sessions[key]

    def _socket_factory(self, policy: AddressPolicy) -> Callable[[aiohttp.AddrInfoType], socket.socket]:
        def make(info: aiohttp.AddrInfoType) -> socket.socket:
            family, kind, protocol, _, address = info
            check_address(policy, str(address[0]))
            if policy is AddressPolicy.ORIGIN:
                self._addresses.add(str(address[0]))
            return socket.socket(family, kind, protocol)

        return make


async def read_all(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The whole body. `Contradiction` if it is larger than `limit` bytes, announced or not, or compressed."""
    refuse_compressed(response)
    body = bytearray()
    if (response.content_length or 0) <= limit:
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > limit:
                break
        else:
            return bytes(body)
    raise Contradiction(f'the answer of "{redacted(response.url)}" is larger than {limit} bytes')


def refuse_compressed(response: aiohttp.ClientResponse) -> None:
    """`Contradiction` for a compressed answer: we asked for plain bytes, and packed ones may hide their number."""
    if (encoding := response.headers.get("Content-Encoding", "identity").lower()) not in ("identity", ""):
        raise Contradiction(
            f'"{redacted(response.url)}" answered in the encoding "{encoding[:20]}", which was not asked for'
        )


async def status_error(response: aiohttp.ClientResponse) -> StatusError:
    """An error answer as an error; only the beginning of the body is read."""
    pause = _retry_after(response.headers.get("Retry-After", ""))
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            body = b""
            while len(body) < _ERROR_BYTES and (chunk := await response.content.readany()):
                body += chunk
    except (aiohttp.ClientError, TimeoutError, OSError):
        body = b""
    text = body[:_ERROR_BYTES].decode("utf-8", "replace").strip()
    if not text:
        text = response.reason or ""
    return StatusError(response.status, printable(text), pause)


def _retry_after(text: str) -> float:
    """Seconds or a date; never more than a minute."""
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), _MAX_PAUSE)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    return min(max(moment.timestamp() - time.time(), 0.0), _MAX_PAUSE)
