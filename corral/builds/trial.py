"""A llama-server tried beside the wheel's engine: whether it runs here, answers as that does, and is faster.

Both run at the same time and are asked in turns, so that what else the machine does slows both.
"""

import itertools
import math
import statistics
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Protocol

import msgspec

from corral.cage import Cage
from corral.engine.base import CompletionRequest, Piece, RunnerSpec, Sampling
from corral.engine.llama.client import LlamaEngine
from corral.engine.llama.launch import launch
from corral.errors import EngineDied, EngineError
from corral.machine.threads import threads_here
from corral.messages import Progress, TokenLogprob

PROMPTS = (
    "Once upon a time there was a",
    "The capital of France is",
    "def fibonacci(n):\n    ",
    "1, 2, 3, 4, 5,",
    "Dear Sir or Madam,\n\n",
    "Question: Why is the sky blue?\nAnswer:",
)
TOKENS = 24
"""Those of each answer that are compared."""

ALTERNATIVES = 5
TOLERANCE = 0.3
"""By how much the log probabilities of a token may differ: sums of rounded numbers come out a little differently in
another order. What is computed wrongly differs by far more."""

PAIRS = 9
READ_WORDS, WRITTEN = 200, 32
STALL_SECONDS = 120.0
CONTEXT = 2048

WINS, LEAST, SHARE = 1.02, 0.95, 0.75
"""What the mean of both ratios has to reach, and each of them; and the share of pairs in which it has to be faster. On
a machine that does other work pairs differ by far more than engines do, and a median alone would be luck."""

ILLEGAL = "illegal instruction"


class Asked(Protocol):
    """What is compared: an engine that goes on with a prompt."""

    def complete(self, request: CompletionRequest) -> AsyncGenerator[Piece, None]: ...


class Speeds(msgspec.Struct, frozen=True):
    """Tokens a second: read of a new prompt, written by one client."""

    read: float
    written: float


class Trial(msgspec.Struct, frozen=True):
    """What came of it. `difference`: how an answer differs, empty where none does. Ratios: above 1 the other engine is
    faster than the wheel; medians of pairs, with the lowest and highest."""

    difference: str = ""
    read: float = 0.0
    written: float = 0.0
    share: float = 0.0
    """Of the pairs, those in which the other engine is faster by the mean of both ratios."""
    read_range: tuple[float, float] = (0.0, 0.0)
    written_range: tuple[float, float] = (0.0, 0.0)

    @property
    def wins(self) -> bool:
        """Whether it answers alike and is worth having."""
        mean = math.sqrt(self.read * self.written)
        is_faster = mean >= WINS and min(self.read, self.written) >= LEAST
        return not self.difference and is_faster and self.share >= SHARE


def spec_for(model: Path) -> RunnerSpec:
    """How the model is loaded for a trial."""
    return RunnerSpec(model=str(model), num_ctx=CONTEXT, pool=CONTEXT, num_thread=threads_here(), own_template=False)


class Trying:
    """One trial: iterate `steps` to its end, then `trial` is there.

    `EngineError` when one of the engines does not come up or dies; `is_illegal` says whether for an instruction that
    the processor does not have. Closing the iterator ends both.
    """

    trial: Trial

    def __init__(
        self,
        program: str,
        model: Path,
        logs: Path,
        *,
        beside: str = "",
        pairs: int = PAIRS,
        cage: Cage = Cage(),  # noqa: B008 - frozen
    ) -> None:
        """`beside`: the path of a llama-server to compare with instead of the wheel's engine."""
        self._cage = cage
        self._program = program
        self._beside = beside
        self._spec = spec_for(model)
        self._logs = logs
        self._pairs = pairs

    async def steps(self) -> AsyncGenerator[Progress, None]:
        async with AsyncExitStack() as stack:
            yield Progress("starting both engines")
            other = await self._launch(stack, self._program, "engine")
            wheel = await self._launch(stack, self._beside, "wheel")
            yield Progress("comparing answers")
            if difference := await compared(wheel, other):
                self.trial = Trial(difference)
                return
            found: list[tuple[Speeds, Speeds]] = []
            for number in range(self._pairs + 1):  # the first pair warms up
                yield Progress(f"measuring in pairs, {self._pairs} times")
                found.append((await speeds(wheel, number), await speeds(other, number)))
            self.trial = judged(found[1:])

    async def _launch(self, stack: AsyncExitStack, program: str, name: str) -> LlamaEngine:
        log = self._logs / f"trial-{name}.log"
        engine = await launch(
            self._spec,
            log=log,
            stall_timeout=STALL_SECONDS,
            program=program,
            cache_ram_mib=0,
            cage=self._cage,
        )
        stack.push_async_callback(engine.close)
        return engine


