"""The cage of a child process that opens files of strangers: what it may still do. A child shuts itself in.

It is done before the first of those files is opened and before native code has started a thread, since what is given up
is given up for the calling thread and those that it starts later. On Linux: Landlock as far as the kernel has it, a
short list of system calls that are refused, no new privileges, no capability but those to read and write files as
before, no core files. Elsewhere nothing happens.
"""

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from msgspec import Struct

from corral.cage import landlock, places, seccomp
from corral.config import Config
from corral.errors import ConfigError, reason_of

MOST_FILES = 8192
"""Files and connections that a caged process may have open."""

_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITIES_VERSION = 0x20080522
_KEPT_CAPABILITIES = 0b110
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: root goes on to read and write files of others, where Landlock lets it."""


class Cage(Struct, frozen=True):
    """What the user wants: as much as the system has, nothing, or no start without it."""

    mode: Literal["auto", "off", "required"] = "auto"
    folders: tuple[str, ...] = ()
    """Further files and folders that may be read and written."""


def wanted(config: Config) -> Cage:
    """What the settings say."""
    return Cage(config.worker_cage, config.worker_folders)


class Needs(Struct, frozen=True, kw_only=True):
    """What a child needs beside libraries and devices."""

    reads: tuple[Path, ...] = ()
    writes: tuple[Path, ...] = ()
    program: Path | None = None
    """What it turns itself into; that may start programs too."""
    port: int | None = None
    """The TCP port that it listens on; None: on none."""


class Support(Struct, frozen=True):
    """What this system has for a cage. `landlock`: its ABI, 0 without it; `seccomp`: whether calls can be refused."""

    landlock: int
    seccomp: bool

    @property
    def lacking(self) -> str:
        """What is not there of that which a cage cannot do without; empty: nothing."""
        missing = [name for name, there in (("Landlock", self.landlock), ("seccomp", self.seccomp)) if not there]
        return " and ".join(missing)


def support() -> Support:
    """What a process that is started here could use. Changes nothing."""
    return Support(landlock.abi(), seccomp.is_there())


def check(cage: Cage) -> None:
    """`ConfigError` where a cage is required and this system has not got what that takes."""
    if cage.mode == "required" and (lacking := support().lacking):
        raise ConfigError(f'CORRAL_WORKER_CAGE is "required", and this system has no {lacking}')


def enter(cage: Cage, needs: Needs) -> None:
    """Shuts this process in. `ConfigError` where that is required and cannot be done; else what there is, is done."""
    check(cage)
    if cage.mode == "off" or sys.platform != "linux":
        return
    found = support()
    _limit()
    steps = {"privileges": _drop_privileges}
    if found.landlock:
        steps["Landlock"] = lambda: landlock.restrict(_granted(cage, needs), needs.port)
    if found.seccomp:
        steps["seccomp"] = lambda: seccomp.deny(programs=needs.program is not None)
    for name, step in steps.items():
        try:
            step()
        except OSError as error:
            text = f"the cage does without {name}: {reason_of(error)}"
            if cage.mode == "required":
                raise ConfigError(f"{text}; CORRAL_WORKER_CAGE requires it") from error
            print(text, file=sys.stderr, flush=True)


def _granted(cage: Cage, needs: Needs) -> Iterator[tuple[Path, int]]:
    reading = landlock.READ if needs.program is None else landlock.RUN
    for path in places.libraries():
        yield path, reading
    for path in places.of_program(needs.program) if needs.program is not None else ():
        yield path, reading
    for path in places.devices():
        yield path, landlock.DEVICE
    for path in needs.reads:
        yield path, landlock.READ
    for path in (*needs.writes, *places.for_gpus(), *map(Path, cage.folders)):
        yield path, landlock.WRITE


def _limit() -> None:
    """No core files, which would hold the user's conversations, and a bound of open files."""
    if sys.platform == "win32":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    used, most = (
        MOST_FILES if limit == resource.RLIM_INFINITY else min(limit, MOST_FILES)
        for limit in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    resource.setrlimit(resource.RLIMIT_NOFILE, (used, most))


def _drop_privileges() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs is refused")
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_VERSION, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, their lower halves first
    if libc.capget(header, sets):
        raise OSError(ctypes.get_errno(), "capabilities cannot be read")
    kept = sets[1] & _KEPT_CAPABILITIES
    if libc.capset(header, (ctypes.c_uint32 * 6)(kept, kept, 0, 0, 0, 0)):
        raise OSError(ctypes.get_errno(), "capabilities cannot be given up")
