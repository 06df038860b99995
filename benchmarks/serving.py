"""Serving: what Corral adds to its engine, and what several clients get together.

    python benchmarks/serving.py MODEL.gguf [--rounds 5]

Starts a server on a fresh store and, beside it, a worker of the same kind asked directly; each round asks both in turn.
Prints medians and ratios, the command and the machine. Everything stays on loopback and ends by itself.
"""

import argparse
import asyncio
import http.client
import json
import os
import platform
import signal
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
from typing import Any

import psutil

from corral.engine.base import RunnerSpec
from corral.engine.process import WorkerProcess

PROMPT = "Write a long story about a lighthouse."
CLIENTS = (1, 2, 4, 8, 16)
DIRECT_PROMPT = f"<|im_start|>user\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n"


@dataclass(frozen=True)
class Answer:
    """A streamed answer: seconds to its first token and to its end, and its tokens."""

    first: float
    whole: float
    tokens: int


def ask(host: str, path: str, body: dict[str, Any], headers: dict[str, str]) -> Answer:
    """Streams one answer; a token is a line or an event with text in it."""
    connection = http.client.HTTPConnection(host, timeout=600)
    began = time.perf_counter()
    first, tokens = 0.0, 0
    connection.request("POST", path, json.dumps(body), headers)
    with connection.getresponse() as response:
        assert response.status == 200, response.read()
        for line in response:
            if len(line) > 2:
                tokens += 1
                first = first or time.perf_counter() - began
    connection.close()
    return Answer(first, time.perf_counter() - began, tokens - 1)


def through_corral(host: str, tokens: int, **options: Any) -> Answer:
    given = {"temperature": 0.8, **({"num_predict": tokens} if tokens else {}), **options}
    return ask(host, "/api/generate", {"model": "bench", "prompt": PROMPT, "options": given}, {})


def direct(worker: WorkerProcess, tokens: int) -> Answer:
    body = {"prompt": DIRECT_PROMPT, "stream": True, "n_predict": tokens, "temperature": 0.8, "return_tokens": True}
    return ask(worker.url.removeprefix("http://"), "/completion", body, {"Authorization": f"Bearer {worker.key}"})


def together(host: str, clients: int, tokens: int) -> tuple[float, float]:
    """Tokens per second of so many clients at once, and the slowest one's time to its first token."""
    answers: list[Answer] = []
    threads = [threading.Thread(target=lambda: answers.append(through_corral(host, tokens))) for _ in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    return sum(answer.tokens for answer in answers) / seconds, max(answer.first for answer in answers)


@contextmanager
def server(home: Path) -> Iterator[tuple[str, psutil.Process]]:
    """A server of its own: its address and its process."""
    environment = {**os.environ, "HOME": str(home), "OLLAMA_HOST": "127.0.0.1:0", "CORRAL_STATE": str(home / "state")}
    log = home / "log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "corral", "serve"], env=environment, stderr=output, stdout=output
        )
    try:
        while "Listening on " not in (text := log.read_text()):
            assert process.poll() is None, text
            time.sleep(0.02)
        yield text.split("Listening on ", 1)[1].split()[0], psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def post(host: str, path: str, body: dict[str, Any]) -> None:
    connection = http.client.HTTPConnection(host, timeout=120)
    connection.request("POST", path, json.dumps(body))
    response = connection.getresponse()
    text = response.read()
    assert response.status == 200, text


def added_by_corral(host: str, process: psutil.Process, worker: WorkerProcess, rounds: int) -> None:
    """First token and CPU a token, beside the worker asked directly."""
    firsts: list[tuple[float, float]] = []
    speeds: list[tuple[float, float]] = []
    costs: list[float] = []
    through_corral(host, 16)
    direct(worker, 16)
    for _ in range(rounds):
        before = process.cpu_times()
        ours = through_corral(host, 200)
        after = process.cpu_times()
        theirs = direct(worker, 200)
        firsts.append((ours.first, theirs.first))
        speeds.append((ours.tokens / ours.whole, theirs.tokens / theirs.whole))
        costs.append((after.user + after.system - before.user - before.system) / ours.tokens)
    row("first token, warm", [one * 1e3 for one, _ in firsts], "ms")
    row("first token, warm, worker alone", [other * 1e3 for _, other in firsts], "ms")
    row("added to the first token", [(one - other) * 1e3 for one, other in firsts], "ms")
    row("tokens per second", [one for one, _ in speeds], "")
    row("of the worker alone", [one / other for one, other in speeds], "ratio")
    row("server CPU per streamed token", [cost * 1e6 for cost in costs], "us")


def several_clients(host: str, rounds: int) -> None:
    for tokens, label in ((0, "open num_predict"), (64, "num_predict 64")):
        alone: list[float] = []
        for clients in CLIENTS:
            measured = [together(host, clients, tokens) for _ in range(rounds)]
            speeds = [speed for speed, _ in measured]
            alone = alone or speeds
            row(f"{clients} clients, {label}", speeds, "tokens/s")
            ratio = statistics.median(speeds) / statistics.median(alone)
            print(f"{'':10}{ratio:.2f} of one client; slowest first token {max(first for _, first in measured):.2f} s")


def cold(host: str, rounds: int) -> None:
    measured = []
    for _ in range(rounds):
        post(host, "/api/generate", {"model": "bench", "keep_alive": 0})
        while json.loads(get(host, "/api/ps"))["models"]:
            time.sleep(0.02)
        measured.append(through_corral(host, 1).first * 1e3)
    row("first token, cold", measured, "ms")


def get(host: str, path: str) -> bytes:
    connection = http.client.HTTPConnection(host, timeout=60)
    connection.request("GET", path)
    return connection.getresponse().read()


def tags(host: str, rounds: int) -> None:
    measured = []
    for _ in range(rounds * 20):
        began = time.perf_counter()
        get(host, "/api/tags")
        measured.append((time.perf_counter() - began) * 1e3)
    row("/api/tags", measured, "ms")


def row(name: str, values: list[float], unit: str) -> None:
    low, middle, high = min(values), statistics.median(values), max(values)
    print(f"{name:34} median {middle:9.2f}  min {low:9.2f}  max {high:9.2f}  {unit}", flush=True)


async def run(model: Path, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as (host, process):
        await asyncio.sleep(2)
        print(f"{'idle server, resident memory':34} {process.memory_info().rss / 1e6:.0f} MB")
        post(host, "/api/pull", {"model": "bench", "source": model.as_uri(), "stream": False})
        spec = RunnerSpec(model=str(model), num_ctx=4096, slots=16, pool=4 * 4096)
        worker = await WorkerProcess.start(spec, log=Path(folder) / "direct.log")
        try:
            await worker.ready(120)
            await asyncio.to_thread(cold, host, rounds)
            await asyncio.to_thread(added_by_corral, host, process, worker, rounds)
        finally:
            await worker.stop()
        loaded = sum(child.memory_info().rss for child in process.children()) + process.memory_info().rss
        print(f"{'server and worker, model loaded':34} {loaded / 1e6:.0f} MB")
        await asyncio.to_thread(tags, host, rounds)
        await asyncio.to_thread(several_clients, host, max(2, rounds // 2))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("model", type=Path, help="a chat model's GGUF file, such as the starter model's")
    arguments.add_argument("--rounds", type=int, default=5)
    given = arguments.parse_args()
    load = " ".join(f"{part:.1f}" for part in os.getloadavg())
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{machine}, load {load}")
    print(f"$ python {' '.join(sys.argv)}\n")
    asyncio.run(run(given.model.absolute(), given.rounds))


if __name__ == "__main__":
    main()
