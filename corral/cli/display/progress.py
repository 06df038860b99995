"""What a long job shows on standard error: spinners and bars where they can be drawn, plain lines elsewhere.

Own code rather than rich's: importing that takes longer than all of `corral list`. Source: spec cli §3.4.
"""

import contextlib
import math
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

from corral.cli.display import terminal
from corral.cli.display.text import cut, printable, text_width
from corral.golang.units import byte_text

if TYPE_CHECKING:
    from corral.messages import Progress

FRAME_SECONDS = 0.1
PLAIN_SECONDS = 5.0
SETTLE_SECONDS = 0.3
"""How long a window has to keep its size before it is drawn in again: while it is being resized, tmux says its new size
up to a quarter of a second late, and lines drawn for another width would be broken into rows that are not known of.
"""
LEAST_SECONDS = 1.0
"""On what is no terminal, a bar gives a line at least and at most this often while it moves."""


Size = Callable[[int], str]
"""How a number is written: bytes, or `str` for what is counted."""


class Line(Protocol):
    """One state of a display."""

    def text(self, width: int, moment: float) -> str: ...


class Spinner:
    """Something that takes its time. It stops turning when the next line begins."""

    def __init__(self, message: str, frames: str) -> None:
        self.message = message
        self._frames = frames
        self.turning = True

    def text(self, width: int, moment: float) -> str:
        frame = self._frames[int(moment / FRAME_SECONDS) % len(self._frames)] if self.turning else ""
        return f"{cut(self.message, width - 3)} {frame} " if frame else f"{cut(self.message, width - 1)} "


class Bar:
    """Something whose size is known, as a rule in bytes. Fields that a narrow window has no room for are left out."""

    SIZE, RATE, TIME, EDGES, LEAST = 13, 10, 8, 5, 5
    """Columns of the fields on the right, of the marks around the bar, and of the shortest bar worth drawing."""

    def __init__(self, message: str, total: int, blocks: str, size: Size = byte_text) -> None:
        self.message = message
        self._size = size
        self.total = total
        self.completed = 0
        self._blocks = blocks
        self._samples: list[tuple[float, int]] = []

    def advance(self, total: int, completed: int, moment: float) -> None:
        """Takes a sample of the rate once a second, and keeps the last ten. The size may become known more exactly."""
        self.total = total
        self.completed = min(max(completed, self.completed), total)
        if not self._samples or moment - self._samples[-1][0] >= 1:
            self._samples = [*self._samples[-9:], (moment, self.completed)]

    @property
    def finished(self) -> bool:
        return self.completed >= self.total

    @property
    def percent(self) -> float:
        return 100 * self.completed / self.total if self.total else 100.0

    def rate(self) -> float:
        """Bytes a second over the samples; 0 while there are too few."""
        if len(self._samples) < 2:
            return 0.0
        (start, before), (end, after) = self._samples[0], self._samples[-1]
        return (after - before) / (end - start)

    def text(self, width: int, moment: float) -> str:
        percent = f" {self.percent:3.0f}%"
        left = cut(self.message, max(0, width - len(percent))) + percent
        fields = [self._size_field(), self._rate_field(), self._time_field()]
        while fields and width - text_width(left) - len("".join(fields)) - self.EDGES < self.LEAST:
            fields.pop()
        if not fields:
            size = self._size_field().strip()
            return f"{left} {size}" if text_width(left) + 1 + len(size) <= width else cut(left, width)
        right = "".join(fields)
        inner = width - text_width(left) - len(right) - self.EDGES
        full = int(inner * self.percent / 100)
        edge, block, end = tuple(self._blocks)
        return f"{left} {edge}{block * full}{' ' * (inner - full)}{end} {right}"

    def plain(self) -> str:
        """The same for a log, without a drawing and of any width."""
        size = self._size(self.total) if self.finished else f"{self._size(self.completed)}/{self._size(self.total)}"
        fields = [f"{self.message} {self.percent:3.0f}% {size}", self._rate_field().strip(), self._time_field().strip()]
        return ", ".join(filter(None, fields)) + (" left" if fields[-1] else "")

    def _size_field(self) -> str:
        total = f"{self._size(self.total):>6}"
        return f"{total}{'':7}" if self.finished else f"{self._size(self.completed):>6}/{total}"

    def _rate_field(self) -> str:
        rate = self.rate()
        return (
            " " * self.RATE
            if self.finished or not rate or self._size is not byte_text
            else f"  {byte_text(int(rate)):>6}/s"
        )

    def _time_field(self) -> str:
        rate = self.rate()
        if self.finished or not rate:
            return " " * self.TIME
        return f"  {remaining_text((self.total - self.completed) / rate):>6}"


def remaining_text(seconds: float) -> str:
    """`28s`, `3m5s`, `2h10m`, `99h+`."""
    if seconds >= 100 * 3600:
        return "99h+"
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours}h{minutes}m"
    return f"{minutes}m{whole % 60}s" if minutes else f"{whole}s"


class Display(Protocol):
    """Where a job's steps are shown."""

    def spin(self, message: str) -> None:
        """A status without a size; the same again changes nothing."""

    def advance(self, key: str, message: str, total: int, completed: int, size: Size = byte_text) -> None:
        """A status with a size. Each `key` has a bar of its own."""

    def close(self) -> None:
        """The last state stays."""


