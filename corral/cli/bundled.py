"""What runs in a bundle: its model gets a store and a server of its own, and a command talks to that.

python -m corral.cli.bundled CACHE BUNDLE [ARGUMENT...]    # `corral.bundle.bootstrap` starts it so
The server listens on a free port of this machine, and ends with the command; `serve` is a server as `corral serve` is.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from corral import config
from corral.cli import program
from corral.errors import CorralError, reason_of
from corral.system import processes
from corral.system.current import IS_WINDOWS

if TYPE_CHECKING:
    from corral.messages import Progress

START_SECONDS = 60.0
POLL_SECONDS = 0.02
END_SECONDS = 20.0
_SERVER = "--as-server"


def main(argv: Sequence[str]) -> int:
    """The exit status of the command that was asked for."""
    if list(argv[1:2]) == [_SERVER]:
        processes.signal_at_parents_end(signal.SIGTERM)
        return program.run(["corral", "serve"])
    cache, bundle, *arguments = argv[1:]
    try:
        variables = _placed(Path(cache), Path(bundle))
        if arguments[:1] == ["serve"]:
            return _serve(arguments, variables)
        return _ask(arguments, variables, Path(cache))
    except CorralError as error:
        return program.fail(str(error))
    except KeyboardInterrupt:
        return program.INTERRUPTED


def _placed(cache: Path, bundle: Path) -> dict[str, str]:
    """The model is in a store: the variables by which server and commands find it. What they keep is in the cache."""
    from corral.bundle.placing import place
    from corral.cli.display.progress import shown

    with shown() as display:

        def show(step: "Progress") -> None:
            if step.total > _LARGE:
                display.advance(step.status, step.digest, step.total, step.completed)

        name, store = place(bundle, cache, show)
    given = config.given_variables()
    own = {"CORRAL_HOME": str(cache / "home"), "CORRAL_STATE": str(cache / "state")}
    kept = {variable: folder for variable, folder in own.items() if variable not in given}
    return {**kept, "OLLAMA_MODELS": str(store), _NAME: str(name)}


_LARGE = 512 << 20
"""Bytes of weights whose hashing takes long enough to be shown."""
_NAME = "CORRAL_BUNDLED_MODEL"


def _serve(arguments: Sequence[str], variables: dict[str, str]) -> int:
    environment = config.child_environment(**variables)
    print(f'serving the model "{variables[_NAME]}"', file=sys.stderr, flush=True)
    command = [sys.executable, "-P", "-m", "corral", *arguments]
    if IS_WINDOWS:
        return subprocess.call(command, env=environment)
    return os.execve(sys.executable, command, environment)


def _ask(arguments: Sequence[str], variables: dict[str, str], cache: Path) -> int:
    """Runs `corral run` against a server for it alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = config.child_environment(**variables, OLLAMA_HOST=address)
    with _log(cache / "state") as log:
        server = subprocess.Popen(
            [sys.executable, "-P", "-m", "corral.cli.bundled", _SERVER],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            **processes.GROUPS.options,  # Ctrl+C is for the command
        )
        try:
            _wait(server, address, log)
            command = [sys.executable, "-P", "-m", "corral", "run", variables[_NAME], *arguments]
            return _run(command, environment)
        finally:
            processes.end(server, END_SECONDS)


def _log(folder: Path) -> BinaryIO:
    """A file for what the server says. It has no name, so nothing is left of it, however this process ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return cast("BinaryIO", tempfile.TemporaryFile(dir=folder))
    except OSError as error:
        raise CorralError(f'cannot write "{folder}": {reason_of(error)}') from error


def _wait(server: "subprocess.Popen[bytes]", address: str, log: BinaryIO) -> None:
    host, _, port = address.partition(":")
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
            return
        except OSError:
            time.sleep(POLL_SECONDS)
    log.seek(0)
    tail = log.read().decode("utf-8", "replace").splitlines()[-5:]
    raise CorralError("\n".join(["the bundle's server could not be started", *(f"  {line}" for line in tail)]))


def _run(command: Sequence[str], environment: dict[str, str]) -> int:
    """Ctrl+C reaches the command by itself."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        child = subprocess.Popen(command, env=environment, preexec_fn=_take_interrupts if not IS_WINDOWS else None)
        return child.wait()
    finally:
        signal.signal(signal.SIGINT, before)


def _take_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
