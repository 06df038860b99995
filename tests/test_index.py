"""Lists of models: read from an index by digest, which is only a hint, and made while others are answered."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import msgspec
import pytest

from corral import names
from corral.models.index import Index, Summary
from corral.models.model import GoTemplate, Models
from corral.store import Layer, MediaType, Store, encode_manifest
from tests.conftest import FAKE_ENGINE, StartServer, add_model
from tests.tiny_models import CHATML, tiny_bert, tiny_llama


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "home" / ".ollama" / "models")
    add_model(store.root, "native", tiny_llama(tmp_path / "native.gguf", chat_template=CHATML))
    add_model(store.root, "bert", tiny_bert(tmp_path / "bert.gguf"))
    return store


def index_of(store: Store) -> Path:
    return store.root / "index" / "models.json"


def summaries(store: Store) -> dict[str, Summary]:
    """What a server that has just started lists."""
    listed = asyncio.run(Models(store).list())
    return {model.stored.name.model: model.summary for model in listed}


def weights_of(store: Store, name: str) -> Path:
    layer = store.manifest(names.parse(name)).weights
    assert layer is not None
    return store.blob_path(layer.digest)


def unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, reading a model's file is a failure of the test."""

    def fail(path: Path) -> None:
        pytest.fail(f"{path} was read")

    monkeypatch.setattr("corral.gguf.read_structure", fail)


