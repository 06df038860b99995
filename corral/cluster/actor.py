"""The actor that Ray starts on a node: one `Host`, whose words it passes on.

Its process ends with the server that made it, and the worker with the process. Ray is there when this runs.
"""

import os

from corral import config
from corral.cluster import wire
from corral.cluster.host import Host


class ReplicaActor:
    """Everything is sent as JSON, so that nothing but text has to be understood by the other side."""

    def __init__(self) -> None:
        import ray

        address = str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
        self._host = Host(config.load().config, address, str(os.getpid()))

    async def hello(self) -> bytes:
        return wire.encode(self._host.hello())

    async def load(self, order: bytes) -> bytes:
        return wire.encode(await self._host.load(wire.decode_order(order)))

    async def state(self) -> bytes:
        return wire.encode(self._host.state())

    async def stop(self) -> None:
        await self._host.stop()
