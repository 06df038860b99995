"""What a part of a long prompt costs besides computing it: sending and reading all token ids before it once more.

    python benchmarks/prefill_parts.py [--tokens 10000 50000 100000] [--rounds 5]

Loads a model of random weights, has prompts of so many tokens computed, and asks for each of them again, when all but
its last token is in the cache. Prints the medians in milliseconds: from asking to the answer, of that the computing,
processor time of the worker and of this process. A part takes about a second to compute (`engine/llama/prefill.py`).
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil
from measuring import header

sys.path.insert(0, str(Path(__file__).parent.parent))

from corral.engine.base import RunnerSpec
from corral.engine.llama.launch import launch
from tests.tiny_models import tiny_llama


async def measure(lengths: list[int], rounds: int, work: Path) -> None:
    window = max(lengths) + 256
    model = tiny_llama(work / "tiny.gguf", context_length=window)
    engine = await launch(RunnerSpec(model=str(model), num_ctx=window, pool=window), log=work / "log", stall_timeout=60)
    worker = psutil.Process(engine.pid)
    tokens = [number * 7919 % 250 for number in range(max(lengths))]
    try:
        for length in sorted(lengths):
            await engine._compute(tokens[:length])
            rows = []
            for _ in range(rounds):
                own, its, began = time.process_time(), sum(worker.cpu_times()[:2]), time.monotonic()
                took = await engine._compute(tokens[:length])
                wall, own = time.monotonic() - began, time.process_time() - own
                rows.append((wall * 1e3, took.milliseconds, (sum(worker.cpu_times()[:2]) - its) * 1e3, own * 1e3))
            medians = [statistics.median(column) for column in zip(*rows, strict=True)]
            print(f"{length:7} tokens: {medians[0]:5.1f} ms, {medians[1]:5.1f} ms of it computing; ", end="")
            print(f"processor time {medians[2]:5.1f} ms of the worker, {medians[3]:4.1f} ms here")
    finally:
        await engine.close()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--tokens", type=int, nargs="+", default=[10_000, 50_000, 100_000])
    arguments.add_argument("--rounds", type=int, default=5)
    given = arguments.parse_args()
    print(header(), flush=True)
    with tempfile.TemporaryDirectory() as work:
        asyncio.run(measure(given.tokens, given.rounds, Path(work)))


if __name__ == "__main__":
    main()
