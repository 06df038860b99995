"""What became of the last requests, as `/api/requests` says it. Loaded where it is asked for only."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from corral.client.answers import Json, member, moment, tuple_of

PHASES = ("queue", "load", "plan", "room", "prompt", "generation", "parked")
"""What a request goes through, one after the other."""


@dataclass(frozen=True, slots=True)
class Explained:
    """One request. `durations` are nanoseconds of the `PHASES`, of the time to the `first_token`, and the `total`."""

    id: str
    created_at: datetime
    kind: str
    model: str
    state: str
    reason: str
    """Why the answer ended, or the error."""
    durations: Mapping[str, int]
    prompt_tokens: int
    cached_tokens: int
    truncated_tokens: int
    generated_tokens: int
    drafted_tokens: int
    accepted_tokens: int
    tuned: bool
    context_length: int
    placement: str
    """Where the model lay and why; empty where there is no GPU."""
    replica: str
    """Which of the places that answer for its model it went to, and why; empty where there was one."""
    replica_reason: str
    warnings: tuple[str, ...]


def explained(value: Mapping[str, Json]) -> Explained:
    """An entry of `/api/requests`."""

    def text(key: str) -> str:
        return member(value, key, str, "")

    def number(key: str) -> int:
        return max(0, member(value, key, int, 0))

    return Explained(
        id=text("id"),
        created_at=moment(value, "created_at"),
        kind=text("kind"),
        model=text("model"),
        state=text("state"),
        reason=text("reason"),
        durations={name: number(f"{name}_duration") for name in (*PHASES, "first_token", "total")},
        prompt_tokens=number("prompt_tokens"),
        cached_tokens=number("cached_tokens"),
        truncated_tokens=number("truncated_tokens"),
        generated_tokens=number("generated_tokens"),
        drafted_tokens=number("drafted_tokens"),
        accepted_tokens=number("accepted_tokens"),
        tuned=member(value, "tuned", bool, False),
        context_length=number("context_length"),
        placement=text("placement"),
        replica=text("replica"),
        replica_reason=text("replica_reason"),
        warnings=tuple_of(member(value, "warnings", list, []), str, "warnings"),
    )
