"""Chat, generate, embed: a request becomes chunks. Where model, prompt, scheduler, engine and parser meet.

Knows no dialect. Everything is a generator of chunks whose last one carries `done_reason` and metrics; closing it early
cancels the work and gives the runner back. How one request runs on its runner is `answering.py`'s subject.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass

import msgspec

from corral import names, options
from corral.config import Config
from corral.engine.base import RunnerSpec
from corral.errors import BadRequest, CorralError, Forbidden, ModelNotFound, NotFound
from corral.inference import prompt
from corral.inference.embedding import Vectors, embed_inputs
from corral.inference.metrics import Account, Clock
from corral.inference.request import Answering
from corral.machine import Machine
from corral.messages import ChatRequest, Chunk, EmbedRequest, GenerateRequest, Json, Think
from corral.models.model import Model, Models
from corral.options import Options
from corral.serving.scheduler import Scheduler
from corral.serving.spec import runner_spec
from corral.sources.registry import Registry
from corral.telemetry import Series

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Runtime:
    """What a request needs: the models, who loads them, who fetches them, and whom to tell."""

    config: Config
    models: Models
    scheduler: Scheduler
    registry: Registry
    series: Series
    machine: Machine


async def find_model(runtime: Runtime, text: str, missing: str = "model '{}' not found") -> Model:
    """The model a request names. `NotFound` with `missing`, `BadRequest` or `Forbidden` (spec api §3, §21)."""
    reference = names.parse_reference(text)
    if reference.cloud:
        raise Forbidden("ollama cloud is disabled: remote model is unavailable")
    try:
        return await runtime.models.load(reference.name)
    except ModelNotFound:
        raise NotFound(missing.format(text)) from None


async def chat(runtime: Runtime, request: ChatRequest) -> AsyncGenerator[Chunk, None]:
    """Goes on with a conversation. Order of checks: spec api §8.2."""
    clock = Clock()
    if not request.model:
        raise BadRequest("model is required")
    model = await find_model(runtime, request.model)
    with _failures_counted(runtime, model):
        if not request.messages and request.keep_alive == 0:
            yield _unload(runtime, model)
            return
        think = _think(model, request.model, request.think)
        if "completion" not in model.capabilities:
            raise BadRequest(f'"{request.model}" does not support chat')
        if request.tools and "tools" not in model.capabilities:
            raise BadRequest(f"{model.name.full} does not support tools")
        chosen, spec = await _wanted(runtime, model, request.options)
        async with runtime.scheduler.runner(spec, str(model.name), request.keep_alive) as runner:
            clock.got_runner()
            if not request.messages:
                yield Chunk(done_reason="load")
                return
            messages = tuple(prompt.conversation(model, request.messages))
            answering = Answering(model, runner, chosen, request, clock, runtime.series)
            request = msgspec.structs.replace(request, messages=messages, think=think)
            async with aclosing(answering.conversation(request)) as chunks:
                async for chunk in chunks:
                    yield chunk


async def generate(runtime: Runtime, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
    """Goes on with a single prompt. Order of checks: spec api §7.2."""
    clock = Clock()
    if not request.model:
        raise NotFound("model '' not found")
    model = await find_model(runtime, request.model)
    with _failures_counted(runtime, model):
        if not request.prompt and request.keep_alive == 0:
            yield _unload(runtime, model)
            return
        if request.raw and (request.template or request.system or request.context):
            raise BadRequest("raw mode does not support template, system, or context")
        think = _think(model, request.model, request.think)
        if "completion" not in model.capabilities:
            raise BadRequest(f'"{request.model}" does not support generate')
        if request.suffix and "insert" not in model.capabilities:
            raise BadRequest(f"{model.name.full} does not support insert")
        chosen, spec = await _wanted(runtime, model, request.options)
        async with runtime.scheduler.runner(spec, str(model.name), request.keep_alive) as runner:
            clock.got_runner()
            if not request.prompt:
                yield Chunk(done_reason="load")
                return
            answering = Answering(model, runner, chosen, request, clock, runtime.series)
            async with aclosing(answering.single(msgspec.structs.replace(request, think=think))) as chunks:
                async for chunk in chunks:
                    yield chunk


async def embed(runtime: Runtime, request: EmbedRequest, *, normalize: bool = True) -> Vectors:
    """Vectors of texts, in the order of the texts (spec api §10). No texts: the model is loaded."""
    clock = Clock()
    model = await find_model(runtime, request.model, 'model "{}" not found, try pulling it first')
    with _failures_counted(runtime, model):
        chosen, spec = await _wanted(runtime, model, request.options, embed=True)
        async with runtime.scheduler.runner(spec, str(model.name), request.keep_alive) as runner:
            clock.got_runner()
            account = Account(clock, runtime.series, runner.label)
            vectors = await embed_inputs(runner, model, request, chosen, account.serving, normalize=normalize)
            duration = clock.since_arrival()
            if request.inputs:
                runtime.series.embedded(runner.label, vectors.tokens, duration / 1e9)
            if vectors.truncated_tokens:
                runtime.series.truncated(runner.label, vectors.truncated_tokens)
                log.warning("model %s: texts to embed cut by %d tokens", runner.label, vectors.truncated_tokens)
            return msgspec.structs.replace(vectors, load_duration=clock.load_duration, total_duration=duration)


@contextlib.contextmanager
def _failures_counted(runtime: Runtime, model: Model) -> Iterator[None]:
    """Counts what fails in this block, and what is cancelled because its client has left."""
    try:
        yield
    except CorralError as error:
        runtime.series.failed.labels(str(model.name), str(error.status)).inc()
        raise
    except asyncio.CancelledError:
        runtime.series.failed.labels(str(model.name), "499").inc()
        raise


async def _wanted(
    runtime: Runtime, model: Model, given: dict[str, Json], *, embed: bool = False
) -> tuple[Options, RunnerSpec]:
    chosen = options.merge(model.parameters, given)
    await runtime.machine.look()
    return chosen, runner_spec(model, chosen, runtime.config, runtime.machine.memory(), embed=embed)


def _unload(runtime: Runtime, model: Model) -> Chunk:
    runtime.scheduler.expire(str(model.weights))
    return Chunk(done_reason="unload")


def _think(model: Model, name: str, think: Think) -> Think:
    """Spec api §5.2: on by default where the model can, refused where it cannot."""
    if "thinking" in model.capabilities:
        if think == "max" and model.is_gpt_oss:
            return "high"
        return True if think is None else think
    if think:
        raise BadRequest(f'"{name}" does not support thinking')
    return think
