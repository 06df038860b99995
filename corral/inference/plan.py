"""How one request is answered, decided before the model writes a token: way, prompt, schema, limits.

Knows model and options, and asks the engine for lengths and texts only. What becomes of a plan is `run.py`'s subject.
"""

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import TypeAlias

from msgspec import Struct, structs

from corral import template
from corral.engine.base import CompletionRequest, EngineChat, Sampling
from corral.errors import BadRequest, ContextExceeded
from corral.inference import constraint, prompt
from corral.inference.engine_prompts import EnginePrompts
from corral.inference.prompt import Prompt
from corral.inference.reading import AnswerFormat, StreamedAnswer
from corral.inference.written import PromptWriter
from corral.messages import ChatRequest, GenerateRequest, Json, Message, Rendered, Think, Tool
from corral.models.model import Model
from corral.options import Options
from corral.schemas import Schema
from corral.serving.runner import Runner
from corral.serving.spec import MIN_CONTEXT

log = logging.getLogger(__name__)

MAX_PREDICT_CONTEXTS = 10
"""Open-ended generation stops after so many contexts (spec cli §12)."""

MAX_TEMPERATURE = 1000.0
"""Above it every token is as likely as any other."""

MAX_STOPS, MAX_STOP_CHARACTERS = 256, 1 << 16

SEED_BOUND = (1 << 32) - 1
"""The engine takes 32 bits, and the largest of these for no seed at all."""


class CompletionPlan(Struct, frozen=True, kw_only=True):
    """The prompt is written here, the model goes on with it, and the answer is read here."""

    request: CompletionRequest
    prompt: Prompt
    text: str
    """The whole prompt with markers for pictures; `request.prompt` is shorter where its middle had to be left out."""
    answer_format: AnswerFormat
    reserved_tokens: int
    truncated_tokens: int = 0
    unenforced: tuple[str, ...] = ()
    has_loosened_tools: bool = False
    """Whether the arguments of some tool's calls need not fit all that its definition says."""
    with_context: bool = False
    """Whether the last chunk has the token ids of prompt and answer."""
    ends_repetition: bool = False
    """Whether the answer is ended when it repeats itself (`repetition.py`)."""
    progress: bool = False
    """Whether chunks are to say how far the prompt has been read."""


class NativePlan(Struct, frozen=True, kw_only=True):
    """The engine renders the conversation with the model's own template and parses the answer (spec cli §15.2)."""

    chat: EngineChat
    prompt: Prompt
    think_tags: tuple[str, str] | None
    reserved_tokens: int
    truncated_tokens: int = 0
    unenforced: tuple[str, ...] = ()
    has_loosened_tools: bool = False
    with_context: bool = False
    ends_repetition: bool = False
    progress: bool = False


Plan: TypeAlias = CompletionPlan | NativePlan | Rendered
"""A `Rendered` prompt is all the answer where only the prompt was asked for."""


