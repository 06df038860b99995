"""Looks at the server about once a second until Ctrl-C or `q`, and shows what it sees; a server may come and go."""

import contextlib
import select
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import NoReturn, TextIO

from corral.cli.display import terminal
from corral.cli.display.units import now
from corral.cli.watch.frame import Look, block, frame
from corral.client import Client, NotRunning
from corral.errors import CorralError
from corral.system.consoles import single_keys

SECONDS = 1.0
"""From one look to the next."""
ENTER = "\x1b[?1049h\x1b[?25l"
"""Another screen of the terminal, without a cursor; the one with what was there before is left alone."""
LEAVE = "\x1b[?25h\x1b[?1049l"
TERMINATED = 143
"""Exit status after SIGTERM, as of a program that it ends."""


def watch(client: Client, prefix: str, stream: TextIO) -> None:
    """Shows the models whose names begin with `prefix`; on a terminal in place, elsewhere block after block."""
    with contextlib.suppress(KeyboardInterrupt):
        if terminal.can_draw(stream):
            with _screen(stream), single_keys() as has_keys:
                while True:
                    begin = time.monotonic()
                    _draw(stream, look(client, prefix))
                    if _is_ended(begin + SECONDS - time.monotonic(), has_keys):
                        return
        while True:
            begin = time.monotonic()
            stream.write("\n".join(block(look(client, prefix))) + "\n")
            stream.flush()
            time.sleep(max(0.0, begin + SECONDS - time.monotonic()))


def look(client: Client, prefix: str) -> Look:
    """One look. What goes wrong is part of it."""
    where = client.address.netloc
    try:
        seen = client.watch()
    except NotRunning:
        return Look(where, now().astimezone(), None, f"no server answers at {where}; waiting for one")
    except CorralError as error:
        return Look(where, now().astimezone(), None, f"{error}; trying again")
    models = tuple(model for model in seen.models if model.name.startswith(prefix))
    return Look(where, now().astimezone(), replace(seen, models=models))


def _draw(stream: TextIO, seen: Look) -> None:
    """In one go, between marks that have a terminal show nothing half-drawn."""
    width, height = terminal.size(stream)
    lines = frame(seen, width, height)
    stream.write("\x1b[?2026h\x1b[H" + "\x1b[K\n".join(lines) + "\x1b[K\x1b[J\x1b[?2026l")
    stream.flush()


@contextlib.contextmanager
def _screen(stream: TextIO) -> Iterator[None]:
    """A screen of our own, which is left however the block ends."""
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        stream.write(ENTER)
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        with contextlib.suppress(OSError):
            stream.write(LEAVE)
            stream.flush()


def _terminate(number: int, stack: object) -> NoReturn:
    raise SystemExit(TERMINATED)


def _is_ended(seconds: float, has_keys: bool) -> bool:
    """Waits so long; whether `q` was typed meanwhile, or the terminal has gone."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if not has_keys:
            time.sleep(left)
        elif select.select([sys.stdin], [], [], left)[0]:
            typed = sys.stdin.buffer.raw.read(64) if hasattr(sys.stdin.buffer, "raw") else b""
            if not typed or b"q" in typed.lower():
                return True
    return False