class Screen:
    """Lines redrawn in place on a terminal, ten times a second, by a thread of their own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: list[Line] = []
        self._bars: dict[str, Bar] = {}
        self._spinner: Spinner | None = None
        self._drawn: list[int] = []
        """Columns that each line on the screen takes."""
        self._width = 0
        self._size = terminal.size(stream)
        self._settled = -math.inf
        """When the window may be drawn in again."""
        fancy = terminal.can_write(stream, "⠋▕█▏")
        self._frames = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏" if fancy else "|/-\\"
        self._blocks = "▕█▏" if fancy else "[#]"
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._animate, daemon=True)
        self._thread.start()

    def spin(self, message: str) -> None:
        with self._lock:
            if self._spinner and self._spinner.message == message:
                return
            self._stop_spinner()
            self._spinner = Spinner(message, self._frames)
            self._lines.append(self._spinner)

    def say(self, message: str) -> None:
        """Another message for the spinner, in the same line."""
        with self._lock:
            if self._spinner:
                self._spinner.message = message

    def advance(self, key: str, message: str, total: int, completed: int, size: Size = byte_text) -> None:
        with self._lock:
            self._stop_spinner()
            bar = self._bars.get(key)
            if bar is None:
                bar = self._bars[key] = Bar(message, total, self._blocks, size)
                self._lines.append(bar)
            bar.advance(total, completed, time.monotonic())

    def close(self, *, clear: bool = False) -> None:
        """The last state stays on the screen, unless it is to be cleared."""
        self._ended.set()
        self._thread.join()
        self._stop_spinner()
        while self._is_resizing():
            time.sleep(FRAME_SECONDS)
        if clear and self._drawn:
            self._stream.write(f"{self._up(terminal.size(self._stream)[0])}\r\x1b[J")
        elif self._lines and not clear:
            self._stream.write(self._frame() + "\n")
        self._stream.flush()

    def _stop_spinner(self) -> None:
        if self._spinner:
            self._spinner.turning = False
            self._spinner = None

    def _animate(self) -> None:
        # A terminal that is gone ends the animation, not the job.
        with contextlib.suppress(OSError, ValueError):
            while not self._ended.wait(FRAME_SECONDS):
                with self._lock:
                    if self._lines and not self._is_resizing():
                        # Back to its beginning, so that the `^C` that a terminal shows does not break it into two.
                        self._stream.write(self._frame() + "\r")
                        self._stream.flush()

    def _is_resizing(self) -> bool:
        """Whether the window has changed its size just now, and something is drawn in it."""
        size, moment = terminal.size(self._stream), time.monotonic()
        if size != self._size:
            self._size, self._settled = size, moment + SETTLE_SECONDS
        return bool(self._drawn) and moment < self._settled

    def _frame(self) -> str:
        """Goes up to the first line and writes all anew; only the last ones where the window is too low for all."""
        width, height = terminal.size(self._stream)
        moment = time.monotonic()
        lines = [line.text(width, moment) for line in self._lines[-max(1, height - 1) :]]
        start = self._up(width) + "\x1b[1G" + ("\x1b[J" if self._drawn and width != self._width else "")
        self._drawn, self._width = [text_width(line) for line in lines], width
        return f"\x1b[?2026h\x1b[?25l{start}" + "\x1b[K\n".join(lines) + "\x1b[K\x1b[?25h\x1b[?2026l"

    def _up(self, width: int) -> str:
        """Moves the cursor from the last line's beginning to the first of the rows that the drawn lines take. A window
        that was made narrower has broken lines into several rows.
        """
        return "\x1b[A" * sum(max(1, -(-columns // width)) for columns in self._drawn[:-1])


class Log:
    """Plain lines where there is no terminal: one for a new status; for a bar, its first and last state, and in between
    one for every ten per cent, but not more than one a second nor less than one in five seconds.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._status = ""
        self._bars: dict[str, Bar] = {}
        self._logged: dict[str, tuple[int, float]] = {}

    def spin(self, message: str) -> None:
        if message != self._status:
            self._status = message
            self._write(message)

    def advance(self, key: str, message: str, total: int, completed: int, size: Size = byte_text) -> None:
        now = self._clock()
        bar = self._bars.setdefault(key, Bar(message, total, "", size))
        bar.advance(total, completed, now)
        step = math.floor(bar.percent / 10)
        before, moment = self._logged.get(key, (-1, -math.inf))
        waited = now - moment
        due = step >= 10 or waited >= PLAIN_SECONDS or (step > before and waited >= LEAST_SECONDS)
        if due and before < 10:
            self._logged[key] = (max(step, before), now)
            self._write(bar.plain())

    def close(self) -> None:
        pass

    def _write(self, text: str) -> None:
        self._stream.write(f"{text}\n")
        self._stream.flush()


@contextmanager
def shown() -> Iterator[Display]:
    """A display on standard error, closed with the block."""
    display: Display = Screen(sys.stderr) if terminal.can_draw(sys.stderr) else Log(sys.stderr)
    try:
        yield display
    finally:
        display.close()


def show_steps(steps: Iterable["Progress"], display: Display) -> None:
    """Shows a job's steps as they come: those with a digest as bars, the others as spinners."""
    for step in steps:
        message = printable(step.status)
        if not step.digest:
            display.spin(message)
        elif step.completed:  # a download that has not begun needs no bar yet
            label = f"{message}:" if message.startswith("pulling ") else message
            display.advance(f"{step.digest} {message}", label, step.total, step.completed)


def spinning(message: str) -> contextlib.AbstractContextManager[Callable[[str], None]]:
    """A spinner for as long as the block takes, where one can be drawn; it leaves nothing behind.

    The block is given what changes the message.
    """
    return _spinning(message) if terminal.can_draw(sys.stderr) else contextlib.nullcontext(lambda _: None)


@contextmanager
def _spinning(message: str) -> Iterator[Callable[[str], None]]:
    screen = Screen(sys.stderr)
    screen.spin(message)
    try:
        yield screen.say
    finally:
        screen.close(clear=True)
