"""A command in tmux: a real terminal, whose screen can be looked at as its user sees it."""

import os
import select
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

TIMEOUT = 60
"""Seconds without any output after which what a test waits for is taken never to come."""


class Tmux:
    """A window of its own, in a tmux server of its own; both end with the block. Rows and columns stay as they are."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], *, columns: int = 80, rows: int = 24
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tmux-")  # a socket's path must be short
        variables = {**environment, "TERM": "tmux-256color"}
        started = shlex.join(["env", "-i", *(f"{name}={value}" for name, value in variables.items()), *command])
        events = Path(self._folder.name, "events")
        os.mkfifo(events)
        self._events = os.open(events, os.O_RDONLY | os.O_NONBLOCK)
        # The command starts when its output is listened to, and the window stays when it has ended.
        gate = Path(self._folder.name, "gate")
        os.mkfifo(gate)
        size = ["-x", str(columns), "-y", str(rows)]
        whole = f"""set -m; read _ < {gate}; {started}; status=$?
            while [ $status -eq {128 + signal.SIGTSTP} ]; do echo stopped; read _; fg >/dev/null; status=$?; done
            echo ended with $status; read _"""
        self._tmux("-f", "/dev/null", "new-session", "-d", *size, "sh", "-c", whole)
        self._tmux("set-option", "history-limit", "10000")
        self._tmux("pipe-pane", f"exec cat > {events}")
        self.shell_modes = self.modes
        """How the terminal is set before the command starts."""
        gate.write_text("go\n")

    def write(self, text: str) -> None:
        """Types a text, letter by letter."""
        self._tmux("send-keys", "-l", text)

    def press(self, *keys: str) -> None:
        """Presses keys by their names: `Enter`, `C-c`, `M-b`, `Up`."""
        self._tmux("send-keys", *keys)

    def paste(self, text: str) -> None:
        """Pastes a text, marked as pasted where the program asked for that."""
        self._tmux("set-buffer", text)
        self._tmux("paste-buffer", "-p")

    def resize(self, columns: int, rows: int) -> None:
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    @property
    def screen(self) -> str:
        """What is on the screen, without blanks at the ends of lines and blank lines at the end."""
        return self._captured()

    @property
    def coloured(self) -> str:
        """What is on the screen, with the codes of its colours."""
        return self._captured("-e")

    @property
    def scrollback(self) -> str:
        """All that was ever printed, with lines that the terminal has broken joined again."""
        return self._captured("-J", "-S", "-")

    @property
    def modes(self) -> str:
        """How the terminal is set, in the words of `stty -a`."""
        tty = self._tmux("display-message", "-p", "#{pane_tty}").strip()
        return subprocess.run(["stty", "-a", "-F", tty], capture_output=True, text=True, check=True).stdout

    def send(self, number: int) -> None:
        """Sends the command a signal."""
        self._command.send_signal(number)

    def wait_for_modes(self, modes: str) -> None:
        """Waits until the terminal is set like this."""
        end = time.monotonic() + TIMEOUT
        while self.modes != modes:
            assert time.monotonic() < end, f"{self.modes}\ndid not become\n{modes}"
            time.sleep(0.01)  # nothing is printed when it changes

    def wait_for(self, *texts: str) -> str:
        """Waits until the screen has all these texts; the screen."""
        return self.wait_until(lambda screen: all(text in screen for text in texts), " and ".join(map(repr, texts)))

    def wait_for_end(self, text: str) -> str:
        """Waits until the screen ends with a text: its last line, as a rule."""
        return self.wait_until(lambda screen: screen.endswith(text), f"{text!r} at the end")

    def wait_until(self, seen: Callable[[str], bool], what: str) -> str:
        """Waits until a screen is as it should be; looked at whenever something was printed."""
        while not seen(screen := self.screen):
            ready, _, _ = select.select([self._events], [], [], TIMEOUT)
            assert ready, f"{what} did not come:\n{screen}"
            assert os.read(self._events, 65536), f"{what} did not come before the end:\n{screen}"
        return screen

    def close(self) -> None:
        subprocess.run(["tmux", "-S", self._socket, "kill-server"], capture_output=True)
        os.close(self._events)
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _socket(self) -> str:
        return str(Path(self._folder.name, "socket"))

    @property
    def _command(self) -> psutil.Process:
        shell = psutil.Process(int(self._tmux("display-message", "-p", "#{pane_pid}")))
        return shell.children()[0]

    def _captured(self, *options: str) -> str:
        lines = self._tmux("capture-pane", "-p", *options).split("\n")
        return "\n".join(line.rstrip() for line in lines).rstrip()

    def _tmux(self, *arguments: str) -> str:
        return subprocess.run(
            ["tmux", "-u", "-S", self._socket, *arguments],
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=True,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        ).stdout
