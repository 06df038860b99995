"""What a model gains that another one drafts for: tokens a second with and without, and how many drafts were taken.

    python benchmarks/draft_model.py LARGE.gguf SMALL.gguf [--tokens 4] [--rounds 5] [--length 96]

Starts one server in which SMALL drafts for LARGE, and one in which nothing is drafted, and asks both in turn for greedy
answers to a few prompts. Both files have to be of one vocabulary. Prints medians of the rounds and their ratio, the
drafted and accepted tokens, the command and the machine. Answers that differ are counted: there should be none.
"""

import argparse
import json
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from measuring import header
from token_cost import ROOT, Server, server

from corral import names
from corral.models import assemble
from corral.store import Store

PROMPTS = (
    "The capital of France is",
    "Once upon a time there was a lighthouse",
    "def fibonacci(n):\n",
    "red orange yellow green blue indigo violet, red orange yellow",
)


def answer(one: Server, prompt: str, length: int, drafts: int) -> dict[str, Any]:
    options = {"num_predict": length, "temperature": 0, "draft_num_predict": drafts}
    body = {"model": "large", "prompt": prompt, "raw": True, "stream": False, "options": options}
    return dict(json.loads(b"".join(one.lines("/api/generate", body))))


def counted(one: Server, name: str) -> float:
    lines = [line.decode() for line in one.lines("/metrics", {}, method="GET")]
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"corral_{name}_total{{"))


def main(large: Path, small: Path, tokens: int, rounds: int, length: int) -> None:
    print(header(), end="\n\n")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        store = Store(Path(folder) / "models")
        for name, file in (("large", large), ("small", small)):
            assemble.write_model(names.parse(name), assemble.assemble({file.name: file}, store), store)
        home = Path(folder)
        drafting = stack.enter_context(server(ROOT, store.root, home / "a", CORRAL_DRAFT_MODELS="large=small"))
        plain = stack.enter_context(server(ROOT, store.root, home / "b"))
        for one, drafts in ((drafting, tokens), (plain, 0)):  # loads the model
            answer(one, PROMPTS[0], 8, drafts)
        print(f"{'prompt':<44}{'without':>12}{'with':>12}{'ratio':>8}{'accepted':>16}")
        differing = 0
        for prompt in PROMPTS:
            before = [counted(drafting, name) for name in ("drafted_tokens", "accepted_tokens")]
            rates = []
            for _ in range(rounds):
                ours, theirs = answer(drafting, prompt, length, tokens), answer(plain, prompt, length, 0)
                differing += ours["response"] != theirs["response"]
                rates.append(tuple(one["eval_count"] / one["eval_duration"] * 1e9 for one in (theirs, ours)))
            after = [counted(drafting, name) for name in ("drafted_tokens", "accepted_tokens")]
            drafted, taken = (int(now - was) for now, was in zip(after, before, strict=True))
            ratio = statistics.median(ours / theirs for theirs, ours in rates)
            slow, fast = (statistics.median(each) for each in zip(*rates, strict=True))
            print(f"{prompt[:40]!r:<44}{slow:>6.1f} tok/s{fast:>6.1f} tok/s{ratio:>8.2f}{taken:>8} of {drafted}")
        print(f"\nanswers that differ: {differing} of {rounds * len(PROMPTS)}")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("large", type=Path)
    arguments.add_argument("small", type=Path)
    arguments.add_argument("--tokens", type=int, default=4, help="drafted at once")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--length", type=int, default=96, help="tokens of each answer")
    given = arguments.parse_args()
    main(given.large.absolute(), given.small.absolute(), given.tokens, given.rounds, given.length)
