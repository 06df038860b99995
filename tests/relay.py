"""Bytes handed on to another port of this machine and back, for servers that stand in front of others."""

import asyncio


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int, first: bytes = b"") -> None:
    """Hands on what comes until both sides have ended; `first` was read already."""
    upstream, down = await asyncio.open_connection("127.0.0.1", port)
    down.write(first)
    await asyncio.gather(_pipe(reader, down), _pipe(upstream, writer))


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()
