"""Runs the real command as its users do: a process, its two outputs, its exit status."""

import codecs
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path

from tests.fake_server import command_environment

CORRAL = Path(sys.executable).with_name("corral")


@dataclass(frozen=True)
class Outcome:
    """What became of a command."""

    status: int
    stdout: str
    stderr: str


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
            env=self.environment(**variables),
        )

    def terminal(self, *arguments: str, columns: int = 80, **variables: str) -> "Terminal":
        return Terminal([self._path(), *arguments], self.environment(TERM="xterm-256color", **variables), columns)

    def environment(self, **variables: str) -> dict[str, str]:
        return command_environment(self.home, self.host, **variables)

    def _path(self) -> str:
        """The program, through a link when it goes by another name."""
        if self.program == "corral":
            return str(CORRAL)
        link = self.home / self.program
        if not link.exists():
            link.symlink_to(CORRAL)
        return str(link)


class Terminal:
    """A command in a terminal of its own; `stderr` is kept apart, so that what animates there is not in the way."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], columns: int) -> None:
        self._master, slave = pty.openpty()
        ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
            preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0) and None,
        )
        os.close(slave)
        self.shown = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait_for(self, text: str) -> None:
        """Reads until a text is on the screen that was not before; what was read stays in `shown`."""
        begin = len(self.shown)
        while text not in self.shown[begin:]:
            self.shown += self._read()

    def finish(self) -> Outcome:
        """Reads to the end. Lines end in `\\n` again."""
        try:
            while True:
                self.shown += self._read()
        except EOFError:
            pass
        assert self.process.stderr
        stderr = self.process.stderr.read().decode()
        self.process.stderr.close()
        os.close(self._master)
        return Outcome(self.process.wait(60), self.shown.replace("\r\n", "\n"), stderr)

    def _read(self) -> str:
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux says so when the other side has gone
            data = b""
        if not data:
            raise EOFError(self.shown)
        return self._decoder.decode(data)
