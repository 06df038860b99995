"""Landlock by its three system calls: which files, TCP ports and other processes this thread may still reach.

What is not granted is refused, for this thread and all that it starts later. Source: the kernel's
Documentation/userspace-api/landlock.rst; each ABI knows more rights than the one before.
"""

import ctypes
import functools
import os
import sys
from collections.abc import Iterable
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1
_PATH_BENEATH, _NET_PORT = 1, 2

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_FILE, _MAKE_FOLDER, _MAKE_REGULAR = 1 << 5, 1 << 7, 1 << 8
_TRUNCATE, _IOCTL_DEVICE = 1 << 14, 1 << 15
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEVICE
"""The rights that a rule for a single file may name."""

READ = _READ_FILE | _READ_DIR
RUN = READ | _EXECUTE
WRITE = READ | _WRITE_FILE | _TRUNCATE | _REMOVE_FILE | _MAKE_FOLDER | _MAKE_REGULAR
DEVICE = READ | _WRITE_FILE | _IOCTL_DEVICE

_BIND, _CONNECT = 1 << 0, 1 << 1
NETWORK_ABI, SCOPES_ABI = 4, 6
"""The first ABI that knows TCP ports, and the first that knows scopes: signals and abstract sockets."""


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"  # the only one that can be packed, as Python 3.14 wants to be told
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


class _PortRule(ctypes.Structure):
    _fields_ = (("allowed", ctypes.c_uint64), ("port", ctypes.c_uint64))


def abi() -> int:
    """The ABI of the running kernel; 0 where it has no Landlock, or it is turned off or kept from us."""
    if sys.platform != "linux":
        return 0
    version: int = _libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(_VERSION))
    return max(0, version)


def restrict(granted: Iterable[tuple[Path, int]], port: int | None) -> None:
    """Gives up all but the `granted` rights below these paths and listening on `port`; None: on none at all.

    Paths that are not there are left out. No connection over TCP is possible afterwards, where the kernel can see to
    it. `OSError` when it cannot be done.
    """
    version = abi()
    files = _rights(version)
    rules = _Ruleset(files, _BIND | _CONNECT if version >= NETWORK_ABI else 0, 0b11 if version >= SCOPES_ABI else 0)
    ruleset = _checked(_CREATE_RULESET, ctypes.byref(rules), ctypes.c_size_t(ctypes.sizeof(rules)), ctypes.c_uint(0))
    try:
        for path, rights in granted:
            _grant(ruleset, path, rights & files)
        if port is not None and version >= NETWORK_ABI:
            rule = _PortRule(_BIND, port)
            _checked(_ADD_RULE, ruleset, _NET_PORT, ctypes.byref(rule), ctypes.c_uint(0))
        _checked(_RESTRICT_SELF, ruleset, ctypes.c_uint(0))
    finally:
        os.close(ruleset)


def _rights(version: int) -> int:
    """Every right over files that an ABI knows."""
    known = 13 + (version >= 2) + (version >= 3) + (version >= 5)
    return (1 << known) - 1


def _grant(ruleset: int, path: Path, rights: int) -> None:
    try:
        opened = os.open(path, getattr(os, "O_PATH", 0) | getattr(os, "O_CLOEXEC", 0))
    except OSError:
        return
    try:
        if not path.is_dir():
            rights &= _OF_FILES
        rule = _PathRule(rights, opened)
        _checked(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), ctypes.c_uint(0))
    finally:
        os.close(opened)


def _checked(*arguments: object) -> int:
    result: int = _libc().syscall(*arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
