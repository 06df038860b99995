"""Who we are to a registry: passwords, tokens, keys, and to whom they are shown."""

import asyncio
import base64
import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from corral import names
from corral.config import load
from corral.errors import ConfigError, CorralError, SourceError, Unauthorized, Unreachable
from corral.messages import Progress
from corral.sources.registry import Encryption, Registry, RetryPolicy, TransferLimits, keys
from corral.sources.registry.auth import Challenge, Credentials, find_credentials, parse_challenges
from corral.store import Layer, MediaType, Store, encode_manifest
from tests.registry import (
    CONFIG_BYTES,
    FaultProxy,
    RegistryServer,
    basic_auth,
    digest_of,
    noise,
    running_proxy,
    running_registry,
)
from tests.token_server import TokenServer, running_token_server, tls_files
from tests.transfers import make_registry, tiny

MODEL = b"a model " * 1000
BASIC = "Basic " + base64.b64encode(b"ann:s3cret:with colon").decode()


@pytest.fixture(scope="module")
def protected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A registry that wants a name and a password."""
    folder = tmp_path_factory.mktemp("protected")
    auth = basic_auth(folder, {"ann": "s3cret:with colon"})
    with running_registry(folder, auth=auth, headers={"Authorization": BASIC}) as server:
        server.put_model("library/tiny", "latest", model=MODEL)
        yield server


@pytest.fixture(scope="module")
def tokens() -> Iterator[TokenServer]:
    with running_token_server() as tokens:
        tokens.users["root"] = "toor"
        yield tokens


@pytest.fixture(scope="module")
def guarded(tokens: TokenServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultProxy]:
    """A registry that wants tokens, which its own host gives out, as Ollama's does."""
    folder = tmp_path_factory.mktemp("guarded")
    with running_proxy() as proxy:
        auth = tokens.auth(folder, f"{proxy.url}/token")
        with running_registry(folder, auth=auth) as server:
            proxy.point_at(server.url)
            grant = tokens.token(["repository:library/tiny:pull,push"])
            insider = RegistryServer(server.url, folder, {"Authorization": f"Bearer {grant}"})
            insider.put_model("library/tiny", "latest", model=MODEL)
            yield proxy


@pytest.fixture
def gate(guarded: FaultProxy, tokens: TokenServer) -> FaultProxy:
    guarded.rules({"path": "^/token", "forward": tokens.url})
    tokens.users, tokens.keys, tokens.refresh, tokens.allows_anonymous_pull = {}, set(), set(), False
    tokens.asked.clear()
    return guarded


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    registry = make_registry(tmp_path, TransferLimits(retry=RetryPolicy(1, 0.01)))
    yield registry
    await registry.close()


