"""Runs the real command as its users do: a process, its two outputs, its exit status."""

import codecs
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path

from tests.conftest import WATCHED
from tests.fake_server import command_environment
from tests.processes import wait_for_end

OUTPUT_TIMEOUT = 60
"""Seconds without any output after which a command is taken to hang."""

CORRAL = Path(sys.executable).with_name("corral")


@dataclass(frozen=True)
class Outcome:
    """What became of a command."""

    status: int
    stdout: str
    stderr: str


@contextmanager
def shell_without_server(home: Path) -> "Iterator[Shell]":
    """A shell at whose address no server runs; those that commands start there are ended with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shell = Shell(home, f"127.0.0.1:{port}")
    try:
        yield shell
    finally:
        for process in servers_of(shell, "Started"):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)
            wait_for_end(process)


def servers_of(shell: "Shell", event: str) -> list[int]:
    """The processes that the log says are `Started` or `Finished`."""
    log = shell.home / "state" / "serve.log"
    text = log.read_text() if log.exists() else ""
    return [int(number) for number in re.findall(rf"{event} server process \[(\d+)\]", text)]


@dataclass(frozen=True)
class Shell:
    """Somewhere to type commands: a home folder, a server's address, and the name the program goes by."""

    home: Path
    host: str = "127.0.0.1:1"
    program: str = "corral"

    def run(self, *arguments: str, stdin: str | bytes = "", **variables: str) -> Outcome:
        """Runs a command to its end; its input is a pipe."""
        finished = subprocess.run(
            [self._path(), *arguments],
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            cwd=self.home,
            env=self.environment(**variables),
            timeout=60,
        )
        return Outcome(
            finished.returncode, finished.stdout.decode("utf-8", "replace"), finished.stderr.decode("utf-8", "replace")
        )

    def start(self, *arguments: str, **variables: str) -> "subprocess.Popen[bytes]":
        """Starts a command that the test talks to itself."""
        return subprocess.Popen(
            [self._path(), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.home,
            env=self.environment(**variables),
            preexec_fn=_restore_interrupts,
        )

    def run_to(self, *arguments: str, stderr: int, **variables: str) -> int:
        """Runs a command whose standard error is this file descriptor; its exit status."""
        return subprocess.run(
            [self._path(), *arguments],
            stdin=subprocess.DEVNULL,
            stderr=stderr,
            env=self.environment(**variables),
            timeout=60,
        ).returncode

    def terminal(self, *arguments: str, columns: int = 80, variables: Mapping[str, str] | None = None) -> "Terminal":
        """Starts a command in a terminal so wide."""
        return Terminal([self._path(), *arguments], self.terminal_environment(**(variables or {})), columns)

    def terminal_environment(self, **variables: str) -> dict[str, str]:
        # It answers no question about its cursor.
        return self.environment(**{"TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1", **variables})

    def environment(self, **variables: str) -> dict[str, str]:
        return command_environment(self.home, self.host, **{**WATCHED, **variables})

    def _path(self) -> str:
        """The program, through a link when it goes by another name."""
        if self.program == "corral":
            return str(CORRAL)
        link = self.home / self.program
        if not link.exists():
            link.symlink_to(CORRAL)
        return str(link)


class Terminal:
    """A command in a terminal of its own.

    Unless it is `whole`, `stderr` is kept apart, so that what animates there is not in the way.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: dict[str, str],
        columns: int,
        *,
        rows: int = 24,
        whole: bool = False,
        folder: Path | None = None,
    ) -> None:
        self._master, slave = pty.openpty()
        ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave if whole else subprocess.PIPE,
            env=environment,
            cwd=folder,
            start_new_session=True,
            preexec_fn=_own_terminal,
        )
        os.close(slave)
        self.shown = ""
        self._waited = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait_for(self, text: str) -> None:
        """Reads until a text was shown after the one waited for before; what was read stays in `shown`."""
        while (at := self.shown.find(text, self._waited)) < 0:
            self.shown += self._read()
        self._waited = at + len(text)

    def finish(self) -> Outcome:
        """Reads to the end. Lines end in `\\n` again."""
        try:
            while True:
                self.shown += self._read()
        except EOFError:
            pass
        stderr = ""
        if self.process.stderr:
            stderr = self.process.stderr.read().decode()
            self.process.stderr.close()
        os.close(self._master)
        return Outcome(self.process.wait(60), self.shown.replace("\r\n", "\n"), stderr)

    def _read(self) -> str:
        ready, _, _ = select.select([self._master], [], [], OUTPUT_TIMEOUT)
        assert ready, f"nothing more was shown after {self.shown!r}"
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux says so when the other side has gone
            data = b""
        if not data:
            raise EOFError(self.shown)
        return self._decoder.decode(data)


def _restore_interrupts() -> None:
    """Tests that run in the background of a script ignore Ctrl-C, and so would their children."""
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


def _own_terminal() -> None:
    _restore_interrupts()
    ioctl(0, termios.TIOCSCTTY, 0)
