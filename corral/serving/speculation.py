"""Whether speculation pays with a model: what was drafted and accepted lately, and what follows from it.

A draft is checked by computing its tokens together with the next one. That takes longer than the next one alone, by a
part of a token's time for each that was drafted, and gains a token's time for each that is accepted. The engine fixes
speculation when it loads a model, so this is asked at a load.
"""

from collections.abc import Callable
from time import monotonic

from msgspec import Struct, structs

BREAK_EVEN = 0.35
"""Accepted tokens of one drafted below which a draft costs more than it gains (`benchmarks/speculation.py`)."""

UNPAID = 0.95
"""The same for a model that drafts and is as large as the one it drafts for."""

ENOUGH = 256
"""Drafted tokens by which a model is judged."""

MEMORY = 4096
"""Drafted tokens after which older ones count for half."""

PAUSE = 1800.0
"""Seconds for which speculation stays off that did not pay; then it is tried again."""


class Record(Struct, frozen=True):
    """What came of speculation with one model."""

    drafted: int = 0
    accepted: int = 0
    failed_at: float | None = None
    """When it was found not to pay, or to be in the way, in seconds of the clock; None: it was not."""


def break_even(cost: float) -> float:
    """Accepted tokens of one drafted from which on drafts pay that take `cost` of the time of a token each."""
    return min(UNPAID, BREAK_EVEN + cost)


def after(record: Record, drafted: int, accepted: int, now: float, cost: float = 0.0) -> Record:
    """The record after another answer; it starts anew once it has said that speculation does not pay."""
    if not drafted:
        return record
    drafted, accepted = record.drafted + drafted, record.accepted + accepted
    if drafted >= ENOUGH and accepted < break_even(cost) * drafted:
        return Record(failed_at=now)
    if drafted > MEMORY:
        drafted, accepted = drafted // 2, accepted // 2
    return structs.replace(record, drafted=drafted, accepted=accepted)


def pays(record: Record, now: float) -> bool:
    """Whether to draft, as far as is known: yes, until enough has been drafted in vain."""
    return record.failed_at is None or now - record.failed_at >= PAUSE


class Speculation:
    """The records of all models of a server, by their weights' files."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._records: dict[str, Record] = {}
        self._costs: dict[str, float] = {}

    def pays(self, weights: str) -> bool:
        return pays(self._records.get(weights, Record()), self._clock())

    def pause(self, weights: str) -> None:
        """Turns it off for a while: somebody wants log probabilities, and would want a load without it each time."""
        self._records[weights] = Record(failed_at=self._clock())

    def drafts_cost(self, weights: str, cost: float) -> None:
        """Says what part of a token's time a drafted one takes: 0 for one that is looked up; of a model that drafts,
        its bytes by those of the model it drafts for, since reading them is most of the work."""
        self._costs[weights] = cost

    def add(self, weights: str, drafted: int, accepted: int) -> None:
        """Takes in what came of an answer."""
        if drafted:
            record, cost = self._records.get(weights, Record()), self._costs.get(weights, 0.0)
            self._records[weights] = after(record, drafted, accepted, self._clock(), cost)
