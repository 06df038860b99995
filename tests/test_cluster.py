"""Models on other nodes, with nodes that are processes of this machine and an engine that only pretends."""

import asyncio
import contextlib
import hashlib
import re
import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import psutil
import pytest

from corral.cage import Cage
from corral.cli.commands.nodes import nodes_table
from corral.client.nodes import Node as ShownNode
from corral.client.nodes import NodeReplica
from corral.cluster import wire
from corral.cluster.file_route import FileRoute
from corral.cluster.fleet import Seat
from corral.cluster.fleets import Fleets
from corral.cluster.identity import Identity, fingerprint
from corral.cluster.launching import UNFIT_SECONDS, Unfit
from corral.cluster.manifest import Shape, for_models, manifest
from corral.cluster.node_files import CHECKED_BYTES, NodeFiles
from corral.cluster.placing import Cluster, Node, Resources, lacking, needs_of, smallest
from corral.cluster.relay import Relay
from corral.cluster.wire import Ended, Signs, WantedFile
from corral.config import Config, load
from corral.config.values import Replicas, parse_replicas, text_of
from corral.engine.base import CompletionRequest, Engine, LoadProgress, Piece, RunnerSpec, TunedSettings
from corral.engine.llama.launch import launch as launch_here
from corral.errors import (
    BadRequest,
    CorralError,
    DiskFull,
    EngineCrashed,
    EngineError,
    EngineLost,
    InternalError,
    NotFound,
    NotPlaced,
    OutOfMemory,
    StoreError,
    Unreachable,
)
from corral.golang.durations import FOREVER_SECONDS
from corral.inference.resending import resent
from corral.inference.runners import NodeTries
from corral.messages import Chunk
from corral.replicas.prefixes import chain
from corral.replicas.replica import Prompt
from corral.serving.decisions import SchedulerLimits
from corral.serving.scheduler import Scheduler, SchedulerEvents
from tests.asking import ask
from tests.conftest import FAKE_ENGINE, RunningServer, environment
from tests.fake_server import FakeServer, reply
from tests.lying_nodes import LIES, LyingNodes
from tests.nodes_here import NodesHere

GIB = 1 << 30

# the fields of KubeRay 1.4's RayCluster, by its API reference; kubectl refuses others
RAY_CLUSTER_FIELDS = {
    *("suspend", "managedBy", "autoscalerOptions", "headServiceAnnotations", "enableInTreeAutoscaling"),
    *("gcsFaultToleranceOptions", "headGroupSpec", "rayVersion", "workerGroupSpecs"),
}
AUTOSCALER_FIELDS = {
    *("resources", "image", "imagePullPolicy", "securityContext", "idleTimeoutSeconds", "upscalingMode", "version"),
    *("env", "envFrom", "volumeMounts"),
}
HEAD_FIELDS = {"template", "headService", "enableIngress", "rayStartParams", "serviceType"}
WORKER_FIELDS = {
    *("suspend", "groupName", "replicas", "minReplicas", "maxReplicas", "idleTimeoutSeconds", "rayStartParams"),
    *("template", "scaleStrategy", "numOfHosts"),
}
NO_PROMPT = Prompt()


def test_a_replica_takes_the_cores_the_memory_and_the_gpus_of_its_load() -> None:
    spec = RunnerSpec(model="m", num_ctx=1024, pool=2048, weights_bytes=3 * GIB, cache_bytes_per_token=1 << 20)
    nodes = [
        Node(id="a", address="10.0.0.1", total=Resources(8.0, 48 * GIB), free=Resources(1.0, 2 * GIB)),
        Node(id="b", address="10.0.0.2", total=Resources(4.0, 64 * GIB, 1.0), free=Resources(4.0, 64 * GIB)),
        Node(id="c", address="10.0.0.3", is_alive=False),
        Node(id="d", address="10.0.0.4", total=Resources(4.0, 64 * GIB), free=Resources(4.0, 64 * GIB, 1.0)),
        Node(id="head", address="10.0.0.5", total=Resources(0.0, 4 * GIB), free=Resources(0.0, 4 * GIB)),
        Node(id="e", address="10.0.0.6", total=Resources(4.0, 64 * GIB), free=Resources(4.0, 64 * GIB, 1.0)),
    ]
    least = smallest(nodes, ())
    assert least == Resources(4.0, 48 * GIB)
    needs = needs_of(spec, least, 0, 1.0)
    assert needs == Resources(4.0, 5 * GIB + (256 << 20), 1.0)
    assert needs_of(RunnerSpec(model="m", num_ctx=1, num_gpu=0, num_thread=3), least, 2, 1.0).gpus == 0
    assert needs_of(RunnerSpec(model="m", num_ctx=1, num_thread=3), least, 2, 0).cpus == 3
    assert needs_of(RunnerSpec(model="m", num_ctx=1, tuned=TunedSettings(num_thread=5)), least, 2, 0).cpus == 2
    assert needs_of(RunnerSpec(model="m", num_ctx=1), least, 2, 0).cpus == 2
    assert needs_of(RunnerSpec(model="m", num_ctx=1), Resources(), 0, 0).cpus == 1
    assert lacking(needs, nodes, {"d"}, {"e": "node 10.0.0.6 is on fire"}) == (
        "node 10.0.0.1: 4 cores, and 1 of 8 are free; 5.2 GiB of memory, and 2.0 of 48.0 are free; "
        "1 GPUs, and 0 of 0 are free\n"
        "node 10.0.0.2: 1 GPUs, and 0 of 1 are free\n"
        "node 10.0.0.3: it is gone\n"
        "node 10.0.0.4: it is being drained\n"
        "node 10.0.0.5: it has no cores for models\n"
        "node 10.0.0.6 is on fire"
    )
    assert lacking(needs, [], (), {}) == "the cluster has no nodes"


