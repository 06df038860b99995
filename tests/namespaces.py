"""Two machines on one: network namespaces that are joined by a cable. Needs root (or sudo) and the program `ip`."""

import contextlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

SERVER = "10.213.7.1"
STRANGER = "10.213.7.2"


@dataclass(frozen=True)
class Pair:
    """The names of both namespaces; each has a loopback of its own."""

    server: str
    stranger: str
    cable: str
    """The stranger's end of it."""

    def command(self, namespace: str, *words: str) -> list[str]:
        """A command line that runs in a namespace, as the user who asks."""
        return [*as_root(), "ip", "netns", "exec", namespace, *words]

    def cut(self) -> None:
        """Takes out the cable."""
        _ip("-n", self.stranger, "link", "set", self.cable, "down")


@contextlib.contextmanager
def two_machines() -> Iterator[Pair]:
    """Fails where namespaces cannot be made, and says what is missing."""
    assert shutil.which("ip"), "the program `ip` is missing: install the package iproute2"
    mark = secrets.token_hex(3)
    cable = f"ca{mark}", f"cb{mark}"
    pair = Pair(f"corral-a-{mark}", f"corral-b-{mark}", cable[1])
    with contextlib.ExitStack() as stack:
        for name in (pair.server, pair.stranger):
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "delete", name)
        _ip("link", "add", cable[0], "netns", pair.server, "type", "veth", "peer", cable[1], "netns", pair.stranger)
        for name, end, address in ((pair.server, cable[0], SERVER), (pair.stranger, cable[1], STRANGER)):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", end)
            for device in ("lo", end):
                _ip("-n", name, "link", "set", device, "up")
        yield pair


def _ip(*words: str) -> None:
    done = subprocess.run([*as_root(), "ip", *words], capture_output=True, text=True)
    assert done.returncode == 0, (
        f"`ip {' '.join(words)}` failed: {done.stderr.strip()}\n"
        "this test needs to make network namespaces: run it as root on a kernel that allows it"
    )


def as_root() -> Sequence[str]:
    return () if os.geteuid() == 0 else ("sudo", "--non-interactive", "--preserve-env")
