"""A plan is carried out: waits for room in the pool, has the engine answer, and turns its pieces into chunks.

Knows engine, pool and readers; how the request was planned is `plan.py`'s subject.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing

import msgspec

from corral.engine.base import Engine, Piece
from corral.errors import EngineError
from corral.inference import constraint
from corral.inference.completion import complete
from corral.inference.metrics import RequestMetrics
from corral.inference.plan import CompletionPlan, NativePlan, Plan, Planner, PlanT
from corral.inference.reading import Reader, StreamedAnswer, is_parser_failure, reader_for, rescuing_reader
from corral.inference.repetition import WatchedEngine
from corral.inference.segments import SegmentedEngine, can_be_parked
from corral.messages import Chunk, Rendered, ToolCall
from corral.serving.admission import Pool, Room
from corral.serving.place import Place
from corral.serving.runner import Runner

log = logging.getLogger(__name__)


def run(
    plan: Plan, planner: Planner, runner: Runner, metrics: RequestMetrics, place: Place
) -> AsyncGenerator[Chunk, None]:
    """The chunks of the answer, the last one with a `done_reason` and metrics; `planner` is asked where it breaks off.

    Chunks of progress come before the first one, where the request wants them. `place` shows a wait for room.

    Errors are `EngineError` and its kinds. Closing the generator ends the work and frees the slot.
    """
    match plan:
        case Rendered():
            return one(Chunk(rendered=plan))
        case CompletionPlan():
            return _completed(plan, planner, runner, metrics, place)
        case NativePlan():
            return _native(plan, planner, runner, metrics, place)


async def one(chunk: Chunk) -> AsyncGenerator[Chunk, None]:
    """An answer of this chunk alone."""
    yield chunk


async def with_one_call(chunks: AsyncGenerator[Chunk, None], label: str) -> AsyncGenerator[Chunk, None]:
    """The same chunks without any call of a tool after the first one."""
    has_called = False
    async with aclosing(chunks):
        async for chunk in chunks:
            if chunk.tool_calls:
                kept = () if has_called else chunk.tool_calls[:1]
                has_called = True
                if len(kept) < len(chunk.tool_calls):
                    log.warning("model %s: a call of a tool is left out, the request takes one", label)
                    chunk = msgspec.structs.replace(chunk, tool_calls=kept)
            yield chunk


async def thinking_counted(chunks: AsyncGenerator[Chunk, None], engine: Engine) -> AsyncGenerator[Chunk, None]:
    """The same chunks; the last one's metrics say how many tokens the thoughts have."""
    thoughts: list[str] = []
    async with aclosing(chunks):
        async for chunk in chunks:
            if chunk.thinking:
                thoughts.append(chunk.thinking)
            if chunk.metrics is not None and thoughts:
                tokens = min(len(await engine.tokenize("".join(thoughts))), chunk.metrics.eval_count)
                metrics = msgspec.structs.replace(chunk.metrics, thinking_tokens=tokens)
                chunk = msgspec.structs.replace(chunk, metrics=metrics)
            yield chunk


@contextlib.asynccontextmanager
async def _admitted(plan: PlanT, planner: Planner, runner: Runner, place: Place) -> AsyncIterator[tuple[PlanT, Room]]:
    """Waits for room in the pool. A prompt is counted first where a bound of it would keep it out, or may others."""
    pool = runner.pool
    if (runner.users > 1 and pool.is_much(plan.prompt_tokens)) or not pool.has_room(_first_tokens(plan, pool)):
        plan = await planner.counted(plan)
    tokens = _first_tokens(plan, pool)
    async with pool.admit(tokens, place=place, parkable=tokens < plan.reserved_tokens) as room:
        yield plan, room


def _first_tokens(plan: CompletionPlan | NativePlan, pool: Pool) -> int:
    """Tokens to reserve at first: all that may be needed, unless the answer can be parked when there are no more."""
    if isinstance(plan, NativePlan) or not can_be_parked(plan.request):
        return plan.reserved_tokens
    return pool.share(plan.prompt_tokens, plan.reserved_tokens)


async def _completed(
    plan: CompletionPlan, planner: Planner, runner: Runner, metrics: RequestMetrics, place: Place
) -> AsyncGenerator[Chunk, None]:
    """Completes the prompt; what was written is read here."""
    reader = reader_for(plan.answer_format, plan.prompt.text)
    metrics.planned(plan.truncated_tokens, plan.unenforced, has_loosened_tools=plan.has_loosened_tools)
    async with contextlib.AsyncExitStack() as stack:
        plan, room = await stack.enter_async_context(_admitted(plan, planner, runner, place))
        stack.enter_context(metrics.serving())
        context = stack.enter_context(_Context(plan, runner)) if plan.with_context else None
        segmented = SegmentedEngine(runner.engine, runner.pool, room, plan.prompt_tokens, runner.spec.num_ctx)
        watched = WatchedEngine(runner.engine, segmented.complete) if plan.ends_repetition else None
        engine = segmented if watched is None else watched
        pieces = await stack.enter_async_context(aclosing(complete(engine, plan.request, reader)))
        async for piece, chunks in pieces:
            metrics.passed(piece)
            if piece.progress is not None and plan.progress:
                yield Chunk(progress=piece.progress)
            if context is not None:
                context.add(piece)
            for chunk in chunks:
                yield chunk if metrics.has_begun else metrics.annotate_first(chunk)
            if piece.finish is not None:
                if piece.finish.reason == "stop":
                    runner.pool.usual.add(piece.finish.generated_tokens)
                metrics.parked = segmented.parked
                tokens = None if context is None else await context.tokens()
                yield metrics.last(piece.finish, [*reader.warnings, *(watched.warnings if watched else ())], tokens)


