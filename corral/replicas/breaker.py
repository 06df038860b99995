"""Whether a replica is worth asking: after a failure it is left alone for a while, then tried once."""

from collections.abc import Callable

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 8.0
"""Seconds without requests after the first failure, and at most; each further one doubles them."""


class Breaker:
    """Closed: requests may pass. Open: none may until its pause is over; then one may try.

    `clock` gives monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._pause = 0.0
        """0: closed."""
        self._until = 0.0
        self._is_tried = False
        self.error = ""
        """Why it is open; empty while it is closed."""

    @property
    def is_closed(self) -> bool:
        return not self._pause

    @property
    def may_pass(self) -> bool:
        """Whether a request may be sent: it is closed, or its pause is over and nobody tries yet."""
        return not self._pause or (not self._is_tried and self._clock() >= self._until)

    @property
    def wait(self) -> float:
        """Seconds until one may try."""
        return 0.0 if self.is_closed else max(0.0, self._until - self._clock())

    def begin(self) -> None:
        """A request is sent; where it is open, that is the one that tries."""
        self._is_tried = not self.is_closed

    def worked(self) -> None:
        """An answer began."""
        self._pause, self._is_tried, self.error = 0.0, False, ""

    def failed(self, error: str) -> None:
        """No connection, or none that answered; `error` says why."""
        self._pause = min(LONGEST_PAUSE, self._pause * 2) if self._pause else FIRST_PAUSE
        self._until = self._clock() + self._pause
        self._is_tried, self.error = False, error

    def abandoned(self) -> None:
        """The request that tried ended without telling whether it works."""
        self._is_tried = False
