"""Answers and vectors: the one door to the models. Where model, prompt, scheduler, engine and parser meet.

Knows no dialect. `answer` is a block that gives the chunks of an answer; the last chunk carries `done_reason` and
metrics, and leaving the block early cancels the work and gives the runner back. A request is planned first (`plan.py`),
then the plan is run (`run.py`).
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from functools import partial

import msgspec
from msgspec import Struct, field

from corral import names, options
from corral.access.caller import Caller
from corral.config import Config
from corral.engine.base import RunnerSpec
from corral.engine.tuned import Tunings
from corral.errors import BadRequest, CorralError, ModelNotFound, ModelRequired, NotHere, RemoteModel, Unsupported
from corral.inference.drafting import Drafters
from corral.inference.elsewhere import Elsewhere, Served
from corral.inference.embedding import Vectors, embed_inputs, finished_elsewhere
from corral.inference.following import followed
from corral.inference.metrics import RequestMetrics
from corral.inference.plan import Planner
from corral.inference.rank import Scores, check_rank, rank_documents
from corral.inference.recent import STOPPED, Kind, Recent
from corral.inference.resending import asked_again, resent
from corral.inference.run import one, run, thinking_counted, with_one_call
from corral.inference.runners import NodeTries, Runners
from corral.machine import Machine
from corral.messages import (
    AnswerRequest,
    ChatRequest,
    Chunk,
    DetokenizeRequest,
    EmbedRequest,
    GenerateRequest,
    Json,
    RankRequest,
    Rendered,
    Think,
    TokenizeRequest,
    TokenText,
)
from corral.models.derived import Deriver
from corral.models.model import Model, Models
from corral.models.quarantine import Quarantine
from corral.options import Options
from corral.serving.place import Place
from corral.serving.runner import Runner
from corral.serving.spec import runner_spec
from corral.serving.speculation import Speculation
from corral.sources.registry import Registry
from corral.telemetry import Series


class Runtime(Struct, frozen=True):
    """What a request needs: the models, the runners that load them, the registry that has more, and the metrics.

    `elsewhere` has the models that other servers answer for.
    `deriver` knows what the engine is given of models that it would not load as they were published,
    `recent` what became of the last requests, and `quarantine` which files are not loaded. `caller` says what the
    sender of the request may use.
    """

    config: Config
    models: Models
    runners: Runners
    registry: Registry
    series: Series
    machine: Machine
    deriver: Deriver
    recent: Recent
    quarantine: Quarantine
    speculation: Speculation
    tunings: Tunings
    drafters: Drafters
    elsewhere: Elsewhere
    caller: Caller = field(default_factory=Caller)


Chunks = AsyncGenerator[Chunk, None]


@contextlib.asynccontextmanager
async def answer(runtime: Runtime, request: ChatRequest | GenerateRequest) -> AsyncIterator[Chunks]:
    """The answer to a conversation or a single prompt. Order of checks: spec api §7.2, §8.2.

    Errors come on entering the block or with a chunk: `BadRequest` and its kinds, `ModelNotFound`, `RemoteModel`,
    `QueueFull`, `ModelFileError`, `TemplateError`, `EngineError` and its kinds. With `request.progress`, those that are
    found once the model is waited for come with a chunk.
    """
    metrics = RequestMetrics(runtime.series, runtime.caller.spend)
    model, served = await _found(runtime, request.model)
    kind = _kind_of(request)
    with _observed(runtime, None if request.render_only else kind, model or served, metrics):
        if kind == "unload":
            runtime.caller.require("manage", "unload")
            yield one(Chunk(done_reason="unload")) if model is None else _unload(runtime, model)
            return
        place = Place()
        answered: AbstractAsyncContextManager[Chunks]
        if served is not None and kind != "load":
            here = partial(_answered_here, runtime, model, request, kind, metrics, place)
            answered = served.answered(request, model, metrics, here)
        elif model is None:
            yield one(Chunk(done_reason="load"))
            return
        else:
            answered = await _here(runtime, model, request, kind, metrics, place)
        if request.progress:
            async with aclosing(followed(answered, place)) as chunks:
                yield chunks
        else:
            async with answered as chunks:
                yield chunks


async def _here(
    runtime: Runtime,
    model: Model,
    request: ChatRequest | GenerateRequest,
    kind: Kind,
    metrics: RequestMetrics,
    place: Place,
) -> AbstractAsyncContextManager[Chunks]:
    """The answer of this machine, after what can be checked before the model is waited for."""
    think = _checked(model, request)
    chosen, spec = await _wanted(runtime, model, request.options, logprobs=request.logprobs)
    if kind == "load":
        return _loaded(runtime, model, spec, request.keep_alive, metrics, place)
    return _answered(runtime, _Asked(model, request, think, chosen, spec), metrics, place)


@contextlib.asynccontextmanager
async def _answered_here(
    runtime: Runtime,
    model: Model | None,
    request: ChatRequest | GenerateRequest,
    kind: Kind,
    metrics: RequestMetrics,
    place: Place,
) -> AsyncIterator[Chunks]:
    """The same where this machine is one of several."""
    assert model is not None, "this machine is a replica of models in its store only"
    async with await _here(runtime, model, request, kind, metrics, place) as chunks:
        yield chunks


def _kind_of(request: ChatRequest | GenerateRequest) -> Kind:
    """What is asked for; a request without messages or prompt wants its model loaded or unloaded, and no more."""
    if isinstance(request, ChatRequest):
        if request.messages:
            return "chat"
    elif request.prompt or request.prompt_tokens:
        return "generate"
    return "unload" if request.keep_alive == 0 else "load"


class _Asked(Struct, frozen=True):
    """A request that was checked, with its options laid over the model's, and how the model is to be loaded for it."""

    model: Model
    request: ChatRequest | GenerateRequest
    think: Think
    options: Options
    spec: RunnerSpec