def test_replicas_are_read_as_they_are_written() -> None:
    found = parse_replicas("0..2,qwen3:8b=1..4,library/x=3")
    assert found == Replicas(0, 2, (("qwen3:8b", 1, 4), ("x:latest", 3, 3)))
    assert parse_replicas(text_of(found)) == found
    assert (found.of("qwen3:8b"), found.of("other:latest")) == ((1, 4), (0, 2))
    for wrong in ("2..1", "0", "x", "-1..2", "1..", "..2", "a b=1", "1..99999"):
        with pytest.raises((ValueError, BadRequest)):
            parse_replicas(wrong)


@pytest.mark.parametrize(
    "error", [OutOfMemory("x"), StoreError("x"), DiskFull("x"), Unreachable("x"), EngineCrashed("x", how="signal")]
)
def test_an_error_of_a_node_keeps_its_kind(error: Any) -> None:
    back = wire.raised(wire.failed(error), "10.0.0.1")
    assert (type(back), str(back)) == (type(error), "node 10.0.0.1: x")
    assert getattr(back, "how", "") == getattr(error, "how", "")
    assert type(wire.raised(wire.failed(InternalError()), "n")) is EngineError


def test_the_manifest_is_what_kuberay_reads() -> None:
    import yaml  # type: ignore[import-untyped]

    shape = Shape(image="me/corral:1", cpus=8, memory=32, gpus=2, most=6)
    claim, service, cluster = yaml.safe_load_all(manifest(shape))
    assert [one["kind"] for one in (claim, service, cluster)] == ["PersistentVolumeClaim", "Service", "RayCluster"]
    assert cluster["apiVersion"] == "ray.io/v1"
    spec = cluster["spec"]
    assert spec.keys() <= RAY_CLUSTER_FIELDS
    assert spec["autoscalerOptions"].keys() <= AUTOSCALER_FIELDS
    assert spec["headGroupSpec"].keys() <= HEAD_FIELDS
    (group,) = spec["workerGroupSpecs"]
    assert group.keys() <= WORKER_FIELDS
    assert (group["minReplicas"], group["maxReplicas"]) == (1, 6)
    for params in (spec["headGroupSpec"]["rayStartParams"], group["rayStartParams"]):
        assert all(isinstance(value, str) for value in params.values())
    pods = [spec["headGroupSpec"]["template"]["spec"], group["template"]["spec"]]
    assert not any(pod["enableServiceLinks"] for pod in pods)  # else there would be a variable CORRAL_PORT
    for pod in pods:
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for one in pod["containers"] for mount in one["volumeMounts"]} == volumes
    (worker,) = pods[1]["containers"]
    assert worker["resources"]["limits"] == {"cpu": 8, "memory": "32Gi", "nvidia.com/gpu": 2}
    head, corral = pods[0]["containers"]
    for container in (head, corral, worker, spec["autoscalerOptions"]):
        variables = {one["name"]: one for one in container["env"]}
        assert variables["RAY_AUTH_MODE"]["value"] == "token"
        assert "secretKeyRef" in variables["RAY_AUTH_TOKEN"]["valueFrom"]
        assert container.get("image", "me/corral:1") == "me/corral:1"
    assert service["spec"]["ports"][0]["targetPort"] in [port["containerPort"] for port in corral["ports"]]
    assert service["spec"]["selector"] == {"ray.io/cluster": "corral", "ray.io/node-type": "head"}
    assert claim["metadata"]["name"] in [
        one.get("persistentVolumeClaim", {}).get("claimName") for one in pods[0]["volumes"]
    ]
    assert "nvidia" not in manifest(Shape())
    assert [for_models(Shape(memory=size)) for size in (1, 16)] == [3 * GIB // 4, 15 * GIB]
    for wrong in (Shape(image="a: {}"), Shape(cpus=0), Shape(gpus=-1)):
        with pytest.raises(BadRequest):
            manifest(wrong)


def test_the_servers_settings_in_the_manifest_are_read() -> None:
    import yaml

    *_, cluster = yaml.safe_load_all(manifest(Shape(cpus=8, memory=32, gpus=2, most=6)))
    containers = cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"]
    (corral,) = [one for one in containers if one["name"] == "corral"]
    environ = {one["name"]: one["value"] for one in corral["env"] if one["name"].startswith(("CORRAL_", "OLLAMA_"))}
    loaded = load(environ)
    assert not loaded.warnings
    config = loaded.config
    assert (config.ray_replicas, config.ray_place_timeout) == (Replicas(0, 6), 900)
    assert (config.ray_cpus, config.ray_memory, config.ray_gpus) == (8, 31 * GIB, 2)
    assert loaded.origins["host"] == "OLLAMA_HOST"


def test_the_servers_container_starts_it_again_and_passes_on_the_end(tmp_path: Path) -> None:
    import yaml

    *_, cluster = yaml.safe_load_all(manifest(Shape()))
    containers = cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"]
    (command,) = [one["command"] for one in containers if one["name"] == "corral"]
    programs = {
        "ray": "exit 0",
        # the first one ends by itself, the second one when it is told to
        "corral": 'trap "echo ended; exit" TERM; echo "$@"; [ -e again ] && while :; do sleep 0.1; done; touch again',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    process = subprocess.Popen(
        command, cwd=tmp_path, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(2):
        assert process.stdout.readline() == "serve --ray 127.0.0.1:6379\n"
    process.terminate()
    assert process.stdout.readline() == "ended\n"
    assert process.wait(30) == 0


def test_a_table_has_a_row_for_each_model_on_a_node() -> None:
    busy = NodeReplica("qwen3:8b", "loaded", 2, 6 << 30, 100.0, 41.26)
    coming = NodeReplica("llama:1b", "loading", 1, 0, 0.0, 0.0)
    nodes = [
        ShownNode("x", "10.0.0.1", True, False, "", 8.0, 2.0, 32 << 30, 16 << 30, 0.0, (busy, coming)),
        ShownNode("y", "10.0.0.2", True, True, "no", 8.0, 8.0, 32 << 30, 32 << 30, 1.0, ()),
        ShownNode("z", "10.0.0.3", False, False, "no", 0.0, 0.0, 0, 0, 0.0, ()),
        ShownNode("w", "10.0.0.4", True, False, "no", 8.0, 8.0, 32 << 30, 32 << 30, 0.0, ()),
    ]
    lines = [line.split() for line in nodes_table(nodes, None).splitlines()]
    assert lines[1] == ["10.0.0.1", "ready", "6/8", "17", "GB/34", "GB", "-", "qwen3:8b", "2", "6.4", "GB", "41.3"]
    assert lines[2] == ["llama:1b", "(loading)", "1", "-", "0.0"]
    assert lines[3][:2] == ["10.0.0.2", "drained"]
    assert lines[4][:2] == ["10.0.0.3", "gone"]
    assert lines[5][:2] == ["10.0.0.4", "unfit"]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.read(100))
    await writer.drain()
    writer.close()


async def test_only_who_has_the_servers_key_gets_through_to_a_worker() -> None:
    node, server, stranger = Identity("node"), Identity("server"), Identity("server")
    worker = await asyncio.start_server(echo, "127.0.0.1", 0)
    relay = Relay(node, server.certificate, worker.sockets[0].getsockname()[1], lambda: Signs(1, 2.0, 3))
    port = await relay.open("127.0.0.1")

    async def said(context: ssl.SSLContext | None, text: bytes = b"hello") -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.write(text)
        try:
            return await reader.readline()
        finally:
            writer.transport.abort()

    assert await said(server.asking(node.certificate)) == b"hello"
    naked = ssl.create_default_context()
    naked.check_hostname, naked.verify_mode = False, ssl.CERT_NONE
    for context in (None, naked, stranger.asking(node.certificate)):
        with contextlib.suppress(OSError):
            assert await said(context) == b""
    with pytest.raises(ssl.SSLCertVerificationError):
        await said(server.asking(stranger.certificate))
    watching = server.asking(node.certificate)
    watching.set_alpn_protocols([wire.WATCH])
    assert wire.decode_remark(await said(watching, b"")) == Signs(1, 2.0, 3)
    relay.ended(Ended("signal: killed"))
    assert wire.decode_remark(await said(watching, b"")) == Ended("signal: killed")
    await relay.close()
    worker.close()


class Route:
    """A server's files for one node, and that node's folder."""

    def __init__(self, folder: Path) -> None:
        self.server, self.node = Identity("server"), Identity("node")
        self.route = FileRoute(self.server, "127.0.0.1")
        self.files = NodeFiles(folder)

    async def get(self, wanted: WantedFile, shared: str = "", who: Identity | None = None) -> Path:
        tls = (who or self.node).asking(self.server.certificate)
        return await self.files.get(wanted, self.route.url, tls, shared, lambda size: None)


@contextlib.asynccontextmanager
async def a_route(folder: Path, files: dict[str, Path]) -> AsyncGenerator[Route, None]:
    found = Route(folder)
    await found.route.open()
    try:
        async with found.route.offered(found.node.certificate, files):
            yield found
    finally:
        found.files.close()
        await found.route.close()


def wanted_of(data: bytes) -> WantedFile:
    return WantedFile(f"sha256:{hashlib.sha256(data).hexdigest()}", len(data))


async def test_a_file_comes_by_its_digest_and_goes_on_where_it_broke_off(tmp_path: Path) -> None:
    data = bytes(range(256)) * 20_000
    source, wanted, folder = tmp_path / "source", wanted_of(data), tmp_path / "node"
    source.write_bytes(data)
    async with a_route(folder, {wanted.digest: source}) as route:
        partial = folder / f"{wanted.digest.replace(':', '-')}.partial"
        folder.mkdir()
        partial.write_bytes(data[:1000])
        path = await route.get(wanted)
        assert path.read_bytes() == data
        assert not partial.exists()
        source.unlink()  # it is there now
        assert await route.get(wanted) == path
        with pytest.raises(Unreachable, match="status 404"):
            await route.get(wanted_of(b"other"))
        with pytest.raises(Unreachable):
            await route.get(wanted_of(b"more"), who=Identity("stranger"))
        with pytest.raises(StoreError, match="no digest"):
            await route.get(WantedFile("sha256:../../etc/passwd", 1))


async def test_who_waits_for_a_file_that_another_fetches_sees_that_it_goes_on(tmp_path: Path) -> None:
    data = bytes(3 * CHECKED_BYTES)
    source, wanted, folder = tmp_path / "source", wanted_of(data), tmp_path / "node"
    source.write_bytes(data)
    sizes: list[int] = []
    async with a_route(folder, {wanted.digest: source}) as route:
        second = NodeFiles(folder)
        tls = route.node.asking(route.server.certificate)
        first = asyncio.create_task(route.get(wanted))
        while not list(folder.glob("*.partial")):  # noqa: ASYNC110 - a file, which sets no event of ours
            await asyncio.sleep(0)
        path = await second.get(wanted, route.route.url, tls, "", sizes.append)
        assert path == await first
        second.close()
    assert route.files.checked == 3
    assert second.checked > 0
    assert sizes


async def test_another_file_than_was_asked_for_is_not_kept(tmp_path: Path) -> None:
    wanted, folder, source = wanted_of(b"right"), tmp_path / "node", tmp_path / "source"
    for wrong, reason in ((b"wrong", "another file"), (b"too long", "more came"), (b"-", "ended early|status 416")):
        source.write_bytes(wrong)
        async with a_route(folder, {wanted.digest: source}) as route:
            with pytest.raises((StoreError, Unreachable), match=reason):
                await route.get(wanted)
        assert not (folder / wanted.digest.replace(":", "-")).exists()
        for left in folder.glob("*.partial"):
            left.unlink()


async def test_a_server_that_vanishes_amid_a_file_leaves_a_partial(tmp_path: Path) -> None:
    data = b"x" * 3_000_000
    wanted, folder, identity = wanted_of(data), tmp_path / "node", Identity("server")

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + data[:1_000_000])
            await writer.drain()
        writer.close()

    node = Identity("node")
    server = await asyncio.start_server(half, "127.0.0.1", 0, ssl=identity.serving([node.certificate]))
    files = NodeFiles(folder)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    with pytest.raises(Unreachable):
        await files.get(wanted, url, node.asking(identity.certificate), "", lambda size: None)
    files.close()
    server.close()
    assert [file.suffix for file in folder.iterdir() if file.suffix != ".lock"] == [".partial"]
    source = tmp_path / "source"
    source.write_bytes(data)
    async with a_route(folder, {wanted.digest: source}) as route:
        assert (await route.get(wanted)).read_bytes() == data


async def test_a_shared_folder_is_read_once_it_was_found_right(tmp_path: Path) -> None:
    wanted, shared = wanted_of(b"model"), tmp_path / "shared"
    blob = shared / "blobs" / wanted.digest.replace(":", "-")
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"model")
    async with a_route(tmp_path / "node", {}) as route:
        assert await route.get(wanted, str(shared)) == blob
        blob.unlink()
        blob.write_bytes(b"evil!")
        with pytest.raises(StoreError, match="not what its name says"):
            await route.get(wanted, str(shared))


