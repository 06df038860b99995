"""Where a request waits, for those who want to see it. Knows neither scheduler nor pool."""

import contextlib
from collections.abc import Callable, Iterator

from corral.messages import AnswerProgress


class Place:
    """One request's. What has it wait says how to look; looking is all that costs anything."""

    def __init__(self) -> None:
        self._look: Callable[[], AnswerProgress | None] = lambda: None

    def seen(self) -> AnswerProgress | None:
        """What the request waits for now; None when it does not wait."""
        return self._look()

    @contextlib.contextmanager
    def waits(self, look: Callable[[], AnswerProgress | None]) -> Iterator[None]:
        """The block in which `look` says what the request waits for."""
        self._look = look
        try:
            yield
        finally:
            self._look = lambda: None
