"""The last requests of a server: where the time of each went. In memory only, and without any text of theirs."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

from msgspec import Struct

KEPT = 256
"""Requests that are remembered."""

STOPPED = "stopped by its user"
"""What a request is cancelled with when its user asked for its end; a client that merely left gives no reason."""

Kind = Literal["chat", "generate", "embed", "rerank", "load", "unload"]
State = Literal["waiting", "reading", "answering", "done", "stopped", "failed"]


class Report(Struct, frozen=True, kw_only=True):
    """One request at the moment when it is looked at. Durations are in nanoseconds, 0 for what has not begun.

    Those from `queue` to `room` follow each other, and come before the engine's own: of the prompt and of the answer.
    """

    id: str
    """That of its HTTP request, of which one may ask for several answers."""
    arrived: float
    """Seconds since the epoch."""
    kind: Kind
    model: str
    state: State
    queue_duration: int = 0
    """It waited until its model could be loaded, or was known to be free of other work."""
    load_duration: int = 0
    """It waited for the load of its model."""
    plan_duration: int = 0
    """Its prompt was written and counted."""
    room_duration: int = 0
    """It waited for room in the model's KV cache."""
    parked_duration: int = 0
    """It waited for more room, amid its answer."""
    first_token_duration: int = 0
    """From its arrival to the first token."""
    prompt_duration: int = 0
    generation_duration: int = 0
    total_duration: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Those of `prompt_tokens` that did not have to be read."""
    truncated_tokens: int = 0
    """Those that were left out to fit the context."""
    generated_tokens: int = 0
    drafted_tokens: int = 0
    """Those that speculation proposed to the model."""
    accepted_tokens: int = 0
    """Those of them that the model took."""
    tuned: bool = False
    """Whether its model was loaded with what `corral tune` has measured."""
    context_length: int = 0
    placement: str = ""
    """Where its model lay and why; empty where there is no GPU."""
    replica: str = ""
    """Which of the places that answer for its model it went to; empty where there is this machine only."""
    replica_reason: str = ""
    reason: str = ""
    """Why the answer ended, or the error."""
    warnings: tuple[str, ...] = ()


class Recent:
    """The last requests, the newest first; looking is all that costs anything."""

    def __init__(self) -> None:
        self._looks: deque[tuple[str, Callable[[], Report]]] = deque(maxlen=KEPT)

    def add(self, request_id: str, look: Callable[[], Report]) -> None:
        """`look` is called whenever the request is looked at."""
        self._looks.appendleft((request_id, look))

    def reports(self, request_id: str = "") -> Sequence[Report]:
        """All, or those of one HTTP request."""
        if not request_id:
            return [look() for _, look in self._looks]
        return [look() for of, look in self._looks if of == request_id]  # before each answer: a comparison and no more