def log_in(folder: Path, host: str, username: str, password: str) -> None:
    """As `docker login` does it."""
    auth = base64.b64encode(f"{username}:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {f"http://{host}": {"auth": auth}}}))


async def run(steps: AsyncGenerator[Progress, None]) -> str:
    """The last status."""
    async with aclosing(steps):
        return [step.status async for step in steps][-1]


# Passwords


async def test_pull_and_push_with_the_password_of_docker_login(
    protected: RegistryServer, registry: Registry, store: Store, tmp_path: Path
) -> None:
    log_in(tmp_path, protected.host, "ann", "s3cret:with colon")
    assert await run(registry.pull(tiny(protected), store, encryption=Encryption.PREFERRED)) == "success"
    copy = names.parse(f"{protected.host}/library/copy")
    store.copy(tiny(protected), copy)
    assert await run(registry.push(copy, store, encryption=Encryption.PREFERRED)) == "success"
    assert protected.blob("library/copy", digest_of(MODEL)) == MODEL


@pytest.mark.parametrize("password", ["wrong", None], ids=["wrong", "none"])
async def test_without_the_right_password_there_is_no_way_in(
    password: str | None, protected: RegistryServer, registry: Registry, store: Store, tmp_path: Path
) -> None:
    sentence = "pull model manifest: unauthorized: access denied"
    if password:
        log_in(tmp_path, protected.host, "ann", password)
    else:
        sentence += f'\nno credentials for "{protected.host}" in "{tmp_path}/config.json"'
    with pytest.raises(Unauthorized) as caught:
        await run(registry.pull(tiny(protected), store, encryption=Encryption.PREFERRED))
    assert str(caught.value) == sentence


async def test_a_credential_helper_is_asked(
    protected: RegistryServer, registry: Registry, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = tmp_path / "bin" / "docker-credential-safe"
    helper.parent.mkdir()
    answer = json.dumps({"ServerURL": protected.host, "Username": "ann", "Secret": "s3cret:with colon"})
    helper.write_text(f'#!/bin/sh\ntest "$1" = get && test "$(cat)" = "{protected.host}" && echo \'{answer}\'\n')
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{helper.parent}{os.pathsep}{os.environ['PATH']}")
    for config in ({"credsStore": "safe"}, {"credHelpers": {protected.host: "safe"}}):
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert await run(registry.pull(tiny(protected), store, encryption=Encryption.PREFERRED)) == "success"
        store.delete(tiny(protected))


async def test_passwords_are_not_shown_where_the_registry_sends_us(
    protected: RegistryServer, registry: Registry, store: Store, tmp_path: Path
) -> None:
    with running_proxy(protected.url) as proxy:
        log_in(tmp_path, proxy.host, "ann", "s3cret:with colon")
        proxy.rules(
            {"path": "/blobs/", "at": "registry", "redirect": "elsewhere"},
            {"at": "elsewhere", "with": {"Authorization": BASIC}},
        )
        assert await run(registry.pull(tiny(proxy), store, encryption=Encryption.PREFERRED)) == "success"
        shown = {entry["at"]: entry["headers"].get("Authorization") for entry in proxy.log()}
    assert shown == {"registry": BASIC, "elsewhere": None}


# Tokens


async def test_pull_and_push_with_a_signed_request_for_a_token(
    gate: FaultProxy, tokens: TokenServer, registry: Registry, store: Store, tmp_path: Path
) -> None:
    tokens.keys.add(keys.load_or_create(tmp_path / "keys").public_line)
    assert await run(registry.pull(tiny(gate), store, encryption=Encryption.PREFERRED)) == "success"
    copy = names.parse(f"{gate.host}/library/copy")
    store.copy(tiny(gate), copy)
    assert await run(registry.push(copy, store, encryption=Encryption.PREFERRED)) == "success"
    path, _, query = tokens.asked[0]["path"].partition("?")
    assert path == "/token"
    pairs = [pair.partition("=")[::2] for pair in query.split("&")]
    assert [name for name, _ in pairs] == ["nonce", "scope", "service", "ts"]
    assert dict(pairs)["scope"] == "repository%3Alibrary%2Ftiny%3Apull"
    assert dict(pairs)["service"] == "the+registry"
    assert len(dict(pairs)["nonce"]) == 22


async def test_layers_that_are_pushed_side_by_side_each_get_the_token_they_need(
    gate: FaultProxy, tokens: TokenServer, registry: Registry, store: Store, tmp_path: Path
) -> None:
    """Layers of eight models that are at the registry already: taking them from there wants a token for each model."""
    tokens.keys.add(keys.load_or_create(tmp_path / "keys").public_line)
    digest, size, _ = store.add_bytes(CONFIG_BYTES)
    config, layers = Layer(MediaType.CONFIG, digest, size), []
    for number in range(8):
        name = names.parse(f"{gate.host}/library/part{number}")
        digest, size, _ = store.add_bytes(noise(1000, 700 + number))
        layers.append(Layer(MediaType.MODEL, digest, size, from_=str(name)))
        store.write_manifest(name, encode_manifest(config, (layers[-1],)))
        assert await run(registry.push(name, store, encryption=Encryption.PREFERRED)) == "success"
    whole = names.parse(f"{gate.host}/library/whole")
    store.write_manifest(whole, encode_manifest(config, tuple(layers)))
    gate.rules({"path": "^/token", "forward": tokens.url})
    assert await run(registry.push(whole, store, encryption=Encryption.PREFERRED)) == "success"
    assert len(gate.log("mount=")) >= len(layers)


async def test_a_token_for_a_password(
    gate: FaultProxy, tokens: TokenServer, registry: Registry, store: Store, tmp_path: Path
) -> None:
    tokens.users["ann"] = "secret"
    log_in(tmp_path, gate.host, "ann", "secret")
    assert await run(registry.pull(tiny(gate), store, encryption=Encryption.PREFERRED)) == "success"
    assert len(tokens.asked) == 1


async def test_a_token_for_an_identity_token(
    gate: FaultProxy, tokens: TokenServer, registry: Registry, store: Store, tmp_path: Path
) -> None:
    tokens.refresh.add("long-lived")
    config = {"auths": {gate.host: {"identitytoken": "long-lived"}}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert await run(registry.pull(tiny(gate), store, encryption=Encryption.PREFERRED)) == "success"
    assert [(asked["method"], asked["grant_type"]) for asked in tokens.asked] == [("POST", "refresh_token")]


async def test_an_anonymous_token(gate: FaultProxy, tokens: TokenServer, registry: Registry, store: Store) -> None:
    tokens.allows_anonymous_pull = True
    assert await run(registry.pull(tiny(gate), store, encryption=Encryption.PREFERRED)) == "success"


async def test_no_token_for_a_stranger(gate: FaultProxy, registry: Registry, store: Store) -> None:
    with pytest.raises(Unauthorized) as caught:
        await run(registry.pull(tiny(gate), store, encryption=Encryption.PREFERRED))
    assert str(caught.value) == 'pull model manifest: 401: {"error": "who are you?"}'


async def test_a_token_that_is_not_taken_is_not_tried_for_ever(
    gate: FaultProxy, tokens: TokenServer, registry: Registry, store: Store
) -> None:
    tokens.allows_anonymous_pull = True
    challenge = f'Bearer realm="{gate.url}/token",service="the registry",scope="repository:other/one:pull"'
    gate.rules(
        {"path": "^/token", "forward": tokens.url},
        {"path": "/manifests/", "status": 401, "headers": {"WWW-Authenticate": challenge}},
    )
    with pytest.raises(Unauthorized, match=r"^pull model manifest: unauthorized: access denied$"):
        await run(registry.pull(tiny(gate), store, encryption=Encryption.PREFERRED))
    assert len(gate.log("/manifests/")) == 2


async def test_a_token_that_expires_on_the_way_is_replaced(
    gate: FaultProxy, tokens: TokenServer, registry: Registry, store: Store
) -> None:
    tokens.allows_anonymous_pull = True
    challenge = f'Bearer realm="{gate.url}/token",service="the registry",scope="repository:library/tiny:pull"'
    gate.rules(
        {"path": "^/token", "forward": tokens.url},
        {"path": "/blobs/", "times": 1, "status": 401, "headers": {"WWW-Authenticate": challenge}},
    )
    assert await run(registry.pull(tiny(gate), store, encryption=Encryption.PREFERRED)) == "success"


async def test_a_realm_on_another_host_gets_nothing(
    gate: FaultProxy, registry: Registry, store: Store, tmp_path: Path
) -> None:
    log_in(tmp_path, gate.host, "ann", "secret")
    elsewhere = gate.elsewhere.removeprefix("http://")
    challenge = f'Bearer realm="{gate.elsewhere}/token",service="x",scope="y"'
    gate.rules({"path": "/manifests/", "status": 401, "headers": {"WWW-Authenticate": challenge}})
    with pytest.raises(Unauthorized) as caught:
        await run(registry.pull(tiny(gate), store, encryption=Encryption.PREFERRED))
    expected = f'pull model manifest: realm host "{elsewhere}" does not match original host "{gate.host}"'
    assert str(caught.value) == expected
    assert gate.log("/token") == []


@pytest.mark.parametrize("realm", ["", "file:///etc/passwd", "//", "http://[", "token"])
async def test_a_realm_that_is_no_web_address_is_refused(
    realm: str, gate: FaultProxy, registry: Registry, store: Store
) -> None:
    gate.rules({"path": "/manifests/", "status": 401, "headers": {"WWW-Authenticate": f'Bearer realm="{realm}"'}})
    with pytest.raises(SourceError) as caught:
        await run(registry.pull(tiny(gate), store, encryption=Encryption.PREFERRED))
    assert str(caught.value) == f'pull model manifest: invalid realm "{realm}"'


@pytest.mark.parametrize("body", ["", "{}", '{"token": 5}', '{"token": "a\\r\\nX: y"}', "[" * 5000])
async def test_a_token_that_is_none_is_refused(body: str, gate: FaultProxy, registry: Registry, store: Store) -> None:
    gate.rules({"path": "^/token", "status": 200, "body": body})
    with pytest.raises(SourceError, match=r"^pull model manifest: the token service did not answer with a token$"):
        await run(registry.pull(tiny(gate), store, encryption=Encryption.PREFERRED))


async def test_a_token_service_that_never_ends_is_cut_short(gate: FaultProxy, registry: Registry, store: Store) -> None:
    gate.rules({"path": "^/token", "endless": True})
    with pytest.raises(SourceError, match=r"is larger than 1048576 bytes$"):
        await run(registry.pull(tiny(gate), store, encryption=Encryption.PREFERRED))


# Encryption

PULL = """
import asyncio, sys
from pathlib import Path
from corral import names
from corral.sources.registry import Registry
from corral.store import Store

async def pull(name, folder):
    registry = Registry(docker_config=folder / "none", key_folder=folder)
    print([step.status async for step in registry.pull(names.parse(name), Store(folder))][-1])
    await registry.close()

asyncio.run(pull(sys.argv[1], Path(sys.argv[2])))
"""


@contextmanager
def encrypted(folder: Path) -> Iterator[RegistryServer]:
    with running_registry(folder, tls=tls_files(folder)) as server:
        server.put_model("library/tiny", "latest", model=MODEL)
        yield server


async def test_pull_over_an_encrypted_connection(registry: Registry, store: Store, tmp_path: Path) -> None:
    with encrypted(tmp_path / "registry") as server:
        with pytest.raises(Unreachable, match=r"tls: failed to verify certificate: "):
            await run(registry.pull(tiny(server), store))
        command = [sys.executable, "-c", PULL, str(tiny(server)), str(tmp_path / "other")]
        environment = {**os.environ, "SSL_CERT_FILE": str(tmp_path / "registry" / "cert.pem")}
        done = await asyncio.to_thread(subprocess.run, command, env=environment, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("success\n", 0), done.stderr


async def test_a_registry_without_encryption_is_not_spoken_to_unasked(
    protected: RegistryServer, registry: Registry, store: Store
) -> None:
    with pytest.raises(Unreachable, match=r"http: server gave HTTP response to HTTPS client$"):
        await run(registry.pull(tiny(protected), store))


# The key


def test_a_key_is_made_as_ollama_makes_it(tmp_path: Path) -> None:
    key = keys.load_or_create(tmp_path / "new")
    assert key.is_new
    private, public = tmp_path / "new" / "id_ed25519", tmp_path / "new" / "id_ed25519.pub"
    assert private.read_text().startswith("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    assert public.read_text() == key.public_line + "\n"
    assert (private.stat().st_mode & 0o777, public.stat().st_mode & 0o777) == (0o600, 0o644 & ~_umask())
    assert sorted(path.name for path in private.parent.iterdir()) == ["id_ed25519", "id_ed25519.pub"]


def test_a_key_that_is_there_is_used(tmp_path: Path) -> None:
    made = keys.load_or_create(tmp_path)
    found = keys.load_or_create(tmp_path)
    assert not found.is_new
    assert found.public_line == made.public_line
    public = load_ssh_public_key(found.public_line.encode())
    assert isinstance(public, Ed25519PublicKey)
    public.verify(made.sign(b"data"), b"data")


@pytest.mark.parametrize(
    "text", [b"", b"nonsense", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"]
)
def test_a_key_that_cannot_be_read_is_not_replaced(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "id_ed25519"
    path.write_bytes(text)
    with pytest.raises(ConfigError, match=rf'^"{path}" is no OpenSSH private key without a passphrase$'):
        keys.load_or_create(tmp_path)
    assert path.read_bytes() == text


# What is read


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], []),
        (['Basic realm="the realm"'], [Challenge("basic", {"realm": "the realm"})]),
        (
            ['Bearer realm="http://a/b?c=d",service="s, t",scope="x:y:pull,push"'],
            [Challenge("bearer", {"realm": "http://a/b?c=d", "service": "s, t", "scope": "x:y:pull,push"})],
        ),
        (["BEARER realm=plain , scope = two"], [Challenge("bearer", {"realm": "plain", "scope": "two"})]),
        (
            ['Negotiate, Basic realm="a"', 'Bearer realm="b"'],
            [Challenge("negotiate", {}), Challenge("basic", {"realm": "a"}), Challenge("bearer", {"realm": "b"})],
        ),
        (['=,=,"', 'realm="no scheme"'], []),
    ],
)
def test_challenges_are_read(headers: list[str], expected: list[Challenge]) -> None:
    assert parse_challenges(headers) == expected


@pytest.mark.parametrize("server", ["reg.example", "https://reg.example", "https://reg.example/v1/", "REG.example/v2"])
def test_docker_writes_a_host_in_many_ways(server: str, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"auths": {server: {"username": "ann", "password": "secret"}}}))
    assert find_credentials(config, "reg.example") == Credentials("ann", "secret")
    assert find_credentials(config, "reg.example:5000") is None
    assert find_credentials(config, "evil-reg.example") is None


@pytest.mark.parametrize("auth", ["YW5uOnNlY3JldA==", "YW5uOnNlY3JldA", "YW5uOnNlY3JldA==\n"])
def test_a_password_is_read_however_its_base64_ends(auth: str, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"auths": {"h": {"auth": auth}}}))
    assert find_credentials(config, "h") == Credentials("ann", "secret")


