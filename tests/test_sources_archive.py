"""Archives of models: what is in one, that standard programs read it, and that a hostile one gets nowhere."""

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping
from contextlib import aclosing
from pathlib import Path

import pytest

from corral.errors import BadRequest, CorralError, ModelNotFound, NotFound, SourceError, StoreError
from corral.messages import Progress
from corral.names import Digest, Name, parse
from corral.sources import archive
from corral.sources.archive import tar
from corral.store import Store
from tests.registry import running_registry
from tests.test_store import add_model, lay_out

Files = list[tuple[str | tarfile.TarInfo, bytes]]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


@pytest.fixture
def other(tmp_path: Path) -> Store:
    return Store(tmp_path / "other")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "models.tar"


async def export(store: Store, path: Path, *models: str) -> list[Progress]:
    async with aclosing(archive.export([parse(name) for name in models], store, path)) as steps:
        return [step async for step in steps]


async def import_(path: Path, store: Store, only: Name | None = None) -> list[Progress]:
    async with aclosing(archive.import_(path, store, only=only)) as steps:
        return [step async for step in steps]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def unpacked(path: Path, folder: Path) -> dict[str, bytes]:
    """What the system's own `tar` makes of an archive."""
    folder.mkdir()
    subprocess.run(["tar", "-xf", str(path), "-C", str(folder)], check=True)
    return files_in(folder)


# There and back


async def test_an_archive_is_an_oci_image_layout(store: Store, file: Path, tmp_path: Path) -> None:
    add_model(store, "a", b"weights", b"shared")
    add_model(store, "someone/b:8b", b"shared")
    await export(store, file, "A", "someone/b:8b", "a")
    found = unpacked(file, tmp_path / "unpacked")
    first, second = (store.manifest(parse(name)) for name in ("a", "someone/b:8b"))
    assert json.loads(found.pop("oci-layout")) == {"imageLayoutVersion": "1.0.0"}
    assert json.loads(found.pop("index.json")) == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": str(stored.digest),
                "size": len(stored.manifest.raw),
                "annotations": {"org.opencontainers.image.ref.name": stored.name.full},
            }
            for stored in (first, second)
        ],
    }
    assert found == {
        f"blobs/sha256/{sha256(data)}": data
        for data in (
            b"weights",
            b"shared",
            b'{"n":"a"}',
            b'{"n":"someone/b:8b"}',
            first.manifest.raw,
            second.manifest.raw,
        )
    }


async def test_models_come_out_as_they_went_in(store: Store, other: Store, file: Path) -> None:
    add_model(store, "a", b"weights", b"shared")
    add_model(store, "host.example:5000/ns/b:8b", b"shared", b"")
    add_model(store, "not-exported", b"else")
    exported = await export(store, file, "a", "host.example:5000/ns/b:8b")
    imported = await import_(file, other)
    store.delete(parse("not-exported"))
    assert files_in(other.root) == files_in(store.root)
    assert exported[0] == Progress("reading manifests")
    assert exported[-2:] == [Progress("writing archive"), Progress("success")]
    weights = Digest(sha256(b"weights"))
    assert Progress(f"exporting {weights.short}", str(weights), 7, 7) in exported
    assert imported[0] == Progress("reading archive")
    assert imported[-2:] == [Progress("writing manifest"), Progress("success")]
    assert Progress(f"importing {weights.short}", str(weights), 7, 7) in imported


async def test_the_same_models_give_the_same_archive(store: Store, file: Path, tmp_path: Path) -> None:
    add_model(store, "a", b"weights")
    await export(store, file, "a")
    await export(store, tmp_path / "again.tar", "a")
    assert sha256_of(file) == sha256_of(tmp_path / "again.tar")


def sha256_of(path: Path) -> str:
    return sha256(path.read_bytes())


async def test_a_folder_of_the_other_program_is_exported_byte_for_byte(store: Store, other: Store, file: Path) -> None:
    lay_out(store.root)
    store.prune()
    await export(store, file, "hf.co/bartowski/some-model-gguf:q4_k_m")
    await import_(file, other)
    (imported,) = other.list()
    original = store.manifest(imported.name)
    assert (imported.name, imported.manifest.raw) == (original.name, original.manifest.raw)
    assert imported.name.full == "HF.co/Bartowski/Some-Model-GGUF:Q4_K_M"