def test_certificates_are_told_apart() -> None:
    one, other = Identity("corral"), Identity("corral")
    assert fingerprint(one.certificate) != fingerprint(other.certificate)
    with pytest.raises(ValueError, match="PEM"):
        fingerprint("no certificate")


C = TypeVar("C", bound=Cluster)


class Started(Generic[C]):
    """A fleet's server side with nodes here."""

    def __init__(self, fleets: Fleets, nodes: C, spec: RunnerSpec) -> None:
        self.fleets, self.nodes, self.spec = fleets, nodes, spec
        self.chosen: list[tuple[str, str]] = []
        """The replicas that requests went to, and why."""

    def _routed(self, replica: str, reason: str) -> None:
        self.chosen.append((replica, reason))

    async def say(self, prompt: str, request: Prompt = NO_PROMPT) -> str:
        """What the model says, on one replica."""
        return "".join([piece.text async for piece in self.pieces(prompt, request)]).strip()

    async def pieces(self, prompt: str, request: Prompt = NO_PROMPT) -> AsyncGenerator[Piece, None]:
        """The same as it comes."""
        async with self.fleets.runner(self.spec, "fake:latest", None, None, request, self._routed) as runner:
            found = runner.engine.complete(CompletionRequest(prompt=prompt, max_tokens=2000))
            async with contextlib.aclosing(found) as pieces:
                async for piece in pieces:
                    yield piece

    async def rest(self, pieces: AsyncGenerator[Piece, None]) -> list[Piece]:
        return [piece async for piece in pieces]

    async def where(self) -> list[str]:
        """The nodes with a loaded model, one for each."""
        return [
            report.node.id
            for report in await self.fleets.nodes()
            for runner in report.replicas
            if runner.loading is None and not runner.draining
        ]

    async def until(self, *nodes: str) -> None:
        async with asyncio.timeout(60):
            while sorted(await self.where()) != list(nodes):  # noqa: ASYNC110 - other processes, which set no event of ours
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def started(tmp_path: Path, model: Path, nodes: C, **settings: Any) -> AsyncGenerator[Started[C], None]:
    async def here(spec: RunnerSpec, label: str, progress: LoadProgress) -> Engine:
        log = tmp_path / "here.log"
        return await launch_here(spec, log=log, stall_timeout=60, program=str(FAKE_ENGINE), cage=Cage("off"))

    limits = SchedulerLimits(max_loaded=1, first_contexts=1, pool_contexts=1, keep_alive=300)
    local = Scheduler(here, lambda: fleets.memory(), limits)
    config = replace(Config(models=tmp_path / "models"), **settings)
    fleets = Fleets(config, nodes, limits, local, SchedulerEvents())

    async def launch(spec: RunnerSpec, label: str, progress: LoadProgress, seat: Seat) -> Engine:
        return await fleets.load(spec, label, progress, seat)

    await fleets.open(launch)
    try:
        yield Started(fleets, nodes, RunnerSpec(model=str(model), num_ctx=2048, slots=2, own_template=False))
    finally:
        await fleets.close()
        await local.close()


