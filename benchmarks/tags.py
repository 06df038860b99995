"""How long the list of models takes, in a store with few and with many: milliseconds, and the server's processor time.

    python benchmarks/tags.py [--against CHECKOUT] [--models 1 1000] [--rounds 5] [--requests 40]

Starts a server of this tree and one of CHECKOUT (another tree of Corral with its own `.venv`) on a store of so many
models, and asks each in turn for `/api/tags`, every time on a new connection, as a client that starts anew does. Prints
medians of the rounds, their spread and the ratio to this tree, the command and the machine.
"""

import argparse
import http.client
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from many_models import fill
from measuring import header
from token_cost import ROOT, Server, server

TOKENS = 1000
"""Of each model's vocabulary: the list does not read it again."""


def asked(one: Server, requests: int) -> tuple[float, float]:
    """Milliseconds of the median request, and of processor time of the average one."""
    before, times = one.seconds(), []
    for _ in range(requests):
        began = time.perf_counter()
        connection = http.client.HTTPConnection(one.host, timeout=60)
        connection.request("GET", "/api/tags")
        assert b'"models"' in connection.getresponse().read()
        connection.close()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e3, (one.seconds() - before) / requests * 1e3


def main(against: Path | None, models: Sequence[int], rounds: int, requests: int) -> None:
    print(header(), end="\n\n")
    trees = {"this tree": ROOT} | ({} if against is None else {"against": against.absolute()})
    for count in models:
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            store = Path(folder) / "models"
            fill(store, count, TOKENS)
            servers = {
                name: stack.enter_context(server(tree, store, Path(folder) / name)) for name, tree in trees.items()
            }
            for one in servers.values():  # the first list reads the files
                asked(one, 3)
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in servers}
            for _ in range(rounds):
                for name, one in servers.items():
                    found[name].append(asked(one, requests))
        print(f"{count} models")
        for name, each in found.items():
            taken, spent = zip(*each, strict=True)
            ratio = statistics.median([a / b for (a, _), (b, _) in zip(each, found["this tree"], strict=True)])
            print(
                f"    {name:<12}{statistics.median(taken):.2f} ms ({min(taken):.2f} to {max(taken):.2f}), "
                f"{ratio:.2f} of this tree; {statistics.median(spent):.2f} ms of processor time"
            )


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--against", type=Path, help="another tree of Corral, with its own .venv")
    arguments.add_argument("--models", type=int, nargs="+", default=[1, 1000])
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--requests", type=int, default=40)
    given = arguments.parse_args()
    main(given.against, given.models, given.rounds, given.requests)
