"""Models on the nodes of a real Ray cluster: two machines that a cable joins, and a stranger on a third."""

import contextlib
import os
import re
import shutil
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from corral import __version__
from corral.cluster.identity import Identity
from tests.conftest import ROOT, add_model
from tests.ray_machines import (
    HEAD,
    NODE,
    PORT,
    RAY_PORT,
    STRANGER,
    Front,
    Machines,
    Refused,
    front,
    machines_with_ray,
    spoken,
)

WORKER = "corral.engine.llama.worker"


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory, starter_gguf: Path) -> Iterator[Machines]:
    folder = tmp_path_factory.mktemp("machines")
    with machines_with_ray(folder) as found:
        add_model(folder / found.server / ".ollama" / "models", "smollm2", starter_gguf)
        yield found


def both(server: Front) -> bool:
    return sorted(server.loaded()) == [HEAD, NODE]


def test_a_model_answers_on_each_node_and_a_killed_worker_is_replaced(machines: Machines) -> None:
    with front(machines, CORRAL_RAY_REPLICAS="2..2") as server:
        assert server.generate("Say hello")
        server.wait_until(lambda: both(server))
        shown = server.command("nodes")
        assert shown.count("smollm2:latest") == 2, shown
        answers = server.at_once(4, lambda number: server.generate(f"Count to {number}"))
        assert all(answers)
        busy = server.ask("/api/nodes")["nodes"]
        assert all(one["generated_tokens_per_second"] > 0 for node in busy for one in node["replicas"]), busy
        store = machines.folder / machines.node / "state" / "node-files"
        assert [file.suffix for file in store.iterdir() if file.suffix != ".lock"] == [""]

        (worker,) = machines.processes(machines.node, WORKER)
        os.kill(worker, signal.SIGKILL)
        began = time.monotonic()
        assert server.generate("Killed", 1)
        print(f"answered after a worker was killed: {time.monotonic() - began:.2f} s")
        assert all(server.generate(f"Killed {number}") for number in range(4))
        server.wait_until(lambda: both(server))
        assert machines.processes(machines.node, WORKER) != [worker]
    server.wait_until(lambda: not machines.processes(machines.node, WORKER))


def test_who_has_no_certificate_can_do_nothing_on_any_port_of_ours(machines: Machines) -> None:
    with front(machines, CORRAL_RAY_REPLICAS="2..2") as server:
        server.generate("Hi")
        server.wait_until(lambda: both(server))
        naked = ssl.create_default_context()
        naked.check_hostname, naked.verify_mode = False, ssl.CERT_NONE
        other = Identity("stranger").asking(Identity("nobody").certificate)
        other.verify_mode = ssl.CERT_NONE
        encrypted = 0
        for name, address in ((machines.server, HEAD), (machines.node, NODE)):
            ours = set(machines.processes(name, "ray::ReplicaActor")) | set(machines.processes(name, "corral serve"))
            ports = [port for port, pid in machines.listening(name).items() if pid in ours]
            assert ports, machines.listening(name)
            for port in ports:
                if port == PORT:  # where clients are asked for keys
                    continue
                for context in (None, naked, other):
                    said = machines.as_stranger(partial(spoken, port, address, context))
                    assert not said.startswith(b"HTTP/1.1 2"), port
                encrypted += machines.as_stranger(partial(begins_tls, port, address))
        assert encrypted == 3  # two workers, and the server's files for nodes
        server.key = "x"
        with pytest.raises(Refused, match="401"):
            server.ask("/api/nodes")


