"""Reserves KV-cache tokens and slots of a loaded model for requests; those that do not fit wait in order of arrival.

llama-server fails every running request when its shared KV cache runs out, so a request is admitted only when the pool
has room for all tokens it may come to need. Pure bookkeeping on one event loop; knows no engine.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator

from corral.messages import AnswerProgress
from corral.serving.place import Place


class Pool:
    """Room for `tokens` tokens in at most `slots` requests at once."""

    def __init__(self, tokens: int, slots: int) -> None:
        self.tokens = tokens
        self.slots = slots
        self.reserved = 0
        self.active = 0
        """Slots in use."""
        self._waiting: deque[tuple[int, int, asyncio.Future[None]]] = deque()

    @property
    def waiting(self) -> int:
        """Requests that are not admitted yet."""
        return len(self._waiting)

    @contextlib.asynccontextmanager
    async def admit(self, tokens: int, slots: int = 1, place: Place | None = None) -> AsyncGenerator[None, None]:
        """Waits for its turn and for room, and reserves `tokens` and `slots` until the block is left.

        A request for more tokens or slots than there are reserves all of them. `place` shows how many are in front.
        """
        tokens, slots = min(tokens, self.tokens), min(slots, self.slots)
        await self._enter(tokens, slots, place or Place())
        try:
            yield
        finally:
            self._give_back(tokens, slots)

    async def _enter(self, tokens: int, slots: int, place: Place) -> None:
        if not self._waiting and self._fits(tokens, slots):
            self._take(tokens, slots)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (tokens, slots, turn)
        self._waiting.append(entry)
        try:
            with place.waits(lambda: AnswerProgress("queued", ahead=self._ahead(entry))):
                await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # admitted at the very moment it was cancelled
                self._give_back(tokens, slots)
            elif entry in self._waiting:
                self._waiting.remove(entry)
                self._admit_waiting()
            raise

    def _ahead(self, entry: tuple[int, int, asyncio.Future[None]]) -> int:
        return self._waiting.index(entry) if entry in self._waiting else 0

    def _fits(self, tokens: int, slots: int) -> bool:
        return self.active + slots <= self.slots and self.reserved + tokens <= self.tokens

    def _take(self, tokens: int, slots: int) -> None:
        self.reserved += tokens
        self.active += slots

    def _give_back(self, tokens: int, slots: int) -> None:
        self.reserved -= tokens
        self.active -= slots
        self._admit_waiting()

    def _admit_waiting(self) -> None:
        """Admits those in front of the queue for whom there is room."""
        while self._waiting and self._fits(*self._waiting[0][:2]):
            tokens, slots, turn = self._waiting.popleft()
            if not turn.done():  # else cancelled, only its task has not run since
                self._take(tokens, slots)
                turn.set_result(None)
