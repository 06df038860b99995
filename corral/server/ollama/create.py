"""Ollama's routes that make models: create, and the blobs it is made of. Source: spec api §11, §12."""

import contextlib
import os
from collections.abc import Callable
from typing import Any

from msgspec import Struct, field
from starlette.requests import Request
from starlette.responses import Response

from corral import cage, names
from corral.errors import BadRequest, Forbidden, NotFound, StoreError
from corral.inference import Runtime
from corral.machine.threads import threads_here
from corral.models import create as making
from corral.models import given
from corral.names import Digest, Name
from corral.server.http.bodies import body_as, reply
from corral.server.http.reading import parts_of
from corral.server.http.requests import require_local, runtime_of
from corral.server.ollama import wire
from corral.server.ollama.errors import ServerFault
from corral.server.ollama.models import absolute_path, named, pull_steps
from corral.server.ollama.replies import progress_answer
from corral.store import Store


class WireCreateRequest(Struct):
    model: str = ""
    name: str = ""
    stream: bool = True
    from_: str = field(name="from", default="")
    files: dict[str, str] = {}
    adapters: dict[str, str] = {}
    adapter_scale: float = 1.0
    """What the adapter's strength is multiplied by. An addition of ours."""
    paths: dict[str, str] = {}
    """Where files are that the store may not have: absolute paths of this machine, by digest. An addition of ours."""
    imatrix: str = ""
    """The digest of an importance matrix for `quantize`. An addition of ours."""
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
    made = _create_request(asked, named(text, "invalid model name"))
    if made.paths:
        require_local(request)
    await _check_allowed(runtime, made)
    steps = making.create(
        made,
        runtime.models,
        lambda name: pull_steps(runtime, name),
        threads=threads_here() or os.cpu_count() or 1,
        prune=not runtime.config.no_prune,
        cage=cage.wanted(runtime.config),
    )
    return await progress_answer(request, steps, asked.stream)


async def _check_allowed(runtime: Runtime, made: making.CreateRequest) -> None:
    """`Forbidden` for a caller who may not use the model it makes, or what it makes it of."""
    caller, store = runtime.caller, runtime.models.store
    caller.require_model(made.name)
    if made.from_:
        with contextlib.suppress(BadRequest):  # a name that is none is refused where it is read
            caller.require_model(names.parse_reference(made.from_).name)
    if not caller.is_limited:
        return
    files = {*made.files.values(), *made.adapters.values(), *([made.imatrix] if made.imatrix else [])}
    forbidden, allowed = await store.run(_digests, store, caller.may_use)
    if files & (forbidden - allowed):
        raise Forbidden("a file that the request names belongs to a model that your key is not for")


def _digests(store: Store, may_use: Callable[[Name], bool]) -> tuple[set[Digest], set[Digest]]:
    """The files of models that may not be used, and of those that may."""
    found: tuple[set[Digest], set[Digest]] = (set(), set())
    for stored in store.list():
        found[may_use(stored.name)].update(layer.digest for layer in stored.manifest.layers)
    return found


def _create_request(asked: WireCreateRequest, name: Name) -> making.CreateRequest:
    """Our request; the checks of spec api §11.1 that come before anything else."""
    for path in (*asked.files, *asked.draft_files):
        given.check_relative(path)
    files, adapters, _ = (
        {path: names.parse_digest(digest) for path, digest in group.items()}
        for group in (asked.files, asked.adapters, asked.draft_files)
    )
    if asked.draft_quantize and not asked.draft_files:
        raise BadRequest("--draft-quantize requires a DRAFT model")
    if asked.draft_files:
        raise BadRequest("a draft model cannot be used: drafts are made from repeated text only")
    return making.CreateRequest(
        name=name,
        from_=asked.from_,
        files=files,
        adapters=adapters,
        adapter_scale=asked.adapter_scale,
        paths={names.parse_digest(digest): absolute_path(path) for digest, path in asked.paths.items()},
        template=asked.template,
        system=asked.system,
        licenses=_licenses(asked.license),
        parameters=asked.parameters,
        messages=tuple(wire.message(item) for item in asked.messages),
        renderer=asked.renderer,
        parser=asked.parser,
        requires=asked.requires,
        quantize=asked.quantize or asked.quantization,
        imatrix=names.parse_digest(asked.imatrix) if asked.imatrix else None,
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
        async for _ in parts_of(request):
            pass  # a client that is still sending when the connection is closed never sees the answer
        return Response(status_code=200)
    if request.method == "HEAD":
        raise NotFound(f'blob "{digest}" not found')
    async with store.receiving() as writer:
        async with contextlib.aclosing(parts_of(request)) as parts:
            async for part in parts:
                await store.run(writer.write, part)
        await store.run(writer.commit, digest)
    return Response(status_code=201)


async def new_blob(request: Request) -> Response:
    """Takes a file whose digest its client does not know, as a browser with a large file, and says the digest."""
    store = runtime_of(request).models.store
    async with store.receiving() as writer:
        async with contextlib.aclosing(parts_of(request)) as parts:
            async for part in parts:
                await store.run(writer.write, part)
        digest, _ = await store.run(writer.commit)
    response = reply({"digest": str(digest)})
    response.status_code = 201
    return response


def _has_sound(store: Store, digest: Digest) -> bool:
    """Whether there is such a blob, and no file's owner has written into it since."""
    try:
        store.open_path(digest)
    except (NotFound, StoreError):
        return False
    return True
