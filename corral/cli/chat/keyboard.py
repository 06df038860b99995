"""The keyboard while nothing reads from it. An answer that streams would be mixed with what is typed meanwhile.

Windows has no `termios`: there the terminal stays as it is, and what is typed too early is its own affair.
"""

import importlib.util
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Keyboard(Protocol):
    """What is to be done about it while the conversation goes on."""

    def mark_pastes(self) -> None:
        """Has the terminal mark what is pasted from now on, as a prompt does, so that its lines stay together."""


class PlainKeyboard:
    """One that cannot be changed."""

    def mark_pastes(self) -> None:
        pass


def is_posix() -> bool:
    """Whether keys can be kept unseen, and it can be found out whether some are waiting."""
    return importlib.util.find_spec("termios") is not None


def quiet() -> AbstractContextManager[Keyboard]:
    """For as long as the block takes, keys wait unseen for the one who reads them next, where that can be had."""
    if not is_posix():
        return nullcontext(PlainKeyboard())
    from corral.cli.chat.quiet_keyboard import QuietKeyboard

    return QuietKeyboard()
