"""Starts a server in the background, for `connection` when nobody listens on this machine.

The child is a plain `serve` in a session of its own; it ends itself when it has been idle. Two commands that start one
at the same time are fine: the second child cannot bind the port and ends, and both commands find the first one.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from corral.cli.progress import spinning
from corral.client import Client, NotRunning
from corral.config import Loaded
from corral.errors import CorralError

START_SECONDS = 10.0
"""How long a started server may take until it answers."""
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
        child, begin = _spawn(log, loaded)
    except OSError as error:
        raise CorralError(f'could not start a server: cannot write "{log}": {error.strerror}') from error
    with spinning("starting the server"):
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            ended = child.poll() is not None
            try:
                client.version()
                return
            except NotRunning:
                if ended:  # nobody else took the port either
                    break
            except CorralError:
                pass  # somebody has the port but does not answer well yet
            time.sleep(POLL_SECONDS)
    raise CorralError(_failure(log, begin, child.poll()))


def _spawn(log: Path, loaded: Loaded) -> tuple["subprocess.Popen[bytes]", int]:
    """The child, and where its lines begin in the log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > MAX_LOG:
        log.replace(log.with_suffix(".log.1"))
    environment = dict(os.environ)
    if loaded.origins["idle_exit"] == "default":
        environment["CORRAL_IDLE_EXIT"] = IDLE_EXIT
    with log.open("ab") as output:
        begin = output.tell()
        child = subprocess.Popen(
            [sys.executable, "-m", "corral", "serve"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    return child, begin


def _failure(log: Path, begin: int, status: int | None) -> str:
    with log.open("rb") as lines:
        lines.seek(begin)
        tail = lines.read().decode("utf-8", "replace").splitlines()[-TAIL_LINES:]
    what = "timed out waiting for server to start" if status is None else "the server could not be started"
    return "\n".join([f'{what}; its log is "{log}"', *(f"  {line}" for line in tail)])
