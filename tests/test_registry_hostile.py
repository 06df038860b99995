"""Registries that lie, tire us out or lead us astray: each ends in a sentence, and leaves nothing behind."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from corral import names
from corral.errors import CorralError, DiskFull, NotFound, SourceError, Unreachable
from corral.messages import Progress
from corral.names import Name
from corral.sources.registry import Encryption, Registry, RetryPolicy, TransferLimits
from corral.sources.registry.addresses import is_public
from corral.sources.registry.proxies import proxy_for
from corral.sources.registry.repository import check_redirect
from corral.store import Store
from tests.registry import (
    CONFIG_BYTES,
    FaultProxy,
    RegistryServer,
    digest_of,
    manifest_of,
    noise,
)
from tests.transfers import make_registry, tiny

pytest_plugins = ("tests.registry_fixtures",)

MODEL = noise(600_000, 3)
DIGEST = digest_of(MODEL)
LIMITS = TransferLimits(
    part_bytes=300_000,
    slice_bytes=100_000,
    write_bytes=10_000,
    connections=2,
    retry=RetryPolicy(1, 0.01),
    stall=10,
    answer=3,
)


@pytest.fixture(scope="module", autouse=True)
def model(server: RegistryServer) -> None:
    server.put_model("library/tiny", "latest", model=MODEL)


@pytest.fixture
def name(proxy: FaultProxy) -> Name:
    return tiny(proxy)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home" / "models")


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    registry = make_registry(tmp_path, LIMITS)
    yield registry
    await registry.close()


async def statuses(steps: AsyncGenerator[Progress, None], into: list[str]) -> None:
    """Puts them into the list as they come, so that they are there if the pull ends in an error."""
    async with aclosing(steps):
        async for step in steps:
            into += [step.status]


async def refusal(registry: Registry, name: Name, store: Store, *, left: tuple[str, ...] = ()) -> CorralError:
    """What a pull ends with. But for `left`, it has left no file behind, in the store or around it."""
    with pytest.raises(CorralError) as caught:
        await statuses(registry.pull(name, store, encryption=Encryption.PREFERRED), [])
    found = {path.name for path in store.root.parent.parent.rglob("*") if path.is_file()}
    assert found - {"id_ed25519", "id_ed25519.pub"} == set(left)
    return caught.value


def changed(**members: Any) -> str:
    """The model's manifest with members of its first layer changed."""
    manifest = json.loads(manifest_of({"model": MODEL}))
    manifest["layers"][0].update(members)
    return json.dumps(manifest)


def manifest_rule(body: str) -> Mapping[str, Any]:
    return {"path": "/manifests/", "status": 200, "body": body}


# Manifests


@pytest.mark.parametrize(
    "digest",
    [
        "sha256:../../../../etc/passwd",
        "../../victim",
        "sha256:" + "0" * 63,
        "sha256:" + "A" * 64,
        "sha256:" + "0" * 64 + "/../../x",
        "sha256-" + "0" * 64,
        "sha512:" + "0" * 64,
        "sha256:" + "0" * 64 + "\n",
        "",
    ],
)
async def test_a_digest_that_is_none(
    digest: str, proxy: FaultProxy, registry: Registry, name: Name, store: Store
) -> None:
    proxy.rules(manifest_rule(changed(digest=digest)))
    error = await refusal(registry, name, store)
    assert str(error) == "pull model manifest: invalid manifest: invalid digest format"
    assert proxy.log("/blobs/") == []


@pytest.mark.parametrize("size", [-1, 2**63, 1.5, "1", None])
async def test_a_size_that_is_none(size: Any, proxy: FaultProxy, registry: Registry, name: Name, store: Store) -> None:
    proxy.rules(manifest_rule(changed(size=size)))
    assert str(await refusal(registry, name, store)).startswith("pull model manifest: invalid manifest: ")


@pytest.mark.parametrize("body", ["", "[]", "null", "<html>", '{"layers": []}', "[" * 100_000, '{"config": "\ud800"}'])
async def test_a_manifest_that_is_none(
    body: str, proxy: FaultProxy, registry: Registry, name: Name, store: Store
) -> None:
    if not body.isprintable():
        body = body.encode("utf-8", "surrogatepass").decode("latin-1")
    proxy.rules(manifest_rule(body))
    assert str(await refusal(registry, name, store)).startswith("pull model manifest: invalid manifest: ")


async def test_a_model_that_does_not_fit_on_the_disk(
    proxy: FaultProxy, registry: Registry, name: Name, store: Store
) -> None:
    proxy.rules(manifest_rule(changed(size=10**17)))
    error = await refusal(registry, name, store)
    assert isinstance(error, DiskFull)
    assert str(error).startswith(f'no space left on the disk that holds "{store.root}": 1000000000000000')
    assert proxy.log("/blobs/") == []


