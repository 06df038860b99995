"""From a request to a new model: base, changes, manifest, with a progress line a step. Knows no route.

Converting and quantising are done by child processes (`corral.job`). Source: spec api §11.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from corral import gguf, names, published, template
from corral.background import Report, Work
from corral.cage import Cage
from corral.errors import BadRequest, ModelNotFound, RemoteModel, TemplateError
from corral.gguf.lora import check_scale
from corral.golang.units import byte_text
from corral.messages import Json, Message, Progress
from corral.models import assemble, computing, given
from corral.models.assemble import NO_DIGEST
from corral.models.making import Making, info_changes
from corral.models.model import Models
from corral.names import Digest, Name
from corral.store import MediaType, Store

Pull = Callable[[Name], AsyncGenerator[Progress, None]]
"""Fetches a model that is not in the store."""

Steps = AsyncGenerator[Progress, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRequest:
    """What the new model is to be. Empty texts leave what the base has; `parameters` are laid over the base's."""

    name: Name
    from_: str = ""
    files: given.Files = field(default_factory=dict)
    adapters: given.Files = field(default_factory=dict)
    adapter_scale: float = 1.0
    """What the adapter's own strength is multiplied by."""
    paths: Mapping[Digest, Path] = field(default_factory=dict)
    """Where files lie that may not be in the store, on this machine."""
    template: str = ""
    system: str = ""
    licenses: tuple[str, ...] = ()
    parameters: Mapping[str, Json] = field(default_factory=dict)
    messages: tuple[Message, ...] = ()
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    quantize: str = ""
    imatrix: Digest | None = None
    """How much each weight counts, for quantising."""
    info: Mapping[str, Json] = field(default_factory=dict)


async def create(
    request: CreateRequest,
    models: Models,
    pull: Pull,
    *,
    threads: int = 1,
    prune: bool = True,
    cage: Cage = Cage(),  # noqa: B008 - frozen
) -> Steps:
    """Makes the model, yielding the status lines of spec api §11.2. On any error there is no new manifest.

    What was added to the store on the way and is not part of the model is deleted at the end. `threads` quantise;
    child processes are shut in as `cage` says.
    """
    if not request.from_ and not request.files:
        raise BadRequest("neither 'from' or 'files' was specified")
    store, making = models.store, Making(models.store, cage)
    making.kind = computing.wanted_kind(request.quantize) if request.quantize else ""
    if request.template:
        await store.run(_check_template, request.template)
    try:
        stages = (
            _take_over(request, store, making),
            _begin_from_model(request, models, pull, making) if request.from_ else _begin_from_files(request, making),
            _add_adapter(request, making),
            _quantize(request, making, threads),
            _finish(request, making, prune),
        )
        for stage in stages:
            async with aclosing(stage) as steps:
                async for step in steps:
                    yield step
    finally:
        await store.run_locking(making.discard)
    yield Progress("success")


def _check_template(text: str) -> None:
    """`BadRequest` for a template that does not parse; blocking, for a second where the text is long."""
    try:
        template.parse(text)
    except TemplateError as error:
        raise BadRequest(f"template error: {error}") from error


async def _take_over(request: CreateRequest, store: Store, making: Making) -> Steps:
    """Sees to it that all files are in the store."""
    groups = [{} if request.from_ else request.files, request.adapters]
    if request.imatrix is not None:
        groups.append({"imatrix": request.imatrix})

    def work(report: Report) -> None:
        for files in groups:
            given.take_over(files, request.paths, store, making.record, report)

    async with aclosing(Work(work).steps()) as steps:
        async for step in steps:
            yield step


async def _begin_from_model(request: CreateRequest, models: Models, pull: Pull, making: Making) -> Steps:
    reference = names.parse_reference(request.from_)
    if reference.cloud:
        raise RemoteModel(request.from_)
    if not await models.store.run(_is_there, models.store, reference.name):
        async with aclosing(pull(reference.name)) as steps:
            async for step in steps:
                yield step
    await models.store.run(lambda: making.take_model(models.read(reference.name)))


def _is_there(store: Store, name: Name) -> bool:
    try:
        store.manifest(name)
    except ModelNotFound:
        return False
    return True


