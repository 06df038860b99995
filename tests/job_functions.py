"""What the tests of `corral.job` have child processes do."""

import errno
import os
import socket
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from corral.background import Report
from corral.errors import ContextExceeded, InternalError, ModelFileError, ModelNotFound
from corral.messages import Progress


class Sum(Struct, frozen=True):
    """What `total` returns."""

    bytes: int
    files: dict[str, Path]


class NewKindError(ModelFileError):
    """A kind that the parent does not know."""


def total(files: Mapping[str, Path], times: int, *, report: Report) -> Sum:
    size = 0
    for name, path in files.items():
        size += path.stat().st_size
        report(Progress(name, completed=size))
    print("not for the parent's ears")
    return Sum(size * times, dict(files))


def fail(kind: str, *, report: Report) -> None:
    raise {
        "with data": ContextExceeded("too long", tokens=7, limit=5),
        "with a sentence of its own": ModelNotFound("a"),
        "without arguments": InternalError(),
        "unknown": NewKindError("a new sentence"),
        "memory": MemoryError(),
        "unexpected": ValueError("a mistake"),
    }[kind]


def process_id(*, report: Report) -> int:
    return os.getpid()


def wait_for_ever(target: Path, *, report: Report) -> None:
    """Says its process id, with a temporary file open; tidies up when it is asked to end."""
    with tempfile.NamedTemporaryFile(dir=target):
        report(Progress(str(os.getpid())))
        time.sleep(1000)


def never_listen(*, report: Report) -> None:
    """Takes no notice of being asked to end."""
    while True:
        try:
            report(Progress(str(os.getpid())))
            time.sleep(1000)
        except SystemExit:
            pass


def crash(*, report: Report) -> None:
    os.abort()


def leave(*, report: Report) -> None:
    os._exit(3)


def niceness(*, report: Report) -> int:
    return os.nice(0)


def variables(*, report: Report) -> dict[str, str]:
    return dict(os.environ)


def touch(source: Path, target: Path, outside: str, *, report: Report) -> list[str]:
    """What it may do with files: those it was given, one to write, and another."""
    return [_tried(source, "rb"), _tried(source, "r+b"), _tried(target / "new", "wb"), _tried(Path(outside), "rb")]


def _tried(path: Path, mode: str) -> str:
    try:
        open(path, mode).close()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def send(*, report: Report) -> None:
    """Tries to reach somebody."""
    with socket.socket() as connection:
        connection.connect(("127.0.0.1", 9))
