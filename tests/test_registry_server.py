"""Push and pull as users do them: the official client and the commands, a running server, a real registry."""

import contextlib
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import ollama
import pytest

from corral import names
from corral.sources import ledger
from corral.store import Store
from tests.conftest import StartServer, add_model, environment
from tests.registry import FaultProxy, RegistryServer, digest_of, noise, running_proxy, running_registry

BIG = noise(48_000_000, 5)
KILLS = 5


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with running_registry(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture(scope="module")
def proxy(registry: RegistryServer) -> Iterator[FaultProxy]:
    registry.put_model("library/big", "latest", model=BIG)
    with running_proxy(registry.url) as proxy:
        yield proxy


def manifest_of(models: Path, name: str) -> bytes:
    return Store(models).manifest(names.parse(name)).manifest.raw


def test_the_official_client_brings_a_model_there_and_back(
    start_server: StartServer, registry: RegistryServer, tiny_gguf: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    add_model(home / ".ollama" / "models", "tiny", tiny_gguf)
    client = ollama.Client(start_server(home).url)
    remote = f"{registry.host}/library/there:1"
    before = manifest_of(home / ".ollama" / "models", "tiny")

    client.copy("tiny", remote)
    statuses = [step.status for step in client.push(remote, insecure=True, stream=True)]
    assert (statuses[0], statuses[-2:]) == ("retrieving manifest", ["pushing manifest", "success"])
    assert registry.manifest("library/there", "1") == before

    client.delete(remote)
    client.delete("tiny")
    assert client.list().models == []
    statuses = [step.status for step in client.pull(remote, insecure=True, stream=True)]
    assert (statuses[0], statuses[-1]) == ("pulling manifest", "success")
    assert manifest_of(home / ".ollama" / "models", remote) == before
    blob = Store(home / ".ollama" / "models").open_path(names.parse_digest(digest_of(tiny_gguf.read_bytes())))
    assert blob.read_bytes() == tiny_gguf.read_bytes()
    assert client.generate(remote, "hi", options={"num_predict": 2}).done_reason == "length"


def test_the_commands_bring_a_model_there_and_back(
    start_server: StartServer, registry: RegistryServer, tiny_gguf: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    add_model(home / ".ollama" / "models", "tiny", tiny_gguf)
    server = start_server(home)
    remote = f"{registry.host}/library/commands:1"
    before = manifest_of(home / ".ollama" / "models", "tiny")

    def corral(*arguments: str) -> str:
        command = [sys.executable, "-m", "corral", *arguments]
        done = subprocess.run(
            command, env=environment(home, server.host), stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert corral("cp", "tiny", remote) == f"copied 'tiny' to '{remote}'\n"
    corral("push", "--insecure", remote)
    corral("rm", remote, "tiny")
    corral("pull", "--insecure", remote)
    assert manifest_of(home / ".ollama" / "models", remote) == before
    assert registry.manifest("library/commands", "1") == before


def test_a_server_killed_five_times_goes_on_with_its_pull(
    start_server: StartServer, proxy: FaultProxy, tmp_path: Path
) -> None:
    """Random moments of one blob's transfer; what was on the disk before a kill is never fetched again."""
    moments = random.Random(7)
    home = tmp_path / "home"
    remote = f"{proxy.host}/library/big:latest"
    blob = Store(home / ".ollama" / "models").blob_path(names.parse_digest(digest_of(BIG)))
    kept = 0
    for _ in range(KILLS):
        proxy.rules({"path": digest_of(BIG), "hold_at": moments.randrange(1_000_000, len(BIG) // (KILLS + 1))})
        server = start_server(home)
        pulling = threading.Thread(target=pull_until_gone, args=(server.url, remote))
        pulling.start()
        proxy.wait_until_held()
        while ledger.arrived(blob, len(BIG)) <= kept:  # written down at the latest a second after it came
            time.sleep(0.01)
        server.process.send_signal(signal.SIGKILL)
        pulling.join()
        kept = ledger.arrived(blob, len(BIG))
    proxy.rules()
    ollama.Client(start_server(home).url).pull(remote, insecure=True)
    assert proxy.sent(digest_of(BIG)) == len(BIG) - kept
    assert blob.read_bytes() == BIG


def pull_until_gone(url: str, name: str) -> None:
    """Pulls until the server is killed, which the client sees as a broken connection."""
    with contextlib.suppress(httpx.HTTPError):
        for _ in ollama.Client(url).pull(name, insecure=True, stream=True):
            pass
