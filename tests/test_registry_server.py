"""Push and pull as users do them: the official client and the commands, a running server, a real registry."""

import base64
import contextlib
import fcntl
import itertools
import json
import random
import signal
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import ollama
import pytest

from corral import names
from corral.sources.registry import keys, ledger
from corral.store import Store
from tests.commands import Outcome, Shell
from tests.conftest import StartServer, add_model
from tests.registry import (
    FaultProxy,
    RegistryServer,
    basic_auth,
    digest_of,
    noise,
    running_proxy,
    running_registry,
)
from tests.token_server import TokenServer, running_token_server

BIG = noise(48_000_000, 5)
KILLS = 5


@dataclass(frozen=True)
class Entry:
    """A registry as users name it, and with `insider` as its administrator sees it."""

    host: str
    insider: RegistryServer
    tokens: TokenServer | None = None

    def give_access(self, home: Path) -> None:
        """Does what a person with this home folder does to get access: log in, or make the key known."""
        if self.tokens is not None:
            self.tokens.keys.add(keys.load_or_create(home / ".ollama").public_line)
        elif "Authorization" in self.insider.headers:
            auths = {self.host: {"auth": self.insider.headers["Authorization"].removeprefix("Basic ")}}
            (home / ".docker").mkdir(parents=True)
            (home / ".docker" / "config.json").write_text(json.dumps({"auths": auths}))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with running_registry(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture(scope="module", params=["plain", "password", "token"])
def entry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Entry]:
    folder = tmp_path_factory.mktemp(request.param)
    with contextlib.ExitStack() as stack:
        match request.param:
            case "plain":
                plain = stack.enter_context(running_registry(folder))
                yield Entry(plain.host, plain)
            case "password":
                header = "Basic " + base64.b64encode(b"ann:s3cret").decode()
                auth = basic_auth(folder, {"ann": "s3cret"})
                server = running_registry(folder, auth=auth, headers={"Authorization": header})
                protected = stack.enter_context(server)
                yield Entry(protected.host, protected)
            case "token":
                proxy = stack.enter_context(running_proxy())
                tokens = stack.enter_context(running_token_server())
                guarded = stack.enter_context(running_registry(folder, auth=tokens.auth(folder, f"{proxy.url}/token")))
                proxy.point_at(guarded.url)
                proxy.rules({"path": "^/token", "forward": tokens.url})
                grant = tokens.token(["repository:library/there:pull"])
                insider = RegistryServer(guarded.url, folder, {"Authorization": f"Bearer {grant}"})
                yield Entry(proxy.host, insider, tokens)


@pytest.fixture(scope="module")
def proxy(registry: RegistryServer) -> Iterator[FaultProxy]:
    registry.put_model("library/big", "latest", model=BIG)
    with running_proxy(registry.url) as proxy:
        yield proxy


def manifest_of(models: Path, name: str) -> bytes:
    return Store(models).manifest(names.parse(name)).manifest.raw


def check_both_sides(entry: Entry, models: Path, remote: str, manifest: bytes, gguf: bytes) -> None:
    """The model is at the registry and in the store, every byte of it."""
    tag = remote.rpartition(":")[2]
    assert entry.insider.manifest("library/there", tag) == manifest
    assert entry.insider.blob("library/there", digest_of(gguf)) == gguf
    assert manifest_of(models, remote) == manifest
    assert Store(models).open_path(names.parse_digest(digest_of(gguf))).read_bytes() == gguf
    for layer in Store(models).manifest(names.parse(remote)).manifest.blobs:
        assert digest_of(Store(models).open_path(layer.digest).read_bytes()) == str(layer.digest)