@pytest.fixture
def nodes(tmp_path: Path) -> Callable[[str], NodesHere]:
    def make(names: str) -> NodesHere:
        return NodesHere(tmp_path / "nodes", names, CORRAL_ENGINE=str(FAKE_ENGINE))

    return make


Make = Callable[[str], NodesHere]


async def test_a_killed_worker_is_replaced_and_the_next_request_goes_elsewhere(
    tmp_path: Path, tiny_gguf: Path, nodes: Make
) -> None:
    async with started(tmp_path, tiny_gguf, nodes("ab"), ray_replicas=Replicas(2, 2)) as front:
        assert await front.say("!tokens=3") == "w1 w2 w3"
        await front.until("a", "b")
        killed = front.nodes.placed[0]
        assert killed.started is not None
        psutil.Process(killed.started.pid).kill()
        for number in range(4):
            with contextlib.suppress(EngineLost):  # one that came to it before its end was known may be sent again
                assert await front.say(f"{number} !tokens=2") == "w1 w2"
        await front.until("a", "b")
        assert len(front.nodes.placed) == 3
        assert not killed.is_running


async def test_a_conversation_stays_where_it_was_read(tmp_path: Path, tiny_gguf: Path, nodes: Make) -> None:
    async with started(tmp_path, tiny_gguf, nodes("ab"), ray_replicas=Replicas(2, 2)) as front:
        await front.say("!tokens=1")
        await front.until("a", "b")
        (fleet,) = front.fleets._fleets.values()
        for text in ("first", "second"):
            prompt = Prompt(chain((text * 500).encode()), 600, 100)
            before = [seat.replica.served for seat in fleet.seats]
            for _ in range(4):
                await front.say("!tokens=1", prompt)
            assert front.chosen[-1][1].startswith("knows"), front.chosen
            given = [seat.replica.served - was for seat, was in zip(fleet.seats, before, strict=True)]
            assert sorted(given) == [0, 4]


