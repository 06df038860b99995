"""After a fault everything is as before: requests work without a restart, nothing is held or left, the store is sound.

What each fault does to the requests it meets is shown where it belongs: `test_server_faults`, `test_hanging_worker`,
`test_registry_crash`, `test_shared_folder`.
"""

import http.client
import os
import random
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from corral.doctor import store as examined_store
from corral.engine.base import RunnerSpec
from corral.machine.memory import GIB, Memory
from corral.serving.decisions import SchedulerLimits
from corral.serving.scheduler import Scheduler
from tests.asking import InBackground, ask, generate, metric, post, streaming, until
from tests.conftest import FAKE_ENGINE, RunningServer, StartServer, add_model, running_server
from tests.engines import engines, tell
from tests.namespaces import as_root
from tests.stub_engines import Launcher, turn_the_loop
from tests.tiny_models import tiny_llama

KILLS = 6


def sound(models: Path) -> bool:
    """Whether `corral doctor --verify` finds nothing wrong with a store: every file of every model is hashed."""
    found = list(examined_store.examine(models, lambda label, total, done: None))
    assert not [one for one in found if one.level == "wrong"], found
    return True


def fill(home: Path, work: Path, *model_names: str) -> Path:
    for seed, name in enumerate(model_names):
        add_model(home / ".ollama" / "models", name, tiny_llama(work / f"{name}.gguf", seed=seed))
    return home


# Workers


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    work = tmp_path_factory.mktemp("faults")
    with running_server(fill(work / "home", work, "fake"), CORRAL_ENGINE=str(FAKE_ENGINE)) as running:
        yield running


def killed_at_load(server: RunningServer) -> None:
    post(server, "/api/generate", {"model": "fake", "keep_alive": 0})
    tell(server.home, loads_when="never")
    known = len(engines(server.home))
    asking = InBackground(lambda: generate(server, "hello"))
    until(lambda: len(engines(server.home)) > known)
    os.kill(engines(server.home)[-1].pid, signal.SIGKILL)  # as the kernel does when memory runs out
    assert "signal: killed" in asking.result().error
    tell(server.home)


def killed_while(words: str, event: str) -> Callable[[RunningServer], None]:
    def kill(server: RunningServer) -> None:
        assert generate(server, "hello").status == 200
        engine = engines(server.home)[-1]
        count = sum(one["event"] == event for one in engine.events)
        asking = InBackground(lambda: post(server, "/api/generate", {"model": "fake", "prompt": words}))
        engine.wait(event, count + 1)
        os.kill(engine.pid, signal.SIGKILL)
        assert "signal: killed" in asking.result().lines[-1]["error"]

    return kill


def killed_between(server: RunningServer) -> None:
    assert generate(server, "hello").status == 200
    os.kill(engines(server.home)[-1].pid, signal.SIGKILL)
    until(lambda: ask(server, "GET", "/api/ps").json == {"models": []})


def failing_load(server: RunningServer) -> None:
    post(server, "/api/generate", {"model": "fake", "keep_alive": 0})
    tell(server.home, fails="error: no such tensor")
    assert generate(server, "hello").status == 500
    tell(server.home)


def clients_leaving(server: RunningServer) -> None:
    for _ in range(5):
        with streaming(server, "/api/generate", {"model": "fake", "prompt": "!tokens=9 !hang-after=1"}) as stream:
            stream.line()


def broken_answers(server: RunningServer) -> None:
    for words in ("!crash", "!crash-after=1", "!error=500", "!error-after=1", "!cut-after=1"):
        assert "error" in post(server, "/api/generate", {"model": "fake", "prompt": words}).lines[-1]


def dropped_connections(server: RunningServer) -> None:
    """As llama-server does where a machine has far too much to do."""
    post(server, "/api/generate", {"model": "fake", "keep_alive": 0})
    for words in ("!drop=2 hello", "!drop=4 hello"):
        assert generate(server, words).json["response"] == "w1 w2 w3 "
    assert "unexpected EOF" in generate(server, "!drop=9 hello").error


