"""One folder of models, and others who write into it: other programs at once, and the owners of files taken over."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from corral import names
from corral.errors import StoreError
from corral.store import Store
from tests.conftest import FAKE_ENGINE, StartServer, add_model
from tests.tiny_models import tiny_llama


@contextmanager
def locked(store: Store) -> Iterator[None]:
    """The folder is locked, as by another program, while the block lasts."""
    descriptor = os.open(store.blobs_folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/copy", {"source": "tiny", "destination": "other"}),
        ("DELETE", "/api/delete", {"model": "tiny"}),
    ],
)
def test_others_are_answered_while_a_change_waits_for_another_program(
    method: str, path: str, body: dict[str, str], start_server: StartServer, tiny_gguf: Path, tmp_path: Path
) -> None:
    models = tmp_path / "home" / ".ollama" / "models"
    add_model(models, "tiny", tiny_gguf)
    server = start_server()
    with ThreadPoolExecutor() as threads:
        with locked(Store(models)):
            changing = threads.submit(httpx.request, method, server.url + path, json=body, timeout=60)
            while not waits_for(models / "blobs", server.process.pid):
                assert not changing.done()
            assert httpx.get(f"{server.url}/api/version", timeout=60).status_code == 200
        assert changing.result().status_code == 200


def waits_for(folder: Path, process: int) -> bool:
    """Whether the process has opened a folder that is locked, which it does to lock the folder itself."""
    opened = []
    for link in Path(f"/proc/{process}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            opened.append(link.readlink())
    return folder in opened


def test_requests_that_change_nothing_go_on_while_many_changes_wait_for_another_program(
    start_server: StartServer, tiny_gguf: Path, tmp_path: Path
) -> None:
    models = tmp_path / "home" / ".ollama" / "models"
    add_model(models, "tiny", tiny_gguf)
    server = start_server(CORRAL_ENGINE=str(FAKE_ENGINE))
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    messages = [{"role": "user", "content": "!say=%7B%22a%22:%22b%22%7D"}]
    question = {"model": "tiny", "messages": messages, "format": schema, "stream": False}

    def delete(name: str) -> httpx.Response:
        return httpx.request("DELETE", f"{server.url}/api/delete", json={"model": name}, timeout=60)

    with ThreadPoolExecutor(20) as threads:
        with locked(Store(models)):
            deleting = [threads.submit(delete, name) for name in ("tiny", *(f"other{number}" for number in range(19)))]
            while not waits_for(models / "blobs", server.process.pid):
                assert not any(request.done() for request in deleting)
            assert httpx.post(f"{server.url}/api/chat", json=question, timeout=60).status_code == 200
            listed = httpx.get(f"{server.url}/api/tags", timeout=60).json()["models"]
            assert [model["name"] for model in listed] == ["tiny:latest"]
            assert not any(request.done() for request in deleting)
        assert [request.result().status_code for request in deleting] == [200] + [404] * 19


def test_a_change_gives_up_when_another_program_does_not_unlock_the_folder(tmp_path: Path) -> None:
    store = Store(tmp_path / "models", lock_seconds=0.05)
    store.add_bytes(b"blob")
    with (
        locked(store),
        pytest.raises(StoreError, match=f'^the folder "{store.blobs_folder}" has been locked .* for 0.05 s: try again'),
    ):
        store.delete(names.parse("tiny"))


def test_a_change_that_waits_for_the_folder_ends_when_the_store_is_closed(tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    store.add_bytes(b"blob")
    with ThreadPoolExecutor() as threads, locked(store):
        changing = threads.submit(store.delete, names.parse("tiny"))
        while not waits_for(store.blobs_folder, os.getpid()):
            assert not changing.done()
        store.close()
        with pytest.raises(StoreError, match="the server is stopping"):
            changing.result()


def test_copying_over_a_model_leaves_its_blobs_where_pruning_is_off(
    start_server: StartServer, tiny_gguf: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path / "home" / ".ollama" / "models")
    add_model(store.root, "tiny", tiny_gguf)
    add_model(store.root, "other", tiny_llama(tmp_path / "other.gguf", seed=3))
    before = {layer.digest for layer in store.manifest(names.parse("other")).manifest.blobs}
    server = start_server(OLLAMA_NOPRUNE="1")
    httpx.post(f"{server.url}/api/copy", json={"source": "tiny", "destination": "other"}).raise_for_status()
    assert all(store.has_blob(digest) for digest in before)


def test_a_blob_whose_file_was_changed_is_uploaded_anew(
    start_server: StartServer, tiny_gguf: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path / "home" / ".ollama" / "models")
    data = tiny_gguf.read_bytes()
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(data)
    url = f"{start_server().url}/api/blobs/{store.adopt(mine).digest}"
    with mine.open("r+b") as file:
        file.write(b"changed")
    is_shared = store.blob_path(hashed(data)).read_bytes() != data
    assert httpx.head(url).status_code == (404 if is_shared else 200)
    assert httpx.post(url, content=data).status_code == (201 if is_shared else 200)
    assert httpx.head(url).status_code == 200
    assert store.open_path(hashed(data)).read_bytes() == data
    assert mine.read_bytes()[:7] == b"changed"


def hashed(data: bytes) -> names.Digest:
    return names.Digest(hashlib.sha256(data).hexdigest())


def test_a_file_can_be_named_from_this_machine_where_one_socket_is_for_both_protocols(
    start_server: StartServer, tiny_gguf: Path
) -> None:
    server = start_server(OLLAMA_HOST="[::]:0", CORRAL_INSECURE_NO_AUTH="1")
    body = {"model": "mine", "source": tiny_gguf.as_uri(), "stream": False}
    answer = httpx.post(f"http://127.0.0.1:{httpx.URL(server.url).port}/api/pull", json=body, timeout=60)
    assert answer.json() == {"status": "success"}
