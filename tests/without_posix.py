"""Imports every module of Corral as Windows would: without what Python has on POSIX systems only.

python -m tests.without_posix    # names what cannot be imported, a line each: module, then why

What others wrote is imported first, as it is here: it brings its own branch for Windows.
"""

import ast
import importlib
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

POSIX = (
    "crypt",
    "curses",
    "fcntl",
    "grp",
    "inotify_simple",
    "nis",
    "ossaudiodev",
    "pty",
    "pwd",
    "readline",
    "resource",
)
POSIX_MODULES = (*POSIX, "spwd", "syslog", "termios", "tty", "uvloop")
"""Modules that Windows does not have, of the standard library and of what Corral needs."""

POSIX_NAMES = {
    os: (
        *("O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_TMPFILE", "chown", "copy_file_range", "fchmod"),
        *("fork", "getegid", "geteuid", "getgid", "getloadavg", "getpgid", "getuid", "killpg", "mkfifo", "openpty"),
        *("pread", "preadv", "pwrite", "pwritev", "sched_getaffinity", "sendfile", "setsid", "statvfs", "uname"),
    ),
    signal: ("SIGALRM", "SIGBUS", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGTSTP", "SIGUSR1"),
    socket: ("AF_UNIX", "socketpair"),
}
"""Names that modules have on POSIX systems only."""

PACKAGE = Path(__file__).parent.parent / "corral"


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Every module of Corral by its name, with what it says."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        yield name, ast.parse(path.read_text("utf-8"))


def imported(tree: ast.Module) -> Iterator[str]:
    """The modules that a module imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def import_the_others() -> None:
    """What Corral imports of other packages, as this system has it."""
    for name in sorted({name for _, tree in modules() for name in imported(tree)}):
        if name.partition(".")[0] != "corral" and name not in ("msvcrt", "winreg"):
            importlib.import_module(name)


def become_windows() -> None:
    """Takes away what Windows does not have, and says so to those who ask for the system."""
    for name in POSIX_MODULES:
        sys.modules[name] = None  # type: ignore[assignment] # an import of it raises ImportError
    for module, names in POSIX_NAMES.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    sys.platform = "win32"
    sys.modules["msvcrt"] = ModuleType("msvcrt")


def main() -> None:
    import_the_others()
    become_windows()
    for name, _ in modules():
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever it is, it is what a user would see
            print(f"{name}: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
