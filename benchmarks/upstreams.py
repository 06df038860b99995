"""What a streamed token through another server costs the one in front, beside a token of a worker of its own.

    python benchmarks/upstreams.py MODEL.gguf [--rounds 5] [--tokens 256] [--streams 1 16]

Starts a server of this tree with the model, and a second one that has the first as its upstream. Each in turn streams
answers of so many tokens, to so many clients at once, of a conversation and of a raw prompt. Prints the medians of the
rounds and of the differences, the command and the machine. Only the processor time of the server that is asked counts:
not its worker's, nor the upstream's.
"""

import argparse
import statistics
import tempfile
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from measuring import header
from token_cost import ROOT, Server, server

from corral import names
from corral.models import assemble
from corral.store import Store

PROMPT = "Count from {} to a thousand: "


def body_of(path: str, number: int, tokens: int) -> dict[str, Any]:
    """The request of one client."""
    prompt, options = PROMPT.format(number), {"num_predict": tokens, "temperature": 0}
    if path == "/api/chat":
        return {"model": "measured", "messages": [{"role": "user", "content": prompt}], "options": options}
    return {"model": "measured", "prompt": prompt, "raw": True, "options": options}


def cost(one: Server, path: str, tokens: int, streams: int) -> float:
    """Microseconds of processor time for each line of so many answers at once."""
    before = one.seconds()
    counts = [0] * streams

    def ask(number: int) -> None:
        counts[number] = sum(1 for _ in one.lines(path, body_of(path, number, tokens)))

    clients = [threading.Thread(target=ask, args=(number,)) for number in range(streams)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return (one.seconds() - before) / sum(counts) * 1e6


def main(model: Path, rounds: int, tokens: int, streams: Sequence[int]) -> None:
    print(header(), end="\n\n")
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        store = Store(folder / "models")
        assemble.write_model(names.parse("measured"), assemble.assemble({model.name: model}, store), store)
        local = stack.enter_context(server(ROOT, store.root, folder / "local"))
        settings = folder / "corral.toml"
        settings.write_text(f'[models."measured"]\nupstreams = [{{url = "http://{local.host}"}}]\n')
        empty = folder / "empty"
        empty.mkdir()
        front = stack.enter_context(server(ROOT, empty, folder / "front", CORRAL_CONFIG=str(settings)))
        print(f"µs of processor time a streamed token, median of {rounds} rounds in turn (least to most)")
        for path in ("/api/chat", "/api/generate"):
            for one in (local, front):  # the load and the first answers are not counted
                cost(one, path, 16, 1)
            for count in streams:
                pairs = [tuple(cost(one, path, tokens, count) for one in (local, front)) for _ in range(rounds)]
                print(f"{path}, {count} at once")
                for place, side in enumerate(("own worker", "upstream")):
                    each = [pair[place] for pair in pairs]
                    print(f"    {side:<12}{statistics.median(each):.0f} ({min(each):.0f} to {max(each):.0f})")
                print(f"    {'difference':<12}{statistics.median(pair[1] - pair[0] for pair in pairs):+.1f}")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("model", type=Path, help="a chat model's GGUF file, such as the starter model's")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--tokens", type=int, default=256)
    arguments.add_argument("--streams", type=int, nargs="+", default=[1, 16])
    given = arguments.parse_args()
    main(given.model.absolute(), given.rounds, given.tokens, given.streams)