@contextlib.asynccontextmanager
async def _loaded(
    runtime: Runtime, model: Model, spec: RunnerSpec, keep_alive: float | None, metrics: RequestMetrics, place: Place
) -> AsyncIterator[Chunks]:
    """Says that the model is loaded, once it is. `place` shows what is waited for."""
    async with runtime.runners.runner(spec, str(model.name), keep_alive, place) as runner:
        metrics.got_runner(runner)
        yield one(Chunk(done_reason="load"))


@contextlib.asynccontextmanager
async def _answered(runtime: Runtime, asked: _Asked, metrics: RequestMetrics, place: Place) -> AsyncIterator[Chunks]:
    """The answer, from waiting for the model on, by another replica where one is lost before it begins. `place` shows
    what is waited for."""
    if runtime.runners.fleets is None:
        async with _answered_once(runtime, asked, metrics, place) as chunks:
            yield chunks
    else:
        async with aclosing(resent(lambda: _answered_once(runtime, asked, metrics, place), NodeTries())) as chunks:
            yield chunks


@contextlib.asynccontextmanager
async def _answered_once(
    runtime: Runtime, asked: _Asked, metrics: RequestMetrics, place: Place
) -> AsyncIterator[Chunks]:
    model, request = asked.model, asked.request
    async with runtime.runners.runner(
        asked.spec, str(model.name), request.keep_alive, place, request, metrics.routed
    ) as runner:
        metrics.got_runner(runner)
        if isinstance(request, GenerateRequest) and request.prompt_tokens:
            text = await _text_of(model, runner, request.prompt_tokens)
            request = msgspec.structs.replace(request, prompt=text)
        ends_repetition = runtime.config.end_repetition
        planner = Planner(model, runner, asked.options, request, asked.think, ends_repetition=ends_repetition)
        plan = await planner.plan()
        if request.count_prompt and not isinstance(plan, Rendered):
            metrics.prompt_tokens = await planner.prompt_tokens(plan)
        async with aclosing(run(plan, planner, runner, metrics, place)) as chunks:
            if isinstance(request, ChatRequest) and not request.parallel_calls:
                chunks = with_one_call(chunks, runner.label)
            if request.count_thinking:
                chunks = thinking_counted(chunks, runner.engine)
            yield chunks


async def embed(runtime: Runtime, request: EmbedRequest, *, normalize: bool = True) -> Vectors:
    """Vectors of texts, in the order of the texts (spec api §10). No texts: the model is loaded.

    `ContextExceeded` for a text that is too long and may not be cut; other errors as those of `answer`.
    """
    metrics = RequestMetrics(runtime.series, runtime.caller.spend)
    model, served = await _found(runtime, request.model)

    async def here() -> Vectors:
        assert model is not None, "this machine is a replica of models in its store only"
        return await _embedded(runtime, model, request, metrics, normalize=normalize)

    with _observed(runtime, "embed", model or served, metrics):
        if served is None:
            vectors = await here()
        elif request.inputs or model is not None:
            finish = partial(finished_elsewhere, request, metrics, normalize=normalize)
            vectors = await served.embedded(request, model, metrics, here, finish)
        else:
            vectors = Vectors()
        return msgspec.structs.replace(
            vectors, load_duration=metrics.load_duration, total_duration=metrics.total_duration
        )


