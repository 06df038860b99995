"""Runs a program's scenarios against the server at $URL in their order: run.py PROGRAM sync|async.

A scenario is a public function of the program. For a line each, its name and its result, or how it failed, as JSON.
"""

import asyncio
import inspect
import json
import re
import sys
import traceback
from pathlib import Path


def without_async(text: str) -> str:
    """The same program for a client that is not asynchronous, whose classes have no `Async` in their names."""
    return re.sub(r"\b(async |await |Async(?=[A-Z]))", "", text)


async def run(scenarios: list) -> None:
    for scenario in scenarios:
        try:
            result = scenario()
            outcome = {"result": await result if inspect.isawaitable(result) else result}
        except Exception:
            outcome = {"error": traceback.format_exc()}
        print(json.dumps({"name": scenario.__name__, **outcome}), file=output, flush=True)


output, sys.stdout = sys.stdout, sys.stderr  # some clients print
program, written_for = sys.argv[1:]
source = Path(__file__).with_name(program).read_text("utf-8")
names = {"__name__": program.removesuffix(".py")}
exec(compile(source if written_for == "async" else without_async(source), program, "exec"), names)
own = {name: one for name, one in names.items() if inspect.isfunction(one) and one.__module__ == names["__name__"]}
asyncio.run(run([one for name, one in own.items() if not name.startswith("_")]))