async def test_a_drained_node_finishes_what_it_has_and_gets_nothing_new(
    tmp_path: Path, tiny_gguf: Path, nodes: Make
) -> None:
    async with started(tmp_path, tiny_gguf, nodes("ab"), ray_replicas=Replicas(1, 1)) as front:
        await front.say("!tokens=1")
        assert await front.where() == ["a"]
        under_way = asyncio.create_task(front.say("!tokens=40"))
        (moved,) = await front.fleets.drain("node-a")
        assert moved.to == "127.0.0.1"
        assert await under_way == " ".join(f"w{number}" for number in range(1, 41))
        assert await front.where() == ["b"]
        assert front.fleets.is_drained("node-a")
        assert await front.say("!tokens=2") == "w1 w2"
        with pytest.raises(BadRequest, match="only one that takes models"):
            await front.fleets.drain("node-b")
        await front.fleets.resume("a")
        assert not front.fleets.is_drained("node-a")
        with pytest.raises(NotFound, match='no node "x"'):
            await front.fleets.drain("x")


async def test_a_model_that_has_no_other_place_stays(tmp_path: Path, tiny_gguf: Path, nodes: Make) -> None:
    settings = {"ray_replicas": Replicas(1, 1), "ray_place_timeout": 5.0}
    async with started(tmp_path, tiny_gguf, nodes("ab"), **settings) as front:
        await front.say("!tokens=1")
        front.nodes.full.add("b")
        (moved,) = await front.fleets.drain("node-a")
        assert (moved.to, "0 of 4 are free" in moved.reason) == ("", True)
        assert not front.fleets.is_drained("node-a")
        assert await front.say("!tokens=2") == "w1 w2"


