"""HTTP/1.1 as Ollama's server understands it, where uvicorn's own reading of it differs. Knows no route.

Java's HTTP client offers HTTP/2 with each request on a new connection (`Upgrade: h2c`); a server that does not speak it
just answers the request. uvicorn's parser would take the body for something of another protocol, and drop it.

What one connection may cost is bounded here: the size of a head and the time it takes, what stands around the chunks of
a body, the time an answer lies unread, and how many connections there are. Bodies: `budget`.
"""

import asyncio

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

NEVER = 1 << 30
"""Seconds, as uvicorn counts them, after which an idle connection is closed: 34 years."""

MAX_HEAD = 64 << 10
"""Bytes the first line and the headers of a request may have, and what stands around the chunks of a body."""

MAX_HEADERS = 256
"""Headers a request may have."""

HEAD_SECONDS = 30.0
"""How long a head may take from its first byte to its last."""

UNREAD_SECONDS = 300.0
"""How long a client may leave an answer unread that fills the buffers between us, and so hold its slot of a model."""

CHUNK_SHARE = 16
"""How many bytes may stand around each byte of a body that comes in chunks; a chunk of one byte has five."""

_INVALID = "Invalid HTTP request received."
_TOO_LARGE = b"431 Request Header Fields Too Large"
_TOO_SLOW = b"408 Request Timeout"
_TOO_MANY = b"503 Service Unavailable"


def bounded(most_idle: int, most: int) -> type["Protocol"]:
    """The protocol of a server with at most `most` connections, and `most_idle` as long as some of them are idle."""
    return type("BoundedProtocol", (Protocol,), {"most_idle": most_idle, "most": most})


class _HeadTooLarge(Exception):
    """More headers, or larger ones, than are read."""


class Protocol(HttpToolsProtocol):
    """One connection. Offers of another protocol are ignored, and a head without end is refused with 431.

    An idle connection is the client's to close: pools of clients keep them, and one that is closed just as it is used
    again fails a request. Only when there are too many connections the one idle for longest is closed. Where none is,
    the new one is refused with 503.
    """

    most_idle = 5120
    most = 7680

    _head: int | None = 0
    """Bytes received of the head that is being read; None while a body is."""

    _fields = 0
    """Bytes of the head's headers."""

    _around = 0
    """Bytes received of a body that are more than `CHUNK_SHARE` allows for what it has given."""

    _is_dropped = False
    _last_used = 0.0
    """When it was made, data came or an answer was complete, on the loop's clock."""

    _head_timer: asyncio.TimerHandle | None = None
    _unread_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._last_used = self.loop.time()
        if len(self.connections) > self.most_idle and not self._make_room() and len(self.connections) > self.most:
            self._refuse(_TOO_MANY)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head_timer, self._unread_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def _make_room(self) -> bool:
        """Closes the connection that is idle for longest; whether there was one."""
        others = [one for one in self.connections if isinstance(one, Protocol) and one is not self and one._is_spare]
        if others:
            min(others, key=lambda one: one._last_used)._drop()
        return bool(others)

    @property
    def _is_spare(self) -> bool:
        """Whether it is idle, or closed by us and not yet read to its end, and not dropped already."""
        return not self._is_dropped and (self.is_idle or self.transport.is_closing())

    def _drop(self) -> None:
        """Closes it; at once where a client does not read what it was sent last."""
        self._is_dropped = True
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way; a head that is still to end is none yet."""
        return not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._last_used = self.loop.time()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread_timer = self.loop.call_later(UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread_timer is not None:
            self._unread_timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._last_used = self.loop.time()
        self._unset_keepalive_if_required()
        while data:
            data = self._read(data)
        self._time_head()

    def _time_head(self) -> None:
        """A clock runs while a head is incomplete."""
        if not self._head and self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        elif self._head and self._head_timer is None and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def _head_is_late(self) -> None:
        if self.is_idle:
            self._refuse(_TOO_SLOW)
        else:  # its client still gets the answer to an earlier request
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def _read(self, data: bytes) -> bytes:
        """Reads what has arrived; returns what is to be read again."""
        if self._head is None:
            self._around += len(data)
        else:
            self._head += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if not self._should_upgrade():
                return b""
            return self._without_upgrade() + data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, _HeadTooLarge):
                self._refuse(_TOO_LARGE)
                return b""
            self.logger.warning(_INVALID)
            self.send_400_response(_INVALID)
        else:
            if (self._around if self._head is None else self._head) > MAX_HEAD:
                self._refuse(_TOO_LARGE)
        return b""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._fields = self._around = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MAX_HEAD:
            raise _HeadTooLarge

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head is None:
            return  # a trailer: nobody has use for one
        self._fields += len(name) + len(value)
        if self._fields > MAX_HEAD or len(self.headers) == MAX_HEADERS:
            raise _HeadTooLarge
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._head = None

    def on_body(self, body: bytes) -> None:
        self._around = max(0, self._around - CHUNK_SHARE * len(body))
        super().on_body(body)

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

    def _refuse(self, status: bytes) -> None:
        self.logger.warning("a client was refused: %s", status.decode())
        head = b"HTTP/1.1 %s\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n" % status
        self.transport.write(head + status)
        self.transport.close()
