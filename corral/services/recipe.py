"""What is to run as a service, and what a system's service manager needs for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

NAME = "corral"
"""What service managers know the service by."""
MARK = "made by `corral service install`"
"""Stands in every file of ours, so that one of somebody else is not written over."""


@dataclass(frozen=True)
class Definition:
    """The server to run: the words of its command line, and the variables that it is given.

    `user`: empty: a service of the user who asks, in their session; else one of the system, which runs as this user.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    user: str
    log: Path
    """Where its lines go where the system has no log of its own."""


@dataclass(frozen=True)
class Step:
    """A command of the service manager; one that `may_fail` only makes sure of something."""

    words: tuple[str, ...]
    may_fail: bool = False


@dataclass(frozen=True)
class Recipe:
    """A file and the commands that go with it."""

    manager: str
    file: Path
    data: bytes
    start: tuple[Step, ...]
    """When the file is in its place: start the service now and each time."""
    stop: tuple[Step, ...]
    """Before the file is deleted."""
    forget: tuple[Step, ...]
    """When it is deleted."""
    running: Step
    """Succeeds while the service runs."""
    log: str
    """How its user reads what the server logs."""
    remarks: tuple[str, ...] = ()
    """What its user should know, a sentence each."""

    @property
    def text(self) -> str:
        """The file as its user reads it."""
        return self.data.decode("utf-16" if self.data.startswith(b"\xff\xfe") else "utf-8")


def step(*words: str, may_fail: bool = False) -> Step:
    return Step(words, may_fail)