FAULTS = {
    "killed at load": killed_at_load,
    "killed in the prompt": killed_while("!hang", "hanging"),
    "killed amid its answer": killed_while("!tokens=9 !hold=2", "held"),
    "killed between": killed_between,
    "failing to load": failing_load,
    "clients leaving": clients_leaving,
    "broken answers": broken_answers,
    "dropped connections": dropped_connections,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_worker_leaves_nothing_behind(server: RunningServer, fault: str) -> None:
    process = psutil.Process(server.process.pid)
    assert post(server, "/api/generate", {"model": "fake", "keep_alive": 0}).status == 200  # the audit log stays open
    assert generate(server, "hello").status == 200
    assert ask(server, "GET", "/api/ps").status == 200  # lists are watched from the first one on
    before = process.num_fds()
    FAULTS[fault](server)
    assert generate(server, "hello").json["response"] == "w1 w2 w3 "
    (worker,) = process.children(recursive=True)
    assert worker.pid == engines(server.home)[-1].pid
    assert metric(server, "corral_num_requests_running") == metric(server, "corral_num_requests_waiting") == 0
    assert metric(server, "corral_kv_cache_usage_perc") == 0
    until(lambda: process.num_fds() <= before)  # connections that ended may take a moment to be closed
    assert sound(server.models)


# Disks


@contextmanager
def largest_file(process: int, size: int) -> Iterator[None]:
    """Nothing can be written behind this place of a file, as on a full disk."""
    before = resource.prlimit(process, resource.RLIMIT_FSIZE)
    resource.prlimit(process, resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.prlimit(process, resource.RLIMIT_FSIZE, before)


def test_a_full_disk_fails_what_writes_and_nothing_else(server: RunningServer, tmp_path: Path) -> None:
    assert generate(server, "hello").status == 200
    file = tiny_llama(tmp_path / "new.gguf", seed=7)
    before = {path.name for path in (server.models / "blobs").iterdir()}
    conversation = {"model": "fake", "input": "hello " * 9000}
    uploads = ("/api/blobs", file.read_bytes())
    creates = ("/api/create", {"model": "new", "from": "fake", "system": "x" * 9000, "stream": False})
    with largest_file(server.process.pid, 4096):
        for path, body in (uploads, creates):
            answer = post(server, path, body)
            assert "no space left on the disk" in answer.error, answer
        assert generate(server, "hello").status == 200
        assert post(server, "/v1/responses", conversation).status == 200  # which is not kept, then
        assert [model["name"] for model in ask(server, "GET", "/api/tags").json["models"]] == ["fake:latest"]
    assert {path.name for path in (server.models / "blobs").iterdir()} == before
    for path, body in (uploads, creates):
        assert post(server, path, body).status in (200, 201)
    assert ask(server, "DELETE", "/api/delete", {"model": "new"}).status == 200
    assert sound(server.models)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A folder of models that is a mount of another one, which can be taken away and made read-only."""
    real, folder = tmp_path / "disk", tmp_path / "home" / ".ollama" / "models"
    for path in (real, folder):
        path.mkdir(parents=True)
    done = subprocess.run([*as_root(), "mount", "--bind", real, folder], capture_output=True, text=True)
    assert done.returncode == 0, f"this test needs to mount a folder: run it as root ({done.stderr.strip()})"
    try:
        yield real, folder
    finally:
        subprocess.run([*as_root(), "umount", "--lazy", folder], capture_output=True)


def test_a_disk_that_becomes_read_only_or_goes_away_and_comes_back(
    mounted: tuple[Path, Path], tmp_path: Path, start_server: StartServer
) -> None:
    real, folder = mounted
    home = fill(tmp_path / "home", tmp_path, "fake", "other")
    server = start_server(home, CORRAL_ENGINE=str(FAKE_ENGINE))
    copy = ("/api/copy", {"source": "fake", "destination": "copy"})
    assert post(server, *copy).status == 200
    subprocess.run([*as_root(), "mount", "-o", "remount,ro,bind", folder], check=True)
    create = ("/api/create", {"model": "x", "from": "fake", "system": "y"})
    for path, body in (copy, ("/api/blobs", b"x" * 5000), create):
        assert "read-only file system" in post(server, path, body).lines[-1]["error"]
    assert "read-only" in ask(server, "DELETE", "/api/delete", {"model": "copy"}).error
    assert [generate(server, "hello", model).status for model in ("fake", "other")] == [200, 200]
    subprocess.run([*as_root(), "mount", "-o", "remount,rw,bind", folder], check=True)
    assert post(server, *copy).status == 200
    subprocess.run([*as_root(), "umount", "--lazy", folder], check=True)
    assert ask(server, "GET", "/api/tags").json == {"models": []}
    assert generate(server, "hello", "copy").status == 404
    subprocess.run([*as_root(), "mount", "--bind", real, folder], check=True)
    assert len(ask(server, "GET", "/api/tags").json["models"]) == 3
    assert [generate(server, "hello", model).status for model in ("fake", "other", "copy")] == [200] * 3
    assert sound(real)


# Clocks


async def test_a_jump_of_the_clock_neither_unloads_a_model_nor_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for a time does it on the loop's clock; the wall's is for lists only."""
    scheduler = Scheduler(Launcher(), lambda: Memory(64 * GIB, 32 * GIB), SchedulerLimits(ping_after=-1))
    spec = RunnerSpec(model="a", num_ctx=4096, slots=2, weights_bytes=GIB)
    now = time.time()
    async with scheduler.runner(spec, "a", 3600.0):
        pass
    monkeypatch.setattr("time.time", lambda: now + 10 * 365 * 86400)
    await turn_the_loop()
    async with scheduler.runner(spec, "a", 0.01) as runner:
        assert [one.engine for one in scheduler.runners] == [runner.engine]
        monkeypatch.setattr("time.time", lambda: now - 10 * 365 * 86400)
    await runner.gone.wait()
    await scheduler.close()


# Servers


def changes(server: RunningServer, file: Path, seed: int) -> None:
    """Changes the store in any order, until the server is gone."""
    chance = random.Random(seed)
    own = f"m{seed}"
    doing: list[Callable[[], object]] = [
        lambda: post(server, "/api/pull", {"model": own, "source": file.as_uri(), "stream": False}),
        lambda: post(server, "/api/create", {"model": own, "from": "fake", "system": str(chance.random())}),
        lambda: post(server, "/api/copy", {"source": own, "destination": f"{own}-copy"}),
        lambda: post(server, "/api/blobs", chance.randbytes(300_000)),
        lambda: ask(server, "DELETE", "/api/delete", {"model": own}),
        lambda: ask(server, "DELETE", "/api/delete", {"model": f"{own}-copy"}),
    ]
    with suppress(OSError, http.client.HTTPException):
        while True:
            chance.choice(doing)()


def test_servers_killed_at_any_moment_leave_a_store_that_is_sound(tmp_path: Path) -> None:
    """Two of them on one store; one is killed while both change it, again and again."""
    chance = random.Random(3)
    home = fill(tmp_path / "home", tmp_path, "fake")
    models = home / ".ollama" / "models"
    file = tiny_llama(tmp_path / "other.gguf", seed=9)
    with ThreadPoolExecutor() as threads, running_server(tmp_path / "second", OLLAMA_MODELS=str(models)) as second:
        changing = threads.submit(changes, second, file, 99)
        for kill in range(KILLS):
            with running_server(home) as first:
                others = [threads.submit(changes, first, file, 10 * kill + place) for place in range(3)]
                time.sleep(chance.uniform(0.1, 0.6))
                first.process.kill()
                first.process.wait()
            for other in others:
                other.result()
            assert sound(models)
        assert not changing.done()
        second.process.kill()
        changing.result()
    with running_server(home, CORRAL_ENGINE=str(FAKE_ENGINE)) as last:
        names = [model["name"] for model in ask(last, "GET", "/api/tags").json["models"]]
        assert "fake:latest" in names
        assert all(generate(last, "hello", name).status == 200 for name in names[:3])
    assert sound(models)
