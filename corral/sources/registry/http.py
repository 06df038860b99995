"""HTTP to servers nobody vouches for: every answer bounded, every address judged. Knows no registry.

One `Http` serves one operation against one server, its origin. Where that server sends us on to another, the connection
is made only to addresses it has no business keeping from the world: a public server may not reach into our network.
"""

import asyncio
import email.utils
import ipaddress
import os
import socket
import ssl
import time
import urllib.request
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from enum import Enum
from typing import TypeAlias

import aiohttp
from yarl import URL

from corral.errors import SourceError, Unreachable

Body: TypeAlias = bytes | AsyncIterable[bytes]

ANSWER_SECONDS = 60.0
"""How long a server may take over an answer that is not a blob, if not said otherwise."""

_CONNECT_SECONDS = 15.0
_READ_BYTES = 512 << 10
_ERROR_BYTES = 4 << 10
_MAX_PAUSE = 60.0


class Interrupted(SourceError):
    """The connection broke, or went silent, in the middle of an answer: trying again may work."""


class Contradiction(SourceError):
    """An answer at odds with what was asked, announced or answered before: nothing that came with it can be kept."""


class StatusError(SourceError):
    """The server answered with an error: `<code>: <body>`. `pause`: seconds it asked us to wait, or 0."""

    def __init__(self, code: int, body: str, pause: float = 0.0) -> None:
        super().__init__(f"{code}: {body}" if body else f"{code}")
        self.code = code
        self.pause = pause

    @property
    def is_passing(self) -> bool:
        """Whether the same request may do better a little later."""
        return self.code in (408, 425, 429) or self.code >= 500


class _Reach(Enum):
    OWN = "the server itself; the addresses it has are noted"
    PUBLIC = "public addresses only"
    LOCAL = "any address but link-local ones, where cloud machines keep their secrets"
    PROXIED = "a proxy connects for us"


class Http:
    """Requests to `origin` and to where it sends us on. Closes when the last `hold` ends."""

    def __init__(self, origin: URL, *, trusted: bool, user_agent: str, answer_seconds: float = ANSWER_SECONDS) -> None:
        """`trusted`: where we cannot tell that this server is public, it may send us to private addresses."""
        self.origin = origin.origin()
        self._trusted = trusted
        self._answer_seconds = answer_seconds
        self._headers = {"User-Agent": user_agent, "Accept-Encoding": "identity"}
        self._sessions: dict[_Reach, aiohttp.ClientSession] = {}
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

        `Unreachable` if nobody is there, `Interrupted` if the connection breaks, now or inside the block.
        """
        with explained(method, url):
            proxy = await asyncio.to_thread(proxy_for, url)
            reach = self._reach(url, proxied=proxy is not None)
            async with self._session(reach).request(
                method,
                url,
                headers=headers,
                data=data,
                proxy=proxy,
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
        """Gives the block so many seconds, as a rule those of every answer; `Unreachable` when they are over."""
        seconds = self._answer_seconds if seconds is None else seconds
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError as error:
            raise Unreachable(f"{_operation(method, url)}: no whole answer in {seconds:g} seconds") from error

    def _reach(self, url: URL, *, proxied: bool) -> _Reach:
        if self.is_own(url):
            return _Reach.PROXIED if proxied else _Reach.OWN
        allowed = _Reach.PUBLIC if self._is_public() else _Reach.LOCAL
        if not proxied:
            return allowed
        if url.host and _is_address(url.host):
            _admit(allowed, url.host)
        return _Reach.PROXIED

    def _is_public(self) -> bool:
        """Whether this server was, at any time, found at a public address; if we cannot tell, unless it is trusted."""
        if not self._addresses:  # a proxy connects for us
            return not self._trusted
        return any(is_public(address) for address in self._addresses)

    def _session(self, reach: _Reach) -> aiohttp.ClientSession:
        if reach not in self._sessions:
            connector = aiohttp.TCPConnector(limit=0, socket_factory=self._socket_factory(reach))
            self._sessions[reach] = aiohttp.ClientSession(
                connector=connector,
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                read_bufsize=_READ_BYTES,
            )
        return self._sessions[reach]

    def _socket_factory(self, reach: _Reach) -> Callable[[aiohttp.AddrInfoType], socket.socket]:
        def make(info: aiohttp.AddrInfoType) -> socket.socket:
            family, kind, protocol, _, address = info
            if reach is _Reach.OWN:
                self._addresses.add(str(address[0]))
            elif reach is not _Reach.PROXIED:
                _admit(reach, str(address[0]))
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
    raise Contradiction(f'the answer of "{shown(response.url)}" is larger than {limit} bytes')


def refuse_compressed(response: aiohttp.ClientResponse) -> None:
    """We asked for plain bytes: whoever packs them anyway may be hiding how many there are."""
    if (encoding := response.headers.get("Content-Encoding", "identity").lower()) not in ("identity", ""):
        raise Contradiction(
            f'"{shown(response.url)}" answered in the encoding "{encoding[:20]}", which nobody asked for'
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
    return StatusError(response.status, _printable(text), pause)


def is_public(address: str) -> bool:
    """Whether an address is one that the whole internet can reach."""
    ip = _unwrapped(address)
    return ip.is_global and not ip.is_multicast


def shown(url: URL) -> str:
    """A URL as errors name it: without the signature that its query may carry."""
    plain = url.with_query(None).with_fragment(None)
    return str(plain.with_user(None) if url.host else plain)[:500]


def is_passing(error: BaseException) -> bool:
    """Whether trying again may help."""
    return isinstance(error, (Interrupted, Unreachable)) or (isinstance(error, StatusError) and error.is_passing)


def proxy_for(url: URL) -> URL | None:
    """What `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` say (spec cli §13), or the system's own settings."""
    proxies = urllib.request.getproxies()
    found = proxies.get(url.scheme) or proxies.get("all")
    if not found or _is_spared(url, proxies.get("no", "")):
        return None
    try:
        proxy = URL(found if "://" in found else f"http://{found}")
    except ValueError as error:  # not quoted: there may be a password in it
        raise SourceError(f"the address of the proxy for {url.scheme} cannot be read") from error
    if proxy.scheme not in ("http", "https"):
        raise SourceError(f'proxies of the kind "{proxy.scheme}" are not supported')
    return proxy


