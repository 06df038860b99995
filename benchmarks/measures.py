"""The suite's measures: what is asked of a side, and the number that comes of it. Knows no table and no other side.

A measure is asked of both sides in turn with the same `turn`, which makes its prompts new to both.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from sides import Api, Bare, together

from corral.children import environment

Side: TypeAlias = Api | Bare
QUESTION = "<|im_start|>user\n{turn}. Tell me of a lighthouse keeper and her dog.<|im_end|>\n<|im_start|>assistant\n"
FILE = (Path(__file__).parent.parent / "corral" / "serving" / "traffic.py").read_text()
EDIT = (
    "# {turn}\nThe file before the change:\n\n```python\n{file}```\n\n"
    "The file after the change, in which WINDOW is 10 instead of 5:\n\n```python\n{begin}"
)
TEXTS = 64
REST = 5.0
"""Seconds without a request before a model is loaded: nobody asks for one in the second in which it was unloaded."""


@dataclass(frozen=True)
class Measure:
    """`ask` gives a number of a side, `both` says which sides there may be."""

    name: str
    unit: str
    ask: Callable[[Side, int], float]
    more_is_better: bool
    aim: str = ""
    of_bare: bool = True
    """Whether the engine by itself can be asked the same."""
    needs_process: bool = False
    """Whether the server has to run on this machine."""
    pairs: int = 0
    """Most pairs; 0: as the command says. For what takes long."""

    def ratio(self, ours: float, theirs: float) -> float:
        """Above 1: Corral is better."""
        return ours / theirs if self.more_is_better else theirs / ours


def words(turn: int, count: int) -> str:
    """A prompt of so many words that no cache knows."""
    return f"Story {turn}. " + " ".join(f"On day {turn * 1000 + day} we walked." for day in range(count // 5))


def _api(side: Side) -> Api:
    assert isinstance(side, Api)
    return side


def decode(side: Side, turn: int) -> float:
    return side.stream(QUESTION.format(turn=turn), 96).rate


def prompt(side: Side, turn: int) -> float:
    return side.stream(words(turn, 500), 1).first


def warm(side: Side, turn: int) -> float:
    side.stream("Hello, my", 1, 0.0)
    return side.stream("Hello, my", 1, 0.0).first * 1e3


def cold(side: Side, turn: int) -> float:
    """Of a server that has had nothing to do for a while."""
    _api(side).unload()
    time.sleep(REST)
    return side.stream("Hello, my", 1, 0.0).first


def _crowd(clients: int, tokens: int) -> Callable[[Side, int], tuple[float, float]]:
    def ask(side: Side, turn: int) -> tuple[float, float]:
        return together(side, [QUESTION.format(turn=turn * 100 + number) for number in range(clients)], tokens)

    return ask


def crowd(clients: int, tokens: int) -> Callable[[Side, int], float]:
    return lambda side, turn: _crowd(clients, tokens)(side, turn)[0]


def slowest(clients: int) -> Callable[[Side, int], float]:
    return lambda side, turn: _crowd(clients, 32)(side, turn)[1]


def _conversation(turn: int, count: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"{words(turn, count)} What is this?"}]


def _go_on(side: Side, messages: list[dict[str, str]]) -> float:
    """Seconds to the first token of a turn; the conversation goes on with it."""
    answer, said = _api(side).chat(messages, 8)
    messages += [{"role": "assistant", "content": said}, {"role": "user", "content": "And what else?"}]
    return answer.first


def second_turn(side: Side, turn: int) -> float:
    messages = _conversation(turn, 300)
    _go_on(side, messages)
    return _go_on(side, messages)


def interleaved(count: int) -> Callable[[Side, int], float]:
    def ask(side: Side, turn: int) -> float:
        several = [_conversation(turn * 10 + number, 200) for number in range(count)]
        for messages in several:
            _go_on(side, messages)
        return sum(_go_on(side, messages) for messages in several) / count

    return ask


def resumed(side: Side, turn: int) -> float:
    messages = _conversation(turn, 400)
    _go_on(side, messages)
    _api(side).unload()
    return _go_on(side, messages)


def tags(side: Side, turn: int) -> float:
    taken = sorted(_api(side).tags() for _ in range(20))
    return taken[10] * 1e3


def memory(side: Side, turn: int) -> float:
    """Of a model that was just loaded: what a server keeps of earlier requests is for it to say."""
    _api(side).unload()
    side.stream("Hello, my", 4)
    time.sleep(REST)
    return _api(side).pss() / 1e6


def cpu(streams: int) -> Callable[[Side, int], float]:
    def ask(side: Side, turn: int) -> float:
        api, tokens = _api(side), max(64, 512 // streams)  # the system counts in hundredths of a second
        began = api.cpu()
        together(side, [f"Count from {turn} to {number}: " for number in range(streams)], tokens)
        return (api.cpu() - began) / (streams * tokens) * 1e6

    return ask


def embeddings(side: Side, turn: int) -> float:
    texts = [f"{turn} {number}: the quick brown fox jumps over the lazy dog" for number in range(TEXTS)]
    return TEXTS / _api(side).embed("suite-embed", texts)


def edit(side: Side, turn: int) -> float:
    return side.stream(EDIT.format(turn=turn, file=FILE, begin=FILE[:300]), 128, 0.0).rate


def version_command(side: Side, turn: int) -> float:
    """Corral's own start-up; whatever the side is."""
    began = time.perf_counter()
    command = [str(Path(sys.executable).with_name("corral")), "--version"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment())
    return time.perf_counter() - began


