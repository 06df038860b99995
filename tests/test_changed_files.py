"""Model files that change while a server runs: no engine opens them, and the answer says what happened."""

import hashlib
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.asking import Answer, InBackground, ask, generate, metric, post, streaming, until
from tests.conftest import FAKE_ENGINE, RunningServer, StartServer, add_model
from tests.engines import engines
from tests.tiny_models import tiny_llama

CHANGED = (
    'the file "{source}" was changed after it became the blob "{digest}": '
    "restore it, or remove the model and create it anew"
)


class Machine:
    """A server with the model `own`, whose weights are a hard link to a file of the user's, and another model."""

    def __init__(self, folder: Path, start_server: StartServer, **variables: str) -> None:
        self.source = tiny_llama(folder / "own.gguf", seed=1)
        self.other = tiny_llama(folder / "other.gguf", seed=2)
        home = folder / "home"
        with pytest.MonkeyPatch.context() as patch:  # else some file systems would share the blocks, and have no link
            patch.setattr("corral.store.disk.clone", lambda source, target: False)
            add_model(home / ".ollama" / "models", "own", self.source)
            add_model(home / ".ollama" / "models", "second", self.other)
        self.server = start_server(home, CORRAL_ENGINE=str(FAKE_ENGINE), **variables)

    @property
    def blob(self) -> Path:
        return next(path for path in (self.server.models / "blobs").iterdir() if path.samefile(self.source))

    @property
    def sentence(self) -> str:
        return CHANGED.format(source=self.source, digest=self.blob.name.replace("-", ":"))

    def unload(self, model: str = "own") -> None:
        assert post(self.server, "/api/generate", {"model": model, "keep_alive": 0}).status == 200

    @property
    def loads(self) -> int:
        return len(engines(self.server.home))


@pytest.fixture
def machine(tmp_path: Path, start_server: StartServer) -> Machine:
    return Machine(tmp_path, start_server)


def ask_for_list(server: RunningServer) -> None:
    assert len(ask(server, "GET", "/api/tags").json["models"]) == 2


def ask_for_answer(server: RunningServer) -> None:
    assert generate(server, "x", "own").status == 200
    assert post(server, "/api/generate", {"model": "own", "keep_alive": 0}).status == 200


def ask_for_details(server: RunningServer) -> None:
    assert post(server, "/api/show", {"model": "own"}).status == 200


def another_model(source: Path) -> None:
    source.write_bytes(source.with_name("other.gguf").read_bytes())


def random_bytes(source: Path) -> None:
    source.write_bytes(random.Random(1).randbytes(source.stat().st_size))


def cut(source: Path) -> None:
    os.truncate(source, source.stat().st_size // 2)


def emptied(source: Path) -> None:
    source.write_bytes(b"")


def zeroed(source: Path) -> None:
    source.write_bytes(bytes(source.stat().st_size))


def one_bit(source: Path) -> None:
    with open(source, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))


CHANGES = [another_model, random_bytes, cut, emptied, zeroed, one_bit]


@pytest.mark.parametrize("use", [ask_for_list, ask_for_answer, ask_for_details])
def test_a_linked_file_that_changes_after_its_first_use_reaches_no_engine(
    machine: Machine, use: Callable[[RunningServer], None]
) -> None:
    use(machine.server)
    original = machine.source.read_bytes()
    for change in CHANGES:
        loads = machine.loads
        change(machine.source)
        for _ in range(2):
            answer = generate(machine.server, "x", "own")
            assert (answer.status, answer.error) == (500, machine.sentence), change.__name__
        chat = post(machine.server, "/api/chat", {"model": "own", "messages": [{"role": "user", "content": "x"}]})
        embed = post(machine.server, "/api/embed", {"model": "own", "input": "x"})
        assert {chat.error, embed.error} == {machine.sentence}
        assert machine.loads == loads
        machine.source.write_bytes(original)
        ask_for_answer(machine.server)
    assert generate(machine.server, "x", "second").status == 200


def test_a_file_that_changes_while_its_model_is_loaded_is_noticed_and_the_model_can_be_unloaded(
    machine: Machine,
) -> None:
    assert generate(machine.server, "x", "own").status == 200
    another_model(machine.source)
    assert generate(machine.server, "x", "own").error == machine.sentence
    machine.unload()
    engines(machine.server.home)[-1].wait_for_end()
    assert generate(machine.server, "x", "own").error == machine.sentence
    assert machine.loads == 1


def test_a_file_that_was_only_touched_is_used(machine: Machine) -> None:
    ask_for_answer(machine.server)
    machine.source.touch()
    ask_for_answer(machine.server)
    shutil.copystat(machine.other, machine.source)
    ask_for_answer(machine.server)
    assert machine.loads == 3