async def test_a_model_of_tensor_layers(proxy: FaultProxy, registry: Registry, name: Name, store: Store) -> None:
    proxy.rules(manifest_rule(changed(mediaType="application/vnd.ollama.image.tensor")))
    error = await refusal(registry, name, store)
    assert str(error) == "this model requires MLX support, but the MLX runtime is not available"


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ({"endless": True}, 'the answer of "{url}" is larger than 4194304 bytes'),
        ({"silent": True}, 'Get "{url}": no whole answer in 3 seconds'),
        ({"stall_after": 10}, 'Get "{url}": no whole answer in 3 seconds'),
        ({"cut_after": 10}, 'Get "{url}": EOF'),
        (
            {"headers": {"Content-Encoding": "gzip"}},
            '"{url}" answered in the encoding "gzip", which was not asked for',
        ),
        ({"status": 500, "body": "out of order"}, "500: out of order"),
        ({"status": 418, "body": "x" * 100_000}, "418: " + "x" * 4096),
        ({"redirect": "file:///etc/passwd"}, '"{url}" redirects to "file:///etc/passwd", which is no web address'),
        ({"redirect": "//"}, '"{url}": too many redirects'),
        ({"redirect": ""}, '"{url}" redirects to nowhere'),
        ({"redirect": "latest"}, '"{url}": too many redirects'),
        ({"redirect": "http://x:99999/"}, '"{url}" redirects to "http://x:99999/", which is no web address'),
        ({"redirect": "http://a..b/"}, 'invalid address "http://a..b/"'),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
async def test_a_registry_that_will_not_give_a_manifest(
    fault: dict[str, Any], sentence: str, proxy: FaultProxy, registry: Registry, name: Name, store: Store
) -> None:
    proxy.rules({"path": "/manifests/", **fault})
    url = f"{proxy.url}/v2/library/tiny/manifests/latest"
    assert str(await refusal(registry, name, store)) == "pull model manifest: " + sentence.format(url=url)


# Blobs


