"""Pulling from a real registry, as it is and through a proxy that breaks things."""

import asyncio
import itertools
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from corral import names
from corral.errors import NotPublished, SourceError, Unreachable
from corral.messages import Progress
from corral.names import Name
from corral.sources.registry import Encryption, Registry, RetryPolicy, TransferLimits
from corral.sources.registry.ledger import arrived
from corral.store import PruneReport, Store, disk
from tests.registry import (
    CONFIG_BYTES,
    FaultProxy,
    RegistryServer,
    digest_of,
    noise,
)
from tests.transfers import collect, make_registry, tiny

pytest_plugins = ("tests.registry_fixtures",)

MODEL = noise(3_000_000, 1)
LIMITS = TransferLimits(
    part_bytes=1_000_000,
    slice_bytes=250_000,
    write_bytes=20_000,
    checkpoint_bytes=50_000,
    connections=4,
    retry=RetryPolicy(3, 0.01),
    stall=5,
)


@pytest.fixture(scope="module", autouse=True)
def model(server: RegistryServer) -> None:
    server.put_model("library/tiny", "latest", model=MODEL, template=b"{{ .Prompt }}")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    registry = make_registry(tmp_path, LIMITS)
    yield registry
    await registry.close()


async def until(steps: AsyncGenerator[Progress, None], completed: int) -> Progress:
    """Iterates until so many bytes of a blob are reported."""
    async for step in steps:
        if step.completed >= completed and step.total:
            return step
    raise AssertionError("the pull ended before")


def ends(steps: list[Progress]) -> list[Progress]:
    """The steps without those in the middle of a blob."""
    return [step for step in steps if step.completed in (0, step.total)]


def pulling(data: bytes, completed: int | None = None) -> Progress:
    digest = digest_of(data)
    return Progress(f"pulling {digest[7:19]}", digest, len(data), len(data) if completed is None else completed)


def blob(store: Store, data: bytes) -> bytes:
    return store.blob_path(names.parse_digest(digest_of(data))).read_bytes()


def files(store: Store) -> list[str]:
    return sorted(path.name for path in store.root.rglob("*") if path.is_file())


async def test_pull_brings_a_model_byte_for_byte(server: RegistryServer, registry: Registry, store: Store) -> None:
    steps = await collect(registry.pull(tiny(server), store, encryption=Encryption.PREFERRED))
    template = b"{{ .Prompt }}"
    assert list(dict.fromkeys(ends(steps))) == [
        Progress("pulling manifest"),
        *(pulling(data, completed) for data in (MODEL, template, CONFIG_BYTES) for completed in (0, len(data))),
        Progress("verifying sha256 digest"),
        Progress("writing manifest"),
        Progress("success"),
    ]
    assert store.manifest(tiny(server)).manifest.raw == server.manifest("library/tiny", "latest")
    assert [blob(store, data) for data in (MODEL, template, CONFIG_BYTES)] == [MODEL, template, CONFIG_BYTES]
    assert len(files(store)) == 4


async def test_pull_of_what_is_there_fetches_only_the_manifest(
    proxy: FaultProxy, registry: Registry, store: Store
) -> None:
    await collect(registry.pull(tiny(proxy), store, encryption=Encryption.PREFERRED))
    proxy.rules()
    steps = await collect(registry.pull(tiny(proxy), store, encryption=Encryption.PREFERRED))
    assert steps == [
        Progress("pulling manifest"),
        *(pulling(data) for data in (MODEL, b"{{ .Prompt }}", CONFIG_BYTES)),
        Progress("verifying sha256 digest"),
        Progress("writing manifest"),
        Progress("success"),
    ]
    assert [(entry["method"], entry["path"]) for entry in proxy.log()] == [("GET", "/v2/library/tiny/manifests/latest")]


async def test_requests_say_who_we_are_and_ask_for_plain_bytes(
    proxy: FaultProxy, registry: Registry, store: Store
) -> None:
    await collect(registry.pull(tiny(proxy), store, encryption=Encryption.PREFERRED))
    for entry in proxy.log():
        agent = entry["headers"]["User-Agent"].split()
        assert agent[0].startswith("ollama/0.")
        assert agent[-1].startswith("corral/")
        assert entry["headers"]["Accept-Encoding"] == "identity"
    accepted = proxy.log("/manifests/")[0]["headers"]["Accept"]
    assert accepted == "application/vnd.docker.distribution.manifest.v2+json"


