"""Everything that a change must pass, in parts that run side by side.

python -m tests.parts tests    # all tests
python -m tests.parts all      # format, lint and types, too

One part of the tests mostly waits for the real engine, which the others fill. What the first part prints is shown as
it comes, what the others print when they have ended. All of them run to their end, and one that fails is enough.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import IO

from tests import rings

GIVES_WAY = 10
"""The niceness of what takes little time, and is not to hold up tests."""
OTHERS = ("win32", "darwin")
"""Systems that nobody here has: at least every name that is used there is one that they have."""
_MYPY = (sys.executable, "-m", "mypy", "--no-warn-unreachable")
GRACE = 10
"""Seconds that an interrupted part has for saying what it found until then."""


@dataclass(frozen=True)
class Part:
    """A command; one that is an `aid` spares the others time, and fails nothing: they do without."""

    name: str
    command: Sequence[str]
    niceness: int = 0
    aid: bool = False


@dataclass(frozen=True)
class _Running:
    part: Part
    process: "subprocess.Popen[bytes]"
    output: IO[bytes] | None
    begin: float


def tests() -> list[Part]:
    """The parts of the tests, and the packages that one needs near its end."""
    pytest = [sys.executable, "-m", "pytest", "--durations=20"]
    rest = rings.rest()
    return [
        Part("tests with the real engine", [*pytest, *map(str, rings.engine())]),
        Part("half of all other tests", [*pytest, *map(str, rest[::2])]),
        Part("the other half of them", [*pytest, *map(str, rest[1::2])]),
        Part("other projects' clients", [sys.executable, "-m", "tests.kits"], GIVES_WAY, aid=True),
    ]


def checks() -> list[Part]:
    """What is checked without running Corral."""
    return [
        Part("lint", [sys.executable, "-m", "ruff", "check", "."]),
        Part("format", [sys.executable, "-m", "ruff", "format", "--check", "."]),
        Part("types", [sys.executable, "-m", "mypy"], GIVES_WAY),
        *(Part(f"types on {platform}", [*_MYPY, "--platform", platform, "corral"], GIVES_WAY) for platform in OTHERS),
    ]


def run(parts: Sequence[Part]) -> list[str]:
    """Runs the parts side by side; the names of those that failed. An exception ends those that still run."""
    failed = []
    with ExitStack() as stack:
        running = [stack.enter_context(_started(part, shown=place == 0)) for place, part in enumerate(parts)]
        stack.callback(_interrupt, running)
        while running:
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                _show(one)
                if one.process.returncode and not one.part.aid:
                    failed.append(one.part.name)
            time.sleep(0.2)
    return failed


def _interrupt(running: Sequence[_Running]) -> None:
    """Has all of them say what they found until now, as Ctrl-C does."""
    for one in running:
        one.process.send_signal(signal.SIGINT)


def end_with_a_signal() -> None:
    """Has SIGTERM, which CI sends when time is up, and Ctrl-C end the parts and show what they printed.

    Parts can then be interrupted even where this program was started in the background, and so without Ctrl-C.
    """

    def end(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, end)


@contextmanager
def _started(part: Part, *, shown: bool) -> Iterator[_Running]:
    """A part in a session of its own; the end of the block ends it, and shows what it printed."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            ["nice", "-n", str(part.niceness), *part.command],
            stdin=subprocess.DEVNULL,
            stdout=None if shown else output,
            stderr=None if shown else subprocess.STDOUT,
            start_new_session=True,
        )
        running = _Running(part, process, None if shown else output, time.monotonic())
        try:
            yield running
        finally:
            if process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE)
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                _show(running)


def _show(one: _Running) -> None:
    """What a part printed, and how it ended."""
    sys.stdout.write("\n")
    sys.stdout.flush()
    if one.output:
        one.output.seek(0)
        sys.stdout.buffer.write(one.output.read())
    ended = "passed" if one.process.returncode == 0 else f"ended with {one.process.returncode}"
    print(f"\n== {one.part.name}: {ended} after {time.monotonic() - one.begin:.0f} s ==", flush=True)


if __name__ == "__main__":
    end_with_a_signal()
    names = run(tests() if sys.argv[1] == "tests" else [*tests(), *checks()])
    sys.exit(f"failed: {', '.join(names)}" if names else 0)