async def test_bytes_with_another_digest(proxy: FaultProxy, registry: Registry, name: Name, store: Store) -> None:
    proxy.rules({"path": DIGEST, "skip": 3, "times": 1, "corrupt_at": 77})
    seen: list[str] = []
    with pytest.raises(SourceError) as caught:
        await statuses(registry.pull(name, store, encryption=Encryption.PREFERRED), seen)
    false = bytearray(MODEL)
    got = str(caught.value).rpartition("got ")[2]
    slices = [int(entry["range"][6:].partition("-")[0]) for entry in proxy.log(DIGEST)]
    false[slices[3] + 77] ^= 0xFF
    assert got == digest_of(bytes(false))
    assert str(caught.value) == f"digest mismatch, file must be downloaded again: want {DIGEST}, got {got}"
    assert list(dict.fromkeys(seen)) == [
        "pulling manifest",
        f"pulling {DIGEST[7:19]}",
        "verifying sha256 digest",
    ]
    assert list(store.blobs_folder.iterdir()) == []
    await statuses(registry.pull(name, store, encryption=Encryption.PREFERRED), seen)
    assert seen[-1] == "success"


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (
            {"headers": {"Content-Range": "bytes 1-100000/600000"}},
            '"{url}" answered with the range "bytes 1-100000/600000", not "bytes 0-99999/600000"',
        ),
        (
            {"headers": {"Content-Range": "bytes 0-99999/600001"}},
            '"{url}" answered with the range "bytes 0-99999/600001", not "bytes 0-99999/600000"',
        ),
        (
            {"headers": {"Content-Range": None}},
            '"{url}" answered with the range "", not "bytes 0-99999/600000"',
        ),
        (
            {"headers": {"Content-Range": "bytes 0-" + "9" * 200 + "/*"}},
            '"{url}" answered with the range "bytes 0-' + "9" * 72 + '", not "bytes 0-99999/600000"',
        ),
        (
            {"headers": {"Content-Encoding": "br"}},
            '"{url}" answered in the encoding "br", which was not asked for',
        ),
        (
            {"headers": {"Content-Range": "bytes 0-100000/600000"}},
            '"{url}" answered with the range "bytes 0-100000/600000", not "bytes 0-99999/600000"',
        ),
        ({"status": 204}, '"{url}" answered with the status 204'),
        ({"status": 403, "body": "no"}, "403: no"),
        ({"status": 200, "body": "tiny"}, '"{url}" has 4 bytes, 600000 were announced'),
        ({"redirect": "ftp://x/y"}, '"{url}" redirects to "ftp://x/y", which is no web address'),
        ({"redirect": "http://169.254.169.254/latest/"}, '"http://169.254.169.254/latest/" leads to {private}'),
        ({"redirect": "http://[fe80::1]/"}, '"http://[fe80::1]/" leads to the private address "fe80::1", {where}'),
        ({"redirect": "http://127.0.0.1:9/"}, "max retries exceeded: {refused}"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
async def test_a_registry_that_will_not_give_a_blob(
    fault: dict[str, Any], sentence: str, proxy: FaultProxy, registry: Registry, name: Name, store: Store
) -> None:
    proxy.rules({"path": DIGEST, **fault})
    where = "where no registry may send us"
    expected = sentence.format(
        url=f"{proxy.url}/v2/library/tiny/blobs/{DIGEST}",
        private=f'the private address "169.254.169.254", {where}',
        where=where,
        refused='Get "http://127.0.0.1:9/": dial tcp 127.0.0.1:9: connect: connection refused',
    )
    assert str(await refusal(registry, name, store)) == expected


async def test_a_blob_that_is_not_there(proxy: FaultProxy, registry: Registry, name: Name, store: Store) -> None:
    proxy.rules({"path": DIGEST, "status": 404})
    error = await refusal(registry, name, store)
    assert isinstance(error, NotFound)
    assert str(error) == "file does not exist"


@pytest.mark.parametrize("announced", [len(MODEL) - 1, len(MODEL) + 1])
async def test_a_blob_that_is_not_as_large_as_announced(
    announced: int, proxy: FaultProxy, registry: Registry, name: Name, store: Store
) -> None:
    proxy.rules(manifest_rule(changed(size=announced)))
    url = f"{proxy.url}/v2/library/tiny/blobs/{DIGEST}"
    error = str(await refusal(registry, name, store))
    assert error == (f'"{url}" answered with the range "bytes 0-99999/600000", not "bytes 0-99999/{announced}"')


async def test_a_blob_larger_than_announced_from_a_registry_that_does_not_say_how_large(
    proxy: FaultProxy, registry: Registry, name: Name, store: Store
) -> None:
    proxy.rules(
        manifest_rule(changed(size=len(MODEL) - 1)),
        {"path": DIGEST, "ignore_range": True, "headers": {"Content-Length": None}},
    )
    error = str(await refusal(registry, name, store))
    assert error == f'"{DIGEST}" is larger than the 599999 bytes announced'


async def test_a_blob_smaller_than_announced_from_a_registry_that_does_not_say_how_large(
    proxy: FaultProxy, registry: Registry, name: Name, store: Store
) -> None:
    proxy.rules(
        manifest_rule(changed(size=len(MODEL) + 1)),
        {"path": DIGEST, "ignore_range": True, "headers": {"Content-Length": None}},
    )
    partial = f"sha256-{DIGEST[7:]}-partial"  # kept: it might have been the line that broke
    error = await refusal(registry, name, store, left=(partial, *(f"{partial}-{number}" for number in range(3))))
    assert str(error) == "max retries exceeded: the answer ended early"


async def test_an_endless_blob(proxy: FaultProxy, registry: Registry, name: Name, store: Store) -> None:
    proxy.rules({"path": DIGEST, "endless": True})
    assert str(await refusal(registry, name, store)) == f'"{DIGEST}" is larger than the 600000 bytes announced'


async def test_one_digest_with_two_sizes(proxy: FaultProxy, registry: Registry, name: Name, store: Store) -> None:
    manifest = json.loads(manifest_of({"model": MODEL, "adapter": MODEL}))
    manifest["layers"][1]["size"] += 1
    raw = json.dumps(manifest)
    proxy.rules(manifest_rule(raw))
    what_is_on_its_way = f"sha256-{digest_of(raw.encode())[7:]}"
    error = str(await refusal(registry, name, store, left=(f"sha256-{DIGEST[7:]}", what_is_on_its_way)))
    assert error.endswith('not "bytes 0-99999/600001"')
    assert store.blob_path(names.parse_digest(DIGEST)).read_bytes() == MODEL


async def test_a_lie_about_a_blob_we_have_costs_us_nothing(
    proxy: FaultProxy, registry: Registry, name: Name, store: Store
) -> None:
    await statuses(registry.pull(name, store, encryption=Encryption.PREFERRED), [])
    proxy.rules(manifest_rule(changed(size=5)))
    with pytest.raises(SourceError):
        await statuses(registry.pull(name, store, encryption=Encryption.PREFERRED), [])
    assert store.blob_path(names.parse_digest(DIGEST)).read_bytes() == MODEL
    assert store.manifest(name).manifest.raw == manifest_of({"model": MODEL})


async def test_a_damaged_blob_is_replaced(proxy: FaultProxy, registry: Registry, name: Name, store: Store) -> None:
    await statuses(registry.pull(name, store, encryption=Encryption.PREFERRED), [])
    store.blob_path(names.parse_digest(DIGEST)).write_bytes(b"cut short")
    await statuses(registry.pull(name, store, encryption=Encryption.PREFERRED), [])
    assert store.blob_path(names.parse_digest(DIGEST)).read_bytes() == MODEL


async def test_trickling_does_not_count_as_giving(tmp_path: Path, proxy: FaultProxy, name: Name, store: Store) -> None:
    limits = TransferLimits(slice_bytes=100_000, stall=0.05, silence=0.15, trickle_bytes=64 << 10)
    registry = make_registry(tmp_path, limits)
    proxy.rules({"path": DIGEST, "stall_after": 1000})
    with pytest.raises(SourceError, match=r"^download stalled: no data for 0\.15 s$"):
        await statuses(registry.pull(name, store, encryption=Encryption.PREFERRED), [])
    await registry.close()


# Where a registry may send us


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("127.0.0.1", False),
        ("10.0.0.1", False),
        ("172.16.5.4", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::10.0.0.1", False),
        ("2002:a00:1::", False),
    ],
)
def test_what_is_a_public_address(address: str, expected: bool) -> None:
    assert is_public(address) is expected


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
async def test_a_public_registry_may_not_send_us_into_our_own_network(host: str, proxy: FaultProxy) -> None:
    """Judged by the address that is connected to, whatever the name."""
    with pytest.raises(SourceError, match=r'^"https://a/x" redirects to "http://b/y", which is not encrypted$'):
        check_redirect(URL("https://a/x"), URL("http://b/y?secret"))


