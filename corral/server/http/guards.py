"""Who may speak to the server: web origins (CORS) and host names (DNS rebinding). Knows no route.

Source: spec api §2.3 and §2.4.
"""

import ipaddress
import socket
from collections.abc import Iterable
from functools import lru_cache

import psutil
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from corral.errors import ConfigError

_SCHEMES = (
    "http://",
    "https://",
    "chrome-extension://",
    "safari-extension://",
    "moz-extension://",
    "ms-browser-extension://",
)
_BUILT_IN = (
    *(
        f"{scheme}://{host}{port}"
        for host in ("localhost", "127.0.0.1", "0.0.0.0")
        for scheme in ("http", "https")
        for port in ("", ":*")
    ),
    *("app://*", "file://*", "tauri://*", "vscode-webview://*", "vscode-file://*"),
)
_STAINLESS = "Arch Async Custom-Poll-Interval Helper-Method Lang Os Package-Version Poll-Helper Retry-Count Runtime"
_REQUEST_HEADERS = ",".join(
    (
        *("Authorization", "Content-Type", "User-Agent", "Accept", "X-Requested-With", "Openai-Beta"),
        *(f"X-Stainless-{name}" for name in (*_STAINLESS.split(), "Runtime-Version", "Timeout")),
        *("X-Api-Key", "Anthropic-Version", "Anthropic-Beta", "Anthropic-Dangerous-Direct-Browser-Access"),
    )
)
_PREFLIGHT = (
    (b"access-control-allow-methods", b"GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"),
    (b"access-control-allow-headers", _REQUEST_HEADERS.encode()),
    (b"access-control-max-age", b"43200"),
)
_VARY = tuple(
    (b"vary", name) for name in (b"Origin", b"Access-Control-Request-Method", b"Access-Control-Request-Headers")
)


class Origins:
    """The web origins that may call the server; an entry may hold one `*`."""

    def __init__(self, configured: Iterable[str]) -> None:
        entries = [entry.strip().lower() for entry in configured]
        for entry in entries:
            if entry != "*" and (entry.count("*") > 1 or not ("*" in entry or entry.startswith(_SCHEMES))):
                raise ConfigError(f'OLLAMA_ORIGINS: "{entry}" is no origin; write it as http://host or with one *')
        self.everyone = "*" in entries
        self._patterns = [tuple(entry.split("*", 1)) for entry in (*entries, *_BUILT_IN)]

    def allow(self, origin: str) -> bool:
        return self.everyone or any(_matches(origin, pattern) for pattern in self._patterns)


def _matches(origin: str, pattern: tuple[str, ...]) -> bool:
    if len(pattern) == 1:
        return origin == pattern[0]
    head, tail = pattern
    return len(origin) >= len(head) + len(tail) and origin.startswith(head) and origin.endswith(tail)


class Guard:
    """ASGI middleware that refuses strange origins and hosts with an empty 403, before any route is looked at.

    Hosts are checked where nothing but the machine's boundary keeps strangers out. A page that has another name led to
    this machine gets no further than any stranger where a key is needed, since it has none.
    """

    def __init__(self, app: ASGIApp, origins: Origins, *, hosts_are_checked: bool) -> None:
        self._app = app
        self._origins = origins
        self._hosts_are_checked = hosts_are_checked
        self._hostname = socket.gethostname().lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"] if name in (b"origin", b"host")}
        origin, host = headers.get(b"origin", ""), headers.get(b"host", "")
        foreign = bool(origin) and origin not in (f"http://{host}", f"https://{host}")
        if foreign and not self._origins.allow(origin):
            await _empty(send, 403)
            return
        if foreign and scope["method"] == "OPTIONS":
            await _empty(send, 204, (*_PREFLIGHT, *self._grant(origin, _VARY)))
            return
        if self._hosts_are_checked and (verdict := self._judge(host)) != "address":
            if verdict == "stranger":
                await _empty(send, 403)
                return
            if scope["method"] == "OPTIONS":
                await _empty(send, 204)
                return
        if foreign:
            send = _with_headers(send, self._grant(origin, _VARY[:1]))
        await self._app(scope, receive, send)

    def _grant(self, origin: str, vary: tuple[tuple[bytes, bytes], ...]) -> tuple[tuple[bytes, bytes], ...]:
        if self._origins.everyone:
            return ((b"access-control-allow-origin", b"*"),)
        return (*vary, (b"access-control-allow-origin", origin.encode("latin-1")))

    def _judge(self, header: str) -> str:
        """`address` for an acceptable IP literal, `name` for an acceptable host name, else `stranger`."""
        host = _without_port(header)
        address = _address(host)
        if address is None:
            name = host.lower()
            ours = name in ("", "localhost", self._hostname) or name.endswith((".localhost", ".local", ".internal"))
            return "name" if ours else "stranger"
        text, is_near = address
        return "address" if is_near or _is_ours(text) else "stranger"


@lru_cache(256)
def _address(host: str) -> tuple[str, bool] | None:
    """An IP address as it is usually written, and whether it can be no stranger's; None for what is none."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return str(address), address.is_loopback or address.is_private or address.is_unspecified


def _without_port(header: str) -> str:
    if header.startswith("["):
        host, bracket, port = header[1:].partition("]")
        return host if host and bracket and port[:1] in ("", ":") else header
    return header.rsplit(":", 1)[0] if header.count(":") == 1 else header


def _is_ours(address: str) -> bool:
    return any(address == found.address for card in psutil.net_if_addrs().values() for found in card)


def _with_headers(send: Send, extra: tuple[tuple[bytes, bytes], ...]) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *extra]}
        await send(message)

    return wrapped


async def _empty(send: Send, status: int, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    length = () if status == 204 else ((b"content-length", b"0"),)
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
    await send({"type": "http.response.body", "body": b""})
