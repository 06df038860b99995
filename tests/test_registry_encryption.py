"""What `insecure` does, which some clients send with every pull: HTTPS all the same, where a registry speaks it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import ollama
import pytest

from corral import names, sources
from corral.errors import SourceError, Unreachable
from corral.sources.registry import Encryption, Registry, RetryPolicy, TransferLimits
from corral.store import Store
from tests.commands import Outcome, Shell
from tests.conftest import StartServer, add_model
from tests.hub import running_hub, running_tunnel
from tests.registry import RegistryServer, manifest_of, noise, running_registry
from tests.relay import relay
from tests.socks_server import running_socks
from tests.token_server import tls_files
from tests.transfers import collect, make_registry

MODEL = noise(300_000, 5)
HANDSHAKE = 0x16
"""The first byte of every TLS connection (RFC 8446, 5.1)."""

NO_TLS = "http: server gave HTTP response to HTTPS client"


class Port:
    """A port that notes the first byte of each connection, and answers it with `answer` or hands it on."""

    def __init__(self, answer: bytes = b"", upstream: int = 0) -> None:
        self._answer = answer
        self._upstream = upstream
        self.first: list[int] = []
        self.number = 0

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.number}"

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begin = await reader.read(1)
        self.first += begin
        if self._upstream:
            await relay(reader, writer, self._upstream, begin)
            return
        await reader.read(1 << 16)
        writer.write(self._answer)
        writer.close()


@asynccontextmanager
async def port(answer: bytes = b"", upstream: int = 0) -> AsyncIterator[Port]:
    noting = Port(answer, upstream)
    server = await asyncio.start_server(noting.connected, "127.0.0.1", 0)
    noting.number = server.sockets[0].getsockname()[1]
    try:
        yield noting
    finally:
        server.close()


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A registry whose certificate is its own authority's: `cert.pem` in its folder."""
    folder = tmp_path_factory.mktemp("encrypted")
    with running_registry(folder, tls=tls_files(folder)) as server:
        server.put_model("library/tiny", "latest", model=MODEL)
        yield server


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    registry = make_registry(tmp_path, TransferLimits(retry=RetryPolicy(2, 0.01)))
    yield registry
    await registry.close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.lower(), raising=False)


async def failure(registry: Registry, name: str, store: Store) -> Unreachable:
    with pytest.raises(Unreachable) as caught:
        await collect(registry.pull(names.parse(name), store, encryption=Encryption.PREFERRED))
    return caught.value


# A registry that speaks TLS. It answers plain HTTP with the status 400.


def test_clients_that_always_ask_for_insecure_pull_and_push_over_tls(
    start_server: StartServer, encrypted: RegistryServer, tiny_gguf: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    add_model(home / ".ollama" / "models", "mine", tiny_gguf)
    server = start_server(home, SSL_CERT_FILE=str(encrypted.folder / "cert.pem"))
    client, shell = ollama.Client(server.url), Shell(home, server.host)
    assert client.pull(f"{encrypted.host}/library/tiny", insecure=True).status == "success"
    assert shell.run("pull", "--insecure", f"{encrypted.host}/library/tiny").stderr.endswith("success\n")
    mine = f"{encrypted.host}/library/mine"
    client.copy("mine", mine)
    assert client.push(mine, insecure=True).status == "success"
    assert Store(home / ".ollama" / "models").manifest(names.parse(mine)).manifest.raw == encrypted.manifest(
        "library/mine", "latest"
    )


async def test_a_certificate_that_nobody_vouches_for_stays_refused(
    start_server: StartServer, encrypted: RegistryServer, tmp_path: Path
) -> None:
    async with port(upstream=int(encrypted.host.rpartition(":")[2])) as front:
        shell = Shell(tmp_path, start_server().host)
        refused = await asyncio.to_thread(shell.run, "pull", "--insecure", f"{front.host}/library/tiny")
    sentence = "tls: failed to verify certificate: self-signed certificate"
    expected = f'pulling manifest\nError: pull model manifest: Get "https://{front.host}/v2/": {sentence}\n'
    assert refused == Outcome(1, "", expected)
    assert set(front.first) == {HANDSHAKE}


# Whether plain HTTP is spoken after that


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x15\x03\x03\x00\x02\x02\x28",  # an alert: no handshake
        b"\x15\x03\x01\x00\x02\x02\x46",  # an alert: the version of TLS
        b"\x16\x03\x03\xff\xffgarbage",
    ],
    ids=["closed", "alert", "old version", "broken"],
)
async def test_a_port_that_may_speak_tls_is_never_spoken_to_without(
    answer: bytes, registry: Registry, store: Store
) -> None:
    async with port(answer) as broken:
        error = await failure(registry, f"{broken.host}/library/m", store)
        name = names.parse(f"{broken.host}/library/m")
        store.add_bytes(MODEL)
        store.write_manifest(name, manifest_of({"model": MODEL}, MODEL))
        with pytest.raises(SourceError):
            await collect(registry.push(name, store, encryption=Encryption.PREFERRED))
    assert str(error).startswith(f'pull model manifest: Get "https://{broken.host}/v2/": ')
    assert set(broken.first) == {HANDSHAKE}


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 400 Bad Request\r\n\r\n",
        b"<html>",
        b"SSH-2.0-server\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0" * 8,
    ],
)
async def test_where_the_port_answers_something_else_http_is_spoken_and_its_error_told(
    answer: bytes, registry: Registry, store: Store
) -> None:
    async with port(answer) as plain:
        name = names.parse(f"{plain.host}/library/m")
        with pytest.raises(SourceError) as caught:
            await collect(registry.pull(name, store, encryption=Encryption.PREFERRED))
    assert plain.first[0] == HANDSHAKE
    assert set(plain.first[1:]) == {ord("G")}
    assert str(caught.value).startswith("pull model manifest: ")
    assert NO_TLS not in str(caught.value)