@pytest.mark.parametrize(
    "config", ['{"auths": null, "credsStore": null, "credHelpers": null}', '{"auths": {"h": null}}', "{}", ""]
)
def test_what_the_docker_configuration_leaves_empty_is_nothing(config: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(config)
    assert find_credentials(tmp_path / "config.json", "h") is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "cannot read"),
        ('{"auths": {"h": {"auth": "%%%"}}}', 'has an "auth" for "h" that is no base64'),
        ('{"credHelpers": {"h": "../../bin/sh"}}', r'invalid credential helper "\.\./\.\./bin/sh"'),
        ('{"credHelpers": {"h": "gone"}}', 'the credential helper "docker-credential-gone" failed'),
        ('{"credsStore": "gone", "auths": {"h": {}}}', 'the credential helper "docker-credential-gone" failed'),
    ],
)
def test_a_docker_configuration_that_cannot_be_used(config: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(CorralError, match=message):
        find_credentials(tmp_path / "config.json", "h")


@pytest.mark.parametrize("helper", ["gone", "../../bin/sh"])
def test_a_helper_that_fails_is_no_matter_to_those_who_never_logged_in(helper: str, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"credsStore": helper, "auths": {"elsewhere": {}}}))
    assert find_credentials(config, "h") is None


def test_where_docker_keeps_its_configuration() -> None:
    assert load({"DOCKER_CONFIG": "/etc/docker"}).config.docker_config == Path("/etc/docker/config.json")
    assert load({}).config.docker_config == Path.home() / ".docker" / "config.json"


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