async def test_one_model_can_be_taken_out(store: Store, other: Store, file: Path) -> None:
    add_model(store, "a", b"weights")
    add_model(store, "b", b"others")
    await export(store, file, "a", "b")
    await import_(file, other, only=parse("B"))
    assert [str(stored.name) for stored in other.list()] == ["b:latest"]
    assert not other.has_blob(Digest(sha256(b"weights")))
    with pytest.raises(NotFound, match=r'^the archive has no model "c:latest"$'):
        await import_(file, other, only=parse("c"))


async def test_importing_again_changes_nothing(store: Store, file: Path) -> None:
    add_model(store, "a", b"weights")
    before = files_in(store.root)
    await export(store, file, "a")
    await import_(file, store)
    assert files_in(store.root) == before


async def test_importing_over_another_model_replaces_it(store: Store, other: Store, file: Path) -> None:
    add_model(store, "a", b"new")
    add_model(other, "a", b"old")
    await export(store, file, "a")
    await import_(file, other)
    assert files_in(other.root) == files_in(store.root)


def packed_by_tar(folder: Path, path: Path, form: str) -> None:
    subprocess.run(["tar", f"--format={form}", "-cf", str(path), "-C", str(folder), "."], check=True)


async def test_an_archive_packed_by_another_program_is_read(
    store: Store, other: Store, file: Path, tmp_path: Path
) -> None:
    """Other order, `./` before the names, folders, a file more: as `tar -c` does it in an unpacked layout."""
    add_model(store, "a", b"weights")
    await export(store, file, "a")
    unpacked(file, tmp_path / "unpacked")
    (tmp_path / "unpacked" / "README").write_bytes(b"x")
    for form in ("gnu", "ustar", "pax"):
        packed_by_tar(tmp_path / "unpacked", tmp_path / f"{form}.tar", form)
        target = Store(tmp_path / form)
        await import_(tmp_path / f"{form}.tar", target)
        assert files_in(target.root) == files_in(store.root)


# Tools for container images


