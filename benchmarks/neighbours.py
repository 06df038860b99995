"""Neighbours: what is left of a model's speed while another program, or another model, works on the same cores.

    python benchmarks/neighbours.py MODEL.gguf [--rounds 3] [--window 4]

Asks workers directly, as Corral starts them and with the waiting of libgomp left as it is by default, in turn; prints
medians, ratios, the command and the machine. Everything stays on loopback and ends by itself.
"""

import asyncio
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from measuring import run_with_model

from corral.engine.base import RunnerSpec
from corral.engine.llama.process import WorkerProcess

SIDES = {"libgomp's default": "300000", "as Corral starts it": ""}
"""What `GOMP_SPINCOUNT` is in the environment of each side; empty: not set by the user."""

BODY = {"prompt": "Once upon a time", "stream": True, "n_predict": 64, "temperature": 0.8}


def speed(workers: Sequence[WorkerProcess], window: float) -> float:
    """Tokens per second of all workers together, one stream each."""
    over = threading.Event()
    counts = [0] * len(workers)

    def ask(number: int, worker: WorkerProcess) -> None:
        headers = {"Authorization": f"Bearer {worker.key}"}
        while not over.is_set():
            connection = http.client.HTTPConnection(worker.url.removeprefix("http://"), timeout=600)
            connection.request("POST", "/completion", json.dumps(BODY), headers)
            with connection.getresponse() as response:
                for line in response:
                    if over.is_set():
                        break
                    counts[number] += len(line) > 2
            connection.close()

    threads = [threading.Thread(target=ask, args=pair) for pair in enumerate(workers)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    before, began = sum(counts), time.perf_counter()
    time.sleep(window)
    measured = (sum(counts) - before) / (time.perf_counter() - began)
    over.set()
    for thread in threads:
        thread.join()
    return measured


@contextmanager
def busy_program() -> Iterator[None]:
    program = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        program.kill()
        program.wait()


async def one_side(model: Path, folder: Path, window: float) -> dict[str, float]:
    spec = RunnerSpec(model=str(model), num_ctx=2048, slots=2, pool=4096)
    workers = [await WorkerProcess.start(spec, log=folder / f"{number}.log") for number in range(2)]
    try:
        for worker in workers:
            await worker.ready(120)
        measured = {"alone": await asyncio.to_thread(speed, workers[:1], window)}
        measured["two models at once"] = await asyncio.to_thread(speed, workers, window)
        with busy_program():
            measured["beside a busy program"] = await asyncio.to_thread(speed, workers[:1], window)
    finally:
        for worker in workers:
            await worker.stop()
    return measured


async def run(model: Path, rounds: int, window: float) -> None:
    results: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            for side, spin in SIDES.items():
                os.environ.pop("GOMP_SPINCOUNT", None)
                if spin:
                    os.environ["GOMP_SPINCOUNT"] = spin
                results[side].append(await one_side(model, Path(folder), window))
    default, ours = (results[side] for side in SIDES)
    for name in ours[0]:
        theirs, mine = (statistics.median(row[name] for row in rows) for rows in (default, ours))
        print(f"{name:24}{theirs:8.1f} tokens/s by default {mine:8.1f} here, ratio {mine / max(theirs, 0.01):.2f}")


if __name__ == "__main__":
    run_with_model(run, __doc__, rounds=3, window=4.0, watched="each speed is measured for")
