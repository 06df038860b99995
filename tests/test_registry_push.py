"""Pushing to a real registry, as it is and through a proxy that breaks things."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from corral import names
from corral.errors import CorralError, NotFound, SourceError, StoreError
from corral.messages import Progress
from corral.names import Name
from corral.sources.registry import Encryption, Registry, RetryPolicy, TransferLimits
from corral.store import Layer, MediaType, Store, encode_manifest
from tests.registry import (
    CONFIG_BYTES,
    MANIFEST,
    OCI_MANIFEST,
    FaultProxy,
    RegistryServer,
    digest_of,
    manifest_of,
    noise,
)
from tests.transfers import collect, make_registry

pytest_plugins = ("tests.registry_fixtures",)

MODEL = noise(1_000_000, 2)
TEMPLATE = b"{{ .Prompt }}"
LIMITS = TransferLimits(part_bytes=300_000, retry=RetryPolicy(2, 0.01), stall=5)


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    registry = make_registry(tmp_path, LIMITS)
    yield registry
    await registry.close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "models")
    for data in (MODEL, TEMPLATE, CONFIG_BYTES):
        store.add_bytes(data)
    return store


@pytest.fixture
def name(proxy: FaultProxy, store: Store, request: pytest.FixtureRequest) -> Name:
    """A model in the store that has not been pushed yet."""
    name = Name(proxy.host, "library", request.node.name.split("[")[0][:80], f"v{abs(hash(request.node.name))}")
    store.write_manifest(name, manifest_of({"model": MODEL, "template": TEMPLATE}))
    return name


def repository(name: Name) -> str:
    return f"{name.namespace}/{name.model}"


def pushing(data: bytes, completed: int) -> Progress:
    digest = digest_of(data)
    return Progress(f"pushing {digest[7:19]}", digest, len(data), completed)


def requests(proxy: FaultProxy, data: bytes = MODEL) -> list[tuple[str, str, int]]:
    """Method, where, and status of the requests for the first blob, up to the end of its upload."""
    found = []
    for entry in proxy.log():
        found.append((entry["method"], entry["at"], entry["status"]))
        if entry["method"] == "PUT" and digest_of(data) in entry["path"]:
            break
    return found


async def test_push_brings_a_model_byte_for_byte(
    server: RegistryServer, registry: Registry, store: Store, name: Name
) -> None:
    steps = await collect(registry.push(name, store, encryption=Encryption.PREFERRED))
    ends = [step for step in steps if step.completed in (0, step.total)]
    assert list(dict.fromkeys(ends)) == [
        Progress("retrieving manifest"),
        *(pushing(data, completed) for data in (MODEL, TEMPLATE, CONFIG_BYTES) for completed in (0, len(data))),
        Progress("pushing manifest"),
        Progress("success"),
    ]
    assert server.manifest(repository(name), name.tag) == store.manifest(name).manifest.raw
    for data in (MODEL, TEMPLATE, CONFIG_BYTES):
        assert server.blob(repository(name), digest_of(data)) == data


async def test_a_model_under_a_manifest_of_ocis_kind_is_pulled_and_pushed_as_it_is(
    server: RegistryServer, registry: Registry, store: Store
) -> None:
    """As tools for OCI artifacts push it; this registry hides it from those who ask for Docker's kind alone."""
    raw = server.put_model("library/artifact", "docker", model=MODEL).replace(MANIFEST.encode(), OCI_MANIFEST.encode())
    server.put_manifest("library/artifact", "oci", raw, OCI_MANIFEST)
    name, copy = (names.parse(f"{server.host}/library/{model}:oci") for model in ("artifact", "again"))
    await collect(registry.pull(name, store, encryption=Encryption.PREFERRED))
    assert store.manifest(name).manifest.raw == raw
    store.copy(name, copy)
    await collect(registry.push(copy, store, encryption=Encryption.PREFERRED))
    assert server.manifest("library/again", "oci", OCI_MANIFEST) == raw