@pytest.mark.parametrize("name", ["hf.co/a/m", "HuggingFace.co/a/m", "m", "registry.ollama.ai:443/a/m", "hf.co:80/a/m"])
async def test_public_registries_get_nothing_in_the_clear(
    name: str, registry: Registry, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All connections lead to a port that answers as a registry without encryption does."""
    async with port(b"HTTP/1.0 400 Bad Request\r\n\r\n") as plain, running_socks(plain.number) as socks:
        monkeypatch.setenv("ALL_PROXY", f"socks5://{socks.address}")
        error = await failure(registry, name, store)
        mirror = sources.parse_mirror(f"registry:http://{names.parse(name).host}")
        with pytest.raises(Unreachable, match=NO_TLS):
            await collect(sources.pull_from(mirror, names.parse(name), store, registry=registry))
    assert str(error).endswith(NO_TLS)
    assert set(plain.first) == {HANDSHAKE}


async def test_a_registry_without_encryption_is_found_behind_a_proxy_that_tunnels(
    registry: Registry, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_registry(tmp_path / "registry") as server:
        server.put_model("library/tiny", "latest", model=MODEL)
        async with running_socks(int(server.host.rpartition(":")[2])) as socks:
            monkeypatch.setenv("ALL_PROXY", f"socks5://{socks.address}")
            name = names.parse("registry.example:5000/library/tiny")
            steps = await collect(registry.pull(name, store, encryption=Encryption.PREFERRED))
    assert steps[-1].status == "success"
    assert set(socks.asked) == {"registry.example:5000"}


@pytest.mark.parametrize("proxied", [lambda url: url, lambda url: "http://127.0.0.1:9"], ids=["refusing", "not there"])
async def test_a_proxy_that_does_not_connect_us_is_no_reason(
    proxied: Callable[[str], str], registry: Registry, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_tunnel() as (url, _):
        async with port(b"HTTP/1.0 400 Bad Request\r\n\r\n") as plain:
            monkeypatch.setenv("HTTPS_PROXY", proxied(url))
            monkeypatch.setenv("HTTP_PROXY", f"http://{plain.host}")
            error = await failure(registry, "registry.example/library/m", store)
    assert "prox" in str(error)
    assert plain.first == []


async def test_a_proxy_that_is_not_as_encrypted_as_it_should_be_is_no_reason(
    registry: Registry, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with port(b"HTTP/1.0 400 Bad Request\r\n\r\n") as plain:
        monkeypatch.setenv("HTTPS_PROXY", f"https://{plain.host}")
        monkeypatch.setenv("HTTP_PROXY", f"http://{plain.host}")
        await failure(registry, "registry.example/library/m", store)
    assert set(plain.first) == {HANDSHAKE}


def test_the_hub_serves_clients_that_always_ask_for_insecure(
    start_server: StartServer, tiny_gguf: Path, tmp_path: Path
) -> None:
    with running_hub(tmp_path / "hub") as hub:
        hub.put_model("ann/m", ("latest",), model=tiny_gguf.read_bytes())
        client = ollama.Client(start_server(**hub.environment).url)
        assert client.pull("hf.co/ann/m", insecure=True).status == "success"
    assert {tunnel.rpartition(":")[2] for tunnel in hub.tunnels} == {"443"}