def test_the_official_client_brings_a_model_there_and_back(
    start_server: StartServer, entry: Entry, tiny_gguf: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    models = home / ".ollama" / "models"
    add_model(models, "tiny", tiny_gguf)
    before = manifest_of(models, "tiny")
    client = ollama.Client(start_server(home).url)
    remote = f"{entry.host}/library/there:1"
    client.copy("tiny", remote)
    if "Authorization" in entry.insider.headers:
        with pytest.raises(ollama.ResponseError, match=r"unauthorized|who are you"):
            client.push(remote, insecure=True)
        entry.give_access(home)

    statuses = [step.status for step in client.push(remote, insecure=True, stream=True)]
    assert (statuses[0], statuses[-2:]) == ("retrieving manifest", ["pushing manifest", "success"])
    client.delete(remote)
    client.delete("tiny")
    assert client.list().models == []
    assert list((models / "blobs").iterdir()) == []
    statuses = [step.status for step in client.pull(remote, insecure=True, stream=True)]
    assert (statuses[0], statuses[-1]) == ("pulling manifest", "success")
    check_both_sides(entry, models, remote, before, tiny_gguf.read_bytes())
    assert client.generate(remote, "hi", options={"num_predict": 2}).done_reason == "length"


def test_the_commands_bring_a_model_there_and_back(
    start_server: StartServer, entry: Entry, tiny_gguf: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    models = home / ".ollama" / "models"
    add_model(models, "tiny", tiny_gguf)
    before = manifest_of(models, "tiny")
    entry.give_access(home)
    shell = Shell(home, start_server(home).host)
    remote = f"{entry.host}/library/there:2"
    assert shell.run("cp", "tiny", remote) == Outcome(0, f"copied 'tiny' to '{remote}'\n", "")
    assert shell.run("push", "--insecure", remote).status == 0
    assert shell.run("rm", remote, "tiny").status == 0
    assert list((models / "blobs").iterdir()) == []
    assert shell.run("pull", "--insecure", remote).stderr.endswith("success\n")
    check_both_sides(entry, models, remote, before, tiny_gguf.read_bytes())


def test_a_client_that_goes_away_loses_nothing_that_has_arrived(
    start_server: StartServer, proxy: FaultProxy, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    server = start_server(home)
    client = ollama.Client(server.url)
    remote = f"{proxy.host}/library/big:latest"
    blob = Store(home / ".ollama" / "models").blob_path(names.parse_digest(digest_of(BIG)))
    proxy.rules({"path": digest_of(BIG), "hold_at": 20_000_000})
    steps = pulling(server.url, remote)
    completed = next(step.completed for step in steps if step.completed and step.completed > 1_000_000)
    steps.close()
    wait_until_released(ledger.partial_path(blob))
    proxy.rules()
    again = [step.completed or 0 for step in client.pull(remote, insecure=True, stream=True) if step.total == len(BIG)]
    assert again[0] >= completed
    assert again == sorted(again)
    assert proxy.sent(digest_of(BIG)) == len(BIG) - again[0]
    assert blob.read_bytes() == BIG


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
        with contextlib.closing(pulling(server.url, remote)) as steps:
            next(steps)
            proxy.wait_until_held()
            # the ledgers follow at the latest a second after the bytes, and a line comes every 60 ms
            assert any(ledger.arrived(blob, len(BIG)) > kept for _ in itertools.islice(steps, 2000))
            server.process.send_signal(signal.SIGKILL)
            server.process.wait()
        kept = ledger.arrived(blob, len(BIG))
    proxy.rules()
    ollama.Client(start_server(home).url).pull(remote, insecure=True)
    assert proxy.sent(digest_of(BIG)) == len(BIG) - kept
    assert blob.read_bytes() == BIG


def pulling(url: str, name: str) -> Generator[ollama.ProgressResponse, None, None]:
    """The steps of a pull; closing them breaks the connection."""
    steps = ollama.Client(url).pull(name, insecure=True, stream=True)
    return cast("Generator[ollama.ProgressResponse, None, None]", steps)


def wait_until_released(partial: Path) -> None:
    """Returns once the server, which has noticed that its client left, gives up its claim on a partial file."""
    with partial.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
