"""The nodes of a server, as `/api/nodes` lists them. Loaded where they are asked for only."""

from collections.abc import Mapping
from dataclasses import dataclass

from corral.client.answers import Json, member, members, unexpected


@dataclass(frozen=True, slots=True)
class NodeReplica:
    """A model on a node; `memory` in bytes, rates in tokens a second."""

    model: str
    state: str
    users: int
    memory: int
    prompt_rate: float
    generated_rate: float


@dataclass(frozen=True, slots=True)
class Node:
    """One machine. Memory in bytes."""

    id: str
    address: str
    is_alive: bool
    is_drained: bool
    unfit: str
    """Why it could not be given a model lately; empty: nothing is known against it."""
    cpus: float
    free_cpus: float
    memory: int
    free_memory: int
    gpus: float
    replicas: tuple[NodeReplica, ...]


@dataclass(frozen=True, slots=True)
class Moved:
    """A model that left a node: where to; empty: nowhere, for the `reason`."""

    model: str
    to: str
    reason: str


def node(value: Mapping[str, Json]) -> Node:
    """An entry of `/api/nodes`."""
    return Node(
        id=member(value, "id", str, ""),
        address=member(value, "address", str, ""),
        is_alive=member(value, "alive", bool, False),
        is_drained=member(value, "drained", bool, False),
        unfit=member(value, "unfit", str, ""),
        cpus=_number(value, "cpus"),
        free_cpus=_number(value, "free_cpus"),
        memory=member(value, "memory", int, 0),
        free_memory=member(value, "free_memory", int, 0),
        gpus=_number(value, "gpus"),
        replicas=tuple(map(_replica, members(value, "replicas"))),
    )


def _replica(value: Mapping[str, Json]) -> NodeReplica:
    return NodeReplica(
        model=member(value, "model", str, ""),
        state=member(value, "state", str, ""),
        users=member(value, "users", int, 0),
        memory=member(value, "memory", int, 0),
        prompt_rate=_number(value, "prompt_tokens_per_second"),
        generated_rate=_number(value, "generated_tokens_per_second"),
    )


def moved(value: Mapping[str, Json]) -> Moved:
    """An entry of what draining a node answers with."""
    return Moved(*(member(value, key, str, "") for key in ("model", "to", "reason")))


def _number(value: Mapping[str, Json], key: str) -> float:
    found = value.get(key, 0)
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise unexpected(key)
    return float(found)