async def test_this_machine_answers_before_its_nodes_or_after_them(
    tmp_path: Path, tiny_gguf: Path, nodes: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # where the engine here writes
    async with started(tmp_path, tiny_gguf, nodes("a"), ray_local="first") as front:
        assert await front.say("!tokens=2") == "w1 w2"
        assert await front.where() == []
    cluster = nodes("a")
    async with started(tmp_path, tiny_gguf, cluster, ray_local="last", ray_place_timeout=5.0) as front:
        assert await front.say("!tokens=2") == "w1 w2"
        assert await front.where() == ["a"]
    cluster.full.add("a")
    async with started(tmp_path, tiny_gguf, cluster, ray_local="last", ray_place_timeout=0.2) as front:
        assert await front.say("!tokens=2") == "w1 w2"


async def test_a_model_without_a_place_says_what_nodes_lack(tmp_path: Path, tiny_gguf: Path, nodes: Make) -> None:
    cluster = nodes("a")
    cluster.full.add("a")
    async with started(tmp_path, tiny_gguf, cluster, ray_place_timeout=0.2) as front:
        with pytest.raises(NotPlaced, match=r'no node has room for the model "fake:latest"\nnode node-a: 4 cores'):
            await front.say("!tokens=1")


async def test_a_model_goes_past_nodes_of_another_version(tmp_path: Path, tiny_gguf: Path, nodes: Make) -> None:
    cluster = nodes("abc")
    cluster.versions = {"a": "0.0.9", "b": "0.0.8"}
    async with started(tmp_path, tiny_gguf, cluster, ray_replicas=Replicas(0, 1)) as front:
        assert await front.say("!tokens=2") == "w1 w2"
        assert await front.where() == ["c"]
        assert [one.name for one in cluster.placed] == ["a", "b", "c"]
        assert [one.name for one in cluster.placed if one.is_running] == ["c"]
        unfit = {report.node.id: report.unfit for report in await front.fleets.nodes()}
        assert re.search(r"has Corral 0\.0\.9, and this server is .*: install the same version there", unfit["a"])
        assert (unfit["b"][:10], unfit["c"]) == ("node 127.0", "")
        front.fleets.expire(front.spec.model)  # the next load knows
        await front.until()
        assert await front.say("!tokens=2") == "w1 w2"
        assert [one.name for one in cluster.placed[3:]] == ["c"]


async def test_nodes_of_another_version_are_named_and_asked_again_when_no_others_are_left(
    tmp_path: Path, tiny_gguf: Path, nodes: Make
) -> None:
    cluster = nodes("ab")
    cluster.versions = {"a": "0.0.9", "b": "0.0.8"}
    async with started(tmp_path, tiny_gguf, cluster) as front:
        with pytest.raises(NotPlaced, match=r'no node can be given the model "fake:latest"\n') as caught:
            await front.say("!tokens=1")
        assert re.findall(r"has Corral (\S+), and this server is", str(caught.value)) == ["0.0.9", "0.0.8"]
        assert not any(one.is_running for one in cluster.placed)
        del cluster.versions["b"]  # somebody has installed the right one there
        assert await front.say("!tokens=2") == "w1 w2"
        assert await front.where() == ["b"]
        unfit = {report.node.id: bool(report.unfit) for report in await front.fleets.nodes()}
        assert unfit == {"a": True, "b": False}


async def test_a_node_without_room_is_named_beside_one_of_another_version(
    tmp_path: Path, tiny_gguf: Path, nodes: Make
) -> None:
    cluster = nodes("ab")
    cluster.versions = {"a": "0.0.9"}
    cluster.full.add("b")
    async with started(tmp_path, tiny_gguf, cluster, ray_place_timeout=5.0) as front:
        with pytest.raises(NotPlaced) as caught:
            await front.say("!tokens=1")
    assert re.search(r"has Corral 0\.0\.9, and .*\nnode node-b: 4 cores, and 0 of 4 are free", str(caught.value))


def test_a_node_that_could_not_be_given_a_model_is_asked_last_for_some_minutes() -> None:
    now = 0.0
    unfit = Unfit(lambda: now)
    unfit.add("a", "it has another version")
    now = UNFIT_SECONDS - 1
    assert unfit.reasons == {"a": "it has another version"}
    now = UNFIT_SECONDS
    assert unfit.reasons == {}
    unfit.add("a", "still")
    unfit.remove("a")
    assert unfit.reasons == {}


async def test_nobody_waits_for_a_second_node_while_the_first_one_answers(
    tmp_path: Path, tiny_gguf: Path, nodes: Make
) -> None:
    cluster = nodes("ab")
    cluster.full.add("b")
    async with started(tmp_path, tiny_gguf, cluster, ray_replicas=Replicas(0, 2)) as front, asyncio.timeout(50):
        await front.say("!tokens=1")
        said = await asyncio.gather(*(front.say("!tokens=20") for _ in range(6)))  # two at once have room
        assert {len(text.split()) for text in said} == {20}
        assert len(cluster.placed) == 2  # the second one still waits for a node
        assert ("replica 1 of fake:latest", "another one is being loaded") in front.chosen


async def test_the_memory_of_nodes_decides_before_there_are_any_and_after_they_have_gone(
    tmp_path: Path, tiny_gguf: Path, nodes: Make
) -> None:
    cluster = nodes("")
    async with started(tmp_path, tiny_gguf, cluster, ray_memory=5 * GIB, ray_place_timeout=0.2) as front:
        assert front.fleets.memory().available == 5 * GIB
        with pytest.raises(NotPlaced, match="the cluster has no nodes"):
            await front.say("!tokens=1")
        cluster.names.append("a")
        await front.fleets.nodes()
        assert front.fleets.memory().available == 8 * GIB
        cluster.names.clear()
        await front.fleets.nodes()
        assert front.fleets.memory().available == 8 * GIB


async def test_a_load_may_stand_still_for_ever_where_the_settings_say_so(
    tmp_path: Path, tiny_gguf: Path, nodes: Make
) -> None:
    async with started(tmp_path, tiny_gguf, nodes("a"), load_timeout=FOREVER_SECONDS) as front:
        assert await front.say("!tokens=2") == "w1 w2"


async def refusal(tmp_path: Path, model: Path, lie: str) -> str:
    """What is said to who asks for a model on a node that lies so."""
    settings = {"ray_place_timeout": 10.0, "load_timeout": 1.0}
    async with started(tmp_path, model, LyingNodes(lie), **settings) as front, asyncio.timeout(60):
        with pytest.raises(CorralError) as caught:
            await front.say("!tokens=3")
    return str(caught.value)


async def test_fifty_rounds_of_lying_nodes_hang_nothing_and_each_ends_in_a_sentence(
    tmp_path: Path, tiny_gguf: Path
) -> None:
    rounds = list(LIES) * 2
    assert len(rounds) >= 50
    for begin in range(0, len(rounds), 14):
        lies = rounds[begin : begin + 14]
        said = await asyncio.gather(*(refusal(tmp_path, tiny_gguf, lie) for lie in lies))
        told = dict(zip(lies, said, strict=True))
        assert [lie for lie, sentence in told.items() if not re.search(LIES[lie], sentence)] == [], told


async def test_a_worker_that_ends_amid_its_answer_says_so_and_another_answers(
    tmp_path: Path, tiny_gguf: Path, nodes: Make
) -> None:
    async with started(tmp_path, tiny_gguf, nodes("a"), ray_replicas=Replicas(1, 1)) as front:
        for _ in range(3):
            await front.say("!tokens=1")
            placed = front.nodes.placed[-1]
            assert placed.process is not None
            pieces = front.pieces("!tokens=2000")
            await anext(pieces)
            placed.process.kill()  # what ends its TLS
            with pytest.raises(EngineLost, match=r"the connection to the worker on node 127\.0\.0\.1 broke"):
                await front.rest(pieces)


async def test_an_answer_that_has_not_begun_is_sent_again_and_no_other() -> None:
    tries = 0

    @contextlib.asynccontextmanager
    async def answer() -> AsyncGenerator[AsyncGenerator[Chunk, None], None]:
        nonlocal tries
        tries += 1

        async def chunks() -> AsyncGenerator[Chunk, None]:
            if tries < 3:
                raise EngineLost("gone")
            yield Chunk(content="a")
            raise EngineLost("gone amid the answer")

        yield chunks()

    chunks = resent(answer, NodeTries())
    assert (await anext(chunks)).content == "a"
    assert tries == 3
    with pytest.raises(EngineLost, match="amid"):
        await anext(chunks)


def test_the_command_asks_the_server_and_writes_the_manifest_by_itself(tmp_path: Path) -> None:
    listed = {"nodes": [{"id": "x", "address": "10.0.0.1", "alive": True, "cpus": 4.0, "free_cpus": 3, "replicas": []}]}
    moved = {"drained": True, "moved": [{"model": "m:latest", "to": "10.0.0.2", "reason": ""}]}
    stuck = {"drained": False, "moved": [{"model": "m:latest", "to": "", "reason": "no node has room"}]}
    answers = {"GET /api/nodes": reply(listed), "POST /api/nodes/drain": reply(moved)}
    with FakeServer({**answers, "POST /api/nodes/resume": reply({"node": "10.0.0.1"})}) as server:
        assert "10.0.0.1    ready    1/4" in command(tmp_path, server.host, "nodes")
        shown = command(tmp_path, server.host, "nodes", "drain", "10.0.0.1")
        assert shown.splitlines()[:2] == [
            "m:latest: now on 10.0.0.2",
            "node 10.0.0.1 is drained; `corral nodes resume 10.0.0.1` ends that",
        ]
        assert command(tmp_path, server.host, "nodes", "resume", "10.0.0.1") == "node 10.0.0.1 takes models again\n"
    with FakeServer({"POST /api/nodes/drain": reply(stuck)}) as server:
        shown = command(tmp_path, server.host, "nodes", "drain", "10.0.0.1")
        assert "m:latest: nowhere else\n  no node has room\n" in shown
        assert 'node "10.0.0.1" goes on: a model on it has no other place' in shown
    assert "kind: RayCluster" in command(tmp_path, "127.0.0.1:1", "nodes", "manifest", "--gpus", "1")
    for words, sentence in (
        (("fly",), 'no action "fly"'),
        (("drain",), "requires the address of a node"),
        (("list", "x"), '"x" is one argument too many'),
        (("--gpus", "1"), "belong to `nodes manifest`"),
        (("manifest", "--image", "a b"), '"a b" is no name of an image'),
    ):
        assert sentence in command(tmp_path, "127.0.0.1:1", "nodes", *words)


def command(home: Path, host: str, *words: str) -> str:
    """All that a command prints."""
    done = subprocess.run(
        [sys.executable, "-m", "corral", *words],
        env=environment(home, host),
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout + done.stderr


def test_a_server_without_nodes_says_how_it_gets_some(fake_server: RunningServer) -> None:
    for method, path in (("GET", "/api/nodes"), ("POST", "/api/nodes/drain"), ("POST", "/api/nodes/resume")):
        found = ask(fake_server, method, path, None if method == "GET" else {"node": "x"})
        assert (found.status, "corral serve --ray HOST:PORT" in found.json["error"]) == (400, True)


@pytest.mark.parametrize(
    ("words", "variables", "sentence"),
    [
        (("--ray", "127.0.0.1:1"), {}, "RAY_AUTH_MODE is not token: whoever reaches its ports can run programs"),
        (("--ray", "nowhere"), {}, '"nowhere" is no HOST:PORT'),
        (("--ray-insecure",), {}, "--ray-models and --ray-insecure belong to --ray"),
        ((), {"CORRAL_RAY": "x"}, 'CORRAL_RAY: "x" is no HOST:PORT'),
        ((), {"CORRAL_RAY_REPLICAS": "3..1"}, 'CORRAL_RAY_REPLICAS: "3..1" is no MIN..MAX'),
    ],
)
def test_a_cluster_that_cannot_be_used_is_refused_at_start(
    tmp_path: Path, words: tuple[str, ...], variables: dict[str, str], sentence: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "corral", "serve", *words],
        env=environment(tmp_path, "127.0.0.1:0", variables),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, sentence in done.stderr) == (1, True), done.stderr