def begins_tls(port: int, host: str) -> bool:
    """Whether a port speaks TLS, and then hangs up on who has no certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), 5) as plain, context.wrap_socket(plain) as connection:
            connection.settimeout(5)
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                return connection.recv(1) == b""
            return True
    except OSError:
        return False


def test_a_node_is_drained_without_a_failed_request(machines: Machines) -> None:
    with front(machines, CORRAL_RAY_REPLICAS="1..1") as server:
        server.generate("Hi")
        (where,) = server.loaded()
        other = HEAD if where == NODE else NODE
        answers: list[str] = []
        drained = threading.Event()

        def ask(number: int) -> None:
            while len(answers) < 200 or not drained.is_set():
                answers.append(server.generate(f"{number} asks {len(answers)}", 2))

        def drain() -> None:
            server.wait_until(lambda: len(answers) > 20)
            shown = server.command("nodes", "drain", where)
            assert f"smollm2:latest: now on {other}" in shown
            drained.set()

        draining = threading.Thread(target=drain)
        draining.start()
        server.at_once(4, ask)  # an error of any of them ends the test
        draining.join()
        print(f"{len(answers)} requests around a drain, none failed")
        assert drained.is_set()
        assert all(answers)
        assert server.loaded() == [other]
        assert "drained" in server.command("nodes")
        server.command("nodes", "resume", where)
        assert "drained" not in server.command("nodes")


def test_a_queue_brings_up_a_second_replica_which_goes_when_nobody_needs_it(machines: Machines) -> None:
    variables = {"CORRAL_RAY_REPLICAS": "1..2", "OLLAMA_NUM_PARALLEL": "1", "OLLAMA_KEEP_ALIVE": "1s"}
    with front(machines, **variables) as server:
        server.generate("Hi")
        assert len(server.loaded()) == 1
        answers: list[str] = []

        def ask(number: int) -> None:
            answers.append(server.generate(f"Tell {number} stories", 20))

        def look() -> None:
            server.wait_until(lambda: both(server))
            after = len(answers) + 8
            server.wait_until(lambda: len(answers) >= after and both(server))

        server.busy_until(6, ask, look)
        assert len(answers) > 8
        assert all(answers)
        series = server.metrics("corral_replica_requests_total")
        assert {f"replica {number} of smollm2:latest" for number in (1, 2)} <= series.keys()
        server.wait_until(lambda: len(server.loaded()) == 1)
        assert server.generate("Still there?")


def replica_actor(machines: Machines, address: str) -> int:
    """The process on a node that gets files, and ends the TLS of its worker."""
    name = machines.server if address == HEAD else machines.node
    (found,) = machines.processes(name, "ray::ReplicaActor")
    return found


def test_what_ends_the_tls_of_a_worker_ends_amid_a_token(machines: Machines) -> None:
    with front(machines, CORRAL_RAY_REPLICAS="1..1") as server:
        server.generate("Hi")
        (where,) = server.loaded()
        lines = server.stream("Write a novel", 2000, lambda: os.kill(replica_actor(machines, where), signal.SIGKILL))
        assert f"the connection to the worker on node {where} broke" in lines[-1]["error"]
        assert server.generate("Still there?")


def test_a_node_that_vanishes_in_the_middle_of_a_file_costs_no_request(machines: Machines) -> None:
    files = machines.folder / machines.node / "state" / "node-files"
    shutil.rmtree(files, ignore_errors=True)
    with front(machines, CORRAL_RAY_REPLICAS="1..1") as server:
        server.command("nodes", "drain", HEAD)
        killed: list[int] = []

        def kill() -> None:
            while not list(files.glob("*.partial")):  # its fetch takes tenths of a second
                time.sleep(0.001)
            killed.append(replica_actor(machines, NODE))
            os.kill(killed[0], signal.SIGKILL)

        killing = threading.Thread(target=kill)
        killing.start()
        assert server.generate("Hi")
        killing.join()
        assert server.loaded() == [NODE]
        assert replica_actor(machines, NODE) not in killed
        assert [file.suffix for file in files.iterdir() if file.suffix != ".lock"] == [""]


def test_a_model_without_room_says_what_each_node_lacks(machines: Machines) -> None:
    with front(machines, CORRAL_RAY_CPUS="3", CORRAL_RAY_PLACE_TIMEOUT="1s") as server:
        with pytest.raises(Refused, match="503") as caught:
            server.generate("Hi")
        text = str(caught.value)
        for address in (HEAD, NODE):
            assert f"node {address}: 3 cores, and 1 of 1 are free" in text


def test_a_cluster_that_lets_in_strangers_is_not_joined(machines: Machines) -> None:
    machines.start_ray(machines.stranger, head=True, RAY_AUTH_MODE="disabled")
    join = ["python", "-m", "corral", "serve", "--ray", f"{STRANGER}:{RAY_PORT}"]
    with pytest.raises(AssertionError, match="lets in who has no token") as caught:
        machines.run(machines.stranger, join, OLLAMA_HOST="127.0.0.1:0")
    assert "--ray-insecure starts all the same" in str(caught.value)
    with pytest.raises(AssertionError, match="RAY_AUTH_MODE is not token"):
        machines.run(machines.stranger, join, OLLAMA_HOST="127.0.0.1:0", RAY_AUTH_MODE="")


def test_a_cut_cable_costs_no_request_that_has_not_begun(machines: Machines) -> None:
    machines.start_ray(machines.server)  # a node to spare, on the same machine
    with front(machines, CORRAL_RAY_REPLICAS="2..2") as server:
        server.generate("Hi")
        server.wait_until(lambda: len(server.loaded()) == 2)
        if NODE not in server.loaded():  # Ray chose both on one machine
            server.command("nodes", "drain", HEAD)
            (drained,) = [node["id"] for node in server.ask("/api/nodes")["nodes"] if node["drained"]]
            server.command("nodes", "resume", drained)
        cut = threading.Event()
        lines: list[list[dict[str, object]]] = []

        def under_way(number: int) -> None:
            def began() -> None:
                if number:
                    cut.wait()

            with contextlib.suppress(OSError):
                lines.append(server.stream(f"Write {number} novels", 2000, began))

        threads = [threading.Thread(target=under_way, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        time.sleep(1)
        machines.cut()
        cut.set()
        try:
            began = time.monotonic()
            assert all(server.at_once(3, lambda number: server.generate(f"Cut {number}", 1)))
            print(f"three requests answered after the cable was cut: {time.monotonic() - began:.2f} s")
            server.wait_until(lambda: server.loaded() == [HEAD, HEAD])
            print(f"two replicas again after the cable was cut: {time.monotonic() - began:.2f} s")
            for thread in threads:
                thread.join()  # each ends, with an error where its node is gone
        finally:
            machines.mend()


def test_a_node_of_another_version_or_with_a_broken_one_gets_no_model(machines: Machines, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "corral", tmp_path / "corral", ignore=shutil.ignore_patterns("__pycache__"))
    init = tmp_path / "corral" / "__init__.py"
    init.write_text(init.read_text().replace(__version__, "0.0.9"))
    machines.end_all(machines.stranger)  # where a cluster of its own was
    machines.start_ray(machines.stranger, PYTHONPATH=str(tmp_path))
    try:
        with front(machines, CORRAL_RAY_REPLICAS="1..1") as server:
            for node in server.ask("/api/nodes")["nodes"]:
                if node["alive"] and node["address"] != STRANGER:
                    server.command("nodes", "drain", node["id"])
            with pytest.raises(Refused, match=f"node {STRANGER} has Corral 0.0.9, and this server is {__version__}"):
                server.generate("Hi")
            shown = server.command("nodes")
            assert re.search(rf"^{STRANGER} +unfit ", shown, re.MULTILINE), shown
            assert f"{STRANGER} is asked last: node {STRANGER} has Corral 0.0.9" in shown
            init.write_text("raise ImportError('broken')\n")
            with pytest.raises(Refused, match=f"node {STRANGER}: a replica could not be started"):
                server.generate("Hi")
            server.command("nodes", "resume", HEAD)
            assert server.generate("Hi")
            assert server.loaded() == [HEAD]
    finally:
        machines.end_all(machines.stranger)