async def test_small_layers_are_sent_side_by_side_and_told_one_after_the_other(
    proxy: FaultProxy, server: RegistryServer, registry: Registry, store: Store, name: Name
) -> None:
    """The proxy begins none of the uploads before all are asked for."""
    layers = {f"part{number}": noise(50_000, 60 + number) for number in range(6)}
    for data in layers.values():
        store.add_bytes(data)
    store.write_manifest(name, manifest_of(layers))
    proxy.rules({"method": "POST", "path": "/blobs/uploads/", "hold": True})
    pushing = asyncio.create_task(collect(registry.push(name, store, encryption=Encryption.PREFERRED)))
    await asyncio.to_thread(proxy.wait_until_held, len(layers) + 1)
    proxy.release()
    steps = await pushing
    digests = [step.digest for step in steps if step.digest]
    expected = [digest_of(data) for data in (*layers.values(), CONFIG_BYTES)]
    assert list(dict.fromkeys(digests)) == expected
    assert digests == sorted(digests, key=expected.index)
    assert server.manifest(repository(name), name.tag) == store.manifest(name).manifest.raw
    assert all(server.blob(repository(name), digest_of(data)) == data for data in layers.values())


@pytest.mark.parametrize("fault", [{"cut_request_after": 1000}, {"status": 503}, {"status": 404}])
async def test_small_layers_go_on_each_by_itself_after_a_fault(
    fault: dict[str, Any], proxy: FaultProxy, server: RegistryServer, registry: Registry, store: Store, name: Name
) -> None:
    layers = {f"part{number}": noise(50_000, 80 + number) for number in range(8)}
    for data in layers.values():
        store.add_bytes(data)
    store.write_manifest(name, manifest_of(layers))
    proxy.rules({"method": "PATCH", "skip": 1, "times": 5, **fault})
    assert (await collect(registry.push(name, store, encryption=Encryption.PREFERRED)))[-1] == Progress("success")
    assert all(server.blob(repository(name), digest_of(data)) == data for data in layers.values())


async def test_a_plain_registry_gets_the_parts_one_after_the_other(
    proxy: FaultProxy, registry: Registry, store: Store, name: Name
) -> None:
    await collect(registry.push(name, store, encryption=Encryption.PREFERRED))
    parts = [(entry["headers"]["Content-Range"], entry["headers"]["Content-Length"]) for entry in patches(proxy)]
    assert parts[:4] == [
        ("0-299999", "300000"),
        ("300000-599999", "300000"),
        ("600000-899999", "300000"),
        ("900000-999999", "100000"),
    ]
    assert {entry["headers"]["Content-Type"] for entry in patches(proxy)} == {"application/octet-stream"}


async def test_ollamas_registry_gets_the_parts_where_it_wants_them(
    proxy: FaultProxy, server: RegistryServer, registry: Registry, store: Store, name: Name
) -> None:
    """The proxy checks the parts' hashes, as that registry does."""
    proxy.rules({"method": "PATCH", "uploads": True}, {"method": "PUT", "path": "/blobs/uploads/", "uploads": True})
    await collect(registry.push(name, store, encryption=Encryption.PREFERRED))
    assert server.blob(repository(name), digest_of(MODEL)) == MODEL
    assert {entry["headers"]["X-Redirect-Uploads"] for entry in patches(proxy)} == {"1"}
    elsewhere = [entry for entry in proxy.log() if entry["at"] == "elsewhere"]
    assert [entry["method"] for entry in elsewhere] == ["PUT"] * 6


async def test_what_the_registry_has_is_not_sent(
    proxy: FaultProxy, registry: Registry, store: Store, name: Name
) -> None:
    await collect(registry.push(name, store, encryption=Encryption.PREFERRED))
    proxy.rules()
    steps = await collect(registry.push(name, store, encryption=Encryption.PREFERRED))
    assert [(entry["method"], entry["status"]) for entry in proxy.log()] == [("HEAD", 200)] * 3 + [("PUT", 201)]
    assert [step for step in steps if step.total and step.completed] == [
        pushing(data, len(data)) for data in (MODEL, TEMPLATE, CONFIG_BYTES)
    ]


