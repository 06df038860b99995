"""The store: what lies where, what comes and goes, and what it does with a folder another program made."""

import ctypes
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from corral.errors import BadRequest, DiskFull, InvalidName, ModelNotFound, NotFound, StoreError
from corral.names import Digest, Name, parse, parse_digest
from corral.store import (
    MAX_MANIFEST_BYTES,
    PARTIAL_LIFETIME,
    DigestMismatch,
    Layer,
    MediaType,
    PruneReport,
    Store,
    encode_manifest,
    parse_manifest,
)

HOUR = 3600.0


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


def add_model(store: Store, name: str, *contents: bytes) -> Name:
    """A model whose layers are `contents`, and whose config is its name."""
    layers = []
    for content in contents:
        digest, size, _ = store.add_bytes(content)
        layers.append(Layer(MediaType.MODEL, digest, size))
    digest, size, _ = store.add_bytes(f'{{"n":"{name}"}}'.encode())
    raw = encode_manifest(Layer(MediaType.CONFIG, digest, size), tuple(layers))
    return store.write_manifest(parse(name), raw).name


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def blobs(store: Store) -> set[str]:
    return {path.name for path in store.blobs_folder.iterdir()}


def make_older(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


# Blobs


def test_a_blob_lies_under_its_digest_with_mode_0644(store: Store) -> None:
    digest, size, created = store.add_bytes(b"hello")
    path = store.root / "blobs" / f"sha256-{sha256(b'hello')}"
    assert (str(digest), size, created) == (f"sha256:{sha256(b'hello')}", 5, True)
    assert path.read_bytes() == b"hello"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert blobs(store) == {path.name}


def test_adding_a_blob_again_keeps_the_file_and_renews_its_time(store: Store) -> None:
    digest, _, _ = store.add_bytes(b"hello")
    path = store.blob_path(digest)
    make_older(path, HOUR)
    inode = path.stat().st_ino
    assert store.add_bytes(b"hello") == (digest, 5, False)
    assert path.stat().st_ino == inode
    assert path.stat().st_mtime > time.time() - 60


def test_adding_a_blob_again_heals_one_that_was_cut_short(store: Store) -> None:
    digest, _, _ = store.add_bytes(b"hello")
    os.truncate(store.blob_path(digest), 2)
    assert store.add_bytes(b"hello") == (digest, 5, True)
    assert store.blob_path(digest).read_bytes() == b"hello"


def test_a_blob_that_is_not_committed_leaves_nothing(store: Store) -> None:
    with store.writer() as writer:
        writer.write(b"half")
    with suppress(KeyError), store.writer() as writer:
        writer.write(b"half")
        raise KeyError
    assert blobs(store) == set()


def test_a_blob_with_another_digest_is_kept_under_its_own(store: Store) -> None:
    wanted = Digest("0" * 64)
    with store.writer() as writer:
        writer.write(b"hello")
        with pytest.raises(DigestMismatch) as caught:
            writer.commit(wanted)
    assert str(caught.value) == f'digest mismatch, expected "{wanted}", got "sha256:{sha256(b"hello")}"'
    assert isinstance(caught.value, BadRequest)
    assert blobs(store) == {f"sha256-{sha256(b'hello')}"}


async def test_a_file_that_another_process_has_written_becomes_a_blob(store: Store) -> None:
    (store.root / "manifests").mkdir(parents=True)
    async with store.file_to_write(5) as file:
        assert file.path.parent == store.blobs_folder
        file.path.write_bytes(b"hello")  # opened anew, as a child does
        assert store.prune(grace=-1).deleted_temporaries == 0
        assert file.publish(Digest(sha256(b"hello")), 5)
    assert store.open_path(Digest(sha256(b"hello"))).read_bytes() == b"hello"
    async with store.file_to_write(5) as file:
        file.path.write_bytes(b"hello")
        assert not file.publish(Digest(sha256(b"hello")), 5)
    assert blobs(store) == {f"sha256-{sha256(b'hello')}"}


async def test_a_file_that_came_short_or_was_not_finished_leaves_nothing(store: Store) -> None:
    async with store.file_to_write(5) as file:
        file.path.write_bytes(b"hel")
        with pytest.raises(StoreError, match="has 3 bytes instead of 5"):
            file.publish(Digest(sha256(b"hello")), 5)
    async with store.file_to_write(5) as file:
        file.path.write_bytes(b"hel")
    assert blobs(store) == set()
    with pytest.raises(DiskFull, match="bytes are needed"):
        await store.file_to_write(1 << 60).__aenter__()


def test_a_writer_that_knows_it_has_no_room_says_so_at_once(store: Store) -> None:
    with pytest.raises(DiskFull, match="no space left on the disk that holds"):
        store.writer(size=1 << 60)


def test_a_full_disk_is_an_error_that_leaves_nothing(tmp_path: Path) -> None:
    program = f"""
import resource, signal, sys
from pathlib import Path
from corral.errors import DiskFull
from corral.store import Store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
store = Store(Path({str(tmp_path)!r}))
try:
    store.add_bytes(b"x" * 4000)
except DiskFull as error:
    print(error)
print(list(store.blobs_folder.iterdir()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first.startswith("no space left on the disk while writing")
    assert second == "[]"


def test_two_processes_may_add_the_same_blob_at_once(store: Store) -> None:
    data = b"m" * (8 << 20)
    program = f"""
import sys
from pathlib import Path
from corral.store import Store
store = Store(Path({str(store.root)!r}))
with store.writer() as writer:
    for _ in range(8):
        writer.write(b"m" * (1 << 20))
    print("written", flush=True)
    sys.stdin.readline()
    print(writer.commit()[1], flush=True)
"""
    running = [
        subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
    assert len(blobs(store)) == 2
    created = [process.communicate("\n", timeout=30)[0].strip() for process in running]
    assert created == ["True", "False"]
    assert blobs(store) == {f"sha256-{sha256(data)}"}
    assert store.blob_path(Digest(sha256(data))).read_bytes() == data


def test_a_missing_blob_is_named(store: Store) -> None:
    digest = Digest("1" * 64)
    assert not store.has_blob(digest)
    for question in (store.blob_size, store.open_path):
        with pytest.raises(NotFound, match=f'^blob "sha256:{"1" * 64}" not found$'):
            question(digest)


# Files taken over in place


def test_a_file_is_adopted_without_writing_its_bytes_anew(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "model.gguf"
    source.write_bytes(b"weights")
    make_older(source, 50 * HOUR)
    before = source.stat().st_mtime_ns
    seen: list[int] = []
    adopted = store.adopt(source, progress=seen.append)
    blob = store.open_path(adopted.digest)
    assert (adopted.digest.hex, adopted.size, adopted.created) == (sha256(b"weights"), 7, True)
    assert adopted.how in ("reflink", "hardlink")
    assert blob.samefile(source) == (adopted.how == "hardlink")
    assert source.stat().st_mtime_ns == before
    assert seen == [7]
    assert blobs(store) == {adopted.digest.filename}
    assert store.adopt(source).created is False
    assert blobs(store) == {adopted.digest.filename}
    assert store.prune() == PruneReport(complete=False)
    (store.root / "manifests").mkdir()
    assert store.prune() == PruneReport(), "an old file that was just adopted is not pruned"


def test_a_file_is_copied_where_links_are_not_wanted(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "model.gguf"
    source.write_bytes(b"weights")
    adopted = store.adopt(source, link=False)
    assert adopted.how in ("reflink", "copy")
    source.write_bytes(b"WEIGHTS")
    assert store.open_path(adopted.digest).read_bytes() == b"weights"


def test_a_file_on_another_disk_is_copied(tmp_path: Path) -> None:
    """`/dev/shm` is a file system of its own."""
    source = tmp_path / "model.gguf"
    source.write_bytes(b"weights")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        store = Store(Path(elsewhere) / "models")
        adopted = store.adopt(source)
        source.write_bytes(b"WEIGHTS")
        assert (adopted.how, adopted.digest.hex) == ("copy", sha256(b"weights"))
        assert store.open_path(adopted.digest).read_bytes() == b"weights"
        assert blobs(store) == {adopted.digest.filename}


def test_a_file_that_does_not_fit_is_not_begun_to_be_copied(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        with open(Path(elsewhere) / "huge.gguf", "wb") as file:
            file.truncate(1 << 50)
        store = Store(tmp_path / "models")
        with pytest.raises(DiskFull, match=rf'^no space left on the disk that holds ".*": {1 << 50} bytes are needed'):
            store.adopt(Path(elsewhere) / "huge.gguf")
        assert blobs(store) == set()


def test_a_prune_leaves_the_old_file_that_another_process_is_just_adopting(store: Store, tmp_path: Path) -> None:
    add_model(store, "other", b"of its own")
    source = tmp_path / "model.gguf"
    source.write_bytes(b"weights")
    make_older(source, 24 * HOUR)
    adopted = store.adopt(source, progress=lambda _: none_of(store.prune()))
    assert store.open_path(adopted.digest).read_bytes() == b"weights"


def none_of(report: PruneReport) -> None:
    assert report == PruneReport()


def test_a_store_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    """And not the file that was to be taken over, with which all is well."""
    (tmp_path / "models").write_bytes(b"not a folder")
    (tmp_path / "model.gguf").write_bytes(b"weights")
    store = Store(tmp_path / "models")
    with pytest.raises(StoreError, match=r'^writing ".*/models/blobs/sha256-\d+" failed: not a directory$'):
        store.adopt(tmp_path / "model.gguf")
    with pytest.raises(StoreError, match=r'^making ".*/models/\.corral-\d+" failed: '), store.scratch():
        pass


def test_an_adopted_file_that_changes_is_noticed_and_healed(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "model.gguf"
    source.write_bytes(b"weights")
    adopted = store.adopt(source)
    make_older(source, 60)
    assert store.open_path(adopted.digest).read_bytes() == b"weights", "touching it changes nothing"
    source.write_bytes(b"WEIGHTS")
    if adopted.how == "hardlink":
        with pytest.raises(StoreError) as caught:
            store.open_path(adopted.digest)
        assert str(caught.value) == (
            f'the file "{source}" was changed after it became the blob "{adopted.digest}": '
            "restore it, or remove the model and create it anew"
        )
        assert store.add_bytes(b"weights") == (adopted.digest, 7, True)
    assert store.open_path(adopted.digest).read_bytes() == b"weights"
    assert source.read_bytes() == b"WEIGHTS"


def test_hashing_a_touched_file_ends_when_the_store_is_closed(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "mine"
    source.write_bytes(b"weights")
    adopted = store.adopt(source)
    source.touch()
    store.close()
    if adopted.how == "hardlink":
        with pytest.raises(StoreError, match="the server is stopping"):
            store.open_path(adopted.digest)
    else:
        assert store.open_path(adopted.digest).read_bytes() == b"weights"


def test_a_prune_leaves_the_record_another_process_is_just_writing(store: Store, tmp_path: Path) -> None:
    (store.root / "adopted").mkdir(parents=True)
    (store.root / "manifests").mkdir()
    fresh, stray = (store.root / "adopted" / f".new-{number}" for number in (1, 2))
    gone = store.root / "adopted" / f"sha256-{sha256(b'gone')}"
    for path in (fresh, stray, gone):
        path.write_bytes(b"{}")
    make_older(stray, 2 * HOUR)
    store.prune()
    assert list((store.root / "adopted").iterdir()) == [fresh]


def test_a_symbolic_link_is_followed_to_the_file(store: Store, tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"weights")
    (tmp_path / "model.gguf").symlink_to("real")
    blob = store.blob_path(store.adopt(tmp_path / "model.gguf").digest)
    assert not blob.is_symlink()
    assert blob.read_bytes() == b"weights"


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "missing"])
def test_only_plain_files_are_adopted(store: Store, tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "device":
            path = Path("/dev/zero")
    with pytest.raises(StoreError, match=f'"{path}" (is not a file|failed: no such file or directory)$'):
        store.adopt(path)
    assert not store.blobs_folder.exists() or blobs(store) == set()


# Manifests


def test_a_manifest_is_written_as_the_layout_says() -> None:
    config = Layer(MediaType.CONFIG, Digest("a" * 64), 7)
    layers = (
        Layer(MediaType.MODEL, Digest("b" * 64), 9, from_="base:latest"),
        Layer(MediaType.JSON, Digest("c" * 64), 1, name="<&>"),
    )
    assert encode_manifest(config, layers).decode() == (
        '{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json",'
        '"config":{"mediaType":"application/vnd.docker.container.image.v1+json",'
        f'"digest":"sha256:{"a" * 64}","size":7}},'
        '"layers":[{"mediaType":"application/vnd.ollama.image.model",'
        f'"digest":"sha256:{"b" * 64}","size":9,"from":"base:latest"}},'
        '{"mediaType":"application/vnd.ollama.image.json",'
        f'"digest":"sha256:{"c" * 64}","size":1,"name":"\\u003c\\u0026\\u003e"}}]}}\n'
    )
    parsed = parse_manifest(encode_manifest(config, layers))
    assert (parsed.config, parsed.layers, parsed.size) == (config, layers, 17)


GOOD_LAYER = {"mediaType": "x", "digest": "sha256:" + "a" * 64, "size": 1}


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"", "invalid manifest: Input data was truncated"),
        (b"[]", "invalid manifest: Expected `object`, got `array`"),
        (b"\xff\xfe{}", "invalid manifest: "),
        ({"layers": []}, "invalid manifest: Object missing required field `config`"),
        ({"manifests": []}, "invalid manifest: it is a list of manifests (an OCI index), not a model"),
        (
            {"schemaVersion": 2, "manifests": [{"digest": "x", "platform": {"os": "linux"}}]},
            "invalid manifest: it is a list of manifests (an OCI index), not a model",
        ),
        ({"manifests": 1}, "invalid manifest: Object missing required field `config`"),
        ({"config": GOOD_LAYER}, "invalid manifest: Object missing required field `layers`"),
        ({"config": GOOD_LAYER, "layers": [{**GOOD_LAYER, "size": -1}]}, "invalid manifest: Expected `int` >= 0"),
        ({"config": GOOD_LAYER, "layers": [{**GOOD_LAYER, "size": 1 << 63}]}, "invalid manifest: Expected `int` <= "),
        ({"config": GOOD_LAYER, "layers": [{**GOOD_LAYER, "size": 1.5}]}, "invalid manifest: Expected `int`"),
        ({"config": GOOD_LAYER, "layers": [{**GOOD_LAYER, "size": True}]}, "invalid manifest: Expected `int`"),
        ({"config": GOOD_LAYER, "layers": [GOOD_LAYER, None]}, "invalid manifest: Expected `object`, got `null`"),
        (
            {"config": {**GOOD_LAYER, "digest": "sha256:../../../../etc/passwd"}, "layers": []},
            "invalid manifest: invalid digest format",
        ),
        (
            {"config": {**GOOD_LAYER, "digest": "sha256-" + "a" * 64}, "layers": []},
            "invalid manifest: invalid digest format",
        ),
        (
            {"config": {**GOOD_LAYER, "digest": "sha256:" + "A" * 64}, "layers": []},
            "invalid manifest: invalid digest format",
        ),
        (
            {"config": {**GOOD_LAYER, "digest": "sha256:" + "a" * 64 + "\n"}, "layers": []},
            "invalid manifest: invalid digest format",
        ),
        (b'{"x":' + b"[" * 100_000, "invalid manifest: "),  # nested too deeply, or cut off
        (b" " * (MAX_MANIFEST_BYTES + 1), "manifest of 4194305 bytes is larger than the 4194304 that are allowed"),
    ],
)
def test_a_hostile_manifest_is_refused_with_its_reason(document: object, reason: str) -> None:
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    with pytest.raises(StoreError) as caught:
        parse_manifest(raw)
    assert str(caught.value).startswith(reason)


def test_unknown_members_are_ignored() -> None:
    raw = json.dumps({"config": {**GOOD_LAYER, "annotations": {}, "from": None}, "layers": None, "x": 1}).encode()
    assert parse_manifest(raw).layers == ()


def test_a_model_is_written_found_and_described(store: Store) -> None:
    name = add_model(store, "smollm2:135m", b"weights", b"template")
    stored = store.manifest(name)
    path = store.root / "manifests" / "registry.ollama.ai" / "library" / "smollm2" / "135m"
    assert stored.manifest.raw == path.read_bytes()
    assert stored.digest.hex == sha256(path.read_bytes())
    assert stored.modified == path.stat().st_mtime
    assert stored.size == len(b'weightstemplate{"n":"smollm2:135m"}')
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list((store.root / "manifests").iterdir()) == [path.parents[2]]
    assert store.list() == [stored]


def test_an_empty_store_has_no_models(store: Store) -> None:
    assert store.list() == []
    assert store.references() == set()
    assert store.resolve(parse("X/Y:z")) == parse("X/Y:z")
    with pytest.raises(ModelNotFound, match=r"^model 'x:latest' not found$"):
        store.manifest(parse("x"))
    assert not store.root.exists()


def test_a_pulled_manifest_stays_byte_for_byte(store: Store) -> None:
    name = add_model(store, "a", b"w")
    raw = b"  " + store.manifest(name).manifest.raw.strip().replace(b",", b" , ")
    assert store.write_manifest(parse("b"), raw).manifest.raw == raw
    assert store.manifest(parse("b")).digest.hex == sha256(raw)


def test_no_manifest_is_written_without_its_blobs(store: Store) -> None:
    digest, _, _ = store.add_bytes(b"config")
    config = Layer(MediaType.CONFIG, digest, 6)
    missing = Layer(MediaType.MODEL, Digest("a" * 64), 1)
    with pytest.raises(StoreError, match=f'^blob "sha256:{"a" * 64}" is missing$'):
        store.write_manifest(parse("x"), encode_manifest(config, (missing,)))
    wrong = Layer(MediaType.CONFIG, digest, 5)
    with pytest.raises(StoreError, match=r"has 6 bytes, the manifest says 5$"):
        store.write_manifest(parse("x"), encode_manifest(wrong, ()))
    with pytest.raises(StoreError, match=r"^invalid manifest: "):
        store.write_manifest(parse("x"), b"{}")
    assert store.list() == []


def test_names_are_found_ignoring_case_part_by_part(store: Store) -> None:
    add_model(store, "Registry.example/Some/MODEL:Tag", b"w")
    assert store.resolve(parse("registry.EXAMPLE/some/model:TAG")).full == "Registry.example/Some/MODEL:Tag"
    assert store.resolve(parse("registry.example/SOME/model:new")).full == "Registry.example/Some/MODEL:new"
    assert store.resolve(parse("registry.example/other/model")).full == "Registry.example/other/model:latest"
    assert store.manifest(parse("registry.example/some/model:tag")).name.full == "Registry.example/Some/MODEL:Tag"
    add_model(store, "REGISTRY.example/some/model:tag", b"w2")
    assert [stored.name.full for stored in store.list()] == ["Registry.example/Some/MODEL:Tag"]


def test_the_exact_spelling_goes_first_where_there_are_several(store: Store) -> None:
    add_model(store, "a/Model:x", b"w")
    shutil.copytree(store.root / "manifests/registry.ollama.ai/a", store.root / "manifests/registry.ollama.ai/A")
    (store.root / "manifests/registry.ollama.ai/a/Model/x").unlink()
    assert store.resolve(parse("a/model:X")).full == "registry.ollama.ai/A/Model:x"
    assert store.resolve(parse("a/model:y")).full == "registry.ollama.ai/a/Model:y"


def test_replacing_a_model_deletes_what_only_it_needed(store: Store) -> None:
    add_model(store, "a", b"old", b"shared")
    add_model(store, "b", b"shared")
    add_model(store, "a", b"new")
    assert not store.has_blob(Digest(sha256(b"old")))
    assert store.has_blob(Digest(sha256(b"shared")))
    assert store.has_blob(Digest(sha256(b"new")))


def test_replacing_a_model_keeps_old_blobs_where_pruning_is_off(store: Store) -> None:
    add_model(store, "a", b"old")
    add_model(store, "b", b"new")
    store.write_manifest(parse("a"), store.manifest(parse("b")).manifest.raw, prune=False)
    assert store.has_blob(Digest(sha256(b"old")))


def test_copying_gives_the_same_model_a_second_name(store: Store) -> None:
    add_model(store, "a", b"w")
    add_model(store, "user/b", b"gone")
    copied = store.copy(parse("A"), parse("USER/b"))
    assert copied.name.full == "registry.ollama.ai/user/b:latest"
    assert copied.digest == store.manifest(parse("a")).digest
    assert not store.has_blob(Digest(sha256(b"gone")))
    assert store.copy(parse("a"), parse("A")).name == parse("a")
    assert len(store.list()) == 2
    with pytest.raises(ModelNotFound):
        store.copy(parse("nope"), parse("x"))


def test_deleting_removes_manifest_empty_folders_and_blobs(store: Store) -> None:
    add_model(store, "host/ns/m:a", b"w", b"shared")
    add_model(store, "host/ns/m:b", b"shared")
    store.delete(parse("HOST/ns/m:a"))
    assert [stored.name.full for stored in store.list()] == ["host/ns/m:b"]
    assert not store.has_blob(Digest(sha256(b"w")))
    store.delete(parse("host/ns/m:b"))
    assert list((store.root / "manifests").iterdir()) == []
    assert blobs(store) == set()
    with pytest.raises(ModelNotFound, match=r"^model 'host/ns/m:b' not found$"):
        store.delete(parse("host/ns/m:b"))


def test_deleting_keeps_blobs_while_another_manifest_cannot_be_read(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    add_model(store, "a", b"w")
    broken = store.root / "manifests/registry.ollama.ai/library/b/latest"
    broken.parent.mkdir()
    broken.write_bytes(b"{")
    store.delete(parse("a"))
    assert store.has_blob(Digest(sha256(b"w")))
    assert "keeping blobs that may be unused" in caplog.text


def test_models_are_listed_newest_first_to_the_second(store: Store) -> None:
    for name, moment in (("c", 100.9), ("b", 100.1), ("a", 50.0), ("d", 200.0)):
        add_model(store, name, b"w")
        os.utime(store.root / f"manifests/registry.ollama.ai/library/{name}/latest", (moment, moment))
    assert [stored.name.model for stored in store.list()] == ["d", "b", "c", "a"]


# A folder as another program leaves it


def lay_out(root: Path) -> None:
    """A store as the specification describes it, with all that a few years leave behind."""
    day_old = 24 * HOUR
    manifests, folder = root / "manifests", root / "blobs"
    folder.mkdir(parents=True)
    contents = {"weights": b"GGUF weights", "config": b'{"model_format":"gguf"}', "old": b"old name"}
    for key, content in contents.items():
        colon = ":" if key == "old" else "-"
        (folder / f"sha256{colon}{sha256(content)}").write_bytes(content)
    layer = {"mediaType": str(MediaType.MODEL), "digest": f"sha256:{sha256(contents['weights'])}", "size": 12}
    aged = {"mediaType": str(MediaType.LICENSE), "digest": f"sha256:{sha256(contents['old'])}", "size": 8}
    config = {"mediaType": str(MediaType.CONFIG), "digest": f"sha256:{sha256(contents['config'])}", "size": 23}
    raw = json.dumps({"schemaVersion": 2, "config": config, "layers": [layer, aged]}).encode()
    for name in ("registry.ollama.ai/library/llama3/latest", "HF.co/Bartowski/Some-Model-GGUF/Q4_K_M"):
        path = manifests / name
        path.parent.mkdir(parents=True)
        path.write_bytes(raw)
    (manifests / "registry.ollama.ai/library/.DS_Store").write_bytes(b"\0")
    (manifests / "registry.ollama.ai/library/llama3/.DS_Store").write_bytes(b"\0")
    (manifests / "registry.ollama.ai/gone/empty").mkdir(parents=True)
    leftovers = {
        f"sha256-{'1' * 64}": day_old,  # in no manifest
        f"sha256-{'2' * 64}": 60,  # being added
        "sha256-123456789": day_old,  # a writer died
        "sha256-987654321": 60,  # a writer writes
        f"sha256-{'3' * 64}-partial": PARTIAL_LIFETIME + day_old,
        f"sha256-{'3' * 64}-partial-0": PARTIAL_LIFETIME + day_old,
        f"sha256-{'4' * 64}-partial": day_old,
        f"sha256-{'4' * 64}-partial-0": PARTIAL_LIFETIME + day_old,  # this part ended long before the next
        f"sha256-{'4' * 64}-partial-1": day_old,
        f"sha256-{sha256(contents['weights'])}-partial-0": day_old,  # its blob is there
        "README.txt": 2 * PARTIAL_LIFETIME,  # not ours
    }
    for name, age in leftovers.items():
        (folder / name).write_bytes(b"x")
        make_older(folder / name, age)


def test_a_folder_of_the_other_program_is_read(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    lay_out(store.root)
    broken = store.root / "manifests/registry.ollama.ai/library/broken/latest"
    broken.parent.mkdir()
    broken.write_bytes(b'{"config":')
    strange = store.root / "manifests/registry.ollama.ai/library/llama3/bad name"
    strange.write_bytes(b"{}")
    assert sorted(str(stored.name) for stored in store.list()) == [
        "HF.co/Bartowski/Some-Model-GGUF:Q4_K_M",
        "llama3:latest",
    ]
    assert store.manifest(parse("hf.co/bartowski/some-model-gguf:q4_k_m")).size == 43
    skipped = [record.getMessage() for record in caplog.records]
    assert [message.split(":")[0] for message in skipped] == [
        "skipping manifests/registry.ollama.ai/library/broken/latest",
        "skipping manifests/registry.ollama.ai/library/llama3/bad name",
    ]
    with pytest.raises(StoreError, match=r"^invalid manifest: "):
        store.manifest(parse("broken"))


def test_a_folder_of_the_other_program_is_pruned(store: Store) -> None:
    lay_out(store.root)
    report = store.prune()
    assert (report.renamed, report.deleted_blobs, report.deleted_temporaries, report.deleted_partials) == (1, 1, 1, 3)
    assert (report.removed_folders, report.complete) == (2, True)
    weights = sha256(b"GGUF weights")
    assert blobs(store) == {
        f"sha256-{weights}",
        f"sha256-{sha256(b'old name')}",
        "sha256-" + sha256(b'{"model_format":"gguf"}'),
        f"sha256-{'2' * 64}",
        "sha256-987654321",
        f"sha256-{'4' * 64}-partial",
        f"sha256-{'4' * 64}-partial-0",
        f"sha256-{'4' * 64}-partial-1",
        "README.txt",
    }
    assert store.blob_size(parse_digest(f"sha256:{sha256(b'old name')}")) == 8
    assert not (store.root / "manifests/registry.ollama.ai/gone").exists()
    assert store.prune() == PruneReport()


@pytest.mark.parametrize("content", [b"{", b""])
def test_nothing_is_deleted_while_a_manifest_cannot_be_read(store: Store, content: bytes) -> None:
    lay_out(store.root)
    (store.root / "manifests/registry.ollama.ai/library/llama3/other").write_bytes(content)
    before = blobs(store)
    assert store.prune() == PruneReport(renamed=1, complete=False)
    assert {name.replace(":", "-") for name in before} == blobs(store)


def test_nothing_is_deleted_where_there_is_no_manifests_folder(store: Store) -> None:
    lay_out(store.root)
    shutil.rmtree(store.root / "manifests")
    before = blobs(store)
    assert store.prune() == PruneReport(complete=False)
    assert blobs(store) == before


def test_prune_can_be_kept_to_renaming(store: Store) -> None:
    lay_out(store.root)
    assert store.prune(delete=False) == PruneReport(renamed=1)
    assert f"sha256-{'1' * 64}" in blobs(store)


def test_prune_leaves_a_slow_writer_its_file(store: Store) -> None:
    (store.root / "manifests").mkdir(parents=True)
    with store.writer() as writer:
        writer.write(b"slow")
        (temporary,) = store.blobs_folder.iterdir()
        make_older(temporary, 24 * HOUR)
        assert store.prune() == PruneReport()
        digest, _ = writer.commit()
    assert store.blob_path(digest).read_bytes() == b"slow"


def test_scratch_folders_go_by_themselves_or_with_a_later_prune(store: Store) -> None:
    (store.root / "manifests").mkdir(parents=True)
    with store.scratch() as folder:
        (folder / "wheel").write_bytes(b"x")
        make_older(folder, 24 * HOUR)
        assert store.prune() == PruneReport()
        assert folder.parent == store.root
    assert not folder.exists()
    (folder / "left").mkdir(parents=True)
    make_older(folder, 24 * HOUR)
    assert store.prune().deleted_temporaries == 1
    assert not folder.exists()


def test_blobs_of_a_job_that_failed_are_discarded_unless_needed(store: Store) -> None:
    add_model(store, "a", b"shared")
    digests = [store.add_bytes(data)[0] for data in (b"shared", b"own")]
    store.discard(digests)
    assert [store.has_blob(digest) for digest in digests] == [True, False]


@pytest.mark.parametrize("part", ["registry.ollama.ai", "registry.ollama.ai/library", "HF.co/Bartowski/x/latest"])
def test_a_folder_on_a_disk_that_is_not_there_is_not_taken_for_an_empty_one(store: Store, part: str) -> None:
    lay_out(store.root)
    link = store.root / "manifests" / part
    shutil.rmtree(link, ignore_errors=True)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to("/mnt/not-there-today")
    with pytest.raises(StoreError, match=f'^"{part}'):
        store.references()
    assert store.prune().complete is False
    assert len(store.list()) < 3


@pytest.mark.parametrize("part", ["", "manifests", "blobs"])
def test_a_store_on_a_disk_that_is_not_there_is_not_taken_for_an_empty_one(store: Store, part: str) -> None:
    name, digest = add_model(store, "a", b"weights"), store.add_bytes(b"weights")[0]
    link = store.root / part
    shutil.rmtree(link)
    link.symlink_to("/mnt/not-there-today")
    sentence = f'"{link}" is a link to "/mnt/not-there-today", which is not there'
    reads: list[Callable[[], object]] = [lambda: store.open_path(digest)]
    if part != "blobs":
        reads += [store.list, store.references, lambda: store.manifest(name)]
    for read in reads[part == "manifests" :]:
        with pytest.raises(StoreError, match=f"^{re.escape(sentence)}$"):
            read()
    assert link.is_symlink()


def test_models_are_listed_though_others_lie_in_a_folder_that_cannot_be_read(store: Store) -> None:
    lay_out(store.root)
    shut = store.root / "manifests" / "HF.co"
    shut.chmod(0)
    if os.geteuid() == 0:
        os.chown(shut, 65534, 65534)
    program = f"""
from pathlib import Path
from corral.errors import StoreError
from corral.store import Store
store = Store(Path({str(store.root)!r}))
print([str(stored.name) for stored in store.list()])
print(store.prune().complete)
try:
    store.references()
except StoreError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, preexec_fn=_without_override
    )
    assert done.stdout.splitlines() == ["['llama3:latest']", "False", '"HF.co": permission denied']
    assert "skipping manifests/HF.co: permission denied" in done.stderr
    shut.chmod(0o755)


def _without_override() -> None:
    """A program that root starts then may read only what its user may."""
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP; others than root have none to drop


# Hostile names


@pytest.mark.parametrize("text", ["../../etc/passwd", "a/../../b", "a/..", "x:..", "/etc/passwd", "a//b", "..:x"])
def test_no_name_leads_out_of_the_store(text: str) -> None:
    with pytest.raises(InvalidName):
        parse(text)