def skopeo(*arguments: str) -> bytes:
    program = shutil.which("skopeo")
    assert program, "these tests need skopeo: apt-get install skopeo"
    done = subprocess.run([program, "--insecure-policy", *arguments], capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


async def test_skopeo_reads_and_copies_the_models_of_an_archive(
    store: Store, other: Store, file: Path, tmp_path: Path
) -> None:
    add_model(store, "a", b"weights")
    add_model(store, "host.example:5000/ns/b:8b", b"weights", b"more")
    await export(store, file, "a", "host.example:5000/ns/b:8b")
    copied = tmp_path / "copied.tar"
    for stored in store.list():
        assert skopeo("inspect", "--raw", f"oci-archive:{file}:{stored.name.full}") == stored.manifest.raw
        skopeo("copy", f"oci-archive:{file}:{stored.name.full}", f"oci-archive:{copied}:{stored.name.full}")
        await import_(copied, other)
        copied.unlink()
    assert files_in(other.root) == files_in(store.root)


async def test_skopeo_brings_a_model_of_an_archive_to_a_registry(store: Store, file: Path, tmp_path: Path) -> None:
    add_model(store, "a", b"weights")
    await export(store, file, "a")
    with running_registry(tmp_path / "registry") as server:
        target = f"docker://{server.host}/library/a:1"
        skopeo("copy", "--dest-tls-verify=false", f"oci-archive:{file}:{parse('a').full}", target)
        assert server.manifest("library/a", "1") == store.manifest(parse("a")).manifest.raw
        assert server.blob("library/a", f"sha256:{sha256(b'weights')}") == b"weights"


# Failures while writing


async def test_what_cannot_be_exported_leaves_no_file(store: Store, file: Path, tmp_path: Path) -> None:
    add_model(store, "a", b"weights")
    add_model(store, "damaged", b"other weights")
    add_model(store, "short", b"longer weights")
    add_model(store, "gone", b"lost weights")
    store.blob_path(Digest(sha256(b"other weights"))).write_bytes(b"OTHER weights")
    store.blob_path(Digest(sha256(b"longer weights"))).write_bytes(b"longer")
    store.blob_path(Digest(sha256(b"lost weights"))).unlink()
    damaged = 'blob "sha256:{}" is damaged: remove its model and pull it again'
    cases: list[tuple[list[str], type[CorralError], str]] = [
        ([], BadRequest, "no models to export"),
        (["a", "nope"], ModelNotFound, "model 'nope:latest' not found"),
        (["damaged"], StoreError, damaged.format(sha256(b"other weights"))),
        (["short"], StoreError, damaged.format(sha256(b"longer weights"))),
        (["gone"], NotFound, f'blob "sha256:{sha256(b"lost weights")}" not found'),
    ]
    for models, kind, sentence in cases:
        with pytest.raises(kind) as caught:
            await export(store, file, *models)
        assert str(caught.value) == sentence
    (tmp_path / "plain").write_bytes(b"no folder")
    places = {
        tmp_path / "no" / "folder.tar": "no such file or directory",
        tmp_path / "plain" / "models.tar": "not a directory",
        tmp_path / ("n" * 300): "file name too long",
    }
    for place, reason in places.items():
        with pytest.raises(StoreError, match=f'^writing "{place}" failed: {reason}$'):
            await export(store, place, "a")
        with pytest.raises((StoreError, NotFound), match=rf'"{place}"( failed: {reason})?$'):
            await import_(place, store)
    assert names_in(tmp_path) == {"models", "plain"}


async def test_no_file_is_written_over(store: Store, file: Path) -> None:
    add_model(store, "a", b"weights")
    await export(store, file, "a")
    before = sha256_of(file)
    with pytest.raises(BadRequest, match=r'models.tar" exists already$'):
        await export(store, file, "a")
    assert sha256_of(file) == before


async def test_hanging_up_while_writing_leaves_no_file(store: Store, file: Path, tmp_path: Path) -> None:
    add_model(store, "a", bytes(8 << 20))
    async with aclosing(archive.export([parse("a")], store, file)) as steps:
        async for step in steps:
            if step.status.startswith("exporting"):
                break
    assert names_in(tmp_path) == {"models"}


def test_being_killed_while_writing_leaves_no_file(store: Store, file: Path, tmp_path: Path) -> None:
    add_model(store, "a", bytes(8 << 20))
    program = f"""
import asyncio
from pathlib import Path
from corral.names import parse
from corral.sources import archive
from corral.store import Store
async def main():
    async for step in archive.export([parse("a")], Store(Path({str(store.root)!r})), Path({str(file)!r})):
        print(step.status, flush=True)
        if step.status.startswith("exporting"):
            input()
asyncio.run(main())
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert [process.stdout.readline().split()[0] for _ in range(2)] == ["reading", "exporting"]
        process.kill()
    assert names_in(tmp_path) == {"models"}


async def test_hanging_up_while_reading_leaves_nothing(store: Store, other: Store, file: Path) -> None:
    add_model(store, "a", bytes(8 << 20))
    await export(store, file, "a")
    async with aclosing(archive.import_(file, other)) as steps:
        async for step in steps:
            if step.status.startswith("importing"):
                break
    assert files_in(other.root) == {}


# Hostile archives


def pack(path: Path, files: Files) -> None:
    """A tar of exactly these members, in this order."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as packed:
        for name, data in files:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            if info.isreg():
                info.size = len(data)
            packed.addfile(info, io.BytesIO(data))


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


WEIGHTS = b"GGUF weights"
CONFIG = b'{"model_format":"gguf"}'


def model_files(
    name: str = "evil", weights: bytes = WEIGHTS, size: int | None = None, **descriptor: object
) -> dict[str, bytes]:
    """The files of a sound archive with one model, but for what the arguments spoil."""
    prefix = "application/vnd.ollama.image."
    manifest = json.dumps(
        {
            "config": {"mediaType": "x", "digest": f"sha256:{sha256(CONFIG)}", "size": len(CONFIG)},
            "layers": [
                {
                    "mediaType": f"{prefix}model",
                    "digest": f"sha256:{sha256(WEIGHTS)}",
                    "size": len(WEIGHTS) if size is None else size,
                }
            ],
        }
    ).encode()
    row = {
        "mediaType": "m",
        "digest": f"sha256:{sha256(manifest)}",
        "size": len(manifest),
        "annotations": {archive.REF_NAME: name},
        **descriptor,
    }
    return {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": json.dumps({"manifests": [row]}).encode(),
        f"blobs/sha256/{sha256(manifest)}": manifest,
        f"blobs/sha256/{sha256(CONFIG)}": CONFIG,
        f"blobs/sha256/{sha256(WEIGHTS)}": weights,
    }


def members(files: Mapping[str, bytes]) -> Files:
    return list(files.items())


def without(name: str) -> Files:
    return [(key, data) for key, data in model_files().items() if key != name]


def changed(**files: bytes) -> Files:
    return members({**model_files(), **{key.replace("_", "-"): data for key, data in files.items()}})


def manifest_of(files: Files) -> bytes:
    return files[2][1]


SOUND = members(model_files())
IMAGE = manifest_of(SOUND).replace(b"vnd.ollama.image.model", b"vnd.oci.image.layer.v1")
BLOB = f"blobs/sha256/{sha256(WEIGHTS)}"

HOSTILE: dict[str, tuple[Callable[[], Files], str]] = {
    "a path out": (lambda: [*SOUND, ("../../evil", b"x")], "the archive has a file with the unsafe name '../../evil'"),
    "an absolute path": (lambda: [*SOUND, ("/etc/x", b"x")], "the archive has a file with the unsafe name '/etc/x'"),
    "a backslash": (lambda: [*SOUND, ("..\\x", b"x")], "the archive has a file with the unsafe name '..\\\\x'"),
    "a control character": (lambda: [*SOUND, ("a\nb", b"")], "the archive has a file with the unsafe name 'a\\nb'"),
    "a symbolic link": (
        lambda: [(special(BLOB, tarfile.SYMTYPE, "/etc/passwd"), b""), *without(BLOB)],
        f'"{BLOB}" in the archive is a link, a device or the like',
    ),
    "a hard link": (
        lambda: [*without(BLOB), (special(BLOB, tarfile.LNKTYPE, "/etc/passwd"), b"")],
        f'"{BLOB}" in the archive is a link, a device or the like',
    ),
    "a device": (
        lambda: [*SOUND, (special("zero", tarfile.CHRTYPE), b"")],
        '"zero" in the archive is a link, a device or the like',
    ),
    "a pipe": (
        lambda: [*SOUND, (special("pipe", tarfile.FIFOTYPE), b"")],
        '"pipe" in the archive is a link, a device or the like',
    ),
    "a file with holes": (
        lambda: [*SOUND, (special("sparse", tarfile.GNUTYPE_SPARSE), b"")],
        '"sparse" in the archive is a link, a device or the like',
    ),
    "a blob twice": (lambda: [*SOUND, (BLOB, WEIGHTS)], f'the archive has "{BLOB}" twice'),
    "a blob twice by another name": (lambda: [*SOUND, (f"./{BLOB}", WEIGHTS)], f'the archive has "{BLOB}" twice'),
    "another content": (
        lambda: members(model_files(weights=b"EVIL weights")),
        f'the blob "sha256:{sha256(WEIGHTS)}" in the archive is damaged: its digest is "sha256:',
    ),
    "another size": (
        lambda: members(model_files(weights=b"EVIL")),
        f'the blob "sha256:{sha256(WEIGHTS)}" of "evil:latest" has 4 bytes in the archive instead of 12',
    ),
    "a size no file has": (
        lambda: members(model_files(size=1 << 60)),
        f'the blob "sha256:{sha256(WEIGHTS)}" of "evil:latest" has 12 bytes in the archive instead of {1 << 60}',
    ),
    "a missing blob": (
        lambda: without(BLOB),
        f'the archive lacks the blob "sha256:{sha256(WEIGHTS)}" of "evil:latest"',
    ),
    "no layout": (lambda: without("oci-layout"), 'the archive has no "oci-layout"'),
    "no index": (lambda: without("index.json"), 'the archive has no "index.json"'),
    "another version": (
        lambda: changed(oci_layout=b'{"imageLayoutVersion":"2.0.0"}'),
        'the archive has the unknown version "2.0.0"',
    ),
    "a layout that is too big": (
        lambda: changed(oci_layout=b" " * 5000),
        '"oci-layout" in the archive has 5000 bytes',
    ),
    "an index that is no JSON": (
        lambda: members({**model_files(), "index.json": b"{"}),
        '"index.json" in the archive cannot be read: Input data was truncated',
    ),
    "an index that is too deep": (
        lambda: members({**model_files(), "index.json": b'{"x":' + b"[" * 100_000}),
        '"index.json" in the archive cannot be read: ',
    ),
    "an empty index": (
        lambda: members({**model_files(), "index.json": b'{"manifests":[]}'}),
        "the archive has no models",
    ),
    "a name that leads out": (
        lambda: members(model_files(name="../../../evil")),
        'the archive has a model with the invalid name "../../../evil"',
    ),
    "no name": (
        lambda: members(model_files(annotations={})),
        'the archive has a model with the invalid name ""',
    ),
    "a digest that leads out": (
        lambda: members(model_files(digest="sha256:../../../../etc/passwd")),
        'the manifest of "evil:latest" in the archive cannot be used: invalid digest format',
    ),
    "another manifest": (
        lambda: members(model_files(digest=f"sha256:{sha256(WEIGHTS)}", name="x")),
        'the manifest of "x:latest" in the archive cannot be used: invalid manifest: ',
    ),
    "a missing manifest": (
        lambda: members(model_files(digest="sha256:" + "0" * 64)),
        f'the manifest of "evil:latest" in the archive cannot be used: the archive has no "blobs/sha256/{"0" * 64}"',
    ),
    "a manifest with another digest": (
        lambda: members({**model_files(digest="sha256:" + "0" * 64), f"blobs/sha256/{'0' * 64}": b"{}"}),
        f'the manifest of "evil:latest" in the archive cannot be used: "sha256:{"0" * 64}" has another digest',
    ),
    "no model but some image": (
        lambda: [
            (name.replace(sha256(manifest_of(SOUND)), sha256(IMAGE)), IMAGE if data == manifest_of(SOUND) else data)
            for name, data in image_files()
        ],
        '"evil:latest" in the archive is no model',
    ),
}


def image_files() -> list[tuple[str, bytes]]:
    return list(model_files(digest=f"sha256:{sha256(IMAGE)}").items())


@pytest.mark.parametrize("case", HOSTILE)
async def test_a_hostile_archive_is_refused_and_leaves_nothing(
    other: Store, file: Path, tmp_path: Path, case: str
) -> None:
    files, sentence = HOSTILE[case]
    pack(file, files())
    with pytest.raises((SourceError, NotFound)) as caught:
        await import_(file, other)
    assert str(caught.value).startswith(sentence)
    assert files_in(other.root) == {}
    assert names_in(tmp_path) <= {"models.tar", "other"}


async def test_the_same_archive_unspoilt_is_imported(other: Store, file: Path) -> None:
    pack(file, SOUND)
    await import_(file, other)
    assert [str(stored.name) for stored in other.list()] == ["evil:latest"]


def damaged_at(offset: int, data: bytes) -> Callable[[bytes], bytes]:
    return lambda packed: packed[:offset] + data + packed[offset + len(data) :]


def resized(field: bytes) -> Callable[[bytes], bytes]:
    """The first header with another size, and a checksum that fits it."""

    def spoil(packed: bytes) -> bytes:
        block = packed[:124] + field + packed[136:148] + b" " * 8 + packed[156:512]
        return block[:148] + f"{sum(block):06o}\0 ".encode() + block[156:] + packed[512:]

    return spoil


def with_attributes(data: bytes) -> Callable[[bytes], bytes]:
    def spoil(packed: bytes) -> bytes:
        info = tarfile.TarInfo("x")
        info.type, info.size = tarfile.XHDTYPE, len(data)
        return info.tobuf(tarfile.USTAR_FORMAT) + data + tar.padding(len(data)) + packed

    return spoil


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda _: b"", "the file is not a tar archive"),
        (lambda _: b"hello" * 1000, "the file is not a tar archive, or it is damaged"),
        (lambda packed: packed[:700], "the archive is cut short"),
        (lambda packed: packed[:2000], "the archive is cut short"),
        (lambda _: bytes(10240), 'the archive has no "oci-layout"'),
        (damaged_at(3, b"X"), "the file is not a tar archive, or it is damaged"),
        (resized(b"77777777777\0"), "the archive is cut short"),
        (resized(b"\x80" + b"\x7f" + bytes(10)), "the archive is cut short"),
        (resized(b"\xff" * 12), "the archive has a file of no valid size"),
        (resized(b"-0000000001\0"), "the archive has a file of no valid size"),
        (with_attributes(b"11 size=-1\n"), "the archive has a file of no valid size"),
        (with_attributes(b"29 size=99999999999999999999\n"), "the archive has a file of no valid size"),
        (with_attributes(b"23 size=99999999999999\n"), "the archive is cut short"),
        (with_attributes(b"22 GNU.sparse.major=1\n"), "the archive has a file with holes"),
        (with_attributes(b"99 path=x\n"), "the archive has attributes that cannot be read"),
        (with_attributes(b"0 path=x\n"), "the archive has attributes that cannot be read"),
        (with_attributes(b"x path=x\n"), "the archive has attributes that cannot be read"),
        (with_attributes(b"19 path=../../evil\n"), "the archive has a file with the unsafe name '../../evil'"),
        (with_attributes(b"9 path=\xff\n"), "the archive has a file whose name is no text"),
        (with_attributes(b" " * (65 << 10)), "the archive has 66560 bytes of attributes for one file"),
    ],
)
async def test_a_damaged_tar_is_refused(
    other: Store, file: Path, spoil: Callable[[bytes], bytes], sentence: str
) -> None:
    pack(file, SOUND)
    rewrite(file, spoil)
    with pytest.raises(SourceError) as caught:
        await import_(file, other)
    assert str(caught.value) == sentence
    assert files_in(other.root) == {}


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