class _Context:
    """Collects the token ids of prompt and answer. The prompt is counted while the answer is being written."""

    def __init__(self, plan: CompletionPlan, runner: Runner) -> None:
        self._written: list[int] = []
        self._prompt: tuple[int, ...] = ()
        self._counting: asyncio.Task[list[int]] | None = None
        if isinstance(plan.request.prompt, tuple):
            self._prompt = plan.request.prompt
        else:
            self._counting = asyncio.ensure_future(runner.engine.tokenize(plan.text))
            self._counting.add_done_callback(lambda task: task.cancelled() or task.exception())  # `tokens` raises it

    def __enter__(self) -> "_Context":
        return self

    def __exit__(self, *_: object) -> None:
        if self._counting is not None:
            self._counting.cancel()

    def add(self, piece: Piece) -> None:
        self._written += piece.tokens

    async def tokens(self) -> tuple[int, ...]:
        prompt = self._prompt if self._counting is None else await self._counting
        return (*prompt, *self._written)


async def _native(
    plan: NativePlan, planner: Planner, runner: Runner, metrics: RequestMetrics, place: Place
) -> AsyncGenerator[Chunk, None]:
    """The answer as the engine parses it; where its parser gives up, the model goes on and is read here."""
    streamed = StreamedAnswer(plan.think_tags)
    metrics.planned(plan.truncated_tokens, plan.unenforced, has_loosened_tools=plan.has_loosened_tools)
    try:
        async with contextlib.AsyncExitStack() as stack:
            plan, _ = await stack.enter_async_context(_admitted(plan, planner, runner, place))
            stack.enter_context(metrics.serving())
            watched = WatchedEngine(runner.engine) if plan.ends_repetition else None
            engine = runner.engine if watched is None else watched
            pieces = await stack.enter_async_context(aclosing(engine.chat(plan.chat)))
            answer = _ParsedAnswer(plan, runner, metrics)
            async for piece in pieces:
                metrics.passed(piece)
                if piece.progress is not None and plan.progress:
                    yield Chunk(progress=piece.progress)
                for chunk in answer.read(piece):
                    streamed.add(chunk)
                    yield chunk
            yield await answer.last(watched.warnings if watched else ())
            return
    except EngineError as error:
        rest = await planner.continued(plan, streamed) if is_parser_failure(error) else None
        if rest is None:
            raise
        log.warning("model %s: its answer is read without the engine's parser: %s", runner.label, error)
    async with aclosing(_completed(rest, planner, runner, metrics, place)) as chunks:
        async for chunk in chunks:
            yield chunk


class _ParsedAnswer:
    """An answer that the engine parses, step by step. Its tool calls wait for the last chunk (spec api §8.5)."""

    def __init__(self, plan: NativePlan, runner: Runner, metrics: RequestMetrics) -> None:
        self._plan = plan
        self._runner = runner
        self._metrics = metrics
        self._reader: Reader = rescuing_reader(plan.chat.tools)
        self._text: list[str] = []
        self._calls: list[ToolCall] = []
        self._last = Piece()

    def read(self, piece: Piece) -> Iterator[Chunk]:
        """The chunks of a piece but for its tool calls."""
        self._last = piece
        self._text.append(piece.text)
        for chunk in (*self._reader.read(piece), *(self._reader.end() if piece.finish is not None else ())):
            self._calls += chunk.tool_calls
            if chunk.content or chunk.thinking or chunk.logprobs:
                without_calls = msgspec.structs.replace(chunk, tool_calls=()) if chunk.tool_calls else chunk
                yield self._metrics.annotate_first(without_calls)

    async def last(self, warnings: Sequence[str]) -> Chunk:
        """The last chunk, after all pieces were read. `warnings` are further ones than the reader's.

        `EngineError` for an answer that does not fit its schema.
        """
        assert self._last.finish is not None, "an engine's last piece has a finish"
        text = "".join(self._text)
        await constraint.verify_answer(self._plan.chat.schema, text.lstrip())
        context = None
        if self._plan.with_context:
            context = tuple(await self._runner.engine.tokenize(self._plan.prompt.text + text))
        # A last piece has text where a call was cut off.
        unparsed = ["tool_call_unparsed"] if self._last.text else []
        warnings = [*self._reader.warnings, *unparsed, *warnings]
        last = self._metrics.last(self._last.finish, warnings, context)
        return msgspec.structs.replace(last, tool_calls=tuple(self._calls))
