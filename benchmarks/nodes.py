"""What a streamed token of a worker on another node costs the server, beside one of a worker here.

    python benchmarks/nodes.py MODEL.gguf

Both workers run on this machine; the other one is behind a node's part, which runs in a process of its own, and is
reached in two ways: over TLS, as it always is, and by the same bytes handed on without, which tells what TLS costs.
Answers of 300 tokens are read in turns, and the processor time of the reading process is taken.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import uvloop
from measuring import header

from corral import config
from corral.cluster.file_route import FileRoute
from corral.cluster.host import Host
from corral.cluster.identity import Identity
from corral.cluster.launching import Digests
from corral.cluster.relay import Relay
from corral.cluster.remote import LOSS_SECONDS, Health, RemoteWorker
from corral.cluster.wire import Order, Signs, Started, decode_hello, decode_order, decode_reply, encode
from corral.engine import connecting
from corral.engine.base import CompletionRequest, RunnerSpec, Sampling
from corral.engine.llama.client import LlamaEngine
from corral.engine.llama.exchange import Exchange
from corral.engine.llama.launch import launch

TOKENS, ROUNDS = 300, 9


async def node() -> None:
    """The node's side: an order comes on standard input, a line of JSON. It answers with what it has started, and with
    the port of the worker's bytes without TLS."""
    home = Path(tempfile.mkdtemp(prefix="corral-node-"))
    host = Host(replace(config.load().config, state=home), "127.0.0.1", "1")
    sys.stdout.buffer.write(encode(host.hello()) + b"\n")
    sys.stdout.flush()
    order = decode_order(await asyncio.to_thread(sys.stdin.buffer.readline))
    sys.stdout.buffer.write(encode(await host.load(order)) + b"\n")
    engine = host._engine
    assert engine is not None
    plain = Relay(Identity("node"), order.certificate, int(engine.url.rpartition(":")[2]), lambda: Signs(0, 0.0, 0))
    listening = await asyncio.start_server(plain._pass_on, "127.0.0.1", 0)
    sys.stdout.buffer.write(b"%d\n" % listening.sockets[0].getsockname()[1])
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.buffer.readline)
    await host.stop()


class PlainWorker(RemoteWorker):
    """The worker on the node, asked without TLS."""

    plain_port: int

    async def exchange(self) -> Exchange:
        return await connecting.opened(Exchange, self.node, self.plain_port, loss_seconds=LOSS_SECONDS, encryption=None)


async def microseconds(engine: LlamaEngine) -> float:
    """Of the processor, for each token of an answer."""
    sampling = Sampling(logit_bias=((2, -100.0),), seed=1)
    request = CompletionRequest(prompt="Once upon a time", max_tokens=TOKENS, sampling=sampling)
    tokens, began = 0, time.process_time()
    async with aclosing(engine.complete(request)) as pieces:
        async for piece in pieces:
            tokens += len(piece.tokens)
    return (time.process_time() - began) * 1e6 / max(1, tokens)


async def main(model: Path) -> None:
    spec = RunnerSpec(model=str(model), num_ctx=1024, pool=1024, num_thread=1)
    folder = Path(tempfile.mkdtemp(prefix="corral-bench-"))
    here = await launch(spec, log=folder / "here.log", stall_timeout=60)
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, "--node", "-"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 20,
        env={**os.environ},
    )
    assert child.stdin is not None
    assert child.stdout is not None
    hello = decode_hello(await child.stdout.readline())
    identity = Identity("server")
    route = FileRoute(identity, "127.0.0.1")
    await route.open()
    wanted = Digests().of(model)
    order = Order(
        spec=spec,
        label="m",
        files={str(model): wanted},
        certificate=identity.certificate,
        file_route=route.url,
        stall_timeout=60,
    )
    async with route.offered(hello.certificate, {wanted.digest: model}):
        child.stdin.write(encode(order) + b"\n")
        started = decode_reply(await child.stdout.readline())
    assert isinstance(started, Started), started

    async def stop(grace: float) -> None:
        child.stdin.write(b"\n")  # type: ignore[union-attr]
        await child.wait()

    async def left(grace: float) -> None:
        """The other way to the same worker ends it."""

    plain = PlainWorker(hello, started, identity, left, Health())
    plain.plain_port = int(await child.stdout.readline())
    worker = RemoteWorker(hello, started, identity, stop, Health())
    for one in (plain, worker):
        await one.ready(60)
    engines = {"here": here, "on a node, without TLS": LlamaEngine(plain), "on a node": LlamaEngine(worker)}
    costs: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(ROUNDS + 1):
        for name in list(engines) if number % 2 else reversed(engines):
            cost = await microseconds(engines[name])
            if number:  # the first answers are not counted
                costs[name].append(cost)
    for engine in reversed(engines.values()):
        await engine.close()
    await route.close()
    print(header())
    for name, those in costs.items():
        print(f"{name:24}{statistics.median(those):6.1f} µs a token ({min(those):.1f} to {max(those):.1f})")
    for name in list(engines)[1:]:
        more = statistics.median(there - here for here, there in zip(costs["here"], costs[name], strict=True))
        print(f"{name + ', more':31}{more:+6.1f} µs a token")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--node", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("model", type=Path)
    given = parser.parse_args()
    uvloop.run(node() if given.node else main(given.model.absolute()))
