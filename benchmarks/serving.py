"""Serving: what Corral adds to its engine, and what several clients get together.

    python benchmarks/serving.py MODEL.gguf [--rounds 5] [--window 15]

Starts a server on a fresh store and, beside it, a worker of the same kind asked directly; each round asks both in turn.
Then 1 to 16 clients ask at once, each its next question as soon as it has an answer, and the tokens that arrive within
a window of so many seconds count. Prints medians and ratios, the command and the machine. Everything stays on loopback
and ends by itself, after about eight minutes.
"""

import asyncio
import http.client
import json
import os
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
from measuring import run_with_model

from corral.engine.base import RunnerSpec
from corral.engine.llama.process import WorkerProcess

PROMPT = "Write a long story about a lighthouse."
QUESTIONS = tuple(
    f"{question} Answer in a few sentences."
    for question in (
        "Why is the sky blue?",
        "How does a bicycle stay upright?",
        "What do bees do in winter?",
        "Why do we have seasons?",
        "How is paper made?",
    )
)
"""Asked with an open `num_predict`: the answers end by themselves, after some hundred tokens."""
CLIENTS = (1, 2, 4, 8, 16)
WARMUP = 2.0
"""Seconds after the first client's start for which nothing is counted yet."""
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


class Crowd:
    """So many clients that ask one question after the other until they are stopped."""

    def __init__(self, host: str, clients: int, tokens: int) -> None:
        self.counting = False
        self.tokens = 0
        self.firsts: list[float] = []
        self._host = host
        self._given = {"temperature": 0.8, **({"num_predict": tokens} if tokens else {})}
        self._over = False
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(clients)]

    def run(self, window: float) -> float:
        """Tokens per second of all together within the window."""
        for thread in self._threads:
            thread.start()
        time.sleep(WARMUP)
        self.counting, began = True, time.perf_counter()
        time.sleep(window)
        self.counting, seconds = False, time.perf_counter() - began
        self._over = True
        for thread in self._threads:
            thread.join()
        return self.tokens / seconds

    def _ask(self, number: int) -> None:
        connection = http.client.HTTPConnection(self._host, timeout=600)
        while not self._over:
            body = {"model": "bench", "prompt": QUESTIONS[number % len(QUESTIONS)], "options": self._given}
            number += 1
            asked = time.perf_counter()
            connection.request("POST", "/api/generate", json.dumps(body))
            with connection.getresponse() as response:
                assert response.status == 200, response.read()
                self._read(response, asked)
        connection.close()

    def _read(self, response: http.client.HTTPResponse, asked: float) -> None:
        is_first = True
        for _ in response:
            if self._over:
                return
            if self.counting:
                self.tokens += 1
                if is_first:
                    self.firsts.append(time.perf_counter() - asked)
            is_first = False


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


def several_clients(host: str, window: float) -> None:
    for tokens, label in ((0, "open num_predict"), (64, "num_predict 64")):
        alone = 0.0
        for clients in CLIENTS:
            crowd = Crowd(host, clients, tokens)
            speed = crowd.run(window)
            alone = alone or speed
            print(
                f"{clients:2} clients, {label:18}{speed:8.1f} tokens/s, {speed / alone:.2f} of one client; first token "
                f"median {statistics.median(crowd.firsts):.2f} s, slowest {max(crowd.firsts):.2f} s",
                flush=True,
            )


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


async def run(model: Path, rounds: int, window: float) -> None:
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
        await asyncio.to_thread(several_clients, host, window)


if __name__ == "__main__":
    run_with_model(run, __doc__, rounds=5, window=15.0, watched="the clients are watched")
