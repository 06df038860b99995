"""What a streamed token costs the server in each dialect: microseconds of its processor time, the worker's not counted.

    python benchmarks/dialect_cost.py MODEL.gguf [--rounds 5] [--tokens 256]

One server of this tree streams the same answer through each of its APIs in turn. Prints the medians of the rounds,
their spread, and the ratio to `/api/chat`, the command and the machine.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from measuring import header
from token_cost import ROOT, Server, server

sys.path.insert(0, str(ROOT))

from corral import names
from corral.models import assemble
from corral.store import Store

PROMPT = "Tell a very long story about a ship and its crew."
MESSAGES = [{"role": "user", "content": PROMPT}]


def requests(tokens: int) -> dict[str, tuple[str, dict[str, Any], bytes]]:
    """Path, body, and what is in each line that brings a token; the native API is the first."""
    common = {"model": "measured", "stream": True, "temperature": 0}
    native = {"model": "measured", "messages": MESSAGES, "options": {"num_predict": tokens, "temperature": 0}}
    limit = {"max_tokens": tokens}
    return {
        "Ollama chat": ("/api/chat", native, b'"content"'),
        "OpenAI chat": ("/v1/chat/completions", {**common, **limit, "messages": MESSAGES}, b'"content"'),
        "OpenAI completion": ("/v1/completions", {**common, **limit, "prompt": PROMPT}, b'"text"'),
        "OpenAI response": (
            "/v1/responses",
            {**common, "input": PROMPT, "max_output_tokens": tokens, "store": False},
            b'data: {"content_index":0,"delta"',
        ),
        "Anthropic message": ("/v1/messages", {**common, **limit, "messages": MESSAGES}, b'"text_delta"'),
    }


def cost(one: Server, path: str, body: dict[str, Any], mark: bytes) -> float:
    """Microseconds of processor time for a token of an answer."""
    before = one.seconds()
    tokens = sum(mark in line for line in one.lines(path, body))
    return (one.seconds() - before) / tokens * 1e6


def main(model: Path, rounds: int, tokens: int) -> None:
    print(header(), end="\n\n")
    asked = requests(tokens)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "models")
        assemble.write_model(names.parse("measured"), assemble.assemble({model.name: model}, store), store)
        with server(ROOT, store.root, Path(folder) / "home") as one:
            found: dict[str, list[float]] = {name: [] for name in asked}
            for round_number in range(rounds + 1):  # the load and the first answers are not counted
                for name, request in asked.items():
                    measured = cost(one, *request)
                    if round_number:
                        found[name].append(measured)
    print(f"µs of the server's processor time a streamed token, median of {rounds} rounds in turn (least to most)")
    usual = statistics.median(next(iter(found.values())))
    for name, each in found.items():
        middle = statistics.median(each)
        print(f"{name:<18} {middle:.0f} ({min(each):.0f}-{max(each):.0f}), {middle / usual:.2f} of Ollama's chat")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("model", type=Path, help="a chat model's GGUF file, such as the starter model's")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--tokens", type=int, default=256)
    given = arguments.parse_args()
    main(given.model.absolute(), given.rounds, given.tokens)
