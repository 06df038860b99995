"""Ray as the one who places replicas. The only module of the server that imports it."""

import asyncio
import contextlib
import logging
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any

from corral import config
from corral.cluster import probe, wire
from corral.cluster.actor import ReplicaActor
from corral.cluster.placing import Node, Resources
from corral.cluster.wire import Failed, Hello, LoadState, Order, Started
from corral.errors import ConfigError, EngineError, EngineLost

log = logging.getLogger(__name__)

PROBE_SECONDS = 30.0
ENDED_ON_PURPOSE = (1, 4)
"""Ray's numbers for nodes that were stopped by somebody, or by the autoscaler since they had nothing to do: nobody
misses those. Source: `NodeDeathInfo.Reason` in Ray's common.proto."""

STOP_SECONDS = 1.0
"""What an actor may take beyond the grace of its worker."""


async def join(address: str, *, is_insecure: bool) -> "RayCluster":
    """The cluster at `address`, as HOST:PORT, of which this machine has to be a node.

    `ConfigError` when Ray is not installed or not reached, and, unless `is_insecure`, when the cluster does what a
    stranger says.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError('--ray needs Ray, which is not installed: pip install "corral[ray]"') from error
    await _require_token(address, is_insecure)
    try:
        await asyncio.to_thread(
            ray.init, address=address, namespace="corral", log_to_driver=False, configure_logging=False
        )
    except Exception as error:  # Ray raises whatever went wrong
        raise ConfigError(f'the Ray cluster at "{address}" cannot be joined: {_first_line(error)}') from error
    return RayCluster(ray)


async def _require_token(address: str, is_insecure: bool) -> None:
    advice = (
        "whoever reaches its ports can run programs on every node; start each node with RAY_AUTH_MODE=token and the "
        "same RAY_AUTH_TOKEN (`ray get-auth-token --generate`), and the server, too"
    )
    problem = ""
    if config.ray_auth_mode() != "token":
        problem = "RAY_AUTH_MODE is not token"
    else:
        status = await asyncio.to_thread(_probed, address)
        if status == probe.LET_IN:
            problem = f'the Ray cluster at "{address}" lets in who has no token'
        elif status != probe.REFUSED:
            raise ConfigError(f'no Ray cluster answers at "{address}"')
    if problem and not is_insecure:
        raise ConfigError(f"{problem}: {advice}\n--ray-insecure starts all the same")
    if problem:
        log.warning("INSECURE, as --ray-insecure wants it: %s: %s", problem, advice)


def _probed(address: str) -> int:
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "corral.cluster.probe", address],
            env=config.child_environment(RAY_AUTH_MODE="disabled"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return -1
    return done.returncode


class RayCluster:
    """A `Cluster` whose nodes run Ray. `ray` is the module, joined to it."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._actor = ray.remote(max_restarts=0, max_task_retries=0)(ReplicaActor)

    @property
    def address(self) -> str:
        return str(self._ray.util.get_node_ip_address())

    async def nodes(self) -> Sequence[Node]:
        return await asyncio.to_thread(self._nodes)

    def _nodes(self) -> list[Node]:
        from ray._private.state import state  # there is no public way

        free: dict[str, dict[str, float]] = state.available_resources_per_node()  # type: ignore[no-untyped-call]
        return [
            Node(
                id=node["NodeID"],
                address=node["NodeManagerAddress"],
                is_alive=node["Alive"],
                total=_resources(node["Resources"]),
                free=_resources(free.get(node["NodeID"], {})),
            )
            for node in self._ray.nodes()
            if node["Alive"] or node.get("DeathReason") not in ENDED_ON_PURPOSE
        ]

    async def place(self, needs: Resources, without: Collection[str]) -> "RayPlaced":
        options: dict[str, Any] = {
            "num_cpus": needs.cpus,
            "memory": needs.memory,
            "num_gpus": needs.gpus,
            "scheduling_strategy": "SPREAD",
        }
        if without:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(sorted(without))})"}
        actor = await asyncio.to_thread(self._actor.options(**options).remote)
        return RayPlaced(self._ray, actor, self._place_of)

    def _place_of(self, actor: Any) -> tuple[str, str]:
        """The id and the address of the node that Ray has put an actor on, also one that has ended; empty: none."""
        from ray._private.state import state  # there is no public way without Ray's dashboard

        found = state.actor_table(actor._actor_id.hex()).get("Address", {})
        node = found.get("NodeID", "") if found.get("IPAddress") else ""  # without: the node that is asked for a place
        address = next((one["NodeManagerAddress"] for one in self._ray.nodes() if one["NodeID"] == node), "")
        return (node, address) if address else ("", "")

    async def close(self) -> None:
        await asyncio.to_thread(self._ray.shutdown)


class RayPlaced:
    """A `Placed` that is an actor."""

    def __init__(self, ray: Any, actor: Any, place_of: Callable[[Any], tuple[str, str]]) -> None:
        self._ray = ray
        self._actor = actor
        self._place_of = place_of
        self._node_id = self._address = ""

    async def hello(self) -> Hello:
        try:
            said = await self._answer(self._actor.hello.remote())
        except EngineLost as error:
            await self._look()
            raise EngineLost(f"node {self._address}: {error}" if self._address else str(error)) from error
        await self._look()
        if not isinstance(said, bytes):
            raise EngineError(f"node {self._address} says what cannot be read: it may have another version of Corral")
        return wire.said(wire.decode_hello, said, self._address)

    async def _look(self) -> None:
        """Asks Ray where it is: what a node says of itself is not asked for that."""
        self._node_id, self._address = await asyncio.to_thread(self._place_of, self._actor)

    async def node_id(self) -> str:
        if not self._node_id:
            await self._look()
        return self._node_id

    async def load(self, order: Order) -> Started:
        said = await self._answer(self._actor.load.remote(wire.encode(order)))
        reply = wire.said(wire.decode_reply, said, self._address)
        if isinstance(reply, Failed):
            raise wire.raised(reply, self._address)
        return reply

    async def state(self) -> LoadState:
        return wire.said(wire.decode_state, await self._answer(self._actor.state.remote()), self._address)

    async def stop(self, grace: float) -> None:
        if grace > 0:
            with contextlib.suppress(TimeoutError, EngineLost):
                async with asyncio.timeout(grace + STOP_SECONDS):
                    await self._answer(self._actor.stop.remote())
        await asyncio.to_thread(self._ray.kill, self._actor)

    async def _answer(self, reference: Any) -> Any:
        """What the actor answers; `EngineLost` when it is gone, or could not even begin."""
        try:
            return await asyncio.wrap_future(reference.future())
        except self._ray.exceptions.RayError as error:
            raise EngineLost(f"a replica could not be started or ended: {_first_line(error)}") from error


def _resources(found: dict[str, float]) -> Resources:
    return Resources(found.get("CPU", 0.0), int(found.get("memory", 0)), found.get("GPU", 0.0))


def _first_line(error: BaseException) -> str:
    """Of what Ray says at length; of a remote traceback the last line, which says what was raised."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1] if "Traceback" in str(error) else lines[0]