async def test_a_layer_taken_over_from_another_model_is_mounted(
    proxy: FaultProxy, server: RegistryServer, registry: Registry, store: Store, name: Name
) -> None:
    await collect(registry.push(name, store, encryption=Encryption.PREFERRED))
    heir = names.parse(f"{proxy.host}/ann/heir")
    layer = Layer(MediaType.MODEL, names.parse_digest(digest_of(MODEL)), len(MODEL), from_=str(name))
    config = Layer(MediaType.CONFIG, names.parse_digest(digest_of(CONFIG_BYTES)), len(CONFIG_BYTES))
    store.write_manifest(heir, encode_manifest(config, (layer,)))
    proxy.rules()
    await collect(registry.push(heir, store, encryption=Encryption.PREFERRED))
    assert server.blob("ann/heir", digest_of(MODEL)) == MODEL
    assert [entry["status"] for entry in proxy.log(f"mount={digest_of(MODEL)}")] == [201]
    assert f"from={repository(name)}" in proxy.log("mount=")[0]["path"]
    assert sum(int(entry["headers"]["Content-Length"]) for entry in patches(proxy)) == len(CONFIG_BYTES)


async def test_a_file_name_in_a_layer_does_not_reach_the_registry(
    proxy: FaultProxy, registry: Registry, store: Store, name: Name
) -> None:
    layer = Layer(MediaType.MODEL, names.parse_digest(digest_of(MODEL)), len(MODEL), from_="/home/ann/model.gguf")
    config = Layer(MediaType.CONFIG, names.parse_digest(digest_of(CONFIG_BYTES)), len(CONFIG_BYTES))
    store.write_manifest(name, encode_manifest(config, (layer,)))
    await collect(registry.push(name, store, encryption=Encryption.PREFERRED))
    assert proxy.log("mount") == []


@pytest.mark.parametrize(
    "fault",
    [
        {"method": "PATCH", "skip": 1, "cut_request_after": 100_000},
        {"method": "PATCH", "skip": 2, "status": 503},
        {"method": "PATCH", "status": 429, "headers": {"Retry-After": "0"}},
        {"method": "POST", "status": 502},
        {"method": "HEAD", "status": 500},
        {"method": "PUT", "path": "digest=", "status": 500},
    ],
    ids=["cut", "refused", "too-fast", "start", "look", "end"],
)
async def test_what_fails_is_tried_again(
    fault: dict[str, object], proxy: FaultProxy, server: RegistryServer, registry: Registry, store: Store, name: Name
) -> None:
    proxy.rules({"times": 1, **fault})
    steps = await collect(registry.push(name, store, encryption=Encryption.PREFERRED))
    assert server.blob(repository(name), digest_of(MODEL)) == MODEL
    completed = [step.completed for step in steps if step.digest == digest_of(MODEL)]
    assert completed == sorted(completed)


async def test_a_part_that_fails_elsewhere_is_sent_there_again(
    proxy: FaultProxy, server: RegistryServer, registry: Registry, store: Store, name: Name
) -> None:
    proxy.rules(
        {"at": "elsewhere", "skip": 1, "times": 2, "status": 500},
        {"method": "PATCH", "uploads": True},
        {"method": "PUT", "path": "/blobs/uploads/", "uploads": True},
    )
    await collect(registry.push(name, store, encryption=Encryption.PREFERRED))
    assert server.blob(repository(name), digest_of(MODEL)) == MODEL


async def test_a_push_goes_on_with_what_the_registry_took_before(
    proxy: FaultProxy, server: RegistryServer, registry: Registry, store: Store, name: Name
) -> None:
    proxy.rules({"method": "PATCH", "skip": 2, "status": 503, "body": "later"})
    with pytest.raises(SourceError, match=r"^max retries exceeded: 503: later$"):
        await collect(registry.push(name, store, encryption=Encryption.PREFERRED))
    proxy.rules()
    await collect(registry.push(name, store, encryption=Encryption.PREFERRED))
    assert server.blob(repository(name), digest_of(MODEL)) == MODEL
    assert requests(proxy) == [
        ("HEAD", "registry", 404),
        ("GET", "registry", 204),
        ("PATCH", "registry", 202),
        ("PATCH", "registry", 202),
        ("PUT", "registry", 201),
    ]
    assert patches(proxy)[0]["headers"]["Content-Range"] == "600000-899999"


async def test_two_pushes_at_once_do_not_meet(
    proxy: FaultProxy, server: RegistryServer, registry: Registry, store: Store, name: Name
) -> None:
    pushes = [collect(registry.push(name, store, encryption=Encryption.PREFERRED)) for _ in range(2)]
    for steps in await asyncio.gather(*pushes):
        assert steps[-1] == Progress("success")
    assert server.blob(repository(name), digest_of(MODEL)) == MODEL
    assert {entry["status"] for entry in patches(proxy)} == {202}


