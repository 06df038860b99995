"""Which replica gets a request, simulated with a recorded pattern of arrivals, and what the choice itself costs.

    python benchmarks/routing.py [--replicas 2 16 128 1000] [--an-hour 1000000] [--seconds 60]
        [--arrivals benchmarks/arrivals.csv] [--read 8000] [--write 2000] [--slots 16] [--cache 200000]
    python benchmarks/routing.py --choice [--replicas 2 16 128 1000]    # what the choice alone takes

Asks the real `choose` with the real chains of prompts, and three other policies in its place: random, in turn, and the
least loaded. Replicas read `--read` and write `--write` tokens a second, all slots together, and keep `--cache` tokens.
Arrivals: moments, prompt and answer lengths, of Azure's trace of LLM inference in 2023 (CC BY 4.0, its first fifty
seconds; `--arrivals` takes more of it). They are repeated and compressed to the rate that is wanted. A trace has no
texts, so each request begins a conversation or goes on with one: with four of ten, that of a random earlier request, at
most three times; half of all conversations share one of twenty system prompts of 300 tokens.
"""

import argparse
import csv
import heapq
import random
import statistics
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from measuring import header
from msgspec import Struct

from corral.replicas.prefixes import BLOCK, BYTES_PER_TOKEN, Chain
from corral.replicas.replica import Load, Prompt, Replica, choose

TOKENS_PER_BLOCK = BLOCK // BYTES_PER_TOKEN
ARRIVALS = Path(__file__).parent / "arrivals.csv"
SYSTEM_PROMPTS, SYSTEM_TOKENS = 20, 300
GOES_ON, MOST_TURNS = 0.4, 4


class Asked(Struct, frozen=True):
    """A request: when it comes, in seconds, its prompt, and the tokens of its answer."""

    moment: float
    prompt: Prompt


class Node:
    """A replica's machine: what it still has to do, and what its cache holds. Times are in seconds."""

    def __init__(self, number: int, capacity: int) -> None:
        self.free_at = 0.0
        self.slots: list[float] = []
        self.in_flight = 0
        self.capacity = capacity
        self.cache: OrderedDict[int, None] = OrderedDict()
        self.replica = Replica(f"node-{number}", load=lambda: Load(in_flight=self.in_flight))

    def cached(self, chain: Chain) -> int:
        """Tokens of a prompt that it has; all of it is in the cache afterwards."""
        known = next((count for count, block in enumerate(chain) if block not in self.cache), len(chain))
        for block in chain:
            self.cache[block] = None
            self.cache.move_to_end(block)
        while len(self.cache) * TOKENS_PER_BLOCK > self.capacity:
            self.cache.popitem(last=False)
        return known * TOKENS_PER_BLOCK


Policy = Callable[[Prompt, Sequence[Node]], Node]


def in_turn() -> Policy:
    count = iter(range(1 << 62))
    return lambda prompt, nodes: nodes[next(count) % len(nodes)]


def routed(prompt: Prompt, nodes: Sequence[Node]) -> Node:
    found = choose(prompt, [node.replica for node in nodes])
    assert found is not None
    return next(node for node in nodes if node.replica is found[0])


