"""Keys that are typed while nothing reads them are kept and not shown; the terminal is given back as it was.

For systems with POSIX terminals; `consoles` asks whether this is one. Ctrl-C and Ctrl-Z still come as signals.
"""

import os
import signal
import sys
import termios
from types import FrameType, TracebackType
from typing import Any, Self

assert sys.platform != "win32"

ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""Signals that end the process at once, but for the terminal, which is put right first."""

PASTE_ON, PASTE_OFF = b"\x1b[?2004h", b"\x1b[?2004l"
_PLAIN = PASTE_OFF + b"\x1b[?25h\x1b[0m"
"""No marks around what is pasted, the cursor, no colour."""


class QuietKeyboard:
    """For as long as the block takes, keys wait unseen for the one who reads them next: a prompt, or the shell."""

    def __init__(self, *, takes_codes: bool) -> None:
        self._input = sys.stdin.fileno()
        self._output = sys.stdout.fileno()
        self._before = termios.tcgetattr(self._input)
        self._takes_codes = takes_codes
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in ENDING:
            self._handlers[number] = signal.signal(number, self._end)
        self._handlers[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, self._stop)
        termios.tcsetattr(self._input, termios.TCSANOW, _quiet(self._before))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.stdout.flush()
        self._restore(PASTE_OFF)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def mark_pastes(self) -> None:
        """Has the terminal mark what is pasted from now on, as a prompt does, so that its lines stay together."""
        self._write(PASTE_ON)

    def _write(self, codes: bytes) -> None:
        if self._takes_codes:
            os.write(self._output, codes)

    def _restore(self, codes: bytes) -> None:
        try:
            self._write(codes)
            termios.tcsetattr(self._input, termios.TCSANOW, self._before)
        except (OSError, termios.error):  # the terminal has gone
            pass

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._restore(_PLAIN)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        """Stops the process as Ctrl-Z does anywhere, and goes on with the terminal as it is now."""
        now = termios.tcgetattr(self._input)
        self._restore(_PLAIN)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        # Here the process is stopped until the shell continues it.
        signal.signal(number, self._stop)
        termios.tcsetattr(self._input, termios.TCSANOW, now)


def _quiet(attributes: list[Any]) -> list[Any]:
    """Terminal attributes with which keys come one by one, unseen, and Enter and Ctrl-J differ."""
    inputs, outputs, control, local, *speeds, characters = attributes
    inputs &= ~termios.ICRNL
    # NOFLSH: Ctrl-C would throw away what was typed before it.
    local = (local & ~(termios.ECHO | termios.ICANON | termios.IEXTEN)) | termios.ISIG | termios.NOFLSH
    characters = [*characters]
    characters[termios.VMIN], characters[termios.VTIME] = 1, 0
    return [inputs, outputs, control, local, *speeds, characters]