async def test_blobs_come_in_slices_from_where_the_registry_sends_us(
    proxy: FaultProxy, registry: Registry, store: Store
) -> None:
    proxy.rules({"path": "/blobs/", "at": "registry", "redirect": "elsewhere"})
    await collect(registry.pull(tiny(proxy), store, encryption=Encryption.PREFERRED))
    assert blob(store, MODEL) == MODEL
    log = proxy.log(digest_of(MODEL))
    assert [entry["status"] for entry in log if entry["at"] == "registry"] == [307]
    ranges = sorted(entry["range"] for entry in log if entry["at"] == "elsewhere")
    assert ranges == sorted(f"bytes={start}-{start + 249_999}" for start in range(0, 3_000_000, 250_000))


async def test_a_registry_may_name_the_place_in_a_good_answer(
    proxy: FaultProxy, registry: Registry, store: Store
) -> None:
    path = f"/v2/library/tiny/blobs/{digest_of(MODEL)}"
    proxy.rules({"path": path, "at": "registry", "status": 200, "headers": {"Location": proxy.elsewhere + path}})
    await collect(registry.pull(tiny(proxy), store, encryption=Encryption.PREFERRED))
    assert blob(store, MODEL) == MODEL


async def test_a_registry_that_names_itself_in_a_good_answer_is_not_asked_again(
    proxy: FaultProxy, registry: Registry, store: Store
) -> None:
    path = f"/v2/library/tiny/blobs/{digest_of(MODEL)}"
    proxy.rules({"path": path, "ignore_range": True, "headers": {"Location": path}})
    await collect(registry.pull(tiny(proxy), store, encryption=Encryption.PREFERRED))
    assert blob(store, MODEL) == MODEL
    assert len(proxy.log(path)) == 1


async def test_progress_never_goes_back(proxy: FaultProxy, registry: Registry, store: Store) -> None:
    proxy.rules(
        {"path": "/blobs/", "cut_after": 100_000, "times": 3},
        {"path": "/blobs/", "skip": 2, "times": 3, "status": 500},
    )
    steps = await collect(registry.pull(tiny(proxy), store, encryption=Encryption.PREFERRED))
    completed = [step.completed for step in steps if step.digest == digest_of(MODEL)]
    assert completed == sorted(completed)
    assert completed[-1] == len(MODEL)
    assert blob(store, MODEL) == MODEL


@pytest.mark.parametrize(
    "fault",
    [
        {"cut_after": 70_000},
        {"status": 500},
        {"status": 503, "headers": {"Retry-After": "0"}},
        {"ignore_range": True, "skip": 1},
        {"cut_after": 0},
    ],
    ids=lambda fault: "-".join(fault),
)
async def test_a_slice_that_fails_is_fetched_again(
    fault: dict[str, object], proxy: FaultProxy, registry: Registry, store: Store
) -> None:
    proxy.rules({"path": "/blobs/", "times": 2, **fault})
    await collect(registry.pull(tiny(proxy), store, encryption=Encryption.PREFERRED))
    assert blob(store, MODEL) == MODEL


async def test_what_arrived_of_a_slice_is_not_fetched_again(proxy: FaultProxy, tmp_path: Path, store: Store) -> None:
    registry = make_registry(tmp_path, TransferLimits(slice_bytes=750_000, stall=2, connections=4))
    proxy.rules({"path": digest_of(MODEL), "stall_after": 400_000})
    await collect(registry.pull(tiny(proxy), store, encryption=Encryption.PREFERRED))
    assert blob(store, MODEL) == MODEL
    assert proxy.sent(digest_of(MODEL)) == len(MODEL)
    await registry.close()


