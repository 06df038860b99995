"""Three machines on one: a server's, a node's and a stranger's, as network namespaces; and Ray on the first two.

The stranger's machine reaches the node through the server's. Needs root and the program `ip`. What runs in the
namespaces is ended with them.
"""

import contextlib
import ctypes
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tests.conftest import ROOT, environment

T = TypeVar("T")

HEAD, NODE = "10.214.1.1", "10.214.1.2"
FRONT, STRANGER = "10.214.2.1", "10.214.2.2"
RAY_PORT, PORT = 6379, 11434
PATIENCE = 60.0
"""Seconds after which something that is waited for is taken not to come; nothing here takes a quarter of that."""

NODE_MEMORY = 2 << 30
"""Bytes that a node offers which the autoscaler starts."""

FAKE_HEAD = "f" * 51 + "00000"
"""The id of a head whose nodes Ray's own stand-in for a cloud starts."""

_NEW_NET = 0x40000000


class Machines:
    """The namespaces: `server`, `node` and `stranger` are their names."""

    def __init__(self, stack: contextlib.ExitStack, folder: Path) -> None:
        mark = secrets.token_hex(3)
        self.server, self.node, self.stranger = (f"corral-{what}-{mark}" for what in ("s", "n", "x"))
        self.folder = folder
        self.token = secrets.token_hex(32)
        assert shutil.which("ip"), "the program `ip` is missing: install the package iproute2"
        for name in (self.server, self.node, self.stranger):
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "delete", name)
            stack.callback(self.end_all, name)
            _ip("-n", name, "link", "set", "lo", "up")
        self.cable = f"cn{mark}"
        self._join(f"cs{mark}", self.server, f"{HEAD}/24", self.cable, self.node, f"{NODE}/24")
        self._join(f"cf{mark}", self.server, f"{FRONT}/24", f"cx{mark}", self.stranger, f"{STRANGER}/24")
        forward = "echo 1 > /proc/sys/net/ipv4/ip_forward"
        subprocess.run(["ip", "netns", "exec", self.server, "sh", "-c", forward], check=True)
        self._route()
        _ip("-n", self.stranger, "route", "add", "default", "via", FRONT)
        self._sessions = Path(tempfile.mkdtemp(prefix="cr-", dir="/tmp"))  # paths of Ray's sockets have to be short
        stack.callback(shutil.rmtree, self._sessions, ignore_errors=True)

    def _join(self, first: str, one: str, address: str, second: str, other: str, its: str) -> None:
        _ip("link", "add", first, "netns", one, "type", "veth", "peer", second, "netns", other)
        for end, name, at in ((first, one, address), (second, other, its)):
            _ip("-n", name, "address", "add", at, "dev", end)
            _ip("-n", name, "link", "set", end, "up")

    def _route(self) -> None:
        _ip("-n", self.node, "route", "replace", "default", "via", HEAD)

    def cut(self) -> None:
        """Takes out the cable between server and node."""
        _ip("-n", self.node, "link", "set", self.cable, "down")

    def mend(self) -> None:
        _ip("-n", self.node, "link", "set", self.cable, "up")
        self._route()

    def pids(self, name: str) -> list[int]:
        done = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=True)
        return [int(pid) for pid in done.stdout.split()]

    def processes(self, name: str, words: str) -> list[int]:
        """The processes of a machine that have these words in their command line."""
        return [pid for pid in self.pids(name) if words in _command_line(pid)]

    def end_all(self, name: str) -> None:
        """Kills what runs on a machine."""
        for _ in range(50):
            pids = self.pids(name)
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not pids:
                return
            time.sleep(0.1)

    def environment(self, name: str, **more: str) -> dict[str, str]:
        """That of a person on a machine; each has a home folder of its own."""
        home = self.folder / name
        home.mkdir(exist_ok=True)
        health = {"initial_delay_ms": 2000, "period_ms": 1000, "timeout_ms": 1000, "failure_threshold": 4}
        tuned = {f"RAY_health_check_{key}": str(value) for key, value in health.items()}
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}
        ray = {"RAY_USAGE_STATS_ENABLED": "0", **tuned, **token}
        return {**environment(home, f"{FRONT}:{PORT}", {**ray, "CORRAL_SPARE_WORKER": "0"}), **more}

    def start_ray(
        self, name: str, *, head: bool = False, cpus: int = 1, flags: Sequence[str] = (), **more: str
    ) -> None:
        """One core's worth of Ray on a machine."""
        address = {self.server: HEAD, self.node: NODE, self.stranger: STRANGER}[name]
        where = (
            ["--head", f"--port={RAY_PORT}", "--include-dashboard=false", f"--temp-dir={self._sessions / name[7:]}"]
            if head
            else [f"--address={HEAD}:{RAY_PORT}"]
        )
        small = [f"--num-cpus={cpus}", "--object-store-memory=80000000", f"--node-ip-address={address}"]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *where, *small, *flags]
        self.run(name, command, **more)

    def start_autoscaling_ray(self, *, most: int, idle_seconds: float) -> None:
        """A head without cores on the server's machine, and Ray's autoscaler, which starts nodes of one core there."""
        resources = {"CPU": 1, "memory": NODE_MEMORY, "object_store_memory": 80_000_000}
        config = {
            "cluster_name": "corral",
            "provider": {
                "type": "external",
                "module": "tests.ray_provider.NodesHere",
                "launch_multiple": True,
                "head_node_id": FAKE_HEAD,
                "gcs_address": f"{HEAD}:{RAY_PORT}",
                "node_ip_address": HEAD,
                "use_node_id_as_ip": True,
                "disable_node_updaters": True,
                "disable_launch_config_check": True,
            },
            "max_workers": most,
            "idle_timeout_minutes": idle_seconds / 60,
            "upscaling_speed": 1.0,
            "head_node_type": "ray.head.default",
            "available_node_types": {
                "ray.head.default": {"resources": {}, "node_config": {}, "max_workers": 0},
                "node": {"resources": resources, "node_config": {}, "min_workers": 0, "max_workers": most},
            },
            **{name: {} for name in ("auth", "docker", "file_mounts")},
            **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter")},
            **{f"{when}_commands": [] for when in ("initialization", "setup", "head_setup", "worker_setup")},
            **{f"{which}_start_ray_commands": [] for which in ("head", "worker")},
        }
        file = self._sessions / "autoscaler.json"
        file.write_text(json.dumps(config))
        variables = {
            "RAY_FAKE_CLUSTER": "1",
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD,
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "PYTHONPATH": str(ROOT),
        }
        self.start_ray(self.server, head=True, cpus=0, flags=(f"--autoscaling-config={file}",), **variables)

    def run(self, name: str, command: list[str], **more: str) -> str:
        """What a command on a machine prints."""
        with tempfile.TemporaryFile("w+") as output:  # no pipe: what it starts lives on
            done = subprocess.run(
                ["ip", "netns", "exec", name, *command],
                env=self.environment(name, **more),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=PATIENCE,
                check=False,
            )
            output.seek(0)
            text = output.read()
        assert done.returncode == 0, text
        return text

    def listening(self, name: str) -> dict[int, int]:
        """The TCP ports that others may reach on a machine, and the process behind each."""
        shown = subprocess.run(
            ["ip", "netns", "exec", name, "ss", "-ltnHp"], capture_output=True, text=True, check=True
        ).stdout
        found = {}
        for line in shown.splitlines():
            where, owner = line.split()[3], re.search(r"pid=(\d+)", line)
            if owner and not where.startswith(("127.", "[::1]")):
                found[int(where.rpartition(":")[2])] = int(owner[1])
        return found

    def as_stranger(self, work: Callable[[], T]) -> T:
        """What `work` finds in a thread whose sockets are those of the stranger's machine."""
        found: list[T] = []
        errors: list[BaseException] = []

        def inside() -> None:
            try:
                with open(f"/run/netns/{self.stranger}") as namespace:
                    assert ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _NEW_NET) == 0
                found.append(work())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return found[0]


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (
        f"`ip {' '.join(words)}` failed: {done.stderr.strip()}\n"
        "this test needs to make network namespaces: run it as root on a kernel that allows it"
    )