def conversations(arrivals: Sequence[tuple[float, int, int]], draw: random.Random) -> Iterator[Asked]:
    """The arrivals as requests with prompts."""
    earlier: list[tuple[Chain, int]] = []
    for number, (moment, tokens, answer) in enumerate(arrivals):
        before: Chain = ()
        turn = 1
        if earlier and draw.random() < GOES_ON:
            before, turn = draw.choice(earlier[-2000:])
            turn += 1
        elif draw.random() < 0.5:
            system = draw.randrange(SYSTEM_PROMPTS)
            before = tuple(hash(("system", system, block)) for block in range(SYSTEM_TOKENS // TOKENS_PER_BLOCK))
        new = max(1, tokens // TOKENS_PER_BLOCK - len(before))
        chain = (*before, *(hash((number, block)) for block in range(new)))
        if turn < MOST_TURNS:
            written = tuple(hash((number, "answer", block)) for block in range(answer // TOKENS_PER_BLOCK))
            earlier.append((chain + written, turn))
        yield Asked(moment, Prompt(chain, len(chain) * TOKENS_PER_BLOCK, answer))


def simulate(
    asked: Sequence[Asked], nodes: Sequence[Node], policy: Policy, given: argparse.Namespace
) -> tuple[list[float], float, float]:
    """Seconds to the first token of each request, the share of prompt tokens that were cached, and the microseconds a
    choice took. A node reads one prompt after the other, and writes with all slots at once."""
    ends: list[tuple[float, int, int, int]] = []
    first, cached, total, spent = [], 0, 0, 0.0
    for number, one in enumerate(asked):
        while ends and ends[0][0] <= one.moment:
            _, _, index, tokens = heapq.heappop(ends)
            nodes[index].in_flight -= tokens
        began = time.perf_counter()
        node = policy(one.prompt, nodes)
        spent += time.perf_counter() - began
        with node.replica.serving(one.prompt):
            pass
        tokens = one.prompt.tokens + one.prompt.answer_tokens
        node.in_flight += tokens
        known = min(node.cached(one.prompt.chain), one.prompt.tokens)
        slot = heapq.heappop(node.slots) if len(node.slots) >= given.slots else 0.0
        node.free_at = max(node.free_at, one.moment, slot) + (one.prompt.tokens - known) / given.read
        ended = node.free_at + one.prompt.answer_tokens * given.slots / given.write
        heapq.heappush(node.slots, ended)
        heapq.heappush(ends, (ended, number, nodes.index(node), tokens))
        first.append(node.free_at - one.moment)
        cached += known
        total += one.prompt.tokens
    return first, cached / total, spent / len(asked) * 1e6


def read_arrivals(file: Path, seconds: float, rate: float) -> list[tuple[float, int, int]]:
    """Moments in seconds, tokens of the prompt and of the answer; repeated and compressed to `rate` a second."""
    with open(file, newline="") as opened:
        rows = [(int(row[0]) / 1000, int(row[1]), int(row[2])) for row in list(csv.reader(opened))[1:]]
    length = rows[-1][0] + rows[-1][0] / len(rows)
    factor = len(rows) / length / rate
    arrivals = []
    for repeat in range(int(seconds / (length * factor)) + 1):
        arrivals += [((moment + repeat * length) * factor, prompt, answer) for moment, prompt, answer in rows]
    return [one for one in arrivals if one[0] < seconds]


def choice_alone(count: int, rounds: int = 300) -> list[float]:
    """Microseconds of a choice among replicas that know a prompt each, from least to most."""
    draw = random.Random(1)
    nodes = [Node(number, 1) for number in range(count)]
    prompts = [Prompt(tuple(draw.getrandbits(64) for _ in range(14)), 880, 215) for _ in range(200)]
    for number, prompt in enumerate(prompts):
        nodes[number % count].replica.prefixes.add(prompt.chain)
    for node in nodes:
        node.in_flight = draw.randrange(5000)
    replicas = [node.replica for node in nodes]
    spent = []
    for number in range(rounds):
        began = time.perf_counter()
        choose(prompts[number % len(prompts)], replicas)
        spent.append((time.perf_counter() - began) * 1e6)
    return sorted(spent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, nargs="+", default=[2, 16, 128, 1000])
    parser.add_argument("--an-hour", type=int, default=1_000_000, help="requests an hour that 1,000 replicas get")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--arrivals", type=Path, default=ARRIVALS)
    parser.add_argument("--read", type=float, default=8000)
    parser.add_argument("--write", type=float, default=2000)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--cache", type=int, default=200_000)
    parser.add_argument("--choice", action="store_true", help="what the choice alone takes, and no simulation")
    given = parser.parse_args()
    print(header(), end="\n\n")
    if given.choice:
        for count in given.replicas:
            spent = choice_alone(count)
            print(f"{count:5} replicas: {statistics.median(spent):6.0f} µs a choice, {spent[0]:.0f} at least")
        return
    print("| replicas | requests | policy | cached | first token, median | 95 of 100 | a choice |")
    print("|---|---|---|---|---|---|---|")
    for count in given.replicas:
        rate = given.an_hour / 3600 * count / 1000
        seconds = max(given.seconds, min(600, 1000 / rate))
        arrivals = read_arrivals(given.arrivals, seconds, rate)
        asked = list(conversations(arrivals, random.Random(1)))
        draw = random.Random(2)
        policies: dict[str, Policy] = {
            "random": lambda prompt, nodes: draw.choice(nodes),  # noqa: B023 - asked within this round
            "in turn": in_turn(),
            "least loaded": lambda prompt, nodes: min(nodes, key=lambda node: node.in_flight),
            "Corral": routed,
        }
        for name, policy in policies.items():
            nodes = [Node(number, given.cache) for number in range(count)]
            first, cached, microseconds = simulate(asked, nodes, policy, given)
            last = statistics.quantiles(first, n=20)[-1]
            print(
                f"| {count} | {len(asked)} | {name} | {cached:.0%} | {statistics.median(first) * 1000:.0f} ms "
                f"| {last * 1000:.0f} ms | {microseconds:.0f} µs |",
                flush=True,
            )


if __name__ == "__main__":
    main()
