"""What it is worth that a conversation stays at the server that has read it: first tokens against random choice.

    python benchmarks/replicas.py MODEL.gguf [--rounds 2] [--conversations 8] [--turns 4] [--words 800]

Starts two servers of this tree with the model, and a third one that has both as its upstreams: under one name it
chooses between them, under two others it has one of them each, of which this script takes a random one for each
request. Both ways have conversations of their own, as long as each other, whose first message has so many words. They
take turns, one at a time, all of them before any goes on. Prints for both, over all turns but the first, how much of
the prompts was cached and how long first tokens took, and the ratios of the rounds.
"""

import argparse
import http.client
import json
import random
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from measuring import header
from msgspec import Struct
from token_cost import ROOT, Server, server

from corral import names
from corral.models import assemble
from corral.store import Store

WORDS = [
    "harbour",
    "lantern",
    "winter",
    "orchard",
    "marble",
    "journey",
    "copper",
    "meadow",
    "thunder",
    "ribbon",
    "cellar",
    "pepper",
    "anchor",
    "violin",
    "desert",
    "pigeon",
    "saddle",
    "quarry",
    "walnut",
    "timber",
    "beacon",
    "canyon",
    "velvet",
    "falcon",
    "ginger",
    "hollow",
    "island",
    "jacket",
    "kettle",
    "ladder",
]
TURN_WORDS, ANSWER_TOKENS = 40, 24


class Answer(Struct, frozen=True):
    """Of one request: seconds to its first token, its text, and the tokens of its prompt with those cached."""

    first: float
    text: str
    prompt: int
    cached: int


class Way(Struct, frozen=True):
    """What all turns but the first took: seconds to first tokens, and which share of the prompts was cached."""

    first: list[float]
    cached: float


def words(draw: random.Random, count: int) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(count))


def asked(front: Server, model: str, messages: list[dict[str, str]]) -> Answer:
    """One turn."""
    body: dict[str, Any] = {"model": model, "messages": messages, "max_tokens": ANSWER_TOKENS, "temperature": 0}
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    connection = http.client.HTTPConnection(front.host, timeout=600)
    began, first, text = time.perf_counter(), 0.0, ""
    usage: dict[str, Any] = {}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    with connection.getresponse() as response:
        assert response.status == 200, response.read()
        for line in response:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            usage = event.get("usage") or usage
            for choice in event["choices"]:
                if content := choice["delta"].get("content"):
                    first = first or time.perf_counter() - began
                    text += content
    connection.close()
    cached = usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)
    return Answer(first, text, usage["prompt_tokens"], cached)


def talked(front: Server, models: list[str], seed: int, given: argparse.Namespace) -> Way:
    """All conversations, each request by one of these names, at random."""
    draw = random.Random(seed)
    choice = random.Random(seed + 1)
    talks = [[{"role": "user", "content": words(draw, given.words)}] for _ in range(given.conversations)]
    answers = []
    for turn in range(given.turns):
        for talk in talks:
            if turn:
                talk.append({"role": "user", "content": words(draw, TURN_WORDS)})
            answer = asked(front, choice.choice(models), talk)
            talk.append({"role": "assistant", "content": answer.text})
            if turn:
                answers.append(answer)
    cached = sum(one.cached for one in answers) / sum(one.prompt for one in answers)
    return Way([one.first for one in answers], cached)


def report(name: str, ways: list[Way]) -> None:
    first = [seconds for way in ways for seconds in way.first]
    print(
        f"| {name} | {statistics.fmean(way.cached for way in ways):.0%} | {statistics.fmean(first):.2f} s "
        f"| {statistics.median(first):.2f} s | {statistics.quantiles(first, n=20)[-1]:.2f} s |"
    )


def main(given: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        store = Store(folder / "models")
        assemble.write_model(names.parse("measured"), assemble.assemble({given.model.name: given.model}, store), store)
        both = [stack.enter_context(server(ROOT, store.root, folder / f"server{number}")) for number in (1, 2)]
        settings, empty = folder / "corral.toml", folder / "empty"
        empty.mkdir()
        upstreams = [f'{{url = "http://{one.host}", model = "measured"}}' for one in both]
        tables = {"routed": upstreams, "first": upstreams[:1], "second": upstreams[1:]}
        settings.write_text(
            "".join(f'[models."{name}"]\nupstreams = [{", ".join(those)}]\n' for name, those in tables.items())
        )
        front = stack.enter_context(server(ROOT, empty, folder / "front", CORRAL_CONFIG=str(settings)))
        for model in ("first", "second"):  # the loads are not counted
            asked(front, model, [{"role": "user", "content": "hello"}])
        ways: dict[str, list[Way]] = {"routed": [], "random": []}
        for number in range(given.rounds):
            order = list(ways) if number % 2 else list(reversed(ways))
            for place, way in enumerate(order):
                models = ["routed"] if way == "routed" else ["first", "second"]
                ways[way].append(talked(front, models, 1000 * number + 100 * place, given))
        print(header(), end="\n\n")
        print("| choice | cached | first token, mean | median | 95 of 100 |\n|---|---|---|---|---|")
        for way, those in ways.items():
            report(way, those)
        pairs = list(zip(ways["routed"], ways["random"], strict=True))
        ratios = [statistics.fmean(routed.first) / statistics.fmean(other.first) for routed, other in pairs]
        print(f"\nfirst tokens, routed by random, mean of each round: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a chat model's GGUF file, such as the starter model's")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--conversations", type=int, default=8)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--words", type=int, default=800)
    arguments = parser.parse_args()
    arguments.model = arguments.model.absolute()
    main(arguments)