def test_a_file_of_another_size_with_the_old_time_is_noticed(machine: Machine) -> None:
    ask_for_answer(machine.server)
    before = machine.source.stat()
    cut(machine.source)
    os.utime(machine.source, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert generate(machine.server, "x", "own").error == machine.sentence


def test_a_change_in_place_is_noticed_when_the_time_is_set_back_also_by_another_server(
    machine: Machine, tmp_path: Path, start_server: StartServer
) -> None:
    ask_for_answer(machine.server)
    before = machine.source.stat()
    one_bit(machine.source)
    os.utime(machine.source, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = machine.source.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    assert generate(machine.server, "x", "own").error == machine.sentence
    second = start_server(machine.server.home, CORRAL_ENGINE=str(FAKE_ENGINE))
    assert generate(second, "x", "own").error == machine.sentence
    assert machine.loads == 1


def test_another_name_of_the_file_is_no_change(machine: Machine) -> None:
    os.link(machine.source, machine.source.with_name("again.gguf"))
    ask_for_answer(machine.server)
    machine.source.chmod(0o600)
    ask_for_answer(machine.server)
    assert machine.loads == 2


def test_another_file_in_the_blobs_place_with_its_size_and_time_is_noticed(machine: Machine) -> None:
    ask_for_answer(machine.server)
    blob, before = machine.blob, machine.blob.stat()
    false = machine.source.with_name("false")
    false.write_bytes(machine.other.read_bytes())
    os.utime(false, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert false.stat().st_size == before.st_size
    false.replace(blob)
    expected = CHANGED.format(source=machine.source, digest=blob.name.replace("-", ":"))
    assert generate(machine.server, "x", "own").error == expected
    assert machine.loads == 1


def test_a_file_that_changes_while_its_model_waits_to_be_loaded_reaches_no_engine(
    tmp_path: Path, start_server: StartServer
) -> None:
    machine = Machine(tmp_path, start_server, OLLAMA_MAX_LOADED_MODELS="1")
    with streaming(machine.server, "/api/generate", {"model": "second", "prompt": "!tokens=2 !hold=1"}) as first:
        first.line()
        waiting = InBackground(lambda: generate(machine.server, "x", "own"))
        until(lambda: metric(machine.server, "corral_num_requests_waiting") == 1)
        another_model(machine.source)
        (machine.server.home / "go").touch()
        first.rest()
        answer: Answer = waiting.result()
    assert (answer.status, answer.error) == (500, machine.sentence)
    assert machine.loads == 1


class Uploaded:
    """A server with the model `own`, whose weights are a blob of its own: no link to a file of the user's."""

    def __init__(self, folder: Path, start_server: StartServer) -> None:
        self.server = start_server(folder / "home", CORRAL_ENGINE=str(FAKE_ENGINE))
        file = tiny_llama(folder / "file.gguf", seed=1)
        tiny_llama(folder / "other.gguf", seed=2)
        self.digest = f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
        ask(self.server, "POST", f"/api/blobs/{self.digest}", file.read_bytes())
        created = post(self.server, "/api/create", {"model": "own", "files": {"own.gguf": self.digest}})
        assert created.lines[-1] == {"status": "success"}
        self.blob = self.server.models / "blobs" / self.digest.replace(":", "-")
        shutil.copy(folder / "other.gguf", self.blob.with_name("other.gguf"))


@pytest.fixture
def uploaded(tmp_path: Path, start_server: StartServer) -> Uploaded:
    return Uploaded(tmp_path, start_server)


def test_a_blob_that_changes_while_the_server_runs_reaches_no_engine(uploaded: Uploaded) -> None:
    assert generate(uploaded.server, "x", "own").status == 200
    original = uploaded.blob.read_bytes()
    for change in CHANGES:
        change(uploaded.blob)
        answer = generate(uploaded.server, "x", "own")
        assert answer.status == 500, change.__name__
        assert answer.error == (
            f'the blob "{uploaded.digest}" was changed on the disk: remove the model, and pull or create it anew'
        )
        assert len(engines(uploaded.server.home)) == 1
        uploaded.blob.write_bytes(original)
    assert generate(uploaded.server, "x", "own").status == 200


def test_a_blob_that_is_deleted_while_the_server_runs_is_missed_and_found_again(uploaded: Uploaded) -> None:
    assert generate(uploaded.server, "x", "own").status == 200
    data = uploaded.blob.read_bytes()
    uploaded.blob.unlink()
    answer = generate(uploaded.server, "x", "own")
    assert (answer.status, answer.error) == (404, f'blob "{uploaded.digest}" not found')
    assert ask(uploaded.server, "POST", f"/api/blobs/{uploaded.digest}", data).status == 201
    assert generate(uploaded.server, "x", "own").status == 200


def test_a_blob_that_was_cut_while_no_server_ran_reaches_no_engine(
    uploaded: Uploaded, start_server: StartServer
) -> None:
    os.truncate(uploaded.blob, uploaded.blob.stat().st_size - 1)
    second = start_server(uploaded.server.home, CORRAL_ENGINE=str(FAKE_ENGINE))
    answer = generate(second, "x", "own")
    size = uploaded.blob.stat().st_size
    assert answer.error == (
        f'the blob "{uploaded.digest}" has {size} bytes instead of {size + 1}: '
        "remove the model, and pull or create it anew"
    )
    assert engines(second.home) == []