async def _embedded(
    runtime: Runtime, model: Model, request: EmbedRequest, metrics: RequestMetrics, *, normalize: bool
) -> Vectors:
    """The vectors of this machine."""
    if model.only_ranks:
        raise Unsupported(request.model, "embeddings, only reranking", model.name.full)
    chosen, spec = await _wanted(runtime, model, request.options, embed=True)

    async def embedded() -> Vectors:
        async with runtime.runners.runner(spec, str(model.name), request.keep_alive, routed=metrics.routed) as runner:
            metrics.got_runner(runner)
            texts = [one if isinstance(one, str) else await _text_of(model, runner, one) for one in request.inputs]
            return await embed_inputs(runner, model, request, texts, chosen, metrics, normalize=normalize)

    return await asked_again(embedded, NodeTries())


async def rank(runtime: Runtime, request: RankRequest) -> Scores:
    """How well each document answers the query, in the order of the documents (spec api §16.1).

    `ContextExceeded` for a query or document that is too long and may not be cut; other errors as those of `answer`.
    """
    metrics = RequestMetrics(runtime.series, runtime.caller.spend)
    model = await find_model(runtime, request.model)
    with _observed(runtime, "rerank", model, metrics):
        check_rank(model, request)
        chosen, spec = await _wanted(runtime, model, request.options, rank=True)

        async def ranked() -> Scores:
            async with runtime.runners.runner(
                spec, str(model.name), request.keep_alive, routed=metrics.routed
            ) as runner:
                metrics.got_runner(runner)
                return await rank_documents(runner, model, request, chosen, metrics)

        scores = await asked_again(ranked, NodeTries())
        return msgspec.structs.replace(
            scores, load_duration=metrics.load_duration, total_duration=metrics.total_duration
        )


async def tokenize(runtime: Runtime, request: TokenizeRequest) -> TokenText:
    """A text as a model's tokens. Errors as those of `answer`."""
    async with _any_runner(runtime, request) as (_, runner, metrics):
        tokens = await runner.engine.tokenize(request.text, add_special=request.add_special)
        return _token_text(request.text, tokens, metrics)


async def detokenize(runtime: Runtime, request: DetokenizeRequest) -> TokenText:
    """A model's tokens as text, special ones included; `BadRequest` for an id that is no token of the model."""
    async with _any_runner(runtime, request) as (model, runner, metrics):
        text = await _text_of(model, runner, request.tokens)
        return _token_text(text, request.tokens, metrics)


@contextlib.asynccontextmanager
async def _any_runner(
    runtime: Runtime, request: TokenizeRequest | DetokenizeRequest
) -> AsyncIterator[tuple[Model, Runner, RequestMetrics]]:
    """The model loaded, for whatever it is made."""
    metrics = RequestMetrics(runtime.series, runtime.caller.spend)
    model = await find_model(runtime, request.model)
    with _observed(runtime, None, model, metrics):
        _, spec = await _wanted(runtime, model, request.options)
        async with runtime.runners.runner(spec, str(model.name), request.keep_alive, routed=metrics.routed) as runner:
            metrics.got_runner(runner)
            yield model, runner, metrics


async def _text_of(model: Model, runner: Runner, tokens: Sequence[int]) -> str:
    """The text of token ids; `BadRequest` for an id that is no token of the model."""
    size = model.gguf.vocabulary_size
    wrong = next((token for token in tokens if not 0 <= token < size), None)
    if wrong is not None:
        raise BadRequest(f"{wrong} is no token of the model, which has {size}")
    return await runner.engine.detokenize(tokens) if tokens else ""


def _token_text(text: str, tokens: Sequence[int], metrics: RequestMetrics) -> TokenText:
    return TokenText(
        text=text,
        tokens=tuple(tokens),
        total_duration=metrics.total_duration,
        load_duration=metrics.load_duration,
    )


async def find_model(runtime: Runtime, text: str) -> Model:
    """The model a request names, which has to be in the store. `ModelRequired`, `ModelNotFound`, `ModelForbidden`,
    `InvalidName` or `RemoteModel` (spec api §3), and `NotHere` for one that only other servers have."""
    model, _ = await _found(runtime, text)
    if model is None:
        raise NotHere(text, "requests of this kind")
    return model


