"""Gives up an answer in which nothing has been said for too long. A few timers an answer, and none for a token."""

import asyncio

from corral.engine.connecting import STEPS
from corral.engine.llama.exchange import Exchange


class Silence:
    """The silence of one answer, of so many seconds at most; infinity: it may last for ever.

    Only the time in which somebody waits for more counts, and what says nothing does not break it. Time is counted as
    `connecting.within` counts it: where this process itself stood still, what has come meanwhile is read first.
    """

    def __init__(self, exchange: Exchange, seconds: float) -> None:
        self._exchange = exchange
        self._step = seconds / STEPS
        self._loop = asyncio.get_running_loop()
        self._silent_steps = 0
        self._is_waited_for = False
        self._timer: asyncio.TimerHandle | None = None
        if seconds != float("inf"):
            self._timer = self._loop.call_later(self._step, self._look)

    def begins(self) -> None:
        """From here on somebody waits."""
        self._is_waited_for = True

    def ends(self) -> None:
        """Something has come, whatever it may be."""
        self._is_waited_for = False

    def broken(self) -> None:
        """Something was said."""
        self._silent_steps = 0

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._silent_steps += self._is_waited_for
        if self._silent_steps > STEPS:
            self._exchange.fail(TimeoutError())
            return
        self._timer = self._loop.call_later(self._step, self._look)
