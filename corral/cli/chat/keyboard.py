"""The keyboard while nothing reads from it: keys are kept and not shown, and the terminal is given back as it was.

An answer that streams would otherwise be mixed with what is typed meanwhile, as it is on Windows.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Keyboard(Protocol):
    """A keyboard whose keys wait."""

    def mark_pastes(self) -> None:
        """Has the terminal mark what is pasted from now on, as a prompt does, so that its lines stay together."""


class _AsItIs:
    """A keyboard that nothing is done with."""

    def mark_pastes(self) -> None:
        pass


def quiet_keyboard() -> AbstractContextManager[Keyboard]:
    """For as long as the block takes, keys wait unseen for what reads them next, where the system can do that."""
    try:
        from corral.cli.chat.posix_keyboard import QuietKeyboard
    except ImportError:  # no termios
        return nullcontext(_AsItIs())
    return QuietKeyboard()
