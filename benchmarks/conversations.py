"""What a conversation costs when it is gone on with: after an unload, at its second turn, and between others.

    python benchmarks/conversations.py MODEL.gguf [--words 700] [--rounds 3]

Starts a server of its own with the model. In each round, in turn: a new conversation is read whole, it is gone on with
at once, and it is gone on with after the model was unloaded and loaded again. Then two and eight conversations take
turns with each other. Prints medians in milliseconds of the time to the first token, as a client sees it with all that
comes before, and their ratios; a word is about one token.
"""

import argparse
import http.client
import json
import random
import statistics
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from measuring import header

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.conftest import RunningServer, add_model, running_server

Messages = list[dict[str, str]]


def chat(server: RunningServer, messages: Messages) -> tuple[float, int]:
    """One turn, which the conversation goes on with; milliseconds to its first token, and the prompt's tokens."""
    options = {"temperature": 0, "num_predict": 16, "num_ctx": 8192}
    began, first, said = time.perf_counter(), 0.0, ""
    with post(server, "/api/chat", {"model": "model", "messages": messages, "options": options}) as response:
        for line in response:
            first = first or time.perf_counter() - began
            piece = json.loads(line)
            said += piece["message"]["content"]
    messages += [{"role": "assistant", "content": said}, {"role": "user", "content": "And what else?"}]
    return first * 1e3, piece["prompt_eval_count"]


def post(server: RunningServer, path: str, body: Any) -> http.client.HTTPResponse:
    request = urllib.request.Request(server.url + path, json.dumps(body).encode())
    response = urllib.request.urlopen(request, timeout=600)
    assert isinstance(response, http.client.HTTPResponse)
    return response


def conversation(words: int) -> Messages:
    text = " ".join(random.choice(("red", "green", "blue", "seven", "stone", "river")) for _ in range(words))
    return [{"role": "user", "content": f"{random.random()}: {text}. What is this?"}]


def unload(server: RunningServer) -> None:
    post(server, "/api/generate", {"model": "model", "keep_alive": 0}).read()
    while json.load(urllib.request.urlopen(f"{server.url}/api/ps", timeout=60))["models"]:
        time.sleep(0.05)


def measure(server: RunningServer, words: int, rounds: int) -> None:
    chat(server, conversation(10))
    whole: list[float] = []
    second: list[float] = []
    resumed: list[float] = []
    tokens = 0
    for _ in range(rounds):
        messages = conversation(words)
        took, tokens = chat(server, messages)
        whole.append(took)
        second.append(chat(server, messages)[0])
        unload(server)
        resumed.append(chat(server, messages)[0])
    print(f"{tokens} tokens")
    report("second turn", second, whole)
    report("after an unload", resumed, whole)
    for count in (2, 8):
        several = [conversation(words // count) for _ in range(count)]
        alone = [chat(server, messages)[0] for messages in several]
        report(f"{count} in turns", [chat(server, messages)[0] for _ in range(rounds) for messages in several], alone)


def report(name: str, times: list[float], whole: list[float]) -> None:
    """One line: medians of reading what is new, and of the same conversations read whole."""
    short, long = statistics.median(times), statistics.median(whole)
    print(f"{name:16} {short:8.0f} ms, read whole {long:8.0f} ms, ratio {short / long:6.3f}", flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("model", type=Path)
    arguments.add_argument("--words", type=int, default=700)
    arguments.add_argument("--rounds", type=int, default=3)
    given = arguments.parse_args()
    print(header(), flush=True)
    with tempfile.TemporaryDirectory() as work:
        home = Path(work) / "home"
        add_model(home / ".ollama" / "models", "model", given.model.absolute())
        with running_server(home) as server:
            measure(server, given.words, given.rounds)


if __name__ == "__main__":
    main()
