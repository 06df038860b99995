"""Terminals as systems differ in them: whether keys can be kept unseen, and how.

POSIX has `termios`, Windows nothing like it. There the terminal stays as it is, and what is typed too early is shown.
"""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Protocol


class Keyboard(Protocol):
    """What is to be done about the keyboard while a conversation goes on."""

    def mark_pastes(self) -> None:
        """Has the terminal mark what is pasted from now on, as a prompt does, so that its lines stay together."""


class PlainKeyboard:
    """One that cannot be changed."""

    def mark_pastes(self) -> None:
        pass


def is_posix() -> bool:
    """Whether keys can be kept unseen, and it can be found out whether some are waiting."""
    return importlib.util.find_spec("termios") is not None


def quiet_keyboard(*, takes_codes: bool) -> AbstractContextManager[Keyboard]:
    """For as long as the block takes, keys wait unseen for the one who reads them next, where that can be had.

    `takes_codes`: the terminal of standard output understands codes.
    """
    if sys.platform != "win32" and is_posix():
        from corral.system.posix_keyboard import QuietKeyboard

        return QuietKeyboard(takes_codes=takes_codes)
    return nullcontext(PlainKeyboard())


@contextmanager
def single_keys() -> Iterator[bool]:
    """Keys come one by one and are not shown, where standard input is a terminal that can; gives whether it does."""
    if sys.platform == "win32" or not sys.stdin.isatty():
        yield False
        return
    import termios

    try:
        before = termios.tcgetattr(sys.stdin)
        silent = [*before]
        silent[3] &= ~(termios.ECHO | termios.ICANON)
        termios.tcsetattr(sys.stdin, termios.TCSANOW, silent)
    except termios.error:  # the terminal has gone
        yield False
        return
    try:
        yield True
    finally:
        with suppress(termios.error):
            termios.tcsetattr(sys.stdin, termios.TCSAFLUSH, before)
