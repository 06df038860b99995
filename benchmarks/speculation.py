"""What speculation gains where text repeats itself, and what it costs where it does not.

    python benchmarks/speculation.py MODEL.gguf [--rounds 5]

Loads the model twice, without and with speculation as a server does, and has both in turn repeat a file of some 60
lines, and write free text, for one client and for four at once. Prints the medians of tokens a second, those of the
paired ratios with their spread (above 1: faster with speculation), and what was drafted and accepted.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from measuring import header
from msgspec import structs

sys.path.insert(0, str(Path(__file__).parent.parent))

from corral.engine.base import CompletionRequest, Engine, RunnerSpec, Sampling
from corral.engine.llama.launch import launch
from corral.machine.threads import threads_here
from corral.serving.spec import NGRAM_DRAFT

FILE = (Path(__file__).parent.parent / "corral" / "serving" / "traffic.py").read_text()
EDIT = (
    f"The file before the change:\n\n```python\n{FILE}```\n\n"
    f"The file after the change, in which WINDOW is 10 instead of 5:\n\n```python\n{FILE[:300]}"
)
FREE = "<|im_start|>user\nTell me of a lighthouse keeper and her dog.<|im_end|>\n<|im_start|>assistant\n"
TASKS = {
    "edit a file": (EDIT, Sampling(temperature=0.0, repeat_penalty=1.0), 160),
    "free text": (FREE, Sampling(temperature=0.8, repeat_penalty=1.0), 80),
}


async def speed(engine: Engine, task: str, clients: int) -> tuple[float, int, int]:
    """Tokens a second of all clients together, after their first, and the tokens drafted and accepted."""
    prompt, sampling, tokens = TASKS[task]

    async def ask() -> tuple[float, float, int, int, int]:
        first, written, drafted, accepted = 0.0, 0, 0, 0
        async for piece in engine.complete(CompletionRequest(prompt=prompt, sampling=sampling, max_tokens=tokens)):
            first = first or time.monotonic()
            written += len(piece.tokens)
            if piece.finish is not None:
                drafted, accepted = piece.finish.drafted_tokens, piece.finish.accepted_tokens
        return first, time.monotonic(), written, drafted, accepted

    found = await asyncio.gather(*[ask() for _ in range(clients)])
    seconds = max(one[1] for one in found) - min(one[0] for one in found)
    return sum(one[2] for one in found) / seconds, sum(one[3] for one in found), sum(one[4] for one in found)


async def measure(model: Path, rounds: int, work: Path, tasks: Sequence[str], counts: Sequence[int]) -> None:
    spec = RunnerSpec(model=str(model), num_ctx=2048, slots=4, pool=8192, num_thread=threads_here())
    plain = await launch(spec, log=work / "plain", stall_timeout=60)
    drafting = await launch(structs.replace(spec, ngram_draft=NGRAM_DRAFT), log=work / "drafting", stall_timeout=60)
    try:
        for clients in counts:
            for task in tasks:
                for engine in (plain, drafting):  # the prompt is in the cache of every slot then
                    await speed(engine, task, clients)
                pairs = [
                    (await speed(plain, task, clients), await speed(drafting, task, clients)) for _ in range(rounds)
                ]
                ratios = sorted(after[0] / before[0] for before, after in pairs)
                before, after = (statistics.median(pair[side][0] for pair in pairs) for side in (0, 1))
                drafted, accepted = (sum(pair[1][place] for pair in pairs) for place in (1, 2))
                print(f"{clients} client(s), {task}: {before:.0f} → {after:.0f} tok/s, ", end="")
                print(f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f}), ", end="")
                print(f"{accepted} of {drafted} drafted tokens accepted", flush=True)
    finally:
        await plain.close()
        await drafting.close()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("model", type=Path, help="a chat model's GGUF file, such as the starter model's")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--task", choices=list(TASKS), help="only this one")
    arguments.add_argument("--clients", type=int, help="only so many at once, instead of 1 and 4")
    given = arguments.parse_args()
    print(header(), flush=True)
    with tempfile.TemporaryDirectory() as work:
        tasks, counts = [given.task] if given.task else list(TASKS), [given.clients] if given.clients else [1, 4]
        asyncio.run(measure(given.model.absolute(), given.rounds, Path(work), tasks, counts))


if __name__ == "__main__":
    main()