async def test_a_registry_that_gives_less_than_asked_is_asked_for_the_rest(
    proxy: FaultProxy, registry: Registry, store: Store
) -> None:
    proxy.rules({"path": digest_of(MODEL), "times": 1, "with": {"Range": "bytes=0-99999"}})
    await collect(registry.pull(tiny(proxy), store, encryption=Encryption.PREFERRED))
    assert [entry["range"] for entry in proxy.log(digest_of(MODEL))].count("bytes=100000-249999") == 1
    assert blob(store, MODEL) == MODEL
    assert proxy.sent(digest_of(MODEL)) == len(MODEL)


async def test_machines_that_serve_one_name_may_have_their_own_words_for_a_file(
    proxy: FaultProxy, registry: Registry, store: Store
) -> None:
    """The digest says what a blob is, not a tag that each machine makes up."""
    proxy.rules({"path": digest_of(MODEL), "skip": 1, "times": 3, "headers": {"ETag": '"other"'}})
    await collect(registry.pull(tiny(proxy), store, encryption=Encryption.PREFERRED))
    assert blob(store, MODEL) == MODEL


async def test_a_silent_connection_is_replaced(proxy: FaultProxy, tmp_path: Path, store: Store) -> None:
    registry = make_registry(tmp_path, TransferLimits(slice_bytes=250_000, stall=0.2, retry=RetryPolicy(pause=0.01)))
    proxy.rules({"path": digest_of(MODEL), "stall_after": 64 << 10, "times": 2})
    await collect(registry.pull(tiny(proxy), store, encryption=Encryption.PREFERRED))
    assert blob(store, MODEL) == MODEL
    await registry.close()


async def test_a_registry_that_stays_silent_is_given_up(proxy: FaultProxy, tmp_path: Path, store: Store) -> None:
    registry = make_registry(tmp_path, TransferLimits(slice_bytes=250_000, stall=0.05, silence=0.15))
    proxy.rules({"path": digest_of(MODEL), "stall_after": 0})
    with pytest.raises(SourceError, match=r"^download stalled: no data for 0\.15 s$"):
        await collect(registry.pull(tiny(proxy), store, encryption=Encryption.PREFERRED))
    await registry.close()


@pytest.mark.parametrize("path", ["/manifests/", digest_of(MODEL)])
async def test_a_registry_is_left_alone_for_as_long_as_it_asks(
    path: str, proxy: FaultProxy, registry: Registry, store: Store
) -> None:
    proxy.rules({"path": path, "times": 1, "status": 429, "headers": {"Retry-After": "1"}})
    await collect(registry.pull(tiny(proxy), store, encryption=Encryption.PREFERRED))
    first, second = proxy.log(path)[:2]
    assert second["time"] - first["time"] >= 1


async def test_a_slice_is_tried_so_often_and_no_more(proxy: FaultProxy, registry: Registry, store: Store) -> None:
    proxy.rules({"path": digest_of(MODEL), "status": 500, "body": "out of order\n"})
    with pytest.raises(SourceError, match=r"^max retries exceeded: 500: out of order$"):
        await collect(registry.pull(tiny(proxy), store, encryption=Encryption.PREFERRED))
    assert len(proxy.log(digest_of(MODEL))) == 1 + LIMITS.retry.attempts
    assert files(store) == []


async def test_an_address_that_has_expired_is_asked_for_again(proxy: FaultProxy, tmp_path: Path, store: Store) -> None:
    limits = TransferLimits(slice_bytes=250_000, connections=1, retry=RetryPolicy(pause=0.01))
    registry = make_registry(tmp_path, limits)
    proxy.rules(
        {"path": "/blobs/", "at": "registry", "redirect": "elsewhere"},
        {"path": digest_of(MODEL), "at": "elsewhere", "skip": 1, "times": 1, "status": 403},
    )
    await collect(registry.pull(tiny(proxy), store, encryption=Encryption.PREFERRED))
    assert blob(store, MODEL) == MODEL
    assert [entry["status"] for entry in proxy.log(digest_of(MODEL)) if entry["at"] == "registry"] == [307, 307]
    await registry.close()


async def test_a_registry_without_ranges_will_do(proxy: FaultProxy, registry: Registry, store: Store) -> None:
    proxy.rules({"path": "/blobs/", "ignore_range": True, "headers": {"Content-Length": None}})
    await collect(registry.pull(tiny(proxy), store, encryption=Encryption.PREFERRED))
    assert blob(store, MODEL) == MODEL
    assert proxy.sent(digest_of(MODEL)) == len(MODEL)


