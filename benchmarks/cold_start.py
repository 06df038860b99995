"""How long the first token of a model takes that is not loaded: with a spare worker, without, and the bare engine.

    python benchmarks/cold_start.py MODEL.gguf [--rounds 8]

Two servers of this tree, one with `CORRAL_SPARE_WORKER=0`, are asked in turns for one token of a model that they have
unloaded, and after them a fresh Python process loads the engine of the wheel by itself and asks it. Prints medians and
spreads of the seconds and of their ratios to the bare engine, and what the spare worker holds.
"""

import argparse
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import header
from token_cost import ROOT, Server, server

sys.path.insert(0, str(ROOT))

from corral import names
from corral.engine.llama.spare import DELAY
from corral.models import assemble
from corral.store import Store

READY = DELAY + 4
"""Seconds after which the next spare has imported the engine."""

BARE = """
import http.client, json, sys
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.port, params.n_ctx, params.fit_params = sys.argv[1], 0, 4096, False
server = xllamacpp.Server(params)
host = server.listening_address.split("//")[-1]
connection = http.client.HTTPConnection(host)
body = json.dumps({"prompt": "Hello", "n_predict": 1})
connection.request("POST", "/completion", body, {"Content-Type": "application/json"})
connection.getresponse().read()
print("done", flush=True)
import os; os._exit(0)
"""
"""The engine as its own documents start it: loaded, and asked for a token."""


def main(model: Path, rounds: int) -> None:
    print(header(), end="\n\n")
    taken: dict[str, list[float]] = {"with a spare worker": [], "without": [], "bare engine": []}
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "models")
        assemble.write_model(names.parse("measured"), assemble.assemble({model.name: model}, store), store)
        with (
            server(ROOT, store.root, Path(folder) / "a") as spared,
            server(ROOT, store.root, Path(folder) / "b", CORRAL_SPARE_WORKER="0") as plain,
        ):
            for number in range(rounds + 1):
                time.sleep(READY)
                if number == 1:
                    print(f"a spare worker holds {_held(spared)}")
                took = {
                    "with a spare worker": first_token(spared),
                    "without": first_token(plain),
                    "bare engine": bare(model),
                }
                if number:  # the first round reads the file from the disk
                    for name, seconds in took.items():
                        taken[name].append(seconds)
    for name, values in taken.items():
        ratios = [value / bare for value, bare in zip(values, taken["bare engine"], strict=True)]
        print(f"{name:<20} {_shown(values)} s, {_shown(ratios)} of the bare engine")


def first_token(one: Server) -> float:
    """Seconds from a request to the first token of a model, which is unloaded again after the answer."""
    body = {"model": "measured", "prompt": "Hello", "options": {"num_predict": 1}, "keep_alive": 0}
    connection = http.client.HTTPConnection(one.host, timeout=600)
    begin = time.perf_counter()
    connection.request("POST", "/api/generate", json.dumps(body))
    with connection.getresponse() as response:
        response.readline()
        seconds = time.perf_counter() - begin
        response.read()
    connection.close()
    return seconds


def bare(model: Path) -> float:
    begin = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", BARE, str(model)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return time.perf_counter() - begin


def _held(one: Server) -> str:
    for child in one.children():
        if "--spare" in child.cmdline():
            held = child.memory_full_info()
            return f"{held.uss / 1e6:.0f} MB of its own (USS), {held.pss / 1e6:.0f} MB (PSS)"
    return "nothing: there is none"


def _shown(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("model", type=Path)
    arguments.add_argument("--rounds", type=int, default=8)
    given = arguments.parse_args()
    main(given.model.absolute(), given.rounds)
