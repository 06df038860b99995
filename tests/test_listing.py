"""Lists of models while other programs write into the store: kept while nothing changes, right at once when it does.

The other program is the test; the list is a server's, or that of a small program in namespaces of its own.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from corral.models.model import Models
from corral.server.http.lists import Elsewhere
from corral.server.ollama import show
from corral.store import MediaType, Store
from tests.asking import ask, post
from tests.conftest import FAKE_ENGINE, RunningServer, StartServer, add_model
from tests.tiny_models import tiny_bert, tiny_llama


class SharedStore:
    """A store with the models `one`, `two` and, in a namespace, `team/three`; what others do to it."""

    def __init__(self, root: Path, scratch: Path) -> None:
        self.root = root
        self.scratch = scratch
        add_model(root, "one", tiny_llama(scratch / "one.gguf", seed=1))
        add_model(root, "two", tiny_bert(scratch / "two.gguf"))
        add_model(root, "team/three", tiny_llama(scratch / "three.gguf", seed=3))
        self.library = root / "manifests" / "registry.ollama.ai" / "library"
        self.one = self.library / "one" / "latest"
        self.two = self.library / "two" / "latest"

    def blob(self, manifest: Path, kind: MediaType) -> Path:
        document = json.loads(manifest.read_bytes())
        layers = [*document["layers"], document["config"]]
        digest = next(layer["digest"] for layer in layers if layer["mediaType"] == kind)
        return self.root / "blobs" / str(digest).replace(":", "-")

    def listed(self) -> Any:
        """What a server that has just looked says."""
        return json.loads(show.tags(asyncio.run(Models(Store(self.root)).all()).models, Elsewhere()))


def another_tag(shared: SharedStore) -> None:
    shutil.copy(shared.one, shared.one.with_name("other"))


def another_host(shared: SharedStore) -> None:
    folder = shared.root / "manifests" / "hf.co" / "somebody" / "model"
    folder.mkdir(parents=True)
    shutil.copy(shared.two, folder / "Q4")


def a_tag_less(shared: SharedStore) -> None:
    shared.two.unlink()


def a_model_less(shared: SharedStore) -> None:
    shutil.rmtree(shared.two.parent)


def no_models(shared: SharedStore) -> None:
    shutil.rmtree(shared.library)


def another_name(shared: SharedStore) -> None:
    shared.two.parent.rename(shared.library / "renamed")


def replaced(shared: SharedStore) -> None:
    new = shared.root / "manifests" / "new"
    shutil.copy(shared.two, new)
    new.rename(shared.one)


def rewritten_in_place(shared: SharedStore) -> None:
    """Same file, same size, same time."""
    before, data = shared.one.stat(), shared.one.read_bytes()
    digest = json.loads(data)["layers"][0]["digest"]
    other = json.loads(shared.two.read_bytes())["layers"][0]["digest"]
    shared.one.write_bytes(data.replace(digest.encode(), other.encode()))
    os.utime(shared.one, ns=(before.st_atime_ns, before.st_mtime_ns))


def rewritten_through_another_name(shared: SharedStore) -> None:
    os.link(shared.one, shared.scratch / "elsewhere")
    (shared.scratch / "elsewhere").write_bytes(shared.two.read_bytes())


def broken(shared: SharedStore) -> None:
    shared.one.write_bytes(b"{")


def touched(shared: SharedStore) -> None:
    os.utime(shared.one, (1_000_000_000, 1_000_000_000))


def weights_gone(shared: SharedStore) -> None:
    shared.blob(shared.one, MediaType.MODEL).unlink()


def weights_cut(shared: SharedStore) -> None:
    os.truncate(shared.blob(shared.one, MediaType.MODEL), 100)


def weights_changed_through_another_name(shared: SharedStore) -> None:
    """A file of the user's that became a blob by a hard link, and is another model by now."""
    os.link(shared.blob(shared.one, MediaType.MODEL), shared.scratch / "mine.gguf")
    (shared.scratch / "mine.gguf").write_bytes((shared.scratch / "two.gguf").read_bytes())


