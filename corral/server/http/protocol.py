"""HTTP/1.1 as Ollama's server understands it, where uvicorn's own reading of it differs. Knows no route.

Java's HTTP client offers HTTP/2 with each request on a new connection (`Upgrade: h2c`); a server that does not speak it
just answers the request. uvicorn's parser would take the body for something of another protocol, and drop it.
"""

import asyncio

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

NEVER = 1 << 30
"""Seconds, as uvicorn counts them, after which an idle connection is closed: 34 years."""

MAX_HEAD = 1 << 20
"""Bytes the first line and the headers of a request may have, Go's default."""

_INVALID = "Invalid HTTP request received."
_TOO_LARGE = b"431 Request Header Fields Too Large"


def bounded(most: int) -> type["Protocol"]:
    """The protocol of a server that has at most `most` connections open as long as some of them are idle."""
    return type("BoundedProtocol", (Protocol,), {"most_connections": most})


class Protocol(HttpToolsProtocol):
    """One connection. Offers of another protocol are ignored, and a head without end is refused with 431.

    An idle connection is the client's to close: pools of clients keep them, and one that is closed just as it is used
    again fails a request. Only when there are too many connections the one idle for longest is closed.
    """

    most_connections = 5120

    _head: int | None = 0
    """Bytes received of the head that is being read; None while a body is."""

    _last_used = 0.0
    """When it was made, data came or an answer was complete, on the loop's clock."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._last_used = self.loop.time()
        if len(self.connections) > self.most_connections:
            self._make_room()

    def _make_room(self) -> None:
        idle = [one for one in self.connections if isinstance(one, Protocol) and one is not self and one.is_idle]
        if idle:
            min(idle, key=lambda one: one._last_used).transport.close()

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way; a head that is still to end is none yet."""
        return not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._last_used = self.loop.time()

    def data_received(self, data: bytes) -> None:
        self._last_used = self.loop.time()
        self._unset_keepalive_if_required()
        while data:
            data = self._read(data)

    def _read(self, data: bytes) -> bytes:
        """Reads what has arrived; returns what is to be read again."""
        if self._head is not None:
            self._head += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if not self._should_upgrade():
                return b""
            return self._without_upgrade() + data[upgrade.args[0] :]
        except httptools.HttpParserError:
            self.logger.warning(_INVALID)
            self.send_400_response(_INVALID)
        else:
            if self._head is not None and self._head > MAX_HEAD:
                self._refuse()
        return b""

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._head = None

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._head = 0

    def _should_upgrade(self) -> bool:
        """Keeps uvicorn from answering a request whose body is still to come; `CONNECT` has none."""
        return str(self.scope["method"]) != "CONNECT"

    def _without_upgrade(self) -> bytes:
        """The head that has just ended, without its offer of another protocol, for a new parser."""
        self.parser = httptools.HttpRequestParser(self)
        self._head = 0
        kept = [name + b": " + value + b"\r\n" for name, value in self.headers if name != b"upgrade"]
        return b"%s %s HTTP/1.1\r\n%s\r\n" % (self.scope["method"].encode(), self.url, b"".join(kept))

    def _refuse(self) -> None:
        head = b"HTTP/1.1 %s\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n" % _TOO_LARGE
        self.transport.write(head + _TOO_LARGE)
        self.transport.close()
