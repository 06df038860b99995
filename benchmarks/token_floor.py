"""The least that a streamed token can cost a server in Python here: a program that does nothing else.

    python benchmarks/token_floor.py MODEL.gguf

Starts a worker of Corral's engine with MODEL and listens: the prompt of any request goes to the worker, and each event
of its answer goes out as a line of `/api/generate`. No routes, no checks, no errors, no hang-ups: two protocols on
uvloop, `httptools` and `msgspec` between them. Prints where it listens. `token_cost.py` asks it.
"""

import argparse
import asyncio
import tempfile
from pathlib import Path
from typing import cast

import httptools
import msgspec
import uvloop

from corral.engine.base import RunnerSpec
from corral.engine.llama.process import WorkerProcess

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n"


class Asked(msgspec.Struct):
    """What is read of a request."""

    prompt: str
    options: dict[str, float]


class Event(msgspec.Struct):
    """What is read of one of the worker's."""

    content: str
    stop: bool


class Client(asyncio.Protocol):
    """A connection of a client: one request after the other."""

    def __init__(self, worker: WorkerProcess) -> None:
        self._worker = worker
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        asked, self._body = msgspec.json.decode(self._body, type=Asked), b""
        body = {
            "prompt": asked.prompt,
            "stream": True,
            "return_tokens": True,
            "n_predict": asked.options["num_predict"],
            "temperature": asked.options["temperature"],
        }
        self._task = asyncio.ensure_future(self._forward(msgspec.json.encode(body)))

    async def _forward(self, body: bytes) -> None:
        host, port = self._worker.url.removeprefix("http://").split(":")
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(lambda: Answer(self.transport), host, int(port))
        head = f"POST /completion HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {self._worker.key}\r\n"
        transport.write(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        self.transport.write(HEAD)


class Answer(asyncio.Protocol):
    """The worker's side of one answer."""

    def __init__(self, client: asyncio.Transport) -> None:
        self._client = client
        self._parser = httptools.HttpResponseParser(self)
        self._decode = msgspec.json.Decoder(Event).decode

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        event = self._decode(body[6:])
        line = b'{"model":"m","response":%b,"done":%b}\n' % (
            msgspec.json.encode(event.content),
            b"true" if event.stop else b"false",
        )
        self._client.write(b"%x\r\n%b\r\n" % (len(line), line) + (b"0\r\n\r\n" if event.stop else b""))
        if event.stop:
            self._transport.close()


async def main(model: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        spec = RunnerSpec(model=str(model), num_ctx=4096, slots=16, pool=4 * 4096)
        worker = await WorkerProcess.start(spec, log=Path(folder) / "log")
        try:
            await worker.ready(120)
            server = await asyncio.get_running_loop().create_server(lambda: Client(worker), "127.0.0.1", 0)
            host, port = server.sockets[0].getsockname()
            print(f"Listening on {host}:{port}", flush=True)
            await server.serve_forever()
        finally:
            await worker.stop()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("model", type=Path)
    uvloop.run(main(arguments.parse_args().model.absolute()))