class Planner:
    """Plans the answer to one request on the runner it was given. `think`: as resolved for this model.

    `ends_repetition`: an answer that repeats itself may be ended; not one of which only the number of tokens was set.
    """

    def __init__(
        self,
        model: Model,
        runner: Runner,
        chosen: Options,
        request: ChatRequest | GenerateRequest,
        think: Think,
        *,
        ends_repetition: bool = False,
    ) -> None:
        self._model = model
        self._runner = runner
        self._engine = runner.engine
        self._options = chosen
        self._request = request
        self._think = think
        is_raw = isinstance(request, GenerateRequest) and request.raw
        self._ends_repetition = ends_repetition and not (is_raw and chosen.num_predict > 0)
        self._shift = ("deepseek2" not in model.family) if request.shift is None else request.shift
        window = runner.spec.num_ctx
        self._num_ctx = window if chosen.num_ctx is None else min(max(chosen.num_ctx, MIN_CONTEXT), window)
        self._engine_prompts = EnginePrompts(model, runner.engine, runner.label, think)

    async def plan(self) -> Plan:
        """The plan for the request. `BadRequest` and its kinds, `TemplateError`, `EngineError`."""
        if isinstance(self._request, ChatRequest):
            return await self._chat(self._request)
        return await self._generate(self._request)

    async def prompt_tokens(self, plan: CompletionPlan | NativePlan) -> int:
        """How many tokens are sent, those of pictures left aside."""
        if isinstance(plan, CompletionPlan) and isinstance(plan.request.prompt, tuple):
            return len(plan.request.prompt)
        text = plan.text if isinstance(plan, CompletionPlan) else self._without_doubled_bos(plan.prompt.text)
        return len(await self._engine.tokenize(text, add_special=True))

    async def continued(self, plan: NativePlan, streamed: StreamedAnswer) -> CompletionPlan | None:
        """How to go on without the engine's parser, which has lost its way in an answer; None where that cannot be.

        An answer under a schema cannot be gone on with once it has begun.
        """
        text = streamed.text_after(plan.prompt.text)
        if text is None or (plan.chat.schema is not None and streamed.steps):
            return None
        built = Prompt(
            text=text,
            messages=plan.prompt.messages,
            media=plan.prompt.media,
            dropped_tokens=plan.prompt.dropped_tokens,
        )
        answer_format = self._answer_format(plan.chat.tools)
        made = await self._completion(built, answer_format, self._request.format, generated_tokens=streamed.steps)
        assert isinstance(made, CompletionPlan), "a request that only renders never streams"
        return made

    async def _chat(self, request: ChatRequest) -> Plan:
        messages = prompt.conversation(self._model, request.messages)
        tools = () if request.tool_choice.mode == "none" else request.tools
        if tools and request.tool_choice.mode == "required":
            # The grammar lets nothing but a call through, whatever the model's own form of calls.
            built = await self._fit(messages, tools)
            allowed = constraint.chosen_tools(tools, request.tool_choice)
            forced = AnswerFormat(tools=allowed, is_forced_call=True, think_tags=self._think_tags)
            return await self._completion(built, forced, constraint.CallsOf(allowed))
        if self._is_native:
            return await self._native(messages, tools)
        built = await self._fit(messages, tools)
        return await self._completion(built, self._answer_format(tools), request.format)

    async def _generate(self, request: GenerateRequest) -> Plan:
        """Spec api §7.4."""
        messages = self._single_messages(request)
        is_plain = not (request.raw or request.template or request.context or request.suffix)
        if is_plain and self._is_native:
            # The engine's chat does not report tokens, which `context` holds: it only renders, where that is enough.
            if request.media or request.render_only or self._thinks_unrecognised:
                return await self._native(messages, (), with_context=True)
            built = await self._fit(messages)
            await self._checked_length(built)
            return await self._completion(built, self._answer_format(), request.format, with_context=True)
        built = await self._single_prompt(request, messages)
        answer_format = AnswerFormat() if request.raw else self._answer_format()
        return await self._completion(built, answer_format, request.format, with_context=not request.raw)

    def _single_messages(self, request: GenerateRequest) -> list[Message]:
        stored = () if request.context else self._model.messages
        system = request.system or self._model.system
        return [
            *((Message.of("system", system),) if system else ()),
            *stored,
            Message.of("user", request.prompt, media=request.media),
        ]

    async def _single_prompt(self, request: GenerateRequest, messages: Sequence[Message]) -> Prompt:
        if request.raw:
            return Prompt(text=request.prompt, media=tuple(part.data for part in request.media))
        if request.suffix and self._model.template is not None:
            fill = partial(self._model.template.render_suffix, request.prompt, request.suffix, think=self._think)
            return Prompt(text=await prompt.rendered(fill))
        if request.template:
            # Image markers are not put into a request's own template (spec api §7.4).
            given = await asyncio.to_thread(template.parse, request.template)
            text = await prompt.rendered(partial(given.render, messages, think=self._think))
            return Prompt(text=text, media=tuple(part.data for part in request.media))
        built = await self._fit(messages)
        if not request.context:
            return built
        for token in request.context:
            if not 0 <= token < self._model.gguf.vocabulary_size:
                raise BadRequest(f"context holds {token}, which is no token of the model")
        before = await self._engine.detokenize(request.context)
        return Prompt(text=before + built.text, messages=built.messages, media=built.media)

    @property
    def _is_native(self) -> bool:
        """Whether the engine is to render, answer and parse in one (spec cli §14.1).

        Its chat enforces less of a schema than its completion does, and lets tabs without end be written. So for an
        answer that must fit a format it only renders, as long as the model's thoughts can be recognised here. The
        format is enforced with tools, too: of calls only such as fit it can come.
        """
        if self._model.template is not None or self._model.native_format:
            return False
        return self._request.format is None or self._thinks_unrecognised

    @property
    def _thinks_unrecognised(self) -> bool:
        """Whether thoughts are wanted of which only the engine knows how they are marked."""
        return bool(self._think) and "thinking" in self._model.capabilities and self._model.jinja_think_tags is None

    def _answer_format(self, tools: Sequence[Tool] = ()) -> AnswerFormat:
        """How the answer to a prompt that was completed as text is read (spec cli §14.1, §16)."""
        written = self._model.template
        if written is None:
            tag = self._model.jinja_tool_tag if tools else ""
            family = self._model.native_format
        else:
            tag = written.tool_tag if tools else ""
            family = self._model.output_format
        return AnswerFormat(
            family=family, think_tags=self._think_tags, tool_tag=tag, tools=tuple(tools), thinks=bool(self._think)
        )

    @property
    def _think_tags(self) -> tuple[str, str] | None:
        """The tags around thoughts in the template that writes the prompts."""
        written = self._model.template
        return self._model.jinja_think_tags if written is None else written.think_tags

    async def _fit(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> Prompt:
        """The prompt, without the oldest turns where all of them do not fit the context."""
        limit = self._num_ctx if self._request.truncate else None
        image_tokens = prompt.IMAGE_TOKENS if self._model.has_projector else 0
        return await prompt.build(
            messages,
            self._writer(tools),
            self._count,
            limit,
            image_tokens=image_tokens,
        )

    def _writer(self, tools: Sequence[Tool]) -> PromptWriter:
        """Writes prompts with the Go template; without one, the engine does with the model's own.

        What a Go template leaves out is left out on purpose: the registry's write each system text.
        """
        takes_system = "system" in (self._model.gguf.chat_template or "")
        if self._model.template is not None:
            write = prompt.template_writer(self._model.template, tools, self._think, self._model.output_format)
            return PromptWriter(write, takes_system=takes_system)
        return PromptWriter(partial(self._engine_prompts.write, tools), takes_system=takes_system, shows_system=True)

    async def _count(self, text: str) -> int:
        return len(await self._engine.tokenize(text))

    async def _completion(
        self,
        built: Prompt,
        answer_format: AnswerFormat,
        wanted: Json | constraint.CallsOf,
        *,
        with_context: bool = False,
        generated_tokens: int = 0,
    ) -> CompletionPlan | Rendered:
        """Completes a prompt that was written here. `generated_tokens` of the answer stand in it already."""
        if wanted is not None and not answer_format.thinks:
            built = structs.replace(built, text=prompt.without_open_thought(built.text, answer_format.think_tags))
        text = self._without_doubled_bos(built.text)
        if self._request.render_only:
            return await self._shown(text, built)
        schema = await self._schema(wanted)
        text, media = prompt.with_media_markers(text, await prompt.readable(self._model, built.media))
        sent, prompt_tokens, left_out = await self._shortened(text, bool(media))
        max_tokens = max(1, self._max_tokens(None if self._shift else prompt_tokens) - generated_tokens)
        return CompletionPlan(
            request=CompletionRequest(
                prompt=sent,
                media=media,
                sampling=self._sampling,
                max_tokens=max_tokens,
                num_keep=self._num_keep,
                schema=None if schema is None else schema.value,
                grammar="" if schema is None else schema.grammar,
                preserved_tokens=answer_format.marks,
                top_logprobs=self._top_logprobs,
                progress=True,  # some two events a prompt, of which the figures of the load are made, too
            ),
            prompt=built,
            text=text,
            answer_format=answer_format,
            reserved_tokens=self._reserved(self._runner.spec.num_ctx if media else prompt_tokens + max_tokens),
            truncated_tokens=built.dropped_tokens + left_out,
            unenforced=() if schema is None else schema.ignored,
            has_loosened_tools=schema is not None and bool(schema.ignored) and isinstance(wanted, constraint.CallsOf),
            with_context=with_context,
            ends_repetition=self._ends_repetition,
            progress=self._request.progress,
        )

    async def _native(
        self, messages: Sequence[Message], tools: Sequence[Tool], *, with_context: bool = False
    ) -> NativePlan | Rendered:
        """Lets the engine render the conversation and parse the answer."""
        built = await self._fit(messages, tools)
        if self._request.render_only:
            return await self._shown(built.text, built)
        if prompt.ends_in_picture(built):
            raise BadRequest("the model's template ends the prompt in a picture, which the engine cannot go on from")
        prompt_tokens = await self._checked_length(built)
        max_tokens = self._max_tokens(None if self._shift else prompt_tokens)
        schema = await self._schema(self._request.format)
        media = await prompt.readable(self._model, built.media)
        chat = EngineChat(
            messages=tuple(prompt.with_media(built.messages, media)),
            prompt="" if media else built.text,
            tools=tuple(tools),
            call_schemas=self._engine_prompts.call_schemas,
            shown_schemas=self._engine_prompts.shown_schemas,
            parallel_calls=not isinstance(self._request, ChatRequest) or self._request.parallel_calls,
            think=self._think,
            sampling=self._sampling,
            max_tokens=max_tokens,
            num_keep=self._num_keep,
            schema=None if schema is None else schema.value,
            top_logprobs=self._top_logprobs,
            progress=True,
        )
        return NativePlan(
            chat=chat,
            prompt=built,
            think_tags=self._model.jinja_think_tags,
            reserved_tokens=self._reserved(self._runner.spec.num_ctx if media else prompt_tokens + max_tokens),
            truncated_tokens=built.dropped_tokens,
            unenforced=() if schema is None else schema.ignored,
            has_loosened_tools=bool(self._engine_prompts.call_schemas),
            with_context=with_context,
            ends_repetition=self._ends_repetition,
            progress=self._request.progress,
        )

    @property
    def _sampling(self) -> Sampling:
        """`BadRequest` for a bias of what is no token of the model."""
        bias = self._request.logit_bias
        size = self._model.gguf.vocabulary_size
        wrong = next((token for token in bias if not 0 <= token < size), None)
        if wrong is not None:
            raise BadRequest(f"logit_bias names token {wrong}, but the model has {size}")
        return structs.replace(sampling(self._options, self._num_ctx), logit_bias=tuple(bias.items()))

    async def _schema(self, wanted: Json | constraint.CallsOf) -> Schema | None:
        """The schema the answer must fit; None for any text."""
        schema = await constraint.schema_for(wanted)
        if schema is not None and schema.ignored:
            ignored = ", ".join(schema.ignored)[:500]
            subject = "tools'" if isinstance(wanted, constraint.CallsOf) else "format's"
            log.warning("model %s: the %s %s is not enforced", self._runner.label, subject, ignored)
        return schema

    async def _shown(self, text: str, built: Prompt) -> Rendered:
        """The prompt itself, to be looked at."""
        return Rendered(
            text=text,
            images=len(built.media),
            tokens=len(await self._engine.tokenize(text, add_special=True)),
            context_length=self._num_ctx,
            truncated_tokens=built.dropped_tokens,
            template="jinja" if self._model.template is None else "go",
            messages=len(built.messages),
        )

    async def _shortened(self, text: str, has_media: bool) -> tuple[str | tuple[int, ...], int, int]:
        """What is sent, an upper bound of its tokens, and how many were cut out of the middle (spec cli §15.3).

        A text has no more tokens than bytes and one in front, so most prompts need not be counted.
        """
        bound = len(text.encode()) + 1
        if has_media or (bound < self._num_ctx and self._shift):
            return text, bound, 0
        tokens = await self._engine.tokenize(text, add_special=True)
        if not self._request.truncate and len(tokens) > self._num_ctx:
            raise exceeds(len(tokens), self._num_ctx)
        if not self._request.truncate:
            return text, len(tokens), 0
        has_bos = self._model.bos_text != ""
        kept = prompt.shortened(tokens, self._num_ctx, self._options.num_keep, has_bos=has_bos, shift=self._shift)
        return (text if len(kept) == len(tokens) else kept), len(kept), len(tokens) - len(kept)

    async def _checked_length(self, built: Prompt) -> int:
        """An upper bound of a prompt's tokens; `ContextExceeded` where it does not fit, as it cannot be cut there."""
        bound = built.tokens if built.tokens is not None else len(built.text.encode()) + 1
        if bound > self._num_ctx:
            bound = await self._count(built.text)
            if bound > self._num_ctx:
                raise exceeds(bound, self._num_ctx)
        return bound

    def _reserved(self, tokens: int) -> int:
        """Tokens of the runner's pool that the request may come to need."""
        return min(tokens, self._runner.spec.num_ctx)

    def _without_doubled_bos(self, text: str) -> str:
        """The tokenizer writes the BOS itself (spec api §22)."""
        return text.removeprefix(self._model.bos_text)

    def _max_tokens(self, prompt_tokens: int | None) -> int:
        """Spec api §6 `num_predict`; with the context not to be shifted, what is left of it beside the prompt."""
        ceiling = MAX_PREDICT_CONTEXTS * self._num_ctx
        wanted = self._options.num_predict if self._options.num_predict > 0 else ceiling
        room = ceiling if prompt_tokens is None else max(1, self._num_ctx - prompt_tokens)
        return min(wanted, ceiling, room)

    @property
    def _num_keep(self) -> int:
        return max(-1, min(self._options.num_keep, self._num_ctx))

    @property
    def _top_logprobs(self) -> int | None:
        return self._request.top_logprobs if self._request.logprobs else None


def exceeds(tokens: int, limit: int) -> ContextExceeded:
    """The error for a prompt that may not be cut (spec api §21)."""
    sentence = f"request ({tokens} tokens) exceeds the available context size ({limit} tokens), try increasing it"
    return ContextExceeded(sentence, tokens=tokens, limit=limit)


def sampling(chosen: Options, num_ctx: int) -> Sampling:
    """The options that choose tokens, each within what the engine can take; `BadRequest` for too many stop words."""
    return Sampling(
        temperature=_between(chosen.temperature, 0.0, MAX_TEMPERATURE),
        top_k=max(0, min(chosen.top_k, 1 << 20)),
        top_p=_between(chosen.top_p, 0.0, 1.0),
        min_p=_between(chosen.min_p, 0.0, 1.0),
        typical_p=_between(chosen.typical_p, 0.0, 1.0),
        repeat_last_n=num_ctx if chosen.repeat_last_n < 0 else min(chosen.repeat_last_n, num_ctx),
        # The engine wants more than 0, which people write for no penalty.
        repeat_penalty=_between(chosen.repeat_penalty, 0.01, 100.0) if chosen.repeat_penalty > 0 else 1.0,
        presence_penalty=_between(chosen.presence_penalty, -100.0, 100.0),
        frequency_penalty=_between(chosen.frequency_penalty, -100.0, 100.0),
        seed=None if chosen.seed < 0 else chosen.seed % SEED_BOUND,
        stop=_stop_words(chosen.stop),
    )


def _stop_words(given: Sequence[str]) -> tuple[str, ...]:
    """Those that are not empty; `BadRequest` for more than are looked for in every token of an answer."""
    words = tuple(word for word in given if word)
    if len(words) > MAX_STOPS:
        raise BadRequest(f"{len(words)} stop words were given, {MAX_STOPS} are the most")
    if sum(map(len, words)) > MAX_STOP_CHARACTERS:
        raise BadRequest(f"the stop words have more than {MAX_STOP_CHARACTERS} characters together")
    return words


def _between(value: float, low: float, high: float) -> float:
    return max(low, min(value, high))
