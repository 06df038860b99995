"""A short list of system calls that a process gives up: what reaches other processes, other sockets, or the kernel.

A filter of the kernel's old packet language, installed by prctl; it holds for this thread and all that it starts later,
and over exec. A call on the list fails as one that is not permitted.
"""

import ctypes
import errno
import os
import platform
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence

_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""The kernel's name of each machine that the numbers below are known for, and their column."""

_CALLS: Mapping[str, tuple[int | None, int | None]] = {
    "connect": (42, 203),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),  # its work passes this filter by
    "open_by_handle_at": (304, 265),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
}
"""Never needed: their numbers on each machine."""

_PROGRAMS: Mapping[str, tuple[int | None, int | None]] = {
    "execve": (59, 221),
    "execveat": (322, 281),
    "fork": (57, None),
    "vfork": (58, None),
}
"""Given up too by a process that starts no other program."""

_SOCKET, _SENDTO, _SENDMSG, _SENDMMSG = (41, 198), (44, 206), (46, 211), (307, 269)
_CLONE, _CLONE3, _KILL, _TGKILL = (56, 220), (435, 435), (62, 129), (234, 131)

_TYPE_MASK, _TCP = 0xF, 6
_FASTOPEN = 0x20000000
"""The flag by which sending data opens a connection."""
_THREAD, _NAMESPACES = 0x10000, 0x7E020000 | 0x80
_WHOLE = 0xFFFFFFFF

_PR_SET_SECCOMP, _PR_GET_SECCOMP, _FILTER_MODE = 22, 21, 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _AND, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_X32 = 0x40000000
"""Numbers from here on are x86's third set of system calls."""

_Check = tuple[int, int, Sequence[int]]
"""(which argument, the bits that count, their values that pass)."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def is_there() -> bool:
    """Whether this system takes such a filter, and the numbers of its calls are known here."""
    if platform.system() != "Linux" or platform.machine() not in _ARCHITECTURES:
        return False
    return int(ctypes.CDLL(None).prctl(_PR_GET_SECCOMP)) >= 0


def deny(*, programs: bool) -> None:
    """Gives the calls up; `programs`: this process may become or start other programs. `OSError`."""
    filter_ = b"".join(_filter(programs=programs))
    program = _Program(len(filter_) // 8, filter_)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _FILTER_MODE, ctypes.byref(program)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _filter(*, programs: bool) -> Iterator[bytes]:
    name, column = _ARCHITECTURES[platform.machine()]
    yield _step(_LOAD, 4)
    yield _step(_EQUAL, name, 1, 0)
    yield _refusal(errno.EPERM)
    yield _step(_LOAD, 0)
    if column == 0:
        yield _step(_AT_LEAST, _X32, 0, 1)
        yield _refusal(errno.EPERM)
    for numbers in (*_CALLS.values(), *(() if programs else _PROGRAMS.values())):
        yield from _refused(numbers[column], errno.EPERM)
    yield from _refused(_CLONE3[column], errno.ENOSYS)  # its flags lie in memory; libraries then call clone
    for pair, checks in _checked_calls(programs=programs):
        yield from _restricted(pair[column], checks)
    yield _step(_RETURN, _ALLOW)


def _checked_calls(*, programs: bool) -> Iterator[tuple[tuple[int, int], Sequence[_Check]]]:
    """Calls that are permitted with some arguments only."""
    families = (int(socket.AF_INET), int(socket.AF_INET6))
    yield _SOCKET, [(0, _WHOLE, families), (1, _TYPE_MASK, [int(socket.SOCK_STREAM)]), (2, _WHOLE, [0, _TCP])]
    yield _SENDTO, [(3, _FASTOPEN, [0])]
    yield _SENDMSG, [(2, _FASTOPEN, [0])]
    yield _SENDMMSG, [(3, _FASTOPEN, [0])]
    if programs:
        yield _CLONE, [(0, _NAMESPACES, [0])]
    else:
        yield _CLONE, [(0, _THREAD, [_THREAD])]
        yield _KILL, [(0, _WHOLE, [os.getpid()])]
        yield _TGKILL, [(0, _WHOLE, [os.getpid()])]


def _refused(number: int | None, code: int) -> Iterator[bytes]:
    if number is not None:
        yield _step(_EQUAL, number, 0, 1)
        yield _refusal(code)


def _restricted(number: int, checks: Sequence[_Check]) -> Iterator[bytes]:
    body = b"".join(step for check in checks for step in _check(*check)) + _step(_RETURN, _ALLOW)
    yield _step(_EQUAL, number, 0, len(body) // 8)
    yield body


def _check(argument: int, mask: int, values: Sequence[int]) -> Iterator[bytes]:
    """Goes on behind itself where the argument passes. Only its lower half is looked at, as the kernel does."""
    yield _step(_LOAD, 16 + 8 * argument)
    yield _step(_AND, mask)
    for position, value in enumerate(values):
        yield _step(_EQUAL, value, len(values) - position, 0)
    yield _refusal(errno.EPERM)


def _refusal(code: int) -> bytes:
    return _step(_RETURN, _ERRNO | code)


def _step(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, operand)
