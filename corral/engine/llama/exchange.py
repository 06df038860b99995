"""One request to a server and its answer as it comes, on a connection of its own. Knows no route, and no field.

Every token passes through here by itself, so this is a protocol on plain asyncio and no general client.
"""

import asyncio
from typing import Protocol, cast

import httptools

from corral.engine.llama.events import EventReader

MAX_HEAD = 64 << 10
"""Bytes of the largest head of an answer."""

MAX_UNREAD = 1 << 18
"""Bytes of an answer that may wait to be taken before no more are read."""


class NotHttp(ConnectionError):
    """What came is no answer of HTTP."""


class ReadsEvents(Protocol):
    """Finds events in bytes as they come."""

    def feed(self, received: bytes) -> list[bytes]:
        """The data of each event that has ended."""
        ...


class Exchange(asyncio.Protocol):
    """The answer's side of a connection: its head, then the events of its body, or all of that.

    Errors are those of the connection, `OSError` and its kinds, and `NotHttp`.
    """

    def __init__(self, reader: ReadsEvents | None = None) -> None:
        """`reader` finds the events; None: as llama-server writes them."""
        self.status = 0
        """Of the answer; 0 before its head has come."""
        self.headers: dict[bytes, bytes] = {}
        """Of the answer, by their names in lower case."""
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._reader = EventReader() if reader is None else reader
        self._head = 0
        """Bytes that came before the head was complete."""
        self._body = b""
        """What has come of it and was not taken yet."""
        self._is_paused = False
        self._is_complete = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def answered(self) -> None:
        """Waits for the head of the answer."""
        while not self.status:
            await self._change()

    async def events(self) -> list[bytes]:
        """The JSON of the events that have ended since the last call, one at least; none at the answer's end.

        `EngineError` for an event that never ends, and whatever else the reader raises.
        """
        while True:
            if self._body:
                received, self._body = self._body, b""
                if self._is_paused:
                    self._is_paused = False
                    self._transport.resume_reading()
                if found := self._reader.feed(received):
                    return found
            elif self._is_complete:
                return []
            else:
                await self._change()

    async def whole(self) -> bytes:
        """The body, of which no more is read than `MAX_UNREAD` bytes and what came with them."""
        while not self._is_complete and not self._is_paused:
            await self._change()
        return self._body

    def taken(self) -> bytes:
        """What has come of the body so far and was not taken yet."""
        return self._body

    def send(self, data: bytes) -> None:
        self._transport.write(data)

    def close(self) -> None:
        """Breaks off what is under way."""
        self._transport.abort()

    def fail(self, error: OSError) -> None:
        """Breaks off what is under way; who waits for more gets this error."""
        self._error = self._error or error
        self._transport.abort()
        self._wake()

    async def _change(self) -> None:
        """Waits until something has come; raises what has ended the connection."""
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
            if not self.status:
                self._head += len(data)
                if self._head > MAX_HEAD:
                    raise httptools.HttpParserError(f"its head has more than {MAX_HEAD} bytes")
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._error = NotHttp(f"what came is no answer of HTTP: {error}")
            self._transport.abort()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._error = self._error or exc or ConnectionResetError("unexpected EOF")
        self._wake()

    # What the parser calls

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.status:  # else it stands behind the body
            self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self._body += body
        if len(self._body) > MAX_UNREAD and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        self._is_complete = True
