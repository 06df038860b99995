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
    """What one request has of a pool: `tokens` and `slots`, or none while it waits for its turn."""

    def __init__(self, pool: "Pool", arrival: int, tokens: int, slots: int, *, parkable: bool) -> None:
        self._pool = pool
        self._arrival = arrival
        self.tokens = min(tokens, pool.tokens)
        """Those that it has; while it waits, those that it is to have."""
        self.more = 0
        """Those that it waits for while it keeps what it has."""
        self.slots = min(slots, pool.slots)
        self.is_parkable = parkable
        self.is_to_park = False
        """Whether a request that came before needs its tokens."""
        self.turn: asyncio.Future[None]
        """Done when it is given what it waits for."""

    def __lt__(self, other: "Room") -> bool:
        """Whether its request came before another one."""
        return self._arrival < other._arrival

    @property
    def is_shared(self) -> bool:
        """Whether other requests are being served, too."""
        return self._pool.active > self.slots

    async def extend(self, tokens: int) -> float:
        """Reserves `tokens` in place of what it has; returns the seconds that it has waited.

        Where there is no room, those who came last make some: they are parked, which is to say that they give back all
        they have when they come here, and wait for their turn again. So the request that came first always gets on.
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
        self.usual = UsualLength(tokens // max(1, slots))
        self._short_since = 0.0
        """Monotonic seconds since when a request waits for tokens while a slot is free; 0: none does."""
        self._short = 0.0
        self._arrivals = 0
        self._held: list[Room] = []
        self._waiting: list[Room] = []
        """Without a slot, and below those that have one and wait for more tokens; both in order of arrival."""
        self._extending: list[Room] = []

    @property
    def waiting(self) -> int:
        """Requests that are not admitted yet, or parked."""
        return len(self._waiting) + len(self._extending)

    @property
    def short(self) -> float:
        """Seconds in all for which requests have waited for tokens while a slot was free."""
        return self._short + (time.monotonic() - self._short_since if self._short_since else 0.0)

    def has_room(self, tokens: int) -> bool:
        """Whether a request for so many tokens would be admitted at once."""
        return not (self._waiting or self._extending) and self._fits(min(tokens, self.tokens), 1)

    def is_much(self, tokens: int) -> bool:
        """Whether a prompt of which only this bound is known may keep others out: it is worth counting."""
        return tokens > self.tokens // 4

    def share(self, used: int, most: int, *, held: int = 0) -> int:
        """Tokens to reserve for a request that uses `used` already, may come to need `most`, and holds `held`: all of
        `most` where half of the pool stays free beside it, else as many more as answers usually have here."""
        others = self.reserved - held
        if others + most <= self.tokens // 2:
            return most
        return min(most, used + self.usual.behind(used))

    @contextlib.asynccontextmanager
    async def admit(
        self, tokens: int, slots: int = 1, place: Place | None = None, *, parkable: bool = False
    ) -> AsyncGenerator[Room, None]:
        """Waits for its turn and for room, and reserves `tokens` and `slots` until the block is left.

        A request for more tokens or slots than there are reserves all of them. `place` shows how many are in front.
        `parkable`: it calls `Room.extend` now and then, where it may have to wait without what it had.
        """
        self._arrivals += 1
        room = Room(self, self._arrivals, tokens, slots, parkable=parkable)
        try:
            if not self._is_behind(room) and self._fits(room.tokens, room.slots):
                self._take(room)
            else:
                bisect.insort(self._waiting, room)
                with (place or Place()).waits(lambda: AnswerProgress("queued", ahead=self._ahead(room))):
                    await self._turn_of(room)
            yield room
        finally:
            self._leave(room)

    async def _extend(self, room: Room, tokens: int) -> None:
        if room.is_to_park and self._extending:
            self._park(room, tokens)
        else:
            room.is_to_park = False
            room.more = tokens - room.tokens
            if room.more <= 0 or (self._fits(room.more, 0) and not self._is_behind(room)):
                self._give_more(room)
                self._serve()
                return
            bisect.insort(self._extending, room)
            self._have_later_ones_park(room)
        await self._turn_of(room)

    def _is_behind(self, room: Room) -> bool:
        """Whether one that came before waits."""
        return any(queue[0] < room for queue in (self._waiting, self._extending) if queue)

    def _have_later_ones_park(self, room: Room) -> None:
        """Marks as many of those that came after `room` as it takes to make room for it, the last ones first; those
        among them that wait for more tokens themselves are parked at once."""
        later = [other for other in sorted(self._held, reverse=True) if room < other and other.is_parkable]
        short = self.reserved + room.more - self.tokens
        for other in later:
            if short <= 0:
                return
            short -= other.tokens
            if other in self._extending:
                self._extending.remove(other)
                self._park(other, other.tokens + other.more)
            else:
                other.is_to_park = True

    def _park(self, room: Room, tokens: int) -> None:
        """Takes from it what it has, and has it wait for `tokens`."""
        self._give_back(room)
        room.is_to_park, room.tokens, room.more = False, tokens, 0
        bisect.insort(self._waiting, room)

    async def _turn_of(self, room: Room) -> None:
        """Waits, in one of the queues, until it is given what it waits for."""
        room.turn = asyncio.get_running_loop().create_future()
        self._serve()
        await room.turn

    def _ahead(self, room: Room) -> int:
        return self._waiting.index(room) if room in self._waiting else 0

    def _fits(self, tokens: int, slots: int) -> bool:
        return self.active + slots <= self.slots and self.reserved + tokens <= self.tokens

    def _take(self, room: Room) -> None:
        self.reserved += room.tokens
        self.active += room.slots
        self._held.append(room)

    def _give_more(self, room: Room) -> None:
        self.reserved += room.more
        room.tokens += room.more
        room.more = 0

    def _give_back(self, room: Room) -> None:
        self.reserved -= room.tokens
        self.active -= room.slots
        self._held.remove(room)

    def _leave(self, room: Room) -> None:
        """Gives back what it has, also what it was given at the very moment it was cancelled."""
        for queue in (self._waiting, self._extending):
            if room in queue:
                queue.remove(room)
        if room in self._held:
            self._give_back(room)
        self._serve()

    def _serve(self) -> None:
        """Gives those who wait what they wait for, in order of arrival, as long as there is room."""
        while queues := [queue for queue in (self._waiting, self._extending) if queue]:
            queue = min(queues, key=lambda queue: queue[0])
            room = queue[0]
            if not room.turn.done():  # else cancelled, only its task has not run since
                is_held = room in self._held
                if not self._fits(room.more or room.tokens, 0 if is_held else room.slots):
                    break
                self._give_more(room) if is_held else self._take(room)
                room.turn.set_result(None)
            queue.pop(0)
        self._note_shortage()

    def _note_shortage(self) -> None:
        is_short = bool(self._extending or self._waiting) and self.active < self.slots
        now = time.monotonic()
        if is_short and not self._short_since:
            self._short_since = now
        elif not is_short and self._short_since:
            self._short += now - self._short_since
            self._short_since = 0.0