async def test_only_plain_files_are_read(other: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r'^no such file: "'):
        await import_(tmp_path / "gone.tar", other)
    with pytest.raises(BadRequest, match=r'^"/dev/zero" is not a file$'):
        await import_(Path("/dev/zero"), other)
    with pytest.raises(BadRequest, match=r'" is not a file$'):
        await import_(tmp_path, other)


def test_files_larger_than_old_headers_can_say_are_read(tmp_path: Path) -> None:
    """A file with a hole of 9 GiB stands for a big model: nothing of it is read, only the headers around it."""
    size = 9 << 30
    head = tar.header("big", size)
    with open(tmp_path / "big.tar", "wb", buffering=0) as packed:
        packed.write(head)
        packed.seek(size, io.SEEK_CUR)
        packed.write(tar.padding(size) + tar.header("small", 1) + b"x" + tar.padding(1) + tar.END)
    with open(tmp_path / "big.tar", "rb", buffering=0) as packed:
        assert [(member.name, member.size) for member in tar.members(packed)] == [("big", size), ("small", 1)]
    with tarfile.open(tmp_path / "big.tar") as reference:
        assert [(info.name, info.size) for info in reference] == [("big", size), ("small", 1)]
    with open(tmp_path / "gnu.tar", "wb", buffering=0) as packed:
        info = tarfile.TarInfo("big")
        info.size = size
        packed.write(info.tobuf(tarfile.GNU_FORMAT))
        packed.truncate(512 + size + 1024)
    with open(tmp_path / "gnu.tar", "rb", buffering=0) as packed:
        assert [(member.name, member.size) for member in tar.members(packed)] == [("big", size)]
