"""A pull that is killed, or finds the disk full, and ends in the right bytes without fetching them twice."""

import itertools
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral import names
from corral.sources.registry import ledger
from corral.store import Store
from tests.registry import FaultProxy, digest_of, noise, running_proxy, running_registry

MODEL = noise(32_000_000, 4)
SMALL = {f"part{number}": noise(240_000, 40 + number) for number in range(6)}
PART = 2_000_000
CONNECTIONS = 4
KILLS = 5

PULL = f"""
import asyncio, resource, signal, sys
from contextlib import aclosing
from pathlib import Path
from corral import names
from corral.errors import DiskFull
from corral.sources.registry import Encryption, Registry, TransferLimits
from corral.store import Store

async def pull(name, folder, room):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = TransferLimits(
        part_bytes={PART}, slice_bytes=250_000, connections={CONNECTIONS}, write_bytes=100_000, checkpoint_bytes=250_000
    )
    registry = Registry(docker_config=folder / "none", key_folder=folder, limits=limits)
    async with aclosing(registry.pull(names.parse(name), Store(folder), encryption=Encryption.PREFERRED)) as steps:
        async for step in steps:
            if step.total:
                print(step.digest, step.completed, flush=True)
                if room:  # from here on, as on a full disk, nothing can be written further back
                    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    await registry.close()

try:
    asyncio.run(pull(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
except DiskFull as error:
    sys.exit(str(error))
"""


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultProxy]:
    with running_registry(tmp_path_factory.mktemp("registry")) as server, running_proxy(server.url) as proxy:
        server.put_model("library/big", "latest", model=MODEL)
        server.put_model("library/many", "latest", **SMALL)
        yield proxy


def test_a_pull_that_is_killed_loses_less_than_a_part(proxy: FaultProxy, tmp_path: Path) -> None:
    """What comes after a restart, and what the proxy has sent in all, both say how much was lost."""
    moments = random.Random(1)
    store = Store(tmp_path / "models")
    kept = sent = 0
    for _ in range(KILLS):
        moment = moments.randrange(2 * PART, len(MODEL) // (KILLS + 1))
        proxy.rules({"path": digest_of(MODEL), "hold_at": moment})
        with start(proxy, store) as process:
            proxy.wait_until_held()
            wait_until_noted(process, store, kept + moment - PART)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        kept = noted(store)
        sent += proxy.sent(digest_of(MODEL))
    proxy.rules()
    completed = completed_by(proxy, store)
    assert store.open_path(names.parse_digest(digest_of(MODEL))).read_bytes() == MODEL
    assert completed == sorted(completed)
    assert completed[0] == kept >= sent - KILLS * PART
    assert proxy.sent(digest_of(MODEL)) == len(MODEL) - kept
    assert [path.name for path in store.blobs_folder.glob("*-partial*")] == []


def test_a_pull_of_many_layers_that_is_killed_goes_on_with_each_of_them(proxy: FaultProxy, tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    begun = list(SMALL.values())[:CONNECTIONS]
    proxy.rules({"path": "/blobs/", "hold_after": 200_000})
    with start(proxy, store, model="many") as process:
        proxy.wait_until_held(CONNECTIONS)
        assert process.stdout is not None
        assert any(all(noted(store, data) for data in begun) for _ in itertools.islice(process.stdout, 2000))
        process.send_signal(signal.SIGKILL)
    kept = {data: noted(store, data) for data in SMALL.values()}
    proxy.rules()
    with start(proxy, store, model="many") as process:
        process.communicate()
    assert process.returncode == 0
    for data, size in kept.items():
        assert store.open_path(names.parse_digest(digest_of(data))).read_bytes() == data
        assert proxy.sent(digest_of(data)) == len(data) - size
    assert [path.name for path in store.blobs_folder.glob("*-partial*")] == []


def completed_by(proxy: FaultProxy, store: Store) -> list[int]:
    """How many bytes of the large layer there were at each step of a pull that ends well."""
    with start(proxy, store) as process:
        output, _ = process.communicate()
    assert process.returncode == 0
    lines = [line.split() for line in output.splitlines()]
    return [int(completed) for digest, completed in lines if digest == digest_of(MODEL)]


def noted(store: Store, data: bytes = MODEL) -> int:
    """How many bytes of a layer the ledgers say have arrived."""
    return ledger.arrived(store.blob_path(names.parse_digest(digest_of(data))), len(data))


def wait_until_noted(process: "subprocess.Popen[str]", store: Store, least: int) -> None:
    """What was sent still has to arrive, and to be written down; it says every few moments how far it is."""
    assert process.stdout is not None
    assert any(noted(store) >= least for _ in itertools.islice(process.stdout, 2000))


def test_a_pull_that_finds_the_disk_full_goes_on_when_there_is_room(proxy: FaultProxy, tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    partial = store.blobs_folder / f"sha256-{digest_of(MODEL)[7:]}-partial"
    proxy.rules()
    with start(proxy, store, room=len(MODEL) // 2) as process:
        _, complaint = process.communicate()
    assert complaint == f'no space left on the disk while writing "{partial}"\n'
    assert process.returncode == 1
    names_left = {path.name for path in store.root.rglob("*") if path.is_file()}
    assert names_left == {partial.name, *(f"{partial.name}-{number}" for number in range(len(MODEL) // PART))}
    proxy.rules()
    completed = completed_by(proxy, store)
    assert completed[0] > len(MODEL) // 4
    assert proxy.sent(digest_of(MODEL)) == len(MODEL) - completed[0]
    assert store.open_path(names.parse_digest(digest_of(MODEL))).read_bytes() == MODEL


def start(proxy: FaultProxy, store: Store, room: int = 0, model: str = "big") -> "subprocess.Popen[str]":
    """`room`: the position in a file from which on nothing can be written once the pull has begun; 0: none."""
    command = [sys.executable, "-c", PULL, f"{proxy.host}/library/{model}", str(store.root), str(room)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe if room else None, text=True)
