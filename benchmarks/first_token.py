"""How long the first token of a loaded model takes, and how much of that is the server's.

    python benchmarks/first_token.py MODEL.gguf [--against CHECKOUT] [--rounds 7] [--requests 20]

Starts a server of this tree and one of CHECKOUT (another tree of Corral with its own `.venv`), the least program that
hands a worker's tokens on (`token_floor.py`), and the engine by itself, all with MODEL. Each is asked in turn, always
for the same, so that the prompt is in the engine's cache: one token to go on with a raw prompt (`generate`) and with a
conversation of two messages (`chat`; the engine by itself and the least program get the same text as a prompt). A
connection is new each time. Prints medians of the rounds' medians and what each adds to the engine, as the median of
the differences within a round, with the least and the most.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from measuring import header
from sides import Api, Bare, lines
from suite import bare_engine
from token_cost import ROOT, listening, server

from corral import names
from corral.models import assemble
from corral.store import Store

PROMPT = "<|im_start|>user\nTell me of a lighthouse keeper.<|im_end|>\n<|im_start|>assistant\n"
MESSAGES = [
    {"role": "system", "content": "You are a helpful AI assistant named SmolLM, trained by Hugging Face"},
    {"role": "user", "content": "Tell me of a lighthouse keeper."},
]
Ask: TypeAlias = Callable[[], float]
"""Asks once; seconds until the first token."""


def generate(host: str) -> float:
    return Api(host, None).stream(PROMPT, 1, 0.0).first


def chat(host: str) -> float:
    answer, _ = Api(host, None).chat(MESSAGES, 1)
    return answer.first


def prompt_of(host: str) -> str:
    """The conversation as the model gets it."""
    rendered: Any = Api(host, None).post("/api/render", {"model": "suite", "messages": MESSAGES})
    return str(rendered["prompt"])


def in_turns(sides: Mapping[str, Ask], rounds: int, requests: int) -> dict[str, list[float]]:
    """Of each side its median of each round, in ms; the first round warms up."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds + 1):
        for name, ask in sides.items():
            found[name].append(statistics.median(ask() for _ in range(requests)) * 1e3)
    return {name: each[1:] for name, each in found.items()}


def show(what: str, found: Mapping[str, list[float]]) -> None:
    print(f"\n{what:<14}{'first token':>14}{'added to the engine':>34}")
    for name, each in found.items():
        added = [one - bare for one, bare in zip(each, found["engine"], strict=True)]
        spread = f"{statistics.median(added):.2f} ms ({min(added):.2f} to {max(added):.2f})"
        print(f"    {name:<10}{statistics.median(each):>11.2f} ms{spread:>34}", flush=True)


def measure(hosts: Mapping[str, str], floor: str, bare: Bare, rounds: int, requests: int) -> None:
    whole = prompt_of(hosts["this tree"])
    for what, ask, prompt in (("/api/generate", generate, PROMPT), ("/api/chat", chat, whole)):
        sides: dict[str, Ask] = {name: partial(ask, host) for name, host in hosts.items()}
        sides["least"] = partial(least, floor, prompt)
        sides["engine"] = partial(engine, bare, prompt)
        show(what, in_turns(sides, rounds, requests))


def least(host: str, prompt: str) -> float:
    began = time.perf_counter()
    body = {"prompt": prompt, "options": {"num_predict": 1, "temperature": 0}}
    next(lines(host, "/api/generate", body, {}))
    return time.perf_counter() - began


def engine(bare: Bare, prompt: str) -> float:
    return bare.stream(prompt, 1, 0.0).first


async def main(model: Path, against: Path | None, rounds: int, requests: int) -> None:
    print(header())
    trees = {"this tree": ROOT} | ({} if against is None else {"against": against})
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        store = Store(Path(folder) / "models")
        assemble.write_model(names.parse("suite"), assemble.assemble({model.name: model}, store), store)
        hosts = {
            name: stack.enter_context(server(tree, store.root, Path(folder) / name)).host
            for name, tree in trees.items()
        }
        floor = ["benchmarks/token_floor.py", str(model)]
        floor_host = stack.enter_context(listening(ROOT, floor, Path(folder) / "floor", {})).host
        worker = await bare_engine(model, Path(folder) / "bare.log")
        try:
            bare = Bare(worker.url.removeprefix("http://"), worker.key)
            await asyncio.to_thread(measure, hosts, floor_host, bare, rounds, requests)
        finally:
            await worker.stop()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("model", type=Path, help="a chat model's GGUF file, such as the starter model's")
    arguments.add_argument("--against", type=Path, help="another tree of Corral, with its own .venv")
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--requests", type=int, default=20)
    given = arguments.parse_args()
    asyncio.run(main(given.model.absolute(), given.against and given.against.absolute(), given.rounds, given.requests))