async def test_a_registry_without_ranges_that_breaks_off_is_skipped_over(
    proxy: FaultProxy, registry: Registry, store: Store
) -> None:
    proxy.rules(
        {"path": digest_of(MODEL), "ignore_range": True, "cut_after": 1_000_000, "times": 1},
        {"path": digest_of(MODEL), "ignore_range": True},
    )
    steps = await collect(registry.pull(tiny(proxy), store, encryption=Encryption.PREFERRED))
    assert blob(store, MODEL) == MODEL
    completed = [step.completed for step in steps if step.digest == digest_of(MODEL)]
    assert completed == sorted(completed)


async def test_a_pull_that_stops_keeps_what_has_arrived(proxy: FaultProxy, registry: Registry, store: Store) -> None:
    proxy.rules({"path": digest_of(MODEL), "hold_at": 1_500_000})
    async with aclosing(registry.pull(tiny(proxy), store, encryption=Encryption.PREFERRED)) as steps:
        step = await until(steps, 1_000_000)
    partial = f"sha256-{digest_of(MODEL)[7:]}-partial"
    assert files(store) == [partial, *(f"{partial}-{number}" for number in range(3))]

    proxy.rules()
    again = registry.pull(tiny(proxy), store, encryption=Encryption.PREFERRED)
    assert (await until(again, 0)).completed >= step.completed
    await collect(again)
    assert blob(store, MODEL) == MODEL
    assert proxy.sent(digest_of(MODEL)) <= len(MODEL) - step.completed
    assert partial not in files(store)


async def test_a_senseless_answer_on_the_way_costs_nothing_that_has_arrived(
    proxy: FaultProxy, registry: Registry, store: Store
) -> None:
    """As the page that a network's gate shows in the place of everything."""
    proxy.rules({"path": digest_of(MODEL), "skip": 8, "status": 200, "body": "please log in"})
    with pytest.raises(SourceError, match=r'" has 13 bytes, 3000000 were announced$'):
        await collect(registry.pull(tiny(proxy), store, encryption=Encryption.PREFERRED))
    kept = arrived(store.blob_path(names.parse_digest(digest_of(MODEL))), len(MODEL))
    assert kept > 0
    proxy.rules()
    await collect(registry.pull(tiny(proxy), store, encryption=Encryption.PREFERRED))
    assert blob(store, MODEL) == MODEL
    assert proxy.sent(digest_of(MODEL)) == len(MODEL) - kept


async def test_a_download_that_ollama_finishes_meanwhile_is_taken_as_it_is(
    proxy: FaultProxy, registry: Registry, store: Store
) -> None:
    """It claims no file, so both may be at work on one: the bytes are the same, and the first one renames it."""
    proxy.rules({"path": digest_of(MODEL), "hold_at": 500_000})
    pull = asyncio.create_task(collect(registry.pull(tiny(proxy), store, encryption=Encryption.PREFERRED)))
    await asyncio.to_thread(proxy.wait_until_held)
    path = store.blob_path(names.parse_digest(digest_of(MODEL)))
    path.with_name(f"{path.name}-partial").rename(path)
    proxy.release()
    assert (await pull)[-1] == Progress("success")
    assert blob(store, MODEL) == MODEL
    assert [name for name in files(store) if "partial" in name] == []


async def test_the_ledger_is_one_that_ollama_reads(proxy: FaultProxy, registry: Registry, store: Store) -> None:
    proxy.rules({"path": digest_of(MODEL), "hold_at": 1_500_000})
    async with aclosing(registry.pull(tiny(proxy), store, encryption=Encryption.PREFERRED)) as steps:
        await until(steps, 1_000_000)
    partial = store.blobs_folder / f"sha256-{digest_of(MODEL)[7:]}-partial"
    data = partial.read_bytes()
    assert len(data) == len(MODEL)
    arrived = 0
    for number in range(3):
        ledger = json.loads(partial.with_name(f"{partial.name}-{number}").read_text())
        assert (ledger["N"], ledger["Offset"], ledger["Size"]) == (number, number * 1_000_000, 1_000_000)
        for start, end in ([ledger["Offset"], ledger["Offset"] + ledger["Completed"]], *ledger["Ranges"]):
            assert data[start:end] == MODEL[start:end]
            arrived += end - start
    assert arrived >= 1_000_000


