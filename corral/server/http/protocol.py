"""HTTP/1.1 as Ollama's server understands it, where uvicorn's own reading of it differs. Knows no route.

Java's HTTP client offers HTTP/2 with each request on a new connection (`Upgrade: h2c`); a server that does not speak it
just answers the request. uvicorn's parser would take the body for something of another protocol, and drop it.
"""

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD = 1 << 20
"""Bytes the first line and the headers of a request may have, Go's default."""

_INVALID = "Invalid HTTP request received."
_TOO_LARGE = b"431 Request Header Fields Too Large"


class Protocol(HttpToolsProtocol):
    """One connection. Offers of another protocol are ignored, and a head without end is refused with 431."""

    _head: int | None = 0
    """Bytes received of the head that is being read; None while a body is."""

    def data_received(self, data: bytes) -> None:
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