CHAT: Sequence[Measure] = (  # the file first: what follows drafts in vain, and a server may stop drafting for a while
    Measure("decode, one client", "tok/s", decode, True, "≥ 1.0; ≥ 0.97 of the engine"),
    Measure("edit a file", "tok/s", edit, True, "≥ 1.2 of the engine without speculation"),
    Measure("prompt of 500 words", "s", prompt, False, "≥ 1.0"),
    Measure("first token, warm", "ms", warm, False, "≥ 1.05; at most 3 ms more than the engine"),
    Measure("first token, cold", "s", cold, False, "≥ 1.5", of_bare=False, pairs=5),
    Measure("1 client, the prompt too", "tok/s", crowd(1, 64), True),
    Measure("2 clients", "tok/s", crowd(2, 64), True),
    Measure("4 clients", "tok/s", crowd(4, 64), True, "≥ 1.5"),
    Measure("16 clients", "tok/s", crowd(16, 64), True, "≥ 2.0; ≥ 0.95 of the engine", pairs=5),
    Measure("16 clients, open num_predict", "tok/s", crowd(16, 0), True, "≥ 2.0", of_bare=False, pairs=3),
    Measure("64 clients", "tok/s", crowd(64, 64), True, "≥ 1 client", pairs=2),
    Measure("slowest first token of 4", "s", slowest(4), False, "≥ 11"),
    Measure("slowest first token of 16", "s", slowest(16), False, "≤ 1 s", pairs=3),
    Measure("chat, second turn", "s", second_turn, False, "≥ 1.1", of_bare=False),
    Measure("two conversations interleaved", "s", interleaved(2), False, "≥ 1.1", of_bare=False),
    Measure("eight conversations interleaved", "s", interleaved(8), False, "≥ 1.1", of_bare=False, pairs=3),
    Measure("conversation resumed after unload", "s", resumed, False, "≥ 5", of_bare=False, pairs=3),
    Measure("/api/tags, one model", "ms", tags, False, "≥ 0.6", of_bare=False),
    Measure("memory with the model, PSS", "MB", memory, False, "≥ 0.9", of_bare=False, needs_process=True, pairs=3),
    Measure("server CPU a token, 1 stream", "µs", cpu(1), False, "≤ 120 µs", of_bare=False, needs_process=True),
    Measure("server CPU a token, 16 streams", "µs", cpu(16), False, "≤ 60 µs", of_bare=False, needs_process=True),
)
EMBED: Sequence[Measure] = (Measure("embeddings a second, MiniLM", "texts/s", embeddings, True, of_bare=False),)
START: Sequence[Measure] = (Measure("start-up, corral --version", "s", version_command, False, of_bare=False),)
