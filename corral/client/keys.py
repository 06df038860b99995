"""The keys of a server, as `/api/keys` lists them. Loaded where they are asked for only."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from corral.client.answers import Json, member, moment, tuple_of


@dataclass(frozen=True, slots=True)
class Key:
    """One key. No patterns of `models`: all; limits of 0: none."""

    id: str
    name: str
    scope: str
    models: tuple[str, ...]
    requests_per_minute: int
    tokens_per_minute: int
    created_at: datetime


def key(value: Mapping[str, Json]) -> Key:
    """An entry of `/api/keys`."""
    return Key(
        id=member(value, "id", str, ""),
        name=member(value, "name", str, ""),
        scope=member(value, "scope", str, ""),
        models=tuple_of(member(value, "models", list, []), str, "models"),
        requests_per_minute=member(value, "requests_per_minute", int, 0),
        tokens_per_minute=member(value, "tokens_per_minute", int, 0),
        created_at=moment(value, "created_at"),
    )
