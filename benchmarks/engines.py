"""Engines: how fast a llama-server is beside the wheel's engine, and whether it answers alike.

    python benchmarks/engines.py MODEL.gguf LLAMA-SERVER [--pairs 9] [--beside OTHER-LLAMA-SERVER]

The trial of `corral engine build`: both run at the same time and are asked in turns, each pair a prompt that neither
has seen and the answer to it. Prints medians of the pairs' ratios with their ranges, the command and the machine.
Everything stays on loopback and ends by itself, after a minute or two.
"""

import argparse
import asyncio
import tempfile
from contextlib import aclosing
from pathlib import Path

from measuring import header

from corral.builds.trial import Trial, Trying


async def tried(program: Path, model: Path, beside: str, pairs: int) -> Trial:
    """The trial of a program beside the wheel's engine, or another."""
    with tempfile.TemporaryDirectory() as logs:
        trying = Trying(str(program), model, Path(logs), beside=beside, pairs=pairs)
        async with aclosing(trying.steps()) as steps:
            async for _ in steps:
                pass
    return trying.trial


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("model", type=Path, help="a chat model's GGUF file")
    arguments.add_argument("program", type=Path, help="the llama-server to measure")
    arguments.add_argument("--beside", default="", help="another llama-server, instead of the wheel's engine")
    arguments.add_argument("--pairs", type=int, default=9)
    given = arguments.parse_args()
    print(header(), end="\n\n")
    trial = asyncio.run(tried(given.program.absolute(), given.model.absolute(), given.beside, given.pairs))
    if trial.difference:
        print(f"answers differ: {trial.difference}")
        return
    print("answers: alike within the tolerance")
    print(f"faster in {trial.share:.0%} of the pairs")
    for name, ratio, (low, high) in (
        ("prompts read", trial.read, trial.read_range),
        ("answers written", trial.written, trial.written_range),
    ):
        print(f"{name}: x{ratio:.3f} ({low:.3f} to {high:.3f}, {given.pairs} pairs)")


if __name__ == "__main__":
    main()