async def test_pull_resumes_a_download_of_ollamas(proxy: FaultProxy, registry: Registry, store: Store) -> None:
    partial = store.blobs_folder / f"sha256-{digest_of(MODEL)[7:]}-partial"
    partial.parent.mkdir(parents=True)
    data = bytearray(len(MODEL))
    for number, completed in enumerate((2_000_000, 400_000)):
        offset = number * 2_000_000
        data[offset : offset + completed] = MODEL[offset : offset + completed]
        ledger = {"N": number, "Offset": offset, "Size": 2_000_000 - number * 1_000_000, "Completed": completed}
        partial.with_name(f"{partial.name}-{number}").write_text(json.dumps(ledger) + "\n")
    partial.write_bytes(data)
    steps = await collect(registry.pull(tiny(proxy), store, encryption=Encryption.PREFERRED))
    assert next(step for step in steps if step.total) == pulling(MODEL, 2_400_000)
    assert blob(store, MODEL) == MODEL
    assert proxy.sent(digest_of(MODEL)) == 600_000


async def test_two_pulls_of_a_blob_share_one_transfer(proxy: FaultProxy, registry: Registry, store: Store) -> None:
    proxy.rules({"path": digest_of(MODEL), "hold_at": 500_000})
    first = asyncio.create_task(collect(registry.pull(tiny(proxy), store, encryption=Encryption.PREFERRED)))
    await asyncio.to_thread(proxy.wait_until_held)
    second = registry.pull(tiny(proxy), store, encryption=Encryption.PREFERRED)
    await until(second, 0)
    proxy.release()
    await asyncio.gather(first, collect(second))
    assert proxy.sent(digest_of(MODEL)) == len(MODEL)


async def test_a_transfer_goes_on_until_its_last_waiter_has_gone(
    proxy: FaultProxy, registry: Registry, store: Store
) -> None:
    proxy.rules({"path": digest_of(MODEL), "hold_at": 500_000})
    first = registry.pull(tiny(proxy), store, encryption=Encryption.PREFERRED)
    await until(first, 0)
    second = registry.pull(tiny(proxy), store, encryption=Encryption.PREFERRED)
    await until(second, 0)
    await asyncio.to_thread(proxy.wait_until_held)
    await first.aclose()
    proxy.release()
    await collect(second)
    assert blob(store, MODEL) == MODEL
    assert proxy.sent(digest_of(MODEL)) == len(MODEL)


async def test_two_processes_on_one_store_take_turns(
    proxy: FaultProxy, registry: Registry, store: Store, tmp_path: Path
) -> None:
    other = make_registry(tmp_path, LIMITS)  # shares nothing with the first but the files
    proxy.rules({"path": digest_of(MODEL), "hold_at": 500_000})
    first = asyncio.create_task(collect(registry.pull(tiny(proxy), store, encryption=Encryption.PREFERRED)))
    await asyncio.to_thread(proxy.wait_until_held)
    second = other.pull(tiny(proxy), store, encryption=Encryption.PREFERRED)
    await until(second, 1)  # what it reports is the other's progress
    proxy.release()
    await asyncio.gather(first, collect(second))
    assert blob(store, MODEL) == MODEL
    assert proxy.sent(digest_of(MODEL)) == len(MODEL)
    await other.close()


async def test_one_registrys_failure_is_not_anothers(
    proxy: FaultProxy, server: RegistryServer, registry: Registry, store: Store
) -> None:
    """Both pulls want the same bytes; the transfer they share is from the registry that fails."""
    proxy.rules(
        {"path": digest_of(MODEL), "hold_at": 0, "times": 1},
        {"path": digest_of(MODEL), "status": 403},
    )
    first = asyncio.create_task(collect(registry.pull(tiny(proxy), store, encryption=Encryption.PREFERRED)))
    await asyncio.to_thread(proxy.wait_until_held)
    second = registry.pull(tiny(server), store, encryption=Encryption.PREFERRED)
    await until(second, 0)
    proxy.release()
    with pytest.raises(SourceError, match=r"^403: Forbidden$"):
        await first
    await collect(second)
    assert blob(store, MODEL) == MODEL