async def test_a_host_that_does_not_exist(registry: Registry, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    error = await refusal(registry, names.parse("nothing.invalid/library/x"), store)
    assert isinstance(error, Unreachable)
    assert str(error) == (
        'pull model manifest: Get "https://nothing.invalid/v2/": dial tcp: lookup nothing.invalid: no such host'
    )


# Proxies


async def test_a_proxy_of_the_environment_is_used(
    proxy: FaultProxy, registry: Registry, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    for variable in ("no_proxy", "NO_PROXY", "http_proxy"):
        monkeypatch.delenv(variable, raising=False)
    seen: list[str] = []
    await statuses(registry.pull(names.parse("registry.example/library/tiny"), store, encryption=Encryption.NONE), seen)
    assert seen[-1] == "success"
    assert {entry["headers"]["Host"] for entry in proxy.log()} == {"registry.example"}
    proxy.rules()
    with pytest.raises(Unreachable, match="connection refused"):  # this machine's own, which no proxy can reach
        await statuses(
            registry.pull(names.parse("127.0.0.1:9/library/tiny"), store, encryption=Encryption.PREFERRED), seen
        )
    assert proxy.log() == []


@pytest.mark.parametrize(
    ("address", "is_spared"),
    [
        ("http://localhost:5000/", True),
        ("http://127.9.9.9/", True),
        ("http://[::1]:5000/", True),
        ("http://10.1.2.3:5000/", True),
        ("http://[fd00::5]/", True),
        ("http://192.168.7.7/", True),
        ("http://[fe80::7]:5000/", True),
        ("http://registry.corp.example/", True),
        ("http://corp.example:5000/", True),
        ("http://11.1.2.3/", False),
        ("http://[fd01::5]/", False),
        ("http://corp.example.org/", False),
        ("http://registry.example/", False),
    ],
)
def test_what_is_asked_without_the_proxy(address: str, is_spared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("http_proxy", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8, fd00::/16, 192.168.7.7, [fe80::7], .corp.example,")
    assert proxy_for(URL(address)) == (None if is_spared else URL("http://proxy.example:3128"))


@pytest.mark.parametrize(
    ("proxy", "sentence"),
    [
        ("http://ann:s3cret@proxy.example:port", "the address of the proxy for http cannot be read"),
        ("socks4://proxy.example:1080", 'proxies of the kind "socks4" are not supported'),
    ],
)
def test_a_proxy_that_cannot_be_used(proxy: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("http_proxy", raising=False)
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with pytest.raises(SourceError) as caught:
        proxy_for(URL("http://registry.example/"))
    assert str(caught.value) == sentence


def test_the_config_is_small() -> None:
    """The tests above count on it: one request for it, and no slices."""
    assert len(CONFIG_BYTES) < LIMITS.slice_bytes
