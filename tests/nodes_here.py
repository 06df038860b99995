"""Nodes that are plain child processes of this machine, behind the border that Ray is behind otherwise.

Run as a program it is a node's side of one replica: a `Host` that is told what to do in lines of JSON.
"""

import asyncio
import base64
import json
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import msgspec

from corral.cluster import wire
from corral.cluster.placing import Node, Resources
from corral.cluster.wire import Failed, Hello, LoadState, Order, Started
from corral.errors import EngineLost
from tests.conftest import environment

ROOM = Resources(4.0, 8 << 30)


class NodesHere:
    """A `Cluster` of nodes `a`, `b`, … Each has a home folder of its own; nothing is placed on those in `full`."""

    address = "127.0.0.1"

    def __init__(self, folder: Path, names: str, **variables: str) -> None:
        self.folder = folder
        self.names = list(names)
        self.full: set[str] = set()
        self.variables = variables
        self.versions: dict[str, str] = {}
        """Those that nodes say they have, by their names, where it is not the right one."""
        self.placed: list[PlacedHere] = []

    async def nodes(self) -> Sequence[Node]:
        return [
            Node(id=name, address=f"node-{name}", total=ROOM, free=Resources() if name in self.full else ROOM)
            for name in self.names
        ]

    async def place(self, needs: Resources, without: Collection[str]) -> "PlacedHere":
        busy = [one.name for one in self.placed if one.is_running]
        free = [name for name in self.names if name not in without and name not in self.full]
        found = PlacedHere(self, min(free, key=busy.count, default=""))
        self.placed.append(found)
        return found

    async def close(self) -> None:
        for one in self.placed:
            await one.stop(0)


class PlacedHere:
    """A `Placed` that is a child process; one without a name waits for ever."""

    def __init__(self, cluster: NodesHere, name: str) -> None:
        self.cluster, self.name = cluster, name
        self.process: asyncio.subprocess.Process | None = None
        self.started: Started | None = None
        self._lock = asyncio.Lock()

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.returncode is None

    async def hello(self) -> Hello:
        if not self.name:
            await asyncio.get_running_loop().create_future()
        home = self.cluster.folder / self.name
        home.mkdir(parents=True, exist_ok=True)
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.nodes_here",
            env=environment(
                home, "127.0.0.1:0", {"PYTHONPATH": str(Path(__file__).parent.parent), **self.cluster.variables}
            ),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        hello = wire.said(wire.decode_hello, await self._answer("hello"), self.name)
        return msgspec.structs.replace(hello, version=self.cluster.versions.get(self.name, hello.version))

    async def node_id(self) -> str:
        return self.name

    async def load(self, order: Order) -> Started:
        reply = wire.said(wire.decode_reply, await self._answer("load", wire.encode(order)), self.name)
        if isinstance(reply, Failed):
            raise wire.raised(reply, self.name)
        self.started = reply
        return reply

    async def state(self) -> LoadState:
        return LoadState()

    async def stop(self, grace: float) -> None:
        if self.process is None or self.process.returncode is not None:
            return
        if grace > 0:
            await self._answer("stop")
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    async def _answer(self, what: str, data: bytes = b"") -> bytes:
        process = self.process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        async with self._lock:
            process.stdin.write(json.dumps([what, base64.b64encode(data).decode()]).encode() + b"\n")
            line = await process.stdout.readline()
        if not line:
            raise EngineLost(f"node {self.name} is gone")
        return base64.b64decode(line)


async def main() -> None:
    from corral import config
    from corral.cluster.host import Host

    host = Host(config.load().config, "127.0.0.1", "1")
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        what, data = json.loads(line)
        answer: Any = {}
        if what == "hello":
            answer = host.hello()
        elif what == "load":
            answer = await host.load(wire.decode_order(base64.b64decode(data)))
        else:
            await host.stop()
        sys.stdout.write(base64.b64encode(wire.encode(answer)).decode() + "\n")
        sys.stdout.flush()
    await host.stop()


if __name__ == "__main__":
    asyncio.run(main())