async def test_a_layer_that_goes_with_another_model_meanwhile_is_fetched(
    proxy: FaultProxy, registry: Registry, store: Store
) -> None:
    proxy.put_model("library/other", "latest", license=b"the same", model=b"of its own")
    proxy.put_model("library/mine", "latest", license=b"the same", model=MODEL)
    other, mine = (names.parse(f"{proxy.host}/library/{model}") for model in ("other", "mine"))
    await collect(registry.pull(other, store, encryption=Encryption.PREFERRED))
    proxy.rules({"path": digest_of(MODEL), "hold_at": 500_000})
    pull = asyncio.create_task(collect(registry.pull(mine, store, encryption=Encryption.PREFERRED)))
    await asyncio.to_thread(proxy.wait_until_held)
    store.delete(other)
    proxy.release()
    steps = [step for step in await pull if step.completed == step.total and step.status != pulling(MODEL).status]
    kept, config = pulling(b"the same"), pulling(CONFIG_BYTES)
    ending = [Progress("verifying sha256 digest"), Progress("writing manifest")]
    assert [step for step, _ in itertools.groupby(steps)] == [
        Progress("pulling manifest"), kept, config, *ending, kept, config, *ending, Progress("success"),
    ]  # fmt: skip
    assert blob(store, b"the same") == b"the same"


async def test_what_has_arrived_of_a_model_is_kept_from_prunes_until_the_rest_is_there(
    proxy: FaultProxy, registry: Registry, store: Store
) -> None:
    first = noise(100_000, 9)
    proxy.put_model("library/long", "latest", projector=first, model=MODEL)
    name = names.parse(f"{proxy.host}/library/long")
    proxy.rules({"path": digest_of(MODEL), "hold_at": 600_000})
    async with aclosing(registry.pull(name, store, encryption=Encryption.PREFERRED)) as steps:
        await until(steps, 200_000)
    for path in store.root.rglob("sha256-*"):
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 24 * 3600))
    assert store.prune() == PruneReport()
    proxy.rules()
    await collect(registry.pull(name, store, encryption=Encryption.PREFERRED))
    assert proxy.sent(digest_of(first)) == 0
    assert not (store.root / "expected").exists()

    store.keep_for(store.manifest(name).manifest)
    store.delete(name, prune=False)
    for path in store.root.rglob("sha256-*"):
        os.utime(path, (0, 0))
    assert store.prune().deleted_blobs == 3, "after a time it counts as given up"
    assert not (store.root / "expected").exists()
    assert files(store) == []


# Several layers at once

SMALL = {f"part{number}": noise(200_000, 20 + number) for number in range(6)}
"""Layers of one slice each, more than there are connections."""


@pytest.fixture
def many(proxy: FaultProxy) -> Name:
    """A model of small layers."""
    proxy.put_model("library/many", "latest", **SMALL)
    return names.parse(f"{proxy.host}/library/many")


def asked_for(proxy: FaultProxy) -> list[str]:
    return [entry["path"].rpartition("/")[2] for entry in proxy.log("/blobs/")]


async def test_small_layers_are_fetched_side_by_side_and_reported_in_order(
    proxy: FaultProxy, registry: Registry, store: Store, many: Name
) -> None:
    """No answer goes on before four requests are there: one after the other, they would never be."""
    proxy.rules({"path": "/blobs/", "hold_after": 0})
    pull = asyncio.create_task(collect(registry.pull(many, store, encryption=Encryption.PREFERRED)))
    await asyncio.to_thread(proxy.wait_until_held, LIMITS.connections)
    assert sorted(asked_for(proxy)) == sorted(map(digest_of, list(SMALL.values())[: LIMITS.connections]))
    proxy.release()
    assert list(dict.fromkeys(ends(await pull))) == [
        Progress("pulling manifest"),
        *(pulling(data, completed) for data in (*SMALL.values(), CONFIG_BYTES) for completed in (0, len(data))),
        Progress("verifying sha256 digest"),
        Progress("writing manifest"),
        Progress("success"),
    ]
    assert [blob(store, data) for data in SMALL.values()] == list(SMALL.values())


