"""What passes through a loaded model: tokens a second and requests, for those who ask how busy it is.

Counting is cheap, since it is done for each token; what is asked for is computed when it is asked for.
"""

import time
from collections.abc import Callable

WINDOW = 5
"""Seconds over which a rate is taken: those that have ended, and what has passed of the present one."""


class Rate:
    """How many a second, lately: a counter for each of the last seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds = [-1] * (WINDOW + 1)
        self._counts = [0] * (WINDOW + 1)

    def add(self, count: int) -> None:
        second = int(self._clock())
        place = second % (WINDOW + 1)
        if self._seconds[place] != second:
            self._seconds[place], self._counts[place] = second, 0
        self._counts[place] += count

    def per_second(self) -> float:
        """The average of the window."""
        now = self._clock()
        first = int(now) - WINDOW
        counted = sum(
            count for second, count in zip(self._seconds, self._counts, strict=True) if first <= second <= now
        )
        return counted / (now - first)


class Traffic:
    """Of one loaded model."""

    def __init__(self) -> None:
        self.prompt_tokens = Rate()
        """Tokens that were read, not found in the prompt cache."""
        self.generated_tokens = Rate()
        self.served = 0
        """Requests that were answered to the end."""