def _command_line(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


class Refused(Exception):
    """A status of an error, and what was said."""


class Front:
    """A `corral serve --ray` on the server's machine, asked from the stranger's with a key."""

    def __init__(self, machines: Machines, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.machines, self.process, self.log = machines, process, log
        key = machines.folder / machines.server / ".ollama" / "corral-key"
        self.key = key.read_text().strip()

    def ask(self, path: str, body: Any = None) -> Any:
        """The JSON of an answer; `Refused` for a status of an error."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"http://{FRONT}:{PORT}{path}", data, headers)

        def work() -> Any:
            try:
                with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                    return json.loads(response.read())
            except urllib.error.HTTPError as error:
                raise Refused(error.code, error.read().decode()) from None

        return self.machines.as_stranger(work)

    def generate(self, prompt: str, tokens: int = 8) -> str:
        """The answer of the model."""
        body = {"model": "smollm2", "prompt": prompt, "stream": False, "options": {"num_predict": tokens, "seed": 1}}
        return str(self.ask("/api/generate", body)["response"])

    def stream(self, prompt: str, tokens: int, began: Callable[[], None]) -> list[Any]:
        """The lines of an answer; `began` is called after the first."""
        body = {"model": "smollm2", "prompt": prompt, "options": {"num_predict": tokens, "seed": 1}}
        headers = {"Authorization": f"Bearer {self.key}"}
        request = urllib.request.Request(f"http://{FRONT}:{PORT}/api/generate", json.dumps(body).encode(), headers)

        def work() -> list[Any]:
            lines = []
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                for line in response:
                    lines.append(json.loads(line))
                    if len(lines) == 1:
                        began()
            return lines

        return self.machines.as_stranger(work)

    def at_once(self, count: int, ask: Callable[[int], T]) -> list[T]:
        """What so many requests at the same time find."""
        found: dict[int, T] = {}

        def one(number: int) -> None:
            found[number] = ask(number)

        threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == count, self.said()
        return [found[number] for number in range(count)]

    def busy_until(self, count: int, ask: Callable[[int], object], look: Callable[[], None]) -> None:
        """So many clients that ask again and again until `look` has returned. An error of any of them ends the test."""
        done = threading.Event()

        def asking(number: int) -> None:
            while not done.is_set():
                ask(number)

        def looking() -> None:
            look()
            done.set()

        thread = threading.Thread(target=looking)
        thread.start()
        try:
            self.at_once(count, asking)
        finally:
            done.set()
            thread.join()

    def loaded(self) -> list[str]:
        """The addresses of the nodes with a loaded model, one for each."""
        nodes = self.ask("/api/nodes")["nodes"]
        return [node["address"] for node in nodes for one in node["replicas"] if one["state"] == "loaded"]

    def metrics(self, name: str) -> dict[str, float]:
        """A series of metrics by the name of the replica."""

        def work() -> str:
            request = urllib.request.Request(f"http://{FRONT}:{PORT}/metrics", headers=headers)
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                return str(response.read().decode())

        headers = {"Authorization": f"Bearer {self.key}"}
        found = re.findall(rf'^{name}{{.*?replica="([^"]*)".*?}} (\S+)$', self.machines.as_stranger(work), re.MULTILINE)
        return {replica: float(value) for replica, value in found}

    def wait_until(self, what: Callable[[], bool]) -> float:
        """Waits for something to be so; returns the seconds that it took."""
        began = time.monotonic()
        while not what():
            assert time.monotonic() - began < PATIENCE, self.said()
            time.sleep(0.05)
        return time.monotonic() - began

    def said(self) -> str:
        """The log, without the questions of the test itself."""
        return "\n".join(line for line in self.log.read_text().splitlines() if "/api/nodes" not in line)

    def command(self, *words: str) -> str:
        """What a command on the server's machine prints."""
        return self.machines.run(self.machines.server, [sys.executable, "-m", "corral", *words])


@contextlib.contextmanager
def front(machines: Machines, *flags: str, **variables: str) -> Iterator[Front]:
    """A server that runs its models on the nodes."""
    log = machines.folder / f"front-{secrets.token_hex(3)}.log"
    command = [sys.executable, "-m", "corral", "serve", "--ray", f"{HEAD}:{RAY_PORT}", *flags]
    with open(log, "wb") as output:
        process = subprocess.Popen(
            ["ip", "netns", "exec", machines.server, *command],
            env=machines.environment(machines.server, **variables),
            cwd=machines.folder,  # Ray has Python look there first, on each node
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        while not _accepts(machines):
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        yield Front(machines, process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def _accepts(machines: Machines) -> bool:
    def work() -> bool:
        try:
            urllib.request.urlopen(f"http://{FRONT}:{PORT}/", timeout=5).close()
        except (urllib.error.URLError, OSError):
            return False
        return True

    return machines.as_stranger(work)


@contextlib.contextmanager
def machines_with_ray(folder: Path) -> Iterator[Machines]:
    """The machines, with Ray on the server's and the node's."""
    with machines_alone(folder) as machines:
        machines.start_ray(machines.server, head=True)
        machines.start_ray(machines.node)
        yield machines


@contextlib.contextmanager
def machines_alone(folder: Path) -> Iterator[Machines]:
    """The machines, without anything on them."""
    assert os.geteuid() == 0, "this test needs to make network namespaces: run it as root on a kernel that allows it"
    with contextlib.ExitStack() as stack:
        yield Machines(stack, folder)


def spoken(port: int, host: str, context: Any = None) -> bytes:
    """What a port says to a request for a worker's health, over TLS where there is a context; empty: nothing."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), 5) as plain:
        plain.settimeout(5)
        connection = plain if context is None else context.wrap_socket(plain)
        connection.sendall(f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        return bytes(connection.recv(4096))
    return b""
