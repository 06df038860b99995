"""Proxies on the way to a registry: SOCKS, those that cannot be used, and those that cannot be reached."""

import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from yarl import URL

from corral import names, sources
from corral.errors import Unreachable
from corral.sources.registry import Registry, RetryPolicy, TransferLimits
from corral.sources.registry.proxies import proxy_for
from corral.store import Store
from tests.hub import running_hub
from tests.socks_server import running_socks
from tests.transfers import collect, make_registry

NAME = names.parse("hf.co/someone/m")


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    registry = make_registry(tmp_path, TransferLimits(retry=RetryPolicy(1, 0.01)))
    yield registry
    await registry.close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


def set_proxies(monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str]) -> None:
    for scheme in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(scheme, raising=False)
        monkeypatch.delenv(scheme.lower(), raising=False)
    for variable, text in variables.items():
        monkeypatch.setenv(variable, text)


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("login", [None, ("ann", "s3cret:@")], ids=["open", "with a login"])
@pytest.mark.parametrize("kind", ["socks5", "socks5h"])
async def test_a_model_comes_through_a_socks_proxy(
    kind: str,
    login: tuple[str, str] | None,
    variable: str,
    registry: Registry,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with running_hub(tmp_path / "hub") as hub:
        raw = hub.put_model("someone/m", ("latest",), model=b"weights")
        async with running_socks(hub.port, login) as socks:
            user = "ann:s3cret%3A%40@" if login else ""
            set_proxies(monkeypatch, {variable: f"{kind}://{user}{socks.address}"})
            with pytest.raises(Unreachable, match=r"tls: failed to verify certificate: self-signed certificate$"):
                await collect(registry.pull(NAME, store))
            trusting = ssl.create_default_context(cafile=hub.environment["SSL_CERT_FILE"])
            monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", trusting)
            steps = await collect(registry.pull(NAME, store))
    assert steps[-1].status == "success"
    assert store.list()[0].manifest.raw == raw
    assert set(socks.asked) == {"hf.co:443", "storage.example:443"}


@pytest.mark.parametrize(
    ("login", "reply", "sentence"),
    [
        (("ann", "other"), 0, "the proxy does not connect us: "),
        (None, 5, "the proxy does not connect us: "),
        (None, 2, "the proxy does not connect us: "),
    ],
    ids=["wrong login", "refused", "not allowed"],
)
async def test_a_socks_proxy_that_does_not_connect_us_lets_mirrors_be_tried(
    login: tuple[str, str] | None,
    reply: int,
    sentence: str,
    registry: Registry,
    store: Store,
    tiny_gguf: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running_socks(9, login, reply) as socks:
        set_proxies(monkeypatch, {"HTTPS_PROXY": f"socks5://ann:s3cret@{socks.address}"})
        with pytest.raises(Unreachable) as caught:
            await collect(registry.pull(NAME, store))
        assert sentence in str(caught.value)
        assert "s3cret" not in str(caught.value)
        await served_by_a_mirror(registry, store, tiny_gguf)


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"HTTPS_PROXY": "socks5://127.0.0.1:9"}, "the proxy cannot be reached: connection refused"),
        ({"HTTPS_PROXY": "http://127.0.0.1:9"}, "proxyconnect tcp: dial tcp 127.0.0.1:9: connect: connection refused"),
        ({"HTTPS_PROXY": "socks4://127.0.0.1:9"}, 'proxies of the kind "socks4" are not supported'),
        ({"HTTPS_PROXY": "http://ann:s3cret@proxy:port"}, "the address of the proxy for https cannot be read"),
    ],
)
async def test_a_proxy_that_cannot_be_used_is_named_and_mirrors_are_tried(
    variables: Mapping[str, str],
    sentence: str,
    registry: Registry,
    store: Store,
    tiny_gguf: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_proxies(monkeypatch, variables)
    with pytest.raises(Unreachable) as caught:
        await collect(registry.pull(NAME, store))
    assert str(caught.value).startswith("pull model manifest: ")
    assert str(caught.value).endswith(sentence)
    await served_by_a_mirror(registry, store, tiny_gguf)


async def served_by_a_mirror(registry: Registry, store: Store, file: Path) -> None:
    mirrors = {NAME.host: (file.as_uri(),)}
    steps = await collect(sources.pull(NAME, store, registry=registry, mirrors=mirrors))
    assert steps[-1].status == "success"


@pytest.mark.parametrize("text", ["socks4://127.0.0.1:9", "ftp://proxy", "http://ann:s3cret@proxy:port", "http://"])
def test_all_proxy_of_a_kind_that_cannot_be_used_is_skipped_with_a_warning(
    text: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    set_proxies(monkeypatch, {"ALL_PROXY": text})
    assert proxy_for(URL("https://hf.co/")) is None
    assert "no proxy is asked: " in caplog.text
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"HTTPS_PROXY": " "}, None),
        ({"HTTPS_PROXY": "\t\n"}, None),
        ({"HTTPS_PROXY": " ", "ALL_PROXY": "http://proxy:1"}, "http://proxy:1"),
        ({"HTTPS_PROXY": " http://proxy:1 "}, "http://proxy:1"),
        ({"HTTPS_PROXY": "http://proxy:1", "ALL_PROXY": "socks5://other:1"}, "http://proxy:1"),
    ],
)
def test_white_space_is_no_proxy(
    variables: Mapping[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_proxies(monkeypatch, variables)
    assert proxy_for(URL("https://hf.co/")) == (None if expected is None else URL(expected))