def config_gone(shared: SharedStore) -> None:
    shared.blob(shared.one, MediaType.CONFIG).unlink()


def another_store(shared: SharedStore) -> None:
    """Another folder in the place of the manifests'."""
    (shared.root / "manifests").rename(shared.root / "aside")
    (shared.root / "manifests").mkdir()


def another_disk(shared: SharedStore) -> None:
    """The whole models folder is elsewhere by now, with a link in its place."""
    shared.root.rename(shared.scratch / "moved")
    shared.root.symlink_to(shared.scratch / "moved")
    a_tag_less(shared)


CHANGES = [
    *(another_tag, another_host, a_tag_less, a_model_less, no_models, another_name, replaced, rewritten_in_place),
    *(rewritten_through_another_name, broken, touched, weights_gone, weights_cut, weights_changed_through_another_name),
    *(config_gone, another_store, another_disk),
]


def plain(shared: SharedStore) -> None:
    pass


def linked_host(shared: SharedStore) -> None:
    """A host's models lie elsewhere: changes there are not watched."""
    host = shared.root / "manifests" / "registry.ollama.ai"
    host.rename(shared.scratch / "host")
    host.symlink_to(shared.scratch / "host")


def linked_weights(shared: SharedStore) -> None:
    blob = shared.blob(shared.one, MediaType.MODEL)
    blob.rename(shared.scratch / "weights")
    blob.symlink_to(shared.scratch / "weights")


def linked_folder(shared: SharedStore) -> None:
    """The models lie elsewhere, all of them: this is watched."""
    shared.root.rename(shared.scratch / "all")
    shared.root.symlink_to(shared.scratch / "all")


@pytest.fixture
def shared(tmp_path: Path) -> SharedStore:
    return SharedStore(tmp_path / "home" / ".ollama" / "models", tmp_path)


@pytest.mark.parametrize("arrange", [plain, linked_host, linked_weights, linked_folder])
def test_a_list_shows_every_change_at_once(
    arrange: Callable[[SharedStore], None], tmp_path: Path, start_server: StartServer
) -> None:
    server = start_server(tmp_path / "home", CORRAL_ENGINE=str(FAKE_ENGINE), OLLAMA_NOPRUNE="1")
    for number, change in enumerate(CHANGES):
        (tmp_path / f"{number}").mkdir()
        if os.path.lexists(server.models):
            server.models.rename(tmp_path / f"{number}" / "before")
        shared = SharedStore(server.models, tmp_path / f"{number}")
        arrange(shared)
        before = tags(server)
        assert before == shared.listed(), f"before {change.__name__}"
        assert len(before["models"]) == 3
        change(shared)
        after = tags(server)
        assert after == shared.listed() != before, change.__name__
        assert tags(server) == after


def tags(server: RunningServer) -> Any:
    return ask(server, "GET", "/api/tags").json


def test_what_is_missing_is_listed_again_when_it_comes(shared: SharedStore, start_server: StartServer) -> None:
    server = start_server()
    whole = tags(server)
    for kind in (MediaType.MODEL, MediaType.CONFIG):
        blob = shared.blob(shared.one, kind)
        blob.rename(shared.scratch / "taken")
        assert tags(server) != whole
        (shared.scratch / "taken").rename(blob)
        assert tags(server) == whole


def test_every_list_of_the_server_is_as_new(shared: SharedStore, start_server: StartServer) -> None:
    server = start_server(CORRAL_ENGINE=str(FAKE_ENGINE))
    post(server, "/api/generate", {"model": "one", "prompt": ""})
    expected = {"one:latest", "team/three:latest", "two:latest"}
    assert {model["id"] for model in ask(server, "GET", "/v1/models").json["data"]} == {
        name.removesuffix(":latest") + ":latest" for name in expected
    }
    assert [model["name"] for model in ask(server, "GET", "/api/ps").json["models"]] == ["one:latest"]
    shared.one.rename(shared.one.with_name("newer"))
    assert "one:newer" in {model["id"] for model in ask(server, "GET", "/v1/models").json["data"]}
    assert [model["name"] for model in ask(server, "GET", "/api/ps").json["models"]] == ["one:newer"]


