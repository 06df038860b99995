"""What differs from system to system: in one package, and its other branches run here by what they depend on."""

import ast
import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest

import corral
from corral.system import files
from corral.system.files import LinuxCloning, MacCloning, NoCloning, PosixPositional, SeekingPositional
from corral.system.locks import LOCKED_BYTE, Locks, PosixLocks, WindowsLocks
from corral.system.processes import PosixGroups, WindowsGroups

PACKAGE = Path(corral.__file__).parent

SYSTEMS_OWN = {"fcntl", "termios", "tty", "pty", "msvcrt", "winreg", "resource", "pwd", "grp", "uvloop"}
"""Modules that are not on every system. `importlib.resources` is another one."""
CALLS = {"getuid", "geteuid", "killpg", "setsid", "statvfs", "sched_getaffinity", "copy_file_range"}
CALLS |= {"pread", "preadv", "pwrite", "pwritev", "O_BINARY", "O_NONBLOCK", "O_CLOEXEC", "O_TMPFILE", "getppid"}
THERE = ("cage/", "system/", "machine/", "bundle/bootstrap.py")
"""Where such names may stand: what only Linux can, what systems do, what machines have; and in the program of a bundle,
which stands alone."""


def used() -> Iterator[tuple[str, str]]:
    """Each use of a name that is not on every system: (file, name)."""
    for path in sorted(PACKAGE.rglob("*.py")):
        place = path.relative_to(PACKAGE).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((place, name.name) for name in node.names if name.name in SYSTEMS_OWN)
            elif isinstance(node, ast.ImportFrom) and node.module in SYSTEMS_OWN:
                yield place, str(node.module)
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                is_call = node.value.id == "os" and node.attr in CALLS
                is_question = (node.value.id, node.attr) in {("sys", "platform"), ("os", "name")}
                if is_call or is_question:
                    yield place, f"{node.value.id}.{node.attr}"


def test_only_the_package_for_it_asks_which_system_this_is() -> None:
    assert [use for use in used() if not use[0].startswith(THERE)] == []
    assert {name for _, name in used()} >= {"fcntl", "termios", "sys.platform"}, "the search finds what there is"


def test_windows_can_import_all_but_its_posix_keyboard() -> None:
    command = [sys.executable, "-m", "tests.without_posix"]
    done = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    keyboard = "corral.system.posix_keyboard: ModuleNotFoundError: import of termios halted; None in sys.modules"
    assert done.stdout.splitlines() == [keyboard]


class Msvcrt:
    """`msvcrt.locking` over a real file, by POSIX's locks on the same byte, which a process holds."""

    LK_NBLCK, LK_UNLCK = 2, 0

    def locking(self, descriptor: int, mode: int, size: int) -> None:
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == LOCKED_BYTE
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_UN if mode == self.LK_UNLCK else fcntl.LOCK_EX | fcntl.LOCK_NB, size)
        except BlockingIOError as error:
            raise PermissionError(errno.EACCES, "Permission denied") from error


HOLDER = """
import sys; sys.path.insert(0, {root!r})
from tests.test_system import locks_of
import os
file = os.open({path!r}, os.O_RDWR)
print(locks_of({kind!r}).take(file), flush=True)
sys.stdin.read()
"""


def locks_of(kind: str) -> Locks:
    return PosixLocks(fcntl) if kind == "posix" else WindowsLocks(cast(ModuleType, Msvcrt()))


@pytest.mark.parametrize("kind", ["posix", "windows"])
def test_a_lock_is_one_process_s_until_it_ends(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"contents")
    locks, root = locks_of(kind), str(PACKAGE.parent)
    command = [sys.executable, "-c", HOLDER.format(root=root, path=str(path), kind=kind)]
    descriptor = os.open(path, os.O_RDWR)
    try:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "taken\n"
            os.lseek(descriptor, 3, os.SEEK_SET)
            assert locks.take(descriptor) == "held"
            assert locks.take(descriptor, shared=True) == "held"
            assert os.read(descriptor, 9) == b"tents", "the place in the file is as it was"
            holder.communicate("")
        assert locks.take(descriptor, shared=True) == "taken"
        assert locks.take(descriptor) == "taken"
        locks.wait(descriptor)
        assert path.read_bytes() == b"contents"
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("kind", ["posix", "windows"])
def test_where_nothing_can_be_locked_it_is_said(kind: str) -> None:
    class Without(Msvcrt):
        LOCK_EX, LOCK_SH, LOCK_NB = 1, 2, 4

        def locking(self, descriptor: int, mode: int, size: int) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        def flock(self, descriptor: int, mode: int) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

    module = cast(ModuleType, Without())
    locks: Locks = PosixLocks(module) if kind == "posix" else WindowsLocks(module)
    with open(__file__, "rb") as file:
        assert locks.take(file.fileno()) == "impossible"
        locks.wait(file.fileno())


