"""Starts a server in the background, for `connection` when none runs on this machine.

The child is a plain `serve` in a session of its own; it ends itself when it has been idle. Of several commands
that find no server at the same time, one starts it and the others wait until it answers.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from corral.cli.display.progress import spinning
from corral.client import Client, KeyRefused
from corral.config import Loaded, child_environment
from corral.errors import CorralError
from corral.system import locks
from corral.system.processes import GROUPS

START_SECONDS = 60.0
"""How long a started server may take until it answers: the first of all compiles its modules, on slow machines too."""
POLL_SECONDS = 0.02
IDLE_EXIT = "10m"
"""When a server that was started in the background ends itself, unless the settings say otherwise."""
MAX_LOG = 5 << 20
"""Bytes of the log file above which it is put aside."""
TAIL_LINES = 5


def start(client: Client, loaded: Loaded) -> None:
    """Starts a server and waits until it answers. `CorralError` with the end of its log when it does not."""
    log = loaded.config.state / "serve.log"
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with _turn(log.with_name("start.lock")):
            if not answers(client):
                _start(client, loaded, log)
    except OSError as error:
        raise CorralError(f'could not start a server: cannot write "{error.filename}": {error.strerror}') from error


@contextmanager
def _turn(lock: Path) -> Iterator[None]:
    """Waits until no other command of this user is in the block; the system frees the lock of one that is killed."""
    with lock.open("wb") as stream:
        locks.wait(stream.fileno())
        yield


def answers(client: Client) -> bool:
    """Whether a server does; one that is only starting, or failing at it, does not yet."""
    try:
        client.version()
    except KeyRefused:
        return True
    except CorralError:
        return False
    return True


def _start(client: Client, loaded: Loaded, log: Path) -> None:
    child, begin = _spawn(log, loaded)
    with spinning("starting the server"):
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            ended = child.poll() is not None
            if answers(client):
                return
            if ended:  # and no other process took the port
                break
            time.sleep(POLL_SECONDS)
    raise CorralError(_failure(log, begin, child.poll()))


def _spawn(log: Path, loaded: Loaded) -> tuple["subprocess.Popen[bytes]", int]:
    """The child, and where its lines begin in the log."""
    if log.exists() and log.stat().st_size > MAX_LOG:
        log.replace(log.with_suffix(".log.1"))
    changes = {"CORRAL_IDLE_EXIT": IDLE_EXIT} if loaded.origins["idle_exit"] == "default" else {}
    if loaded.config.host.is_port_only:  # this machine for a command, and so for the server that it starts
        changes["OLLAMA_HOST"] = loaded.config.host.netloc
    # -P: nothing that lies in the current folder may take the place of a module.
    with log.open("ab") as output:
        begin = output.tell()
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "corral", "serve"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=child_environment(**changes),
            **GROUPS.options,
        )
    return child, begin


def _failure(log: Path, begin: int, status: int | None) -> str:
    with log.open("rb") as lines:
        lines.seek(begin)
        tail = lines.read().decode("utf-8", "replace").splitlines()[-TAIL_LINES:]
    what = "timed out waiting for server to start" if status is None else "the server could not be started"
    return "\n".join([f'{what}; its log is "{log}"', *(f"  {line}" for line in tail)])
