"""What a streamed token of a worker on another node costs the server, beside one of a worker here.

    python benchmarks/nodes.py MODEL.gguf

Both workers run on this machine; the other one is behind the TLS of a node, whose part runs in a process of its own.
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
from corral.cluster.remote import Health, RemoteWorker
from corral.cluster.wire import Order, Started, decode_hello, decode_order, decode_reply, encode
from corral.engine.base import CompletionRequest, RunnerSpec, Sampling
from corral.engine.llama.client import LlamaEngine
from corral.engine.llama.launch import launch

TOKENS, ROUNDS = 300, 5


async def node() -> None:
    """The node's side: an order comes on standard input, as bytes that were announced."""
    home = Path(tempfile.mkdtemp(prefix="corral-node-"))
    host = Host(replace(config.load().config, state=home), "127.0.0.1", "1")
    sys.stdout.buffer.write(encode(host.hello()) + b"\n")
    sys.stdout.flush()
    order = await asyncio.to_thread(sys.stdin.buffer.readline)
    sys.stdout.buffer.write(encode(await host.load(decode_order(order))) + b"\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.buffer.readline)
    await host.stop()


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

    worker = RemoteWorker(hello, started, identity, stop, Health())
    await worker.ready()
    there = LlamaEngine(worker)
    for engine in (here, there):
        await microseconds(engine)
    pairs = [(await microseconds(here), await microseconds(there)) for _ in range(ROUNDS)]
    await there.close()
    await here.close()
    await route.close()
    print(header())
    for name, costs in zip(("here", "on a node"), zip(*pairs, strict=True), strict=True):
        print(f"{name:10} {statistics.median(costs):6.1f} µs a token ({min(costs):.1f} to {max(costs):.1f})")
    print(f"more       {statistics.median(there - here for here, there in pairs):6.1f} µs a token, TLS included")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--node", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("model", type=Path)
    given = parser.parse_args()
    uvloop.run(node() if given.node else main(given.model.absolute()))
