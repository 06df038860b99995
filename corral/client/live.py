"""What loaded models are doing now, as `/api/ps?live=true` says it. Loaded where a watcher asks for it only."""

from collections.abc import Mapping
from dataclasses import dataclass

from corral.client.answers import Json, Running, member, models, running, unexpected


@dataclass(frozen=True, slots=True)
class Live:
    """What a loaded model is doing. The pool is that of its KV cache, in tokens; rates are in tokens a second."""

    slots_busy: int = 0
    slots: int = 0
    pool_used: int = 0
    pool: int = 0
    waiting: int = 0
    """Requests."""
    served: int = 0
    """Requests, since it was loaded."""
    read_rate: float | None = None
    """Tokens of prompts; None where the server does not say."""
    written_rate: float | None = None
    """Tokens of answers."""
    loading: tuple[int, int] | None = None
    """Bytes in memory and bytes in all while it is being loaded."""

    @property
    def is_loading(self) -> bool:
        return self.loading is not None


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at a server: its models, and bytes of the machine's memory, 0 where it does not say."""

    models: tuple[Running, ...]
    memory_total: int
    memory_available: int
    waiting: int = 0
    """Requests that wait for a model to be loaded or unloaded."""


def live(value: Mapping[str, Json]) -> Live:
    """The member `live` of an entry of `/api/ps`."""
    slots, pool = member(value, "slots", dict, {}), member(value, "pool", dict, {})
    loading = member(value, "loading", dict, {})
    return Live(
        slots_busy=member(slots, "busy", int, 0),
        slots=member(slots, "total", int, 0),
        pool_used=member(pool, "used", int, 0),
        pool=member(pool, "total", int, 0),
        waiting=member(value, "waiting", int, 0),
        served=member(value, "served", int, 0),
        read_rate=_number_or_none(value, "prompt_tokens_per_second"),
        written_rate=_number_or_none(value, "generated_tokens_per_second"),
        loading=(member(loading, "completed", int, 0), member(loading, "total", int, 0)) if loading else None,
    )


def _number_or_none(value: Mapping[str, Json], key: str) -> float | None:
    found = value.get(key)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < 1e12:
        raise unexpected(key)
    return float(found)


def seen(value: Mapping[str, Json]) -> Seen:
    """The answer of `/api/ps?live=true`."""
    memory = member(value, "memory", dict, {})
    loaded = tuple(map(running, models(value)))
    total, available = member(memory, "total", int, 0), member(memory, "available", int, 0)
    return Seen(loaded, total, available, member(value, "waiting", int, 0))
