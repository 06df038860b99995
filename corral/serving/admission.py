"""Reserves KV-cache tokens and slots of a loaded model for requests; those that do not fit wait in order of arrival.

llama-server fails every running request when its shared KV cache runs out, so nobody may hold more tokens than were
reserved. A request reserves all that it may come to need, or less and then more as it goes on: where there is no more,
it is parked. Pure bookkeeping on one event loop; knows no engine.
"""

import asyncio
import bisect
import contextlib
import time
from collections.abc import AsyncGenerator

from corral.messages import AnswerProgress
from corral.serving.place import Place
from corral.serving.usual import UsualLength


class Room:
    """What one request has of a pool: `tokens` and `slots`, or none while it waits."""

    def __init__(self, pool: "Pool", arrival: int, tokens: int, slots: int) -> None:
        self._pool = pool
        self._arrival = arrival
        self.tokens = min(tokens, pool.tokens)
        """Those that it has, or wants while it waits."""
        self.slots = min(slots, pool.slots)
        self.is_held = False
        self.turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __lt__(self, other: "Room") -> bool:
        """Whether its request came before another one."""
        return self._arrival < other._arrival

    async def extend(self, tokens: int) -> float:
        """Reserves `tokens` in place of what it has; returns the seconds for which it was parked.

        Where there is no room, or a request that came before waits for some, it gives back all it has, its slot too,
        and waits for its turn again. So the request that came first always gets on, and those that came last wait.
        """
        began = time.monotonic()
        await self._pool._extend(self, min(tokens, self._pool.tokens))
        return time.monotonic() - began


class Pool:
    """Room for `tokens` tokens in at most `slots` requests at once."""

    def __init__(self, tokens: int, slots: int) -> None:
        self.tokens = tokens
        self.slots = slots
        self.reserved = 0
        self.active = 0
        """Slots in use."""
        self.usual = UsualLength(tokens, slots)
        self.short_since = 0.0
        """Monotonic seconds since when a request waits for tokens while a slot is free; 0: none does."""
        self._short = 0.0
        self._arrivals = 0
        self._waiting: list[Room] = []
        """In order of arrival."""

    @property
    def waiting(self) -> int:
        """Requests that are not admitted yet, or parked."""
        return len(self._waiting)

    @property
    def short(self) -> float:
        """Seconds in all for which requests have waited for tokens while a slot was free."""
        return self._short + (time.monotonic() - self.short_since if self.short_since else 0.0)

    def has_room(self, tokens: int) -> bool:
        """Whether a request for so many tokens would be admitted at once."""
        return not self._waiting and self._fits(min(tokens, self.tokens), 1)

    def share(self, used: int, most: int, *, held: int = 0) -> int:
        """Tokens to reserve for a request that uses `used` already, may come to need `most`, and holds `held`: all of
        `most` where half of the pool stays free beside it, else as many more as answers usually have here."""
        others = self.reserved - held
        if others + most <= self.tokens // 2:
            return most
        return min(most, used + self.usual.tokens)

    @contextlib.asynccontextmanager
    async def admit(self, tokens: int, slots: int = 1, place: Place | None = None) -> AsyncGenerator[Room, None]:
        """Waits for its turn and for room, and reserves `tokens` and `slots` until the block is left.

        A request for more tokens or slots than there are reserves all of them. `place` shows how many are in front.
        """
        self._arrivals += 1
        room = Room(self, self._arrivals, tokens, slots)
        try:
            if not self._waiting and self._fits(room.tokens, room.slots):
                self._take(room)
            else:
                with (place or Place()).waits(lambda: AnswerProgress("queued", ahead=self._ahead(room))):
                    await self._wait(room)
            yield room
        finally:
            self._leave(room)

    async def _extend(self, room: Room, tokens: int) -> None:
        more = tokens - room.tokens
        if not (self._waiting and self._waiting[0] < room) and self.reserved + more <= self.tokens:
            self.reserved += more
            room.tokens = tokens
            self._admit_waiting()
            return
        self._give_back(room)
        room.tokens = tokens
        await self._wait(room)

    async def _wait(self, room: Room) -> None:
        room.turn = asyncio.get_running_loop().create_future()
        bisect.insort(self._waiting, room)
        self._admit_waiting()
        await room.turn

    def _ahead(self, room: Room) -> int:
        return self._waiting.index(room) if room in self._waiting else 0

    def _fits(self, tokens: int, slots: int) -> bool:
        return self.active + slots <= self.slots and self.reserved + tokens <= self.tokens

    def _take(self, room: Room) -> None:
        self.reserved += room.tokens
        self.active += room.slots
        room.is_held = True

    def _give_back(self, room: Room) -> None:
        self.reserved -= room.tokens
        self.active -= room.slots
        room.is_held = False

    def _leave(self, room: Room) -> None:
        """Whether it has something, also when it was given that at the very moment it was cancelled, or still waits."""
        if room.is_held:
            self._give_back(room)
        elif room in self._waiting:
            self._waiting.remove(room)
        self._admit_waiting()

    def _admit_waiting(self) -> None:
        """Admits those in front of the queue for whom there is room."""
        while self._waiting and self._fits(self._waiting[0].tokens, self._waiting[0].slots):
            room = self._waiting.pop(0)
            if not room.turn.done():  # else cancelled, only its task has not run since
                self._take(room)
                room.turn.set_result(None)
        self._note_shortage()

    def _note_shortage(self) -> None:
        is_short = bool(self._waiting) and self.active + self._waiting[0].slots <= self.slots
        now = time.monotonic()
        if is_short and not self.short_since:
            self.short_since = now
        elif not is_short and self.short_since:
            self._short += now - self.short_since
            self.short_since = 0.0