async def test_a_large_layer_has_all_connections_to_itself(proxy: FaultProxy, registry: Registry, store: Store) -> None:
    proxy.put_model("library/mixed", "latest", license=b"before it", model=MODEL, template=b"after it")
    proxy.rules({"path": digest_of(MODEL), "hold_after": 0})
    name = names.parse(f"{proxy.host}/library/mixed")
    pull = asyncio.create_task(collect(registry.pull(name, store, encryption=Encryption.PREFERRED)))
    await asyncio.to_thread(proxy.wait_until_held, LIMITS.connections)
    assert asked_for(proxy) == [digest_of(b"before it")] + [digest_of(MODEL)] * LIMITS.connections
    proxy.release()
    await pull
    assert [blob(store, data) for data in (b"before it", MODEL, b"after it")] == [b"before it", MODEL, b"after it"]


async def test_a_layer_that_fails_stops_the_others_which_keep_what_has_arrived(
    proxy: FaultProxy, registry: Registry, store: Store, many: Name
) -> None:
    first, second, *_ = SMALL.values()
    proxy.rules(
        {"path": digest_of(second), "hold": True, "status": 403},
        {"path": digest_of(first), "stall_after": 100_000},
        {"path": "/blobs/", "hold_after": 0},
    )
    steps = registry.pull(many, store, encryption=Encryption.PREFERRED)
    await until(steps, LIMITS.write_bytes)
    await asyncio.to_thread(proxy.wait_until_held, LIMITS.connections)
    proxy.release()
    with pytest.raises(SourceError, match=r"^403: Forbidden$"):
        await collect(steps)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    kept = arrived(store.blob_path(names.parse_digest(digest_of(first))), len(first))
    assert LIMITS.write_bytes <= kept <= 100_000
    assert store.list() == []

    proxy.rules()
    await collect(registry.pull(many, store, encryption=Encryption.PREFERRED))
    assert [blob(store, data) for data in SMALL.values()] == list(SMALL.values())
    assert proxy.sent(digest_of(first)) == len(first) - kept
    assert [name for name in files(store) if "partial" in name] == []


async def test_a_pull_that_is_cancelled_stops_all_its_layers(
    proxy: FaultProxy, registry: Registry, store: Store, many: Name
) -> None:
    proxy.rules({"path": "/blobs/", "hold_after": 0})
    pull = asyncio.create_task(collect(registry.pull(many, store, encryption=Encryption.PREFERRED)))
    await asyncio.to_thread(proxy.wait_until_held, LIMITS.connections)
    pull.cancel()
    await asyncio.wait((pull,))
    assert asyncio.all_tasks() == {asyncio.current_task()}
    proxy.rules()
    await collect(registry.pull(many, store, encryption=Encryption.PREFERRED))
    assert [blob(store, data) for data in SMALL.values()] == list(SMALL.values())


async def test_two_pulls_share_the_layers_they_have_in_common(
    proxy: FaultProxy, registry: Registry, store: Store, many: Name
) -> None:
    proxy.rules({"path": "/blobs/", "hold_after": 0})
    first = asyncio.create_task(collect(registry.pull(many, store, encryption=Encryption.PREFERRED)))
    await asyncio.to_thread(proxy.wait_until_held, LIMITS.connections)
    second = registry.pull(many, store, encryption=Encryption.PREFERRED)
    await until(second, 0)
    proxy.release()
    await asyncio.gather(first, collect(second))
    assert all(proxy.sent(digest_of(data)) == len(data) for data in SMALL.values())


async def test_a_layer_named_twice_is_fetched_once(proxy: FaultProxy, registry: Registry, store: Store) -> None:
    proxy.put_model("library/twice", "latest", model=b"the same", projector=b"the same")
    proxy.rules()
    steps = await collect(
        registry.pull(names.parse(f"{proxy.host}/library/twice"), store, encryption=Encryption.PREFERRED)
    )
    assert steps[-1] == Progress("success")
    assert len(proxy.log(digest_of(b"the same"))) == 1


# Around the transfer