async def _found(runtime: Runtime, text: str) -> tuple[Model | None, Served | None]:
    """The model a request names, and the other servers that answer for it: one of both at least. A name that ends in
    `:local` means this machine alone. Errors as those of `find_model`, and `RequestLoop`."""
    if not text:
        raise ModelRequired
    reference = names.parse_reference(text)
    if reference.cloud:
        raise RemoteModel(text)
    runtime.caller.require_model(reference.name)
    runtime.elsewhere.server_id.check()
    served = None if reference.local else runtime.elsewhere.of(reference.name)
    try:
        return await runtime.models.load(reference.name), served
    except ModelNotFound:
        if served is None:
            raise ModelNotFound(text) from None
        return None, served


@contextlib.contextmanager
def _observed(
    runtime: Runtime, kind: Kind | None, model: Model | Served | None, metrics: RequestMetrics
) -> Iterator[None]:
    """Counts what fails in this block, and what is cancelled because its client has left.

    What became of the request is remembered, unless it is of no `kind`. One that is cancelled with `STOPPED` was
    stopped by its user.
    """
    assert model is not None, "one of both was found"
    label, error, is_stopped = str(model.name), "", False
    if kind is not None:
        metrics.asked(kind, label)
        runtime.recent.add(metrics.id, metrics.report)
    try:
        yield
    except CorralError as raised:
        error = str(raised)
        runtime.series.failed.labels(label, raised.kind).inc()
        raise
    except asyncio.CancelledError as cancelled:
        is_stopped = STOPPED in cancelled.args
        error = STOPPED if is_stopped else "the client left"
        runtime.series.failed.labels(label, "cancelled").inc()
        raise
    finally:
        metrics.ended(error, is_stopped=is_stopped)
        report = metrics.report()
        if report.drafted_tokens and isinstance(model, Model):
            runtime.speculation.add(str(model.weights), report.drafted_tokens, report.accepted_tokens)


async def _wanted(
    runtime: Runtime,
    model: Model,
    given: dict[str, Json],
    *,
    embed: bool = False,
    rank: bool = False,
    logprobs: bool = False,
) -> tuple[Options, RunnerSpec]:
    """The options of a request, laid over the model's own, and how the model is to be loaded for them."""
    chosen = options.merge(model.parameters, given)
    await runtime.machine.look()
    runtime.deriver.know(model)
    if logprobs:
        runtime.speculation.pause(str(model.weights))
    drafter = None
    if not (embed or rank or logprobs):
        drafter = await runtime.drafters.of(model)
        cost = 0.0 if drafter is None else drafter.size / max(1, model.size)
        runtime.speculation.drafts_cost(str(model.weights), cost)
    spec = runner_spec(
        model,
        chosen,
        runtime.config,
        runtime.runners.fleets.memory() if runtime.runners.fleets else runtime.machine.recent_memory(),
        embed=embed,
        rank=rank,
        logprobs=logprobs,
        drafting_pays=runtime.speculation.pays(str(model.weights)),
        drafter=drafter,
        tuned=await runtime.tunings.of(model.weights),
    )
    return chosen, spec


def _unload(runtime: Runtime, model: Model) -> Chunks:
    weights = model.stored.weights  # where they would lie: a model whose file was changed is unloaded as well
    path = model.weights if weights is None else runtime.models.store.blob_path(weights.digest)
    runtime.runners.expire(str(path))
    return one(Chunk(done_reason="unload"))


def _checked(model: Model, request: ChatRequest | GenerateRequest) -> Think:
    """How the model is to think, after what it cannot do was refused: `Unsupported`, or `BadRequest` for raw mode."""
    if isinstance(request, GenerateRequest) and request.raw and (request.template or request.system or request.context):
        raise BadRequest("raw mode does not support template, system, or context")
    think = _resolved_think(model, request)
    if isinstance(request, ChatRequest):
        _require(model, request, "completion", "chat")
        if request.tools:
            _require(model, request, "tools", "tools")
    else:
        _require(model, request, "completion", "generate")
        if request.suffix:
            _require(model, request, "insert", "insert")
    return think


def _require(model: Model, request: AnswerRequest, capability: str, what: str) -> None:
    """`Unsupported` for a model without the capability, which `what` names for the user."""
    if capability not in model.capabilities:
        raise Unsupported(request.model, what, model.name.full)


def _resolved_think(model: Model, request: AnswerRequest) -> Think:
    """Spec api §5.2: on by default where the model can think, `Unsupported` where it cannot."""
    think = request.think
    if "thinking" in model.capabilities:
        if think == "max" and model.is_gpt_oss:
            return "high"
        return True if think is None else think
    if think and request.must_think:
        raise Unsupported(request.model, "thinking", model.name.full)
    return None if think else think
