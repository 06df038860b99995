"""One request on its runner: makes the prompt, waits for room, streams pieces into chunks.

Part of the meeting point (`inference.py`): knows model, runner and engine, not how a runner is got, and no dialect.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial

import msgspec

from corral import template
from corral.engine.base import CompletionRequest, EngineChat, Sampling
from corral.errors import BadRequest, EngineError
from corral.inference import constraint, prompt
from corral.inference.completion import complete
from corral.inference.metrics import Account, Clock
from corral.inference.prompt import Prompt
from corral.inference.reading import Reader, Told, is_unread, reader_for, rescuing_reader
from corral.messages import (
    ChatRequest,
    Chunk,
    GenerateRequest,
    Json,
    Message,
    Rendered,
    Think,
    Tool,
    ToolCall,
    ToolChoice,
)
from corral.models.model import Model
from corral.options import Options
from corral.schemas import Schema
from corral.serving.scheduler import Runner
from corral.serving.spec import MIN_CONTEXT
from corral.telemetry import Series

log = logging.getLogger(__name__)

MAX_PREDICT_CONTEXTS = 10
"""Open-ended generation stops after so many contexts (spec cli §12)."""

SEED_BOUND = (1 << 32) - 1
"""The engine takes 32 bits, and the largest of these for no seed at all."""


class Answering:
    """Answers one request with the runner it was given."""

    def __init__(
        self,
        model: Model,
        runner: Runner,
        chosen: Options,
        request: ChatRequest | GenerateRequest,
        clock: Clock,
        series: Series,
    ) -> None:
        self._model = model
        self._runner = runner
        self._engine = runner.engine
        self._options = chosen
        self._account = Account(clock, series, runner.label)
        self._truncate = request.truncate
        self._render_only = request.render_only
        self._shift = ("deepseek2" not in model.family) if request.shift is None else request.shift
        self._top_logprobs = request.top_logprobs if request.logprobs else None
        self._constraint: Callable[[], Awaitable[Schema | None]] = partial(constraint.of_format, request.format)
        self._has_format = request.format is not None
        window = runner.spec.num_ctx
        self._limit = window if chosen.num_ctx is None else min(max(chosen.num_ctx, MIN_CONTEXT), window)

    async def conversation(self, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
        """The answer to a chat whose messages are complete already (`prompt.conversation`)."""
        tools = () if request.tool_choice.mode == "none" else request.tools
        is_forced = bool(tools) and request.tool_choice.mode == "required"
        if not is_forced and self._is_native(request.think):
            answer = self._native(request.messages, tools, request.think)
        else:
            built = await self._fit(request.messages, self._writer(tools, request.think))
            if is_forced:
                answer = self._forced(built, tools, request.tool_choice)
            else:
                answer = self._rendered(built, self._reader(built.text, request.think, tools))
        async with aclosing(answer) as chunks:
            async for chunk in chunks:
                yield chunk

    async def single(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """The answer to a single prompt (spec api §7.4)."""
        stored = () if request.context else self._model.messages
        system = request.system or self._model.system
        messages = (
            *((Message("system", system),) if system else ()),
            *stored,
            Message("user", request.prompt, images=request.images),
        )
        is_plain = not (request.raw or request.template or request.context or request.suffix)
        if is_plain and self._is_native(request.think):
            answer = self._native(messages, (), request.think, with_context=True)
        else:
            built = await self._single_prompt(request, messages)
            reader = Reader(None) if request.raw else self._reader(built.text, request.think)
            answer = self._rendered(built, reader, with_context=not request.raw)
        async with aclosing(answer) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _single_prompt(self, request: GenerateRequest, messages: Sequence[Message]) -> Prompt:
        if request.raw:
            return Prompt(text=request.prompt, media=request.images)
        if request.suffix and self._model.template is not None:
            fill = partial(self._model.template.render_suffix, request.prompt, request.suffix, think=request.think)
            return Prompt(text=await prompt.rendered(fill))
        if request.template:
            # Image markers are not put into a request's own template (spec api §7.4).
            given = await asyncio.to_thread(template.parse, request.template)
            text = await prompt.rendered(partial(given.render, messages, think=request.think))
            return Prompt(text=text, media=request.images)
        built = await self._fit(messages, self._writer((), request.think))
        if not request.context:
            return built
        for token in request.context:
            if not 0 <= token < self._model.gguf.vocabulary_size:
                raise BadRequest(f"context holds {token}, which is no token of the model")
        before = await self._engine.detokenize(request.context)
        return Prompt(text=before + built.text, messages=built.messages, media=built.media)

    def _is_native(self, think: Think) -> bool:
        """Whether the engine is to render, answer and parse in one (spec cli §14.1).

        Its chat enforces less of a schema than its completion does, and lets tabs without end be written. So for an
        answer held to a format it only renders, as long as the model's thoughts can be told apart here. The format
        holds with tools, too: of calls only such as fit it can come.
        """
        if self._model.template is not None or self._model.native_format:
            return False
        thinks = bool(think) and "thinking" in self._model.capabilities and self._jinja_think_tags is None
        return not self._has_format or thinks

    @property
    def _jinja_think_tags(self) -> tuple[str, str] | None:
        return self._model.jinja_think_tags

    def _reader(self, text: str, think: Think, tools: Sequence[Tool] = ()) -> Reader:
        """Who reads the answer to a prompt that was completed as text (spec cli §14.1, §16)."""
        written = self._model.template
        if written is None:
            tag = self._model.jinja_tool_tag if tools else ""
            return reader_for(
                prompt=text,
                family=self._model.native_format,
                think_tags=self._jinja_think_tags,
                tool_tag=tag,
                tools=tools,
                thinks=bool(think),
            )
        return reader_for(
            prompt=text,
            family=self._model.output_format,
            think_tags=written.think_tags,
            tool_tag=written.tool_tag if tools else "",
            tools=tools,
            thinks=bool(think),
        )

    async def _forced(self, built: Prompt, tools: Sequence[Tool], choice: ToolChoice) -> AsyncGenerator[Chunk, None]:
        """An answer that has to be a call: the grammar lets nothing else through, whatever the model's own form."""
        allowed = constraint.chosen_tools(tools, choice)
        self._constraint = partial(constraint.of_calls, allowed)
        async with aclosing(self._rendered(built, rescuing_reader(allowed, is_bare=True))) as chunks:
            async for chunk in chunks:
                yield chunk

    def _writer(self, tools: Sequence[Tool], think: Think) -> prompt.Write:
        """Writes prompts with the Go template; without one, the engine does with the model's own."""
        if self._model.template is not None:
            return prompt.template_writer(self._model.template, tools, think, self._model.output_format)

        async def write(messages: Sequence[Message]) -> str:
            prompt.check_senses(self._model, [image for message in messages for image in message.images])
            chat = EngineChat(messages=tuple(messages), tools=tuple(tools), think=think, max_tokens=1)
            try:
                return prompt.with_numbers(await self._engine.render(chat))
            except EngineError as error:
                if error.status != 400:
                    raise
                await constraint.check_tools(tools)
                raise prompt.refusal(error) from error

        return write

    async def _fit(self, messages: Sequence[Message], write: prompt.Write) -> Prompt:
        limit = self._limit if self._truncate else None
        image_tokens = prompt.IMAGE_TOKENS if self._model.projectors else 0
        return await prompt.build(messages, write, self._count, limit, image_tokens=image_tokens)

    async def _count(self, text: str) -> int:
        return len(await self._engine.tokenize(text))

    async def _rendered(
        self, built: Prompt, reader: Reader, *, with_context: bool = False, told: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        """Completes a prompt that was written here; `told` tokens of the answer stand in it already."""
        text = self._without_doubled_bos(built.text)
        if self._render_only:
            yield await self._shown(text, built)
            return
        schema = await self._schema()
        text, media = prompt.with_media_markers(text, await prompt.readable(self._model, built.media))
        sent, bound, cut = await self._shortened(text, bool(media))
        most = max(1, self._max_tokens(None if self._shift else bound) - told)
        self._account.dropped = built.dropped_tokens + cut
        request = self._completion(sent, media, most, schema, reader.marks)
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(self._room(self._runner.spec.num_ctx if media else bound + most))
            before = asyncio.ensure_future(self._engine.tokenize(text)) if with_context and sent == text else None
            if before is not None:
                before.add_done_callback(lambda task: task.cancelled() or task.exception())  # told by the answer
                stack.callback(before.cancel)
            written: list[int] = []
            pieces = await stack.enter_async_context(aclosing(complete(self._engine, request, reader)))
            async for piece, chunks in pieces:
                if with_context:
                    written += piece.tokens
                for chunk in chunks:
                    yield self._account.told(chunk)
                if piece.finish is not None:
                    context = None
                    if with_context:
                        context = (*(await before if before is not None else sent), *written)
                    yield self._account.last(piece.finish, reader.warnings, context)

    async def _schema(self) -> Json:
        """The JSON Schema the answer is held to; None for none."""
        held = await self._constraint()
        if held is None:
            return None
        if held.ignored:
            self._account.unenforced = held.ignored
            log.warning("model %s: the format's %s is not enforced", self._runner.label, ", ".join(held.ignored)[:500])
        return held.value

    def _completion(
        self, sent: str | tuple[int, ...], media: tuple[bytes, ...], most: int, schema: Json, marks: tuple[str, ...]
    ) -> CompletionRequest:
        return CompletionRequest(
            prompt=sent,
            media=media,
            sampling=sampling(self._options, self._limit),
            max_tokens=most,
            num_keep=max(-1, min(self._options.num_keep, self._limit)),
            schema=schema,
            preserved_tokens=marks,
            top_logprobs=self._top_logprobs,
        )

    async def _native(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool],
        think: Think,
        *,
        with_context: bool = False,
    ) -> AsyncGenerator[Chunk, None]:
        """Lets the engine render the conversation and parse the answer (spec cli §15.2)."""
        built = await self._fit(messages, self._writer(tools, think))
        if self._render_only:
            yield await self._shown(built.text, built)
            return
        if prompt.ends_in_picture(built):
            raise BadRequest("the model's template ends the prompt in a picture, which the engine cannot go on from")
        bound = built.tokens if built.tokens is not None else len(built.text.encode()) + 1
        if bound > self._limit:
            bound = await self._count(built.text)
            if bound > self._limit:
                raise BadRequest(exceeds(bound, self._limit))
        most = self._max_tokens(None if self._shift else bound)
        schema = await self._schema()
        media = await prompt.readable(self._model, built.media)
        chat = EngineChat(
            messages=tuple(prompt.with_media(built.messages, media)),
            prompt="" if media else built.text,
            tools=tuple(tools),
            think=think,
            sampling=sampling(self._options, self._limit),
            max_tokens=most,
            num_keep=max(-1, min(self._options.num_keep, self._limit)),
            schema=schema,
            top_logprobs=self._top_logprobs,
        )
        self._account.dropped = built.dropped_tokens
        room = self._runner.spec.num_ctx if built.media else bound + most
        async with aclosing(self._parsed(chat, built, room, with_context=with_context)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _parsed(
        self, chat: EngineChat, built: Prompt, room: int, *, with_context: bool
    ) -> AsyncGenerator[Chunk, None]:
        """The answer as the engine parses it; where it gives up, the model goes on and is read here."""
        told = Told(self._jinja_think_tags)
        try:
            async with self._room(room), aclosing(self._chat(chat, built.text, with_context=with_context)) as chunks:
                async for chunk in chunks:
                    told.note(chunk)
                    yield chunk
                return
        except EngineError as error:
            text = told.after(built.text)
            if text is None or not is_unread(error) or (chat.schema is not None and told.steps):
                raise
            log.warning("model %s: read without the engine, which lost its way: %s", self._runner.label, error)
        rest, reader = msgspec.structs.replace(built, text=text), self._reader(text, chat.think, chat.tools)
        async with aclosing(self._rendered(rest, reader, told=told.steps)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _chat(self, chat: EngineChat, text: str, *, with_context: bool) -> AsyncGenerator[Chunk, None]:
        """What the engine makes of a chat whose prompt is `text`."""
        said, reader = "", rescuing_reader(chat.tools)
        calls: list[ToolCall] = []
        async with aclosing(self._engine.chat(chat)) as pieces:
            async for piece in pieces:
                said += piece.text
                chunks = [*reader.read(piece), *(reader.end() if piece.finish is not None else ())]
                for chunk in chunks:
                    calls += chunk.tool_calls  # they wait for the last chunk (spec api §8.5)
                    if chunk.content or chunk.thinking or chunk.logprobs:
                        yield self._account.told(msgspec.structs.replace(chunk, tool_calls=()) if calls else chunk)
                if piece.finish is not None:
                    await constraint.check_kept(chat.schema, said.lstrip())
                    context = tuple(await self._engine.tokenize(text + said)) if with_context else None
                    # A last piece has text where a call was cut off.
                    warnings = [*reader.warnings, *(["tool_call_unparsed"] if piece.text else [])]
                    last = self._account.last(piece.finish, warnings, context)
                    yield msgspec.structs.replace(last, tool_calls=tuple(calls))

    @contextlib.asynccontextmanager
    async def _room(self, tokens: int) -> AsyncGenerator[None, None]:
        """Waits until the runner's pool can hold all that the request may come to need."""
        async with self._runner.pool.admit(min(tokens, self._runner.spec.num_ctx)):
            with self._account.serving():
                yield

    async def _shown(self, text: str, built: Prompt) -> Chunk:
        """The prompt itself, to be looked at."""
        rendered = Rendered(
            text=text,
            images=len(built.media),
            tokens=len(await self._engine.tokenize(text, add_special=True)),
            context_length=self._limit,
            truncated_tokens=built.dropped_tokens,
            template="jinja" if self._model.template is None else "go",
            messages=len(built.messages),
        )
        return Chunk(rendered=rendered)

    async def _shortened(self, text: str, has_media: bool) -> tuple[str | tuple[int, ...], int, int]:
        """What is sent, an upper bound of its tokens, and how many were cut out (spec cli §15.3).

        A text has no more tokens than bytes and one in front, so most prompts need not be counted.
        """
        bound = len(text.encode()) + 1
        if has_media or (bound < self._limit and self._shift):
            return text, bound, 0
        tokens = await self._engine.tokenize(text, add_special=True)
        if not self._truncate and len(tokens) > self._limit:
            raise BadRequest(exceeds(len(tokens), self._limit))
        kept = tuple(tokens)
        if self._truncate:
            has_bos = self._model.bos_text != ""
            kept = prompt.shortened(tokens, self._limit, self._options.num_keep, has_bos=has_bos, shift=self._shift)
        return (text if len(kept) == len(tokens) else kept), len(kept), len(tokens) - len(kept)

    def _without_doubled_bos(self, text: str) -> str:
        """The tokenizer writes the BOS itself (spec api §22)."""
        return text.removeprefix(self._model.bos_text)

    def _max_tokens(self, prompt_tokens: int | None) -> int:
        """Spec api §6 `num_predict`; with the context not to be shifted, what is left of it beside the prompt."""
        ceiling = MAX_PREDICT_CONTEXTS * self._limit
        wanted = self._options.num_predict if self._options.num_predict > 0 else ceiling
        room = ceiling if prompt_tokens is None else max(1, self._limit - prompt_tokens)
        return min(wanted, ceiling, room)


def exceeds(tokens: int, limit: int) -> str:
    """The sentence for a prompt that may not be cut (spec api §21)."""
    return f"request ({tokens} tokens) exceeds the available context size ({limit} tokens), try increasing it"


def sampling(chosen: Options, limit: int) -> Sampling:
    """The options that choose tokens, each within what the engine can take."""
    return Sampling(
        temperature=max(0.0, chosen.temperature),
        top_k=max(0, min(chosen.top_k, 1 << 20)),
        top_p=_between(chosen.top_p, 0.0, 1.0),
        min_p=_between(chosen.min_p, 0.0, 1.0),
        typical_p=_between(chosen.typical_p, 0.0, 1.0),
        repeat_last_n=limit if chosen.repeat_last_n < 0 else min(chosen.repeat_last_n, limit),
        repeat_penalty=_between(chosen.repeat_penalty, 0.0, 100.0),
        presence_penalty=_between(chosen.presence_penalty, -100.0, 100.0),
        frequency_penalty=_between(chosen.frequency_penalty, -100.0, 100.0),
        seed=None if chosen.seed < 0 else chosen.seed % SEED_BOUND,
        stop=tuple(word for word in chosen.stop if word),
    )


def _between(value: float, low: float, high: float) -> float:
    return max(low, min(value, high))
