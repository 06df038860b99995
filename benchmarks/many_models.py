"""Lists of a store with many models of large vocabularies: how long they take, and what they do to other requests.

    python benchmarks/many_models.py [--against CHECKOUT] [--models 300] [--tokens 150000] [--rounds 2]

Makes a store of as many models, all of other digests, and in each round starts a server of this tree and one of
CHECKOUT (another tree of Corral with its own `.venv`) in turn, both on that store, with the fake engine of their tests.
`/api/tags` and `/api/ps`, with one model loaded, are asked once after the start and then again, while another client
asks for `/api/version` all the time: the longest it waits is printed, and the longest that one callback held the event
loop, as `tests/loop_watch` counts it. A round before the others has no index on disk. Prints medians of the rounds,
the command and the machine. Needs the test extras, some 7 MB of disk a model, and minutes where lists are slow.
"""

import argparse
import hashlib
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from measuring import header

sys.path.insert(0, str(Path(__file__).parent.parent))

from corral import names
from corral.models import assemble
from corral.models.config import encode_config
from corral.names import Digest
from corral.store import Layer, MediaType, Store, encode_manifest
from tests.tiny_models import LARGE_NAME, large_vocabulary

ROOT = Path(__file__).parent.parent

LATER = 3
"""How many times a list is asked for after the first."""


@dataclass(frozen=True)
class Round:
    """Seconds: of the first list after a start, of the median of the later ones, and what others suffered."""

    tags_first: float
    tags_later: float
    ps_first: float
    ps_later: float
    waited: float
    """The longest another request waited for its answer."""
    held: float
    """The longest a callback held the event loop."""


ROWS = {
    "/api/tags, first after a start": "tags_first",
    "/api/tags, later": "tags_later",
    "/api/ps, first after a start": "ps_first",
    "/api/ps, later": "ps_later",
    "another request's longest wait": "waited",
    "the loop held by one callback, at most": "held",
}


def main(against: Path | None, models: int, tokens: int, rounds: int) -> None:
    print(header(), end="\n\n")
    trees = {"this tree": ROOT} | ({} if against is None else {"against": against.absolute()})
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "models"
        fill(store, models, tokens)
        unindexed = measure(ROOT, store)
        found: dict[str, list[Round]] = {name: [] for name in trees}
        for _ in range(rounds):
            for name, tree in trees.items():
                found[name].append(measure(tree, store))
    print(f"{models} models of {tokens} tokens, median of {rounds} rounds in turn", end="\n\n")
    print(
        f"{'':<40}{'no index yet':>14}"
        + "".join(f"{name:>14}" for name in trees)
        + ("" if against is None else f"{'ratio':>10}")
    )
    for row, field in ROWS.items():
        medians = [statistics.median(getattr(one, field) for one in each) for each in found.values()]
        ratio = f"{medians[1] / max(medians[0], 1e-4):>9.0f}×" if len(medians) > 1 else ""
        cells = [getattr(unindexed, field), *medians]
        print(f"{row:<40}" + "".join(f"{cell * 1000:>11.0f} ms" for cell in cells) + ratio)


def fill(folder: Path, models: int, tokens: int) -> None:
    """Puts models into a new store that differ in the name in their files."""
    store = Store(folder)
    file = large_vocabulary(folder.parent / "large.gguf", tokens)
    made = assemble.assemble({"large.gguf": file}, store, link=False)
    config, size, _ = store.add_bytes(encode_config(made.config))
    data = file.read_bytes()
    at = data.index(LARGE_NAME.encode())
    for number in range(models):
        changed = data[:at] + f"{number:08d}".encode() + data[at + len(LARGE_NAME) :]
        digest = Digest(hashlib.sha256(changed).hexdigest())
        store.blob_path(digest).write_bytes(changed)
        layers = (Layer(MediaType.MODEL, digest, len(changed)), *made.layers[1:])
        manifest = encode_manifest(Layer(MediaType.CONFIG, config, size), layers)
        store.write_manifest(names.parse(f"model-{number}"), manifest)
    file.unlink()


def measure(tree: Path, store: Path) -> Round:
    with tempfile.TemporaryDirectory() as home, server(tree, store, Path(home)) as (host, held):
        with pinging(host) as waits:
            tags = [list_models(host, "/api/tags") for _ in range(1 + LATER)]
            post(host, "/api/generate", {"model": "model-0", "prompt": "", "stream": False})
            ps = [list_models(host, "/api/ps") for _ in range(1 + LATER)]
        records = [json.loads(line)["held"] for line in held.read_text().splitlines()] if held.exists() else []
        return Round(
            tags[0], statistics.median(tags[1:]), ps[0], statistics.median(ps[1:]), max(waits), max(records, default=0)
        )


@contextmanager
def server(tree: Path, store: Path, home: Path) -> Iterator[tuple[str, Path]]:
    """A server of that tree: its address, and the log of what held its loop for longer than a millisecond."""
    python, held, log = tree / ".venv" / "bin" / "python", home / "held.jsonl", home / "serve.log"
    environment = {
        **os.environ,
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "CORRAL_STATE": str(home / "state"),
        "CORRAL_ENGINE": str(tree / "tests" / "fake_engine.py"),
        "CORRAL_WORKER_FOLDERS": str(home),  # where the fake engine keeps its journal
        "OLLAMA_MODELS": str(store),
        "OLLAMA_HOST": "127.0.0.1:0",
        "PYTHONPATH": str(ROOT / "tests" / "loop_watch"),
        "CORRAL_TEST_LOOP_LOG": str(held),
        "CORRAL_TEST_LOOP_LIMIT": "0.001",
    }
    with open(log, "w") as output:
        process = subprocess.Popen(
            [python, "-m", "corral", "serve"], env=environment, cwd=tree, stdout=output, stderr=output
        )
    try:
        while not (found := re.search(r"Listening on (\S+)", log.read_text())):
            if process.poll() is not None:
                sys.exit(f"the server ended: {log.read_text()}")
            time.sleep(0.02)
        request(found[1], "GET", "/api/version")
        yield found[1], held
    finally:
        process.terminate()
        process.wait()


@contextmanager
def pinging(host: str) -> Iterator[list[float]]:
    """Asks for the version again and again while the block lasts: the seconds each answer took."""
    waits: list[float] = []
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.wait(0.005):
            began = time.perf_counter()
            request(host, "GET", "/api/version")
            waits.append(time.perf_counter() - began)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield waits
    finally:
        is_over.set()
        thread.join()


def list_models(host: str, path: str) -> float:
    """Seconds a list takes."""
    began = time.perf_counter()
    data = request(host, "GET", path)
    seconds = time.perf_counter() - began
    assert json.loads(data)["models"], data
    return seconds


def post(host: str, path: str, body: object) -> None:
    request(host, "POST", path, json.dumps(body))


def request(host: str, method: str, path: str, body: str | None = None) -> bytes:
    connection = http.client.HTTPConnection(host, timeout=3600)
    try:
        connection.request(method, path, body)
        with connection.getresponse() as response:
            data = response.read()
            assert response.status == 200, data
            return data
    finally:
        connection.close()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--against", type=Path, help="another tree of Corral, with its own .venv")
    arguments.add_argument("--models", type=int, default=300)
    arguments.add_argument("--tokens", type=int, default=150_000)
    arguments.add_argument("--rounds", type=int, default=2)
    given = arguments.parse_args()
    main(given.against, given.models, given.tokens, given.rounds)