def test_a_second_server_lists_without_reading_a_models_file(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = summaries(store)
    assert first["native"].capabilities == ("completion",)
    assert first["bert"].capabilities == ("embedding",)
    assert first["native"].context_length == 2048
    unreadable(monkeypatch)
    assert summaries(store) == first


def test_a_copy_is_listed_without_reading_its_file(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    summaries(store)
    store.copy(names.parse("bert"), names.parse("other"))
    unreadable(monkeypatch)
    assert summaries(store)["other"].capabilities == ("embedding",)


async def test_a_model_that_was_loaded_is_listed_without_reading_its_file(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = Models(store)
    for name in ("bert", "native"):
        await models.load(names.parse(name))
    unreadable(monkeypatch)
    assert len(await models.list()) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: b"\xff" + data[1:],
        lambda data: b"[" * 100_000,
        lambda data: data.replace(b'"version":"', b'"version":"0'),
        lambda data: data.replace(b'"signature":[[', b'"signature":[[1'),
        lambda data: data.replace(b'"capabilities":["embedding"]', b'"capabilities":"embedding"'),
        lambda data: json.dumps({**json.loads(data), "rows": 7}).encode(),
    ],
    ids=["empty", "cut", "no text", "deep", "another version", "other blobs", "wrong type", "no rows"],
)
def test_a_damaged_or_stale_index_is_made_anew(store: Store, damage: Callable[[bytes], bytes]) -> None:
    first = summaries(store)
    sound = index_of(store).read_bytes()
    damaged = damage(sound)
    assert damaged != sound
    index_of(store).write_bytes(damaged)
    assert summaries(store) == first
    assert msgspec.json.decode(index_of(store).read_bytes()) == msgspec.json.decode(sound)


def test_something_else_in_the_place_of_the_index_is_done_with(store: Store) -> None:
    index_of(store).parent.mkdir()
    index_of(store).mkdir()
    assert len(summaries(store)) == 2


def test_models_are_listed_where_no_index_can_be_written(store: Store) -> None:
    index_of(store).parent.touch()
    assert len(summaries(store)) == 2


def test_weights_that_are_gone_or_broken_are_noticed_and_so_is_their_return(store: Store) -> None:
    first = summaries(store)
    weights = weights_of(store, "bert")
    data = weights.read_bytes()
    weights.unlink()
    assert (summaries(store)["bert"].problem != "", summaries(store)["native"]) == (True, first["native"])
    weights.write_bytes(data[:100])
    assert summaries(store)["bert"].problem != ""
    weights.write_bytes(data)
    assert summaries(store) == first


def test_servers_that_choose_other_templates_have_rows_of_their_own(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = store.manifest(names.parse("native")).manifest
    weights = [layer for layer in manifest.layers if layer.media_type == MediaType.MODEL]
    digest, size, _ = store.add_bytes(b"{{ range .Messages }}{{ .Content }}{{ .ToolCalls }}{{ end }}{{ .Tools }}")
    layers = (*weights, Layer(MediaType.TEMPLATE, digest, size))
    store.write_manifest(names.parse("native"), encode_manifest(manifest.config, layers))

    def capabilities(setting: GoTemplate) -> tuple[str, ...]:
        listed = asyncio.run(Models(store, setting).list(lambda stored: stored.name.model == "native"))
        return listed[0].summary.capabilities

    assert (capabilities("on"), capabilities("off")) == (("completion", "tools"), ("completion",))
    unreadable(monkeypatch)
    assert (capabilities("on"), capabilities("off")) == (("completion", "tools"), ("completion",))


def test_what_is_deleted_leaves_the_index_and_the_last_takes_it_along(store: Store) -> None:
    models = Models(store)
    asyncio.run(models.list())
    digests = {name: store.manifest(names.parse(name)).digest.hex for name in ("bert", "native")}
    asyncio.run(models.delete(names.parse("BERT")))
    assert digests["bert"] not in index_of(store).read_text()
    assert digests["native"] in index_of(store).read_text()
    asyncio.run(models.delete(names.parse("native")))
    assert not index_of(store).parent.exists()


def test_models_another_program_deleted_leave_the_index_with_the_next_list(store: Store) -> None:
    summaries(store)
    digest = store.manifest(names.parse("bert")).digest.hex
    (store.manifests_folder / names.parse("bert").path).unlink()
    summaries(store)
    assert digest not in index_of(store).read_text()


def test_two_servers_keep_each_others_rows(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = Models(store), Models(store)
    asyncio.run(one.list())
    asyncio.run(other.list())
    add_model(store.root, "first", tiny_llama(tmp_path / "first.gguf", seed=1))
    asyncio.run(one.list())
    add_model(store.root, "second", tiny_llama(tmp_path / "second.gguf", seed=2))
    asyncio.run(other.list())
    unreadable(monkeypatch)
    assert len(summaries(store)) == 4


def test_an_index_is_read_and_written_from_many_threads(tmp_path: Path) -> None:
    index = Index(tmp_path / "index" / "models.json")
    summary = Summary(format="gguf", family="llama", families=None, parameter_size="1B", file_type="F16")

    def work(number: int) -> None:
        for turn in range(50):
            index.put(f"{number}", "", ((number, turn),), summary)
            index.save([str(each) for each in range(8)])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    again = Index(tmp_path / "index" / "models.json")
    assert all(again.get(str(number), "", ((number, 49),)) == summary for number in range(8))
    assert [path.name for path in (tmp_path / "index").iterdir()] == ["models.json"]


def test_leftovers_of_servers_that_were_killed_go_in_time(store: Store) -> None:
    index_of(store).parent.mkdir()
    old, new = (index_of(store).with_name(f".new-{number}") for number in range(2))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    summaries(store)
    assert (old.exists(), new.exists()) == (False, True)


def test_others_are_answered_while_touched_weights_are_hashed_at_their_first_use(
    start_server: StartServer, tmp_path: Path
) -> None:
    models = tmp_path / "home" / ".ollama" / "models"
    large = tiny_llama(tmp_path / "large.gguf")
    os.truncate(large, 512 << 20)  # a hole: it takes no room, but time to be hashed
    add_model(models, "large", large)
    large.touch()  # where the file system shares blocks there is no link, and nothing to hash
    server = start_server(CORRAL_ENGINE=str(FAKE_ENGINE))
    with ThreadPoolExecutor() as threads:
        body = {"model": "large", "prompt": "", "stream": False}
        using = [threads.submit(httpx.post, f"{server.url}/api/generate", json=body, timeout=120) for _ in range(3)]
        while not all(one.done() for one in using):  # and the watch on the server's loop sees none of them held up
            httpx.get(f"{server.url}/api/version", timeout=60).raise_for_status()
    assert [one.result().status_code for one in using] == [200, 200, 200]


def test_where_the_index_cannot_be_written_models_are_listed_without_it(store: Store) -> None:
    program = f"""
import asyncio, resource, signal
from pathlib import Path
from corral.models.model import Models
from corral.store import Store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
models = Models(Store(Path({str(store.root)!r})))
print(sorted(one.stored.name.model for one in asyncio.run(models.list())))
"""
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (outcome.stdout, outcome.stderr) == ("['bert', 'native']\n", "")
    assert not index_of(store).exists()