async def _begin_from_files(request: CreateRequest, making: Making) -> Steps:
    store, files = making.store, request.files
    if await store.run(given.kind_of, files, store) == "safetensors":
        yield Progress("converting model")
        converted = await computing.converting(files, store, making.record, making.cage)
        async with aclosing(converted.steps()) as steps:
            async for step in steps:
                yield step
        if not making.kind and await store.run(given.is_fp8, files, store):
            making.kind = "Q8_0"  # what FP8 was made of is gone: 16 bits would keep nothing more
        files = {"model.gguf": converted.digest}

    def work(report: Report) -> None:
        making.take_files(assemble.assemble(files, store, progress=report))

    async with aclosing(Work(work).steps()) as steps:
        async for step in steps:
            if step.status != "parsing GGUF" or files is request.files:  # a file of our own making is no news
                yield step
    if not making.kind:
        yield Progress("verifying conversion")


async def _add_adapter(request: CreateRequest, making: Making) -> Steps:
    """Before the model is quantised: an adapter in safetensors is laid out as the model's floating-point file is."""
    if not request.adapters:
        return
    store, scale = making.store, request.adapter_scale
    check_scale(scale)
    if await store.run(given.kind_of, request.adapters, store) == "safetensors":
        yield Progress("converting adapter")
        base = await store.run(_weights, making)
        computed = await computing.converting_adapter(request.adapters, base, scale, store, making.record, making.cage)
    else:
        if len(request.adapters) > 1:
            raise BadRequest("only one adapter is currently supported")
        yield Progress("parsing GGUF")
        (digest,) = request.adapters.values()
        if scale == 1:
            known = await store.run(store.references)
            await store.run(making.add_adapter, digest, digest not in known)
            return
        computed = await computing.scaling_adapter(digest, scale, store, making.record, making.cage)
    async with aclosing(computed.steps()) as steps:
        async for step in steps:
            yield step
    await store.run(making.add_adapter, computed.digest, computed.created)


async def _quantize(request: CreateRequest, making: Making, threads: int) -> Steps:
    kind = making.kind
    if not kind:
        return
    source = await making.store.run(_weights, making)
    has = making.config.file_type if making.config.file_type not in ("", "unknown") else source.file_type
    if kind != has:
        computing.check_source(has)
        async with aclosing(_quantize_to(kind, has, source, request, making, threads)) as steps:
            async for step in steps:
                yield step
    elif not request.from_:
        yield Progress("verifying conversion")


def _weights(making: Making) -> gguf.GGUF:
    if making.weights is None:
        raise BadRequest("the model has no weights in GGUF")
    return published.read(making.store.open_path(making.weights)).published_gguf


async def _quantize_to(
    kind: str, has: str, source: gguf.GGUF, request: CreateRequest, making: Making, threads: int
) -> Steps:
    status = f"quantizing {has} model to {kind}"
    yield Progress(status, NO_DIGEST, source.weights_bytes, 0)
    quantized = await computing.quantizing(
        source, kind, request.imatrix, threads, making.store, making.record, making.cage
    )
    async with aclosing(quantized.steps()) as steps:
        async for step in steps:
            yield msgspec.structs.replace(step, status=status)
    made = await making.store.run(making.replace_weights, quantized.digest, quantized.created)
    yield Progress("verifying conversion")
    yield Progress(f"{kind}: {byte_text(made.size)} instead of {byte_text(source.size)}")


async def _finish(request: CreateRequest, making: Making, prune: bool) -> Steps:
    await making.store.run(_lay_over, request, making)
    for note in making.notes:
        yield Progress(note)
    yield Progress("writing manifest")
    await making.store.run_locking(making.write, request.name, prune)


def _lay_over(request: CreateRequest, making: Making) -> None:
    """Lays the request's changes over the base (spec api §11.3)."""
    if request.template:
        making.replace_text(MediaType.TEMPLATE, request.template.encode())
    if request.system:
        making.replace_text(MediaType.SYSTEM, request.system.encode())
    for text in request.licenses:
        making.append_text(MediaType.LICENSE, text.encode())
    if request.parameters:
        making.lay_over_parameters(request.parameters)
    if request.messages:
        making.replace_messages(request.messages)
    making.config = msgspec.structs.replace(
        making.config,
        renderer=request.renderer or making.config.renderer,
        parser=request.parser or making.config.parser,
        requires=request.requires.removeprefix("v") or making.config.requires,
        **info_changes(request.info, making.config),
    )