@contextmanager
def explained(method: str, url: URL) -> Iterator[None]:
    """Turns the client library's errors into ours, worded as clients of Ollama know them."""
    try:
        yield
    except _RefusedAddressError as error:
        raise SourceError(f'"{shown(url)}" leads to {error}') from error
    except aiohttp.ClientConnectorDNSError as error:
        raise Unreachable(f"{_operation(method, url)}: dial tcp: lookup {error.host}: no such host") from error
    except aiohttp.ClientSSLError as error:
        raise Unreachable(f"{_operation(method, url)}: {_tls_reason(error)}") from error
    except aiohttp.ClientConnectorError as error:
        if isinstance(error.os_error, _RefusedAddressError):
            raise SourceError(f'"{shown(url)}" leads to {error.os_error}') from error
        address = f"{_bracketed(error.host)}:{error.port}"
        reason = _reason(error.os_error)
        raise Unreachable(f"{_operation(method, url)}: dial tcp {address}: connect: {reason}") from error
    except aiohttp.ClientHttpProxyError as error:
        reason = " ".join([str(error.status), _printable(error.message)[:100]]).strip()
        raise Unreachable(f"{_operation(method, url)}: the proxy does not connect us: {reason}") from error
    except aiohttp.ConnectionTimeoutError as error:
        port = f"{_bracketed(url.host or '')}:{url.port}"
        raise Unreachable(f"{_operation(method, url)}: dial tcp {port}: i/o timeout") from error
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError) as error:
        raise Interrupted(f"{_operation(method, url)}: EOF") from error
    except aiohttp.ClientOSError as error:
        raise Interrupted(f"{_operation(method, url)}: {_reason(error)}") from error
    except aiohttp.ServerTimeoutError as error:
        raise Interrupted(f"{_operation(method, url)}: i/o timeout") from error
    except (aiohttp.InvalidURL, UnicodeError) as error:  # the second: for a name that cannot be one of a host
        raise SourceError(f'invalid address "{shown(url)}"') from error
    except aiohttp.ClientError as error:
        raise SourceError(f"{_operation(method, url)}: malformed answer: {str(error)[:200]}") from error


class _RefusedAddressError(OSError):
    """Raised where a socket would be made, so that it is the address itself that is judged."""


def _admit(reach: _Reach, address: str) -> None:
    ip = _unwrapped(address)
    allowed = is_public(address) if reach is _Reach.PUBLIC else not (ip.is_link_local or ip.is_multicast)
    if not allowed:
        raise _RefusedAddressError(f'the private address "{address}", where no registry may send us')


def _unwrapped(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The IPv4 address that an IPv6 one stands for, if it does."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_spared(url: URL, exceptions: str) -> bool:
    """Whether no proxy is to be asked: for this machine itself, and for what `NO_PROXY` lists, networks too (as Go)."""
    host = url.host or ""
    if host == "localhost" or urllib.request.proxy_bypass(url.authority.rpartition("@")[2]):
        return True
    if not _is_address(host):
        return False
    address = _unwrapped(host)
    return address.is_loopback or any(address in network for network in _networks(exceptions))


def _networks(exceptions: str) -> Iterator[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    for text in exceptions.split(","):
        with suppress(ValueError):  # a name
            yield ipaddress.ip_network(text.strip().strip("[]"), strict=False)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def _operation(method: str, url: URL) -> str:
    return f'{method.capitalize()} "{shown(url)}"'


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _reason(error: OSError) -> str:
    if error.errno is None:
        return "i/o timeout" if isinstance(error, TimeoutError) else str(error).lower()
    return os.strerror(error.errno).lower()


def _tls_reason(error: aiohttp.ClientSSLError) -> str:
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"tls: failed to verify certificate: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError) and cause.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
        return "http: server gave HTTP response to HTTPS client"
    return f"tls: {getattr(cause, 'reason', None) or cause}".lower()


def _retry_after(text: str) -> float:
    """Seconds or a date; never more than a minute."""
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), _MAX_PAUSE)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    return min(max(moment.timestamp() - time.time(), 0.0), _MAX_PAUSE)
