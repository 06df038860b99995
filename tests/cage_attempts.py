"""What a process in a cage should not be able to do, tried one by one. Standard library only."""

import ctypes
import errno
import json
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path


def attempts(secret: str, store: str, port: int) -> dict[str, str]:
    """What came of each attempt: `done`, or the name of the error. `secret`: a file of the user's; `store`: a folder;
    `port`: where somebody listens on loopback."""
    inside = Path(__file__).parent
    tried: dict[str, Callable[[], object]] = {
        "read a file of the user's": lambda: open(secret).close(),
        "list the user's folder": lambda: list(Path(secret).parent.iterdir()),
        "write into the store": lambda: open(f"{store}/new", "w").close(),
        "delete from the store": lambda: Path(f"{store}/other").unlink(),
        "read another model": lambda: open(f"{store}/other").close(),
        "write beside the program": lambda: open(inside / "new", "w").close(),
        "connect to loopback": lambda: socket.create_connection(("127.0.0.1", port), 1),
        "connect to elsewhere": lambda: socket.create_connection(("192.0.2.1", 80), 1),
        "send without connecting": lambda: socket.socket().sendto(b"x", 0x20000000, ("127.0.0.1", port)),
        "listen on another port": lambda: socket.create_server(("0.0.0.0", 0)),
        "use UDP": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        "use raw sockets": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
        "use sockets of the file system": lambda: socket.socket(socket.AF_UNIX),
        "use netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
        "use UDP in a thread": lambda: _in_thread(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)),
        "read a file in a thread": lambda: _in_thread(lambda: open(secret).close()),
        "start a program": lambda: os.posix_spawn("/bin/sh", ["sh", "-c", "true"], {}),
        "become a program": lambda: os.execv("/bin/none", ["none"]),  # refused before it is looked for
        "fork": _fork,
        "signal the parent": lambda: os.kill(os.getppid(), signal.SIGCONT),
        "read the parent's environment": lambda: open(f"/proc/{os.getppid()}/environ").close(),
        "trace": lambda: _called("ptrace", 0, 0, 0, 0),
        "mount": lambda: _called("mount", b"none", b"/mnt", b"tmpfs", 0, None),
        "leave the namespace": lambda: _called("unshare", 0x10000000),
        "have a core file": lambda: resource.setrlimit(resource.RLIMIT_CORE, (1, 1)),
    }
    found = {name: _tried(attempt) for name, attempt in tried.items()}
    return {**found, "secrets": " ".join(name for name in os.environ if "TOKEN" in name or "SECRET" in name)}


def _tried(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    except ValueError:  # what resource says of a limit that cannot be raised
        return "EPERM"
    return "done"


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)
    os.wait()


def _in_thread(attempt: Callable[[], object]) -> None:
    caught: list[OSError] = []

    def run() -> None:
        try:
            attempt()
        except OSError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if caught:
        raise caught[0]


def _called(function: str, *arguments: object) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), function)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), function)


def report() -> None:
    """Prints what came of it on standard error, which is a worker's log. What is tried with stands beside this file."""
    given = json.loads(Path(__file__).with_name("attempts.json").read_text())
    print("ATTEMPTS " + json.dumps(attempts(**given)), file=sys.stderr, flush=True)


if __name__ == "__main__":
    report()
