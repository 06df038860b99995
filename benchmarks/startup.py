"""How long a person waits for a command: `--version`, `--help` and `list` against `python -c "import click"`.

    python benchmarks/startup.py [--rounds 15]

Starts a real server with fifty models in a folder of its own, then times the commands in turn, so that whatever else
the machine does falls on all of them. Needs the test extras, which make the model.
"""

import argparse
import hashlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from measuring import header

sys.path.insert(0, str(Path(__file__).parent.parent))

from corral.client import Client
from corral.config.address import parse_address
from corral.names import Digest
from tests.tiny_models import tiny_llama

MODELS = 50
CORRAL = str(Path(sys.executable).with_name("corral"))
BASE = "import click"
COMMANDS = {
    BASE: [sys.executable, "-c", "import click"],
    "corral --version": [CORRAL, "--version"],
    "corral --help": [CORRAL, "--help"],
    f"corral list, {MODELS} models": [CORRAL, "list"],
    "corral ps": [CORRAL, "ps"],
}
TARGETS = {"corral --version": 1.6, f"corral list, {MODELS} models": 2.5}


def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as environment:
        add_models(environment["OLLAMA_HOST"], Path(folder))
        times = measure(environment, rounds)
    print(f"{header()}, {rounds} rounds in turn")
    base = statistics.median(times[BASE])
    for name, taken in times.items():
        median = statistics.median(taken)
        target = f"   target {TARGETS[name]}×" if name in TARGETS else ""
        print(
            f"{name:<26} median {median * 1e3:6.1f} ms   min {min(taken) * 1e3:6.1f} ms   {median / base:4.2f}×{target}"
        )


@contextmanager
def server(folder: Path) -> Iterator[dict[str, str]]:
    """The environment of commands that talk to a server of their own."""
    environment = {**os.environ, "HOME": str(folder), "CORRAL_STATE": str(folder / "state")}
    environment.pop("OLLAMA_MODELS", None)
    log = folder / "serve.log"
    with open(log, "w") as output:
        process = subprocess.Popen(
            [CORRAL, "serve"], env={**environment, "OLLAMA_HOST": "127.0.0.1:0"}, stdout=output, stderr=output
        )
    try:
        yield {**environment, "OLLAMA_HOST": address(process, log)}
    finally:
        process.terminate()
        process.wait()


def address(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """Where the server listens, as soon as its log says so."""
    while not (found := re.search(r"Listening on (\S+)", log.read_text())):
        if process.poll() is not None:
            sys.exit(f"the server ended: {log.read_text()}")
        time.sleep(0.02)
    return found[1]


def add_models(host: str, folder: Path) -> None:
    file = folder / "tiny.gguf"
    tiny_llama(file)
    digest = Digest(hashlib.sha256(file.read_bytes()).hexdigest())
    client = Client(parse_address(host))
    client.add_blob(digest, file.stat().st_size, [file.read_bytes()])
    for _ in client.create("model-0", {"files": {"tiny.gguf": str(digest)}}):
        pass
    for number in range(1, MODELS):
        client.copy("model-0", f"model-{number}")


def measure(environment: dict[str, str], rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for number in range(rounds + 1):
        for name, command in COMMANDS.items():
            begin = time.perf_counter()
            subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
            if number:  # the first round only warms the disk's cache
                times[name].append(time.perf_counter() - begin)
    return times


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=15)
    main(arguments.parse_args().rounds)