async def test_layers_that_a_new_manifest_leaves_behind_are_removed(
    server: RegistryServer, registry: Registry, store: Store
) -> None:
    name = names.parse(f"{server.host}/library/changing")
    server.put_model("library/changing", "latest", model=b"old")
    await collect(registry.pull(name, store, encryption=Encryption.PREFERRED))
    server.put_model("library/changing", "latest", model=b"new")
    steps = await collect(registry.pull(name, store, encryption=Encryption.PREFERRED))
    assert [step.status for step in steps][-3:] == ["writing manifest", "removing unused layers", "success"]
    assert not store.has_blob(names.parse_digest(digest_of(b"old")))
    server.put_model("library/changing", "latest", model=b"newer")
    steps = await collect(registry.pull(name, store, encryption=Encryption.PREFERRED, prune=False))
    assert [step.status for step in steps][-2:] == ["writing manifest", "success"]
    assert store.has_blob(names.parse_digest(digest_of(b"new")))


async def test_nobody_at_home_is_said_as_clients_know_it(registry: Registry, store: Store) -> None:
    expected = (
        'pull model manifest: Get "http://127.0.0.1:9/v2/library/x/manifests/latest": '
        "dial tcp 127.0.0.1:9: connect: connection refused"
    )
    steps = registry.pull(names.parse("127.0.0.1:9/library/x"), store, encryption=Encryption.PREFERRED)
    assert await anext(steps) == Progress("pulling manifest")
    with pytest.raises(Unreachable) as caught:
        await anext(steps)
    assert str(caught.value) == expected


async def test_a_model_that_is_not_there_is_said_as_clients_know_it(
    server: RegistryServer, registry: Registry, store: Store
) -> None:
    with pytest.raises(NotPublished, match=r"^pull model manifest: file does not exist$"):
        await collect(registry.pull(names.parse(f"{server.host}/library/nope"), store, encryption=Encryption.PREFERRED))


async def test_a_pull_may_be_given_up_while_it_opens_its_files(
    proxy: FaultProxy, registry: Registry, store: Store
) -> None:
    """The claim on the partial file is given back, or the last pull would wait for ever."""
    proxy.rules({"path": digest_of(MODEL), "silent": True})
    partial = store.blobs_folder / f"sha256-{digest_of(MODEL)[7:]}-partial"
    for turns in range(120):
        partial.unlink(missing_ok=True)
        pull = asyncio.create_task(collect(registry.pull(tiny(proxy), store, encryption=Encryption.PREFERRED)))
        while not partial.exists():  # noqa: ASYNC110 (a file has no event)
            await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        pull.cancel()
        await asyncio.wait((pull,))
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert not disk.is_claimed(partial)
    proxy.rules()
    async with asyncio.timeout(30):
        await collect(registry.pull(tiny(proxy), store, encryption=Encryption.PREFERRED))
    assert blob(store, MODEL) == MODEL


async def test_closing_stops_what_is_under_way(proxy: FaultProxy, tmp_path: Path, store: Store) -> None:
    registry = make_registry(tmp_path, LIMITS)
    proxy.rules({"path": digest_of(MODEL), "hold_at": 500_000})
    pulls = [
        asyncio.create_task(collect(registry.pull(tiny(proxy), store, encryption=Encryption.PREFERRED))),
        asyncio.create_task(collect(registry.pull(tiny(proxy), store, encryption=Encryption.PREFERRED))),
    ]
    await asyncio.to_thread(proxy.wait_until_held)
    await registry.close()
    for result in await asyncio.gather(*pulls, return_exceptions=True):
        assert isinstance(result, SourceError)
        assert str(result) == "the download was stopped"
    assert f"sha256-{digest_of(MODEL)[7:]}-partial" in files(store)


async def test_a_blob_whose_file_was_changed_is_fetched(
    proxy: FaultProxy, registry: Registry, store: Store, tmp_path: Path
) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(MODEL)
    await asyncio.to_thread(store.adopt, file)
    with file.open("r+b") as shared:
        shared.write(b"changed")
    await collect(registry.pull(tiny(proxy), store, encryption=Encryption.PREFERRED))
    assert blob(store, MODEL) == MODEL
    assert file.read_bytes()[:7] == b"changed"
