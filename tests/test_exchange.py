"""An answer of a llama-server on the wire: events as they come, and what is not an answer at all."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from corral.engine.llama.exchange import MAX_HEAD, MAX_UNREAD, Exchange, NotHttp

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


ANSWER = HEAD + chunk(b'data: {"a":1}\n\n') + chunk(b'data: {"b":2}\n\nerror: {"c":3}\n\n') + chunk(b"")
EVENTS = [b'{"a":1}', b'{"b":2}', b'{"error":{"c":3}}']


@contextlib.asynccontextmanager
async def answered(*parts: bytes) -> AsyncIterator[Exchange]:
    """The client's side of a connection on which these parts come, one after the other was read, and then its end."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        _, exchange = await asyncio.get_running_loop().create_connection(Exchange, *server.sockets[0].getsockname())
        exchange.send(b"?")
        yield exchange
        exchange.close()


async def read(exchange: Exchange, found: list[bytes]) -> None:
    """Adds the events of an answer as they come."""
    await exchange.answered()
    assert exchange.status == 200
    while some := await exchange.events():
        found += some


async def test_an_answer_gives_the_same_events_wherever_it_is_cut() -> None:
    for cut in range(1, len(ANSWER)):
        found: list[bytes] = []
        async with answered(ANSWER[:cut], ANSWER[cut:]) as exchange:
            await read(exchange, found)
        assert found == EVENTS


async def test_a_connection_that_ends_within_an_answer_is_an_error_after_what_came() -> None:
    found: list[bytes] = []
    async with answered(ANSWER[:-5]) as exchange:
        with pytest.raises(ConnectionError):
            await read(exchange, found)
    assert found == EVENTS


@pytest.mark.parametrize("sent", [b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * MAX_HEAD])
async def test_what_is_no_answer_of_http_is_told(sent: bytes) -> None:
    async with answered(sent) as exchange:
        with pytest.raises(NotHttp):
            await exchange.answered()


async def test_a_body_without_end_is_not_read_to_it() -> None:
    async with answered(HEAD, *[chunk(b"x" * MAX_UNREAD)] * 40) as exchange:
        await exchange.answered()
        assert MAX_UNREAD < len(await exchange.whole()) < 4 * MAX_UNREAD