async def test_a_push_that_nobody_watches_stops(
    proxy: FaultProxy, registry: Registry, store: Store, name: Name
) -> None:
    proxy.rules({"method": "HEAD", "silent": True})
    async with aclosing(registry.push(name, store, encryption=Encryption.PREFERRED)) as steps:
        assert [await anext(steps), await anext(steps)] == [Progress("retrieving manifest"), pushing(MODEL, 0)]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_silent_registry_is_given_up(proxy: FaultProxy, tmp_path: Path, store: Store, name: Name) -> None:
    limits = TransferLimits(answer=3, retry=RetryPolicy(0))
    registry = make_registry(tmp_path, limits)
    proxy.rules({"method": "POST", "silent": True})
    with pytest.raises(SourceError, match=r"^max retries exceeded: .* no whole answer in 3 seconds$"):
        await collect(registry.push(name, store, encryption=Encryption.PREFERRED))
    await registry.close()


async def test_a_model_that_is_not_here_cannot_be_pushed(registry: Registry, store: Store) -> None:
    steps = registry.push(names.parse("127.0.0.1:9/library/nope"), store, encryption=Encryption.PREFERRED)
    assert [await anext(steps), await anext(steps)] == [
        Progress("retrieving manifest"),
        Progress("couldn't retrieve manifest"),
    ]
    with pytest.raises(StoreError) as caught:
        await anext(steps)
    path = store.root / "manifests" / "127.0.0.1:9" / "library" / "nope" / "latest"
    assert str(caught.value) == f"open {path}: no such file or directory"


async def test_a_model_with_a_missing_blob_is_not_begun(
    proxy: FaultProxy, registry: Registry, store: Store, name: Name
) -> None:
    store.blob_path(names.parse_digest(digest_of(TEMPLATE))).unlink()
    with pytest.raises(NotFound):
        await collect(registry.push(name, store, encryption=Encryption.PREFERRED))
    assert proxy.log() == []


async def test_a_registry_that_refuses_is_quoted(
    proxy: FaultProxy, registry: Registry, store: Store, name: Name
) -> None:
    proxy.rules({"method": "PUT", "path": "/manifests/", "status": 403, "body": "not \x1b[31myours\n"})
    with pytest.raises(CorralError) as caught:
        await collect(registry.push(name, store, encryption=Encryption.PREFERRED))
    assert str(caught.value) == "403: not \ufffd[31myours"


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 503},
        {"status": 429, "headers": {"Retry-After": "0"}},
        {"status": 400, "body": '{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry"}]}'},
    ],
)
async def test_a_manifest_is_put_again_where_that_may_help(
    proxy: FaultProxy, server: RegistryServer, registry: Registry, store: Store, name: Name, answer: dict[str, Any]
) -> None:
    proxy.rules({"method": "PUT", "path": "/manifests/", "times": 2, **answer})
    steps = await collect(registry.push(name, store, encryption=Encryption.PREFERRED))
    assert steps[-1] == Progress("success")
    assert server.manifest(repository(name), name.tag) == store.manifest(name).manifest.raw


async def test_a_registry_that_stays_without_a_blob_is_quoted(
    proxy: FaultProxy, registry: Registry, store: Store, name: Name
) -> None:
    proxy.rules({"method": "PUT", "path": "/manifests/", "status": 404, "body": "MANIFEST_BLOB_UNKNOWN"})
    with pytest.raises(SourceError, match=r"^max retries exceeded: 404: MANIFEST_BLOB_UNKNOWN$"):
        await collect(registry.push(name, store, encryption=Encryption.PREFERRED))


async def test_a_registry_may_not_send_uploads_out_of_the_web(
    proxy: FaultProxy, registry: Registry, store: Store, name: Name
) -> None:
    proxy.rules({"method": "POST", "status": 202, "headers": {"Location": "file:///tmp/x"}})
    with pytest.raises(SourceError, match=r'redirects to "file:///tmp/x", which is no web address$'):
        await collect(registry.push(name, store, encryption=Encryption.PREFERRED))


def patches(proxy: FaultProxy) -> list[dict[str, Any]]:
    return [entry for entry in proxy.log() if entry["method"] == "PATCH"]