def is_illegal(error: EngineError) -> bool:
    """Whether a worker ended at an instruction that the processor does not have."""
    return isinstance(error, EngineDied) and ILLEGAL in str(error).lower()


async def compared(wheel: Asked, other: Asked, prompts: Sequence[str] = PROMPTS) -> str:
    """How the greedy answers of two engines differ beyond the tolerance, as a sentence; empty where they do not."""
    for prompt in prompts:
        ours, theirs = await _answer(wheel, prompt), await _answer(other, prompt)
        if found := difference(ours, theirs):
            return f"after {prompt!r} {found}"
    return ""


def difference(ours: Sequence[TokenLogprob], theirs: Sequence[TokenLogprob]) -> str:
    """How two greedy answers differ; empty where they are equal, or part at two tokens that are equally likely.

    Behind such a place they are answers to different texts, and are not compared.
    """
    for mine, yours in itertools.zip_longest(ours, theirs):
        if mine is None or yours is None:
            return "one answer ends before the other"
        if mine.token == yours.token:
            if not abs(mine.logprob - yours.logprob) <= TOLERANCE:
                return f"{mine.token!r} has the log probability {yours.logprob:.2f} instead of {mine.logprob:.2f}"
            continue
        seen = next((one.logprob for one in mine.top if one.token == yours.token), -math.inf)
        if not mine.logprob - seen <= TOLERANCE:
            return f"it says {yours.token!r} instead of {mine.token!r}"
        return ""
    return ""


async def _answer(engine: Asked, prompt: str) -> list[TokenLogprob]:
    request = CompletionRequest(
        prompt=prompt, max_tokens=TOKENS, sampling=Sampling(temperature=0.0), top_logprobs=ALTERNATIVES
    )
    found: list[TokenLogprob] = []
    async with aclosing(engine.complete(request)) as pieces:
        async for piece in pieces:
            found += piece.logprobs
    return found


async def speeds(engine: Asked, number: int, words: int = READ_WORDS) -> Speeds:
    """Of one request whose prompt, of so many words, was not seen before, by the engine's own clock."""
    prompt = f"Story {number}. " + " ".join(f"On day {number * 1000 + day} we walked." for day in range(words // 5))
    return await measured(engine, prompt)


async def measured(engine: Asked, prompt: str, tokens: int = WRITTEN, temperature: float = 0.0) -> Speeds:
    """Of one request, by the engine's own clock."""
    sampling = Sampling(temperature=temperature, seed=1 if temperature else None)
    request = CompletionRequest(prompt=prompt, max_tokens=tokens, sampling=sampling)
    async with aclosing(engine.complete(request)) as pieces:
        async for piece in pieces:
            if (finish := piece.finish) is not None:
                read = finish.prompt_tokens - finish.cached_tokens
                return Speeds(
                    read * 1e9 / max(1, finish.prompt_duration),
                    finish.generated_tokens * 1e9 / max(1, finish.generation_duration),
                )
    raise EngineError("an answer ended without saying so")


def judged(pairs: Sequence[tuple[Speeds, Speeds]]) -> Trial:
    """The ratios of pairs: the wheel's first, the other's second."""
    read = [other.read / wheel.read for wheel, other in pairs]
    written = [other.written / wheel.written for wheel, other in pairs]
    return Trial(
        read=statistics.median(read),
        written=statistics.median(written),
        share=sum(one * two > 1 for one, two in zip(read, written, strict=True)) / len(pairs),
        read_range=(min(read), max(read)),
        written_range=(min(written), max(written)),
    )
