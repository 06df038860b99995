"""Processes as systems differ in them: their groups, their ends, their limits and their user."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar, Protocol

CRASHES = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, getattr(signal, "SIGBUS", signal.SIGSEGV)})
"""Signals by which a file ends a worker that loads it. An illegal instruction is the fault of the engine's build."""

KILLED = -int(getattr(signal, "SIGKILL", 9))
"""The exit status of a process that was killed."""

_PR_SET_PDEATHSIG = 1


class Child(Protocol):
    """A process that was started here, by `subprocess` or `asyncio`."""

    @property
    def pid(self) -> int: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


class Groups(Protocol):
    """How a child is started so that it, and all that it starts, can be ended together."""

    @property
    def options(self) -> dict[str, Any]:
        """What `subprocess.Popen` is given: the child is in a group of its own, without our terminal's signals."""
        ...

    def end(self, child: Child, *, kill: bool = False) -> None:
        """Asks the group to end, or ends it; nothing happens when it has ended."""
        ...


class PosixGroups:
    """setsid(2). `killpg`: the function of that name.

    `Popen.terminate` and `kill` look for the child's end first, and take its status from asyncio, which then says 255.
    """

    options: ClassVar[dict[str, Any]] = {"start_new_session": True}

    def __init__(self, killpg: Callable[[int, int], None]) -> None:
        self._killpg = killpg

    def end(self, child: Child, *, kill: bool = False) -> None:
        with suppress(ProcessLookupError):
            self._killpg(child.pid, -KILLED if kill else signal.SIGTERM)


class WindowsGroups:
    """No window, and none of our console's Ctrl-C. No signal reaches a group: `run` calls taskkill for the tree."""

    options: ClassVar[dict[str, Any]] = {
        "creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0x200)
        | getattr(subprocess, "CREATE_NO_WINDOW", 0x8000000)
    }

    def __init__(self, run: Callable[[list[str]], object]) -> None:
        self._run = run

    def end(self, child: Child, *, kill: bool = False) -> None:
        if kill:
            with suppress(OSError):
                self._run(["taskkill", "/F", "/T", "/PID", str(child.pid)])
        with suppress(OSError):
            child.kill() if kill else child.terminate()


def _groups() -> Groups:
    if sys.platform == "win32":
        return WindowsGroups(lambda command: subprocess.run(command, capture_output=True, check=False))
    return PosixGroups(os.killpg)


GROUPS = _groups()


def end(child: "subprocess.Popen[bytes]", grace: float) -> None:
    """Asks a child's group to end, and ends it after `grace` seconds; waits for the child's end."""
    if child.poll() is not None:
        return
    GROUPS.end(child)
    try:
        child.wait(grace)
    except subprocess.TimeoutExpired:
        GROUPS.end(child, kill=True)
        child.wait()


def signal_at_parents_end(number: signal.Signals) -> None:
    """Has the kernel send this process a signal when its parent ends (prctl(2)); on Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number)


def end_at_parents_end() -> None:
    """Has the kernel kill this process when its parent ends; on Linux only."""
    if sys.platform == "linux":
        signal_at_parents_end(signal.SIGKILL)


def has_lost_parent(parent: int) -> bool:
    """Whether the process with this id is our parent no more; not known on Windows, whose ids of parents stay."""
    return sys.platform != "win32" and os.getppid() != parent


def user_number() -> int:
    """The number of this process's user; 0 on Windows, which has none."""
    if sys.platform == "win32":
        return 0
    return os.getuid()


def cores() -> int:
    """Processors that this process may use; all where none is kept from it."""
    found = os.cpu_count() or 1
    if sys.platform == "linux":
        found = len(os.sched_getaffinity(0))
    return found


def most_open_files(wanted: int) -> int:
    """Files and connections this process may have open, after it was allowed as many as `wanted`, if it may."""
    if sys.platform == "win32":
        return wanted
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    if soft < wanted:
        with suppress(ValueError, OSError):
            least = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (least, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
