"""What a streamed token costs the server: microseconds of its processor time, the worker's own not counted.

    python benchmarks/token_cost.py MODEL.gguf [--against CHECKOUT] [--rounds 5] [--tokens 256] [--streams 1 16]

Starts a server of this tree, one of CHECKOUT (another tree of Corral with its own `.venv`) and the program of
`token_floor.py`, which does nothing but to hand tokens on, all with the model, and has each in turn stream answers of
so many tokens, to so many clients at once. Prints the medians of the rounds, their spread and the ratios to this tree,
the command and the machine. Most of such a cost is that the model has emptied the processor's caches between two
tokens, so it is asked for in this way, and not in a loop.
"""

import argparse
import http.client
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
from measuring import header

sys.path.insert(0, str(Path(__file__).parent.parent))

from corral import names
from corral.models import assemble
from corral.store import Store

ROOT = Path(__file__).parent.parent


class Server:
    """A running server and the address it listens at."""

    def __init__(self, process: "subprocess.Popen[bytes]", host: str) -> None:
        self._process = psutil.Process(process.pid)
        self.host = host

    def cost(self, tokens: int, streams: int) -> float:
        """Microseconds of processor time for each token of so many answers at once."""
        before = self.seconds()
        counts = [0] * streams

        def ask(number: int) -> None:
            counts[number] = self._stream(tokens, f"Count from {number} to a thousand: ")

        clients = [threading.Thread(target=ask, args=(number,)) for number in range(streams)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        return (self.seconds() - before) / sum(counts) * 1e6

    def seconds(self) -> float:
        """Processor time it has taken so far."""
        if platform.system() == "Linux":  # to the nanosecond; psutil has hundredths of a second
            return time.clock_gettime(~self._process.pid << 3 | 2)
        times = self._process.cpu_times()
        return float(times.user + times.system)

    def children(self) -> list[psutil.Process]:
        """Its workers, the spare one too."""
        return self._process.children()

    def _stream(self, tokens: int, prompt: str) -> int:
        """Asks for an answer and counts its lines."""
        options = {"num_predict": tokens, "temperature": 0}
        body = {"model": "measured", "prompt": prompt, "raw": True, "options": options}
        return sum(1 for _ in self.lines("/api/generate", body))

    def lines(self, path: str, body: dict[str, Any], method: str = "POST") -> Iterator[bytes]:
        """The lines of a streamed answer."""
        connection = http.client.HTTPConnection(self.host, timeout=600)
        connection.request(method, path, json.dumps(body) if body else None)
        with connection.getresponse() as response:
            yield from response
        connection.close()


@contextmanager
def server(tree: Path, store: Path, home: Path, **variables: str) -> Iterator[Server]:
    """A server of that tree, with its models in `store` and these variables set, too."""
    environment = {
        "CORRAL_STATE": str(home / "state"),
        "OLLAMA_MODELS": str(store),
        "OLLAMA_HOST": "127.0.0.1:0",
        "OLLAMA_KEEP_ALIVE": "-1",
        **variables,
    }
    with listening(tree, ["-m", "corral", "serve"], home, environment) as one:
        yield one


@contextmanager
def listening(tree: Path, arguments: Sequence[str], home: Path, environment: dict[str, str]) -> Iterator[Server]:
    """A program of that tree's Python that says where it listens."""
    log = home / "serve.log"
    home.mkdir()
    with open(log, "wb") as output:
        command = [str(tree / ".venv" / "bin" / "python"), *arguments]
        everything = {**os.environ, "HOME": str(home), **environment}
        process = subprocess.Popen(command, env=everything, cwd=tree, stdout=output, stderr=output)
    try:
        while not (found := re.search(r"Listening on (\S+)", log.read_text())):
            if process.poll() is not None:
                sys.exit(f"the server ended: {log.read_text()}")
            time.sleep(0.02)
        yield Server(process, found[1])
    finally:
        process.terminate()
        process.wait()


def main(model: Path, against: Path | None, rounds: int, tokens: int, streams: Sequence[int]) -> None:
    print(header(), end="\n\n")
    trees = {"this tree": ROOT} | ({} if against is None else {"against": against.absolute()})
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        store = Store(Path(folder) / "models")
        assemble.write_model(names.parse("measured"), assemble.assemble({model.name: model}, store), store)
        servers = {
            name: stack.enter_context(server(tree, store.root, Path(folder) / name)) for name, tree in trees.items()
        }
        floor = ["benchmarks/token_floor.py", str(model)]
        servers["floor"] = stack.enter_context(listening(ROOT, floor, Path(folder) / "floor", {}))
        for one in servers.values():  # the load and the first answers are not counted
            one.cost(16, 1)
        print(f"µs of the server's processor time a streamed token, median of {rounds} rounds in turn (least to most)")
        for count in streams:
            found: dict[str, list[float]] = {name: [] for name in servers}
            for _ in range(rounds):
                for name, one in servers.items():
                    found[name].append(one.cost(tokens, count))
            print(f"{count} at once")
            for name, each in found.items():
                ratio = statistics.median([one / ours for one, ours in zip(each, found["this tree"], strict=True)])
                spread = f"{statistics.median(each):.0f} ({min(each):.0f} to {max(each):.0f})"
                print(f"    {name:<12}{spread:<22}{ratio:.2f} of this tree")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("model", type=Path, help="a chat model's GGUF file, such as the starter model's")
    arguments.add_argument("--against", type=Path, help="another tree of Corral, with its own .venv")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--tokens", type=int, default=256)
    arguments.add_argument("--streams", type=int, nargs="+", default=[1, 16])
    given = arguments.parse_args()
    main(given.model.absolute(), given.against, given.rounds, given.tokens, given.streams)
