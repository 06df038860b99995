"""Pictures that a request names by their address, fetched from the public internet. Knows no dialect.

The address comes from outside, so the server may not be made to reach into its own network: every address is judged
where the socket is made, after names were looked up, and the connection goes to the very address that was judged. No
proxy is asked, since it would look names up by itself.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple, TypeAlias

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from corral import __version__
from corral.errors import BadRequest
from corral.media_kinds import PICTURES, kind_of
from corral.sources.registry.addresses import RefusedAddressError, is_public

MAX_IMAGES = 32
"""Addresses that one request may name."""

MAX_BYTES, MAX_BYTES_IN_ALL = 32 << 20, 128 << 20
"""Bytes of a picture, and of all that one request names."""

SECONDS = 30.0
"""How long fetching all pictures of a request may take."""

MAX_REDIRECTS = 5

_CONNECT_SECONDS = 10.0
_FIRST_BYTES = 12

Hold: TypeAlias = Callable[[int], Awaitable[None]]


class LinkedImage(NamedTuple):
    """A picture that a request names by its address; `put` replaces the address by the picture, in the request."""

    url: str
    put: Callable[[bytes], None]


class ImageFetcher:
    """Fetches pictures from addresses that `is_allowed`; `resolver` looks names up, None: the system's."""

    def __init__(
        self,
        is_allowed: Callable[[str], bool] = is_public,
        resolver: AbstractResolver | None = None,
        *,
        seconds: float = SECONDS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._is_allowed = is_allowed
        self._resolver = resolver
        self._seconds = seconds
        self._max_bytes = max_bytes

    async def fetch_all(self, images: Iterable[LinkedImage], hold: Hold) -> None:
        """Puts every picture into its place. `BadRequest` says which cannot be had, and why.

        An address that is named twice is asked once. `hold` is asked for room for so many bytes before they are kept.
        """
        places: dict[str, list[LinkedImage]] = {}
        for image in images:
            places.setdefault(image.url, []).append(image)
        if len(places) > MAX_IMAGES:
            raise BadRequest(f"{len(places)} image URLs are too many, at most {MAX_IMAGES} are fetched for a request")
        total, url = 0, ""
        try:
            async with asyncio.timeout(self._seconds), self._session() as session:
                for url, linked in places.items():
                    data = await self._fetch(session, url, hold)
                    total += len(data)
                    if total > MAX_BYTES_IN_ALL:
                        raise BadRequest(f"the images of all URLs together have more than {MAX_BYTES_IN_ALL} bytes")
                    for image in linked:
                        await asyncio.to_thread(image.put, data)
        except TimeoutError as error:
            raise _refusal(url, f"it did not come within {self._seconds:g} seconds") from error

    async def _fetch(self, session: aiohttp.ClientSession, text: str, hold: Hold) -> bytes:
        """The file at an address, and where it sends us on."""
        url = _checked(text, text)
        try:
            for _ in range(MAX_REDIRECTS + 1):
                async with session.get(url, allow_redirects=False) as response:
                    if response.status not in (301, 302, 303, 307, 308):
                        return await self._read(text, response, hold)
                    url = _checked(text, response.headers.get("Location", ""), response.url)
        except (aiohttp.InvalidURL, ValueError) as error:
            raise _refusal(text, "it is no address") from error
        except (aiohttp.ClientError, OSError) as error:
            if _is_refused_address(error):
                raise _refusal(text, "it leads to an address that is not public") from error
            raise _refusal(text, "its server cannot be reached") from error
        raise _refusal(text, f"it redirects more than {MAX_REDIRECTS} times")

    async def _read(self, text: str, response: aiohttp.ClientResponse, hold: Hold) -> bytes:
        """The file; what it is its first bytes say, whatever its server calls it, and no more than these are read."""
        if response.status != 200:
            raise _refusal(text, f"its server answered with status {response.status}")
        if response.headers.get("Content-Encoding", "identity").lower() not in ("identity", ""):
            raise _refusal(text, "its server compressed it, which was not asked for")
        data = bytearray()
        async for chunk in response.content.iter_any():
            if max(len(data) + len(chunk), response.content_length or 0) > self._max_bytes:
                raise _refusal(text, f"it has more than {self._max_bytes} bytes")
            await hold(len(chunk))
            data += chunk
            if len(data) >= _FIRST_BYTES and kind_of(bytes(data[:_FIRST_BYTES])) not in PICTURES:
                break
        if kind_of(bytes(data[:_FIRST_BYTES])) not in PICTURES:
            raise _refusal(text, "it is no picture (PNG, JPEG, WebP, GIF, BMP)")
        return bytes(data)

    def _session(self) -> aiohttp.ClientSession:
        """Without cookies, credentials and proxies; connections end with it."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=1, force_close=True, resolver=self._resolver, socket_factory=self._socket
            ),
            headers={"User-Agent": f"corral/{__version__}", "Accept": "image/*", "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )

    def _socket(self, info: aiohttp.AddrInfoType) -> socket.socket:
        """The socket for an address that was looked up; it is connected to no other."""
        family, kind, protocol, _, address = info
        if not self._is_allowed(str(address[0])):
            raise RefusedAddressError(f'"{address[0]}" is not public')
        return socket.socket(family, kind, protocol)


def _checked(named: str, text: str, base: URL | None = None) -> URL:
    """An address to ask, or where `base` sends us on; `BadRequest` for any that is not HTTP's, or has a user name."""
    if not text.isprintable():
        raise _refusal(named, "it is no address")
    try:
        url = URL(text) if base is None else base.join(URL(text))
        is_http = url.scheme in ("http", "https") and bool(url.host)
    except ValueError as error:
        raise _refusal(named, "it is no address") from error
    if not is_http or not text:
        raise _refusal(named, "only http and https addresses are fetched")
    if url.user is not None or url.password is not None:
        raise _refusal(named, "an address with a user name or password is not fetched")
    return url


def _is_refused_address(error: BaseException) -> bool:
    """Whether a connection failed because of what its address is; the reason may lie deep in a group of errors."""
    if isinstance(error, RefusedAddressError):
        return True
    causes = [error.__cause__, *(error.exceptions if isinstance(error, BaseExceptionGroup) else ())]
    if isinstance(error, aiohttp.ClientConnectorError):
        causes.append(error.os_error)
    return any(cause is not None and _is_refused_address(cause) for cause in causes)


def _refusal(text: str, why: str) -> BadRequest:
    """What stands after `?` may be a secret, and is not repeated."""
    shown = text.partition("?")[0].partition("#")[0]
    scheme, mark, rest = shown.partition("://")
    host, slash, path = rest.partition("/")
    shown = f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"[:200]
    printable = "".join(letter if letter.isprintable() else "\ufffd" for letter in shown)
    return BadRequest(f'image URL "{printable}" cannot be used: {why}')