def test_folders_are_locked_where_they_can_be_opened(tmp_path: Path) -> None:
    descriptor = locks_of("posix").open_folder(tmp_path)
    assert descriptor is not None
    os.close(descriptor)
    assert locks_of("windows").open_folder(tmp_path) is None


@pytest.mark.parametrize("positional", [PosixPositional(os.preadv, os.pwritev), SeekingPositional()])
def test_bytes_are_read_and_written_at_their_place(positional: files.Positional, tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    try:
        assert positional.write(descriptor, [b"ab", memoryview(b"cde")], 4) == 5
        buffer = bytearray(10)
        assert positional.read(descriptor, memoryview(buffer), 2) == 7
        assert buffer[:7] == b"\0\0abcde"
        assert positional.read(descriptor, memoryview(buffer), 9) == 0
    finally:
        os.close(descriptor)
    with open(tmp_path / "file", "rb") as file:
        assert files.read_at(file.fileno(), 100, 5) == b"bcde"


def created(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)


class Ioctl:
    """FICLONE and FICLONERANGE, on a file system that has them or not."""

    def __init__(self, *, works: bool) -> None:
        self.asked: list[int] = []
        self._works = works

    def ioctl(self, target: int, request: int, argument: Any) -> int:
        self.asked.append(request)
        if not self._works:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return 0


def test_linux_clones_by_ioctl_and_leaves_nothing_where_it_cannot(tmp_path: Path) -> None:
    with open(__file__, "rb") as source:
        for works in (True, False):
            calls = Ioctl(works=works)
            cloning = LinuxCloning(cast(ModuleType, calls))
            target = tmp_path / f"clone-{works}"
            assert cloning.whole(source.fileno(), target, created) is works
            assert target.exists() is works
            with open(tmp_path / "stretch", "wb") as stretch:
                assert cloning.stretch(source.fileno(), 0, stretch.fileno(), 0, 4096) is works
            assert calls.asked == [0x40049409, 0x4020940D]


def test_macos_clones_whole_files_by_its_c_library(tmp_path: Path) -> None:
    class Library:
        def __init__(self, status: int) -> None:
            self.status, self.asked = status, list[tuple[int, bytes, int]]()

        def fclonefileat(self, source: int, folder: int, target: bytes, flags: int) -> int:
            self.asked.append((folder, target, flags))
            return self.status

    for status in (0, -1):
        library = Library(status)
        assert MacCloning(library).whole(7, tmp_path / "clone", created) is (status == 0)
        assert library.asked == [(-2, os.fsencode(tmp_path / "clone"), 0)]
        assert not MacCloning(library).stretch(7, 0, 8, 0, 4096)


def test_windows_copies(tmp_path: Path) -> None:
    assert not NoCloning().whole(7, tmp_path / "clone", created)
    assert not NoCloning().stretch(7, 0, 8, 0, 4096)


TREE = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("kill", [False, True])
def test_a_group_is_ended_with_all_that_it_has_started(kill: bool) -> None:
    groups = PosixGroups(os.killpg)
    child = subprocess.Popen([sys.executable, "-c", TREE], stdout=subprocess.PIPE, text=True, **groups.options)
    assert child.stdout is not None
    assert int(child.stdout.readline()) != child.pid
    groups.end(child, kill=kill)
    assert child.wait(30) == (-9 if kill else -15)
    child.stdout.read()  # ends when the last one that has it has ended
    groups.end(child, kill=kill)  # nothing is left to be ended


def test_windows_ends_a_tree_by_its_own_program() -> None:
    class Child:
        pid = 4711

        def __init__(self) -> None:
            self.calls: list[str] = []

        def terminate(self) -> None:
            self.calls.append("terminate")

        def kill(self) -> None:
            self.calls.append("kill")
            raise PermissionError("it has ended")

    child, commands = Child(), list[list[str]]()
    groups = WindowsGroups(commands.append)
    groups.end(child)
    assert (child.calls, commands) == (["terminate"], [])
    groups.end(child, kill=True)
    assert (child.calls[1:], commands) == (["kill"], [["taskkill", "/F", "/T", "/PID", "4711"]])
    assert set(groups.options) == {"creationflags"}
