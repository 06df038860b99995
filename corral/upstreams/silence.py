"""Gives up an answer in which nothing has been said for too long. A timer an answer, not one a token."""

import asyncio

from corral.engine.llama.exchange import Exchange


class Silence:
    """The silence of one answer, of so many seconds at most; infinity: it may last for ever.

    Only the time in which somebody waits for more counts, and what says nothing does not break it.
    """

    def __init__(self, exchange: Exchange, seconds: float) -> None:
        self._exchange = exchange
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        """When the silence began; 0: it is broken."""
        self._is_waited_for = False
        self._timer: asyncio.TimerHandle | None = None
        if seconds != float("inf"):
            self._timer = self._loop.call_later(seconds, self._look)

    def begins(self) -> None:
        """From here on somebody waits."""
        self._is_waited_for = True
        self._began = self._began or self._loop.time()

    def ends(self) -> None:
        """Something has come, whatever it may be."""
        self._is_waited_for = False

    def broken(self) -> None:
        """Something was said."""
        self._began = 0.0

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        left = self._seconds
        if self._is_waited_for:
            left = self._began + self._seconds - self._loop.time()
            if left <= 0:
                self._exchange.fail(TimeoutError())
                return
        self._timer = self._loop.call_later(left, self._look)