PROGRAM = """
import asyncio, json, sys
from pathlib import Path
from corral.models.model import Models
from corral.store import Store

async def main():
    models = Models(Store(Path(sys.argv[1])))
    before = None
    while True:
        listing = await models.all()
        names = sorted(str(model.stored.name) for model in listing.models)
        print(json.dumps({"names": names, "kept": listing is before}), flush=True)
        before = listing
        await asyncio.to_thread(sys.stdin.readline) or sys.exit()

asyncio.run(main())
"""


class Lister:
    """A program that lists the models when it starts, and again whenever it is asked."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.names, self.is_kept = self._read()

    def list(self) -> tuple[Sequence[str], bool]:
        """Names, and whether it had no need to look."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> tuple[Sequence[str], bool]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the program ended"
        found = json.loads(line)
        return found["names"], found["kept"]


@contextmanager
def lister(root: Path, prepare: str = "") -> Iterator[Lister]:
    """The program, in a mount and a user namespace of its own where the shell commands `prepare` are run before."""
    program = [sys.executable, "-c", PROGRAM, str(root)]
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-euc", f'{prepare}\nexec "$@"', "sh", *program]
    with subprocess.Popen(
        command if prepare else program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Lister(process)
        assert process.stdin is not None
        process.stdin.close()


ALL = ["one:latest", "team/three:latest", "two:latest"]


def test_a_list_is_kept_while_nothing_changes(shared: SharedStore) -> None:
    with lister(shared.root) as program:
        assert program.names == ALL
        assert program.list() == (ALL, True)
        (shared.root / "blobs" / "sha256-partial").write_bytes(b"a download goes on")
        assert program.list() == (ALL, True)
        a_tag_less(shared)
        assert program.list() == (ALL[:2], False)
        assert program.list() == (ALL[:2], True)


@pytest.mark.parametrize(
    "prepare",
    [
        "echo 3 >/proc/sys/user/max_inotify_watches",
        "echo 0 >/proc/sys/user/max_inotify_instances",
        'mount --bind "{root}/manifests/registry.ollama.ai/library" "{root}/manifests/registry.ollama.ai/library"',
        'mkdir "{scratch}/x"; mount -t overlay -o lowerdir="{root}/blobs:{scratch}/x" overlay "{root}/blobs"',
    ],
    ids=["no watches left", "no instances left", "a mount below the manifests", "blobs on an overlay"],
)
def test_where_changes_cannot_be_watched_each_list_looks(shared: SharedStore, prepare: str) -> None:
    with lister(shared.root, prepare.format(root=shared.root, scratch=shared.scratch)) as program:
        assert program.names == ALL
        assert program.list() == (ALL, False)
        rewritten_in_place(shared)
        a_tag_less(shared)
        assert program.list() == (ALL[:2], False)


def test_changes_are_seen_through_a_mount_of_the_folder(shared: SharedStore) -> None:
    """As a container has it, while a program outside writes."""
    inside = shared.scratch / "inside"
    inside.mkdir()
    with lister(inside, f'mount --bind "{shared.root}" "{inside}"') as program:
        assert program.names == ALL
        assert program.list() == (ALL, True)
        another_name(shared)
        assert program.list() == (["one:latest", "renamed:latest", "team/three:latest"], False)


def test_a_folder_that_is_mounted_over_the_manifests_is_seen(shared: SharedStore) -> None:
    other = SharedStore(shared.scratch / "other", shared.scratch)
    a_tag_less(other)
    fifo = shared.scratch / "go"
    os.mkfifo(fifo)
    mounting = f'(read go <"{fifo}"; mount --bind "{other.root}/manifests" "{shared.root}/manifests"; echo >"{fifo}") &'
    with lister(shared.root, mounting) as program:
        assert program.list() == (ALL, True)
        fifo.write_text("go\n")
        fifo.read_text()
        assert program.list() == (ALL[:2], False)
