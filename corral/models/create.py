"""From a request to a new model: base, changes, manifest, with a progress line a step. Knows no route.

Source: spec api §11.

Safetensors, quantising and adapters are refused with a sentence for now.
"""

import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field, replace

import msgspec

from corral import names, template
from corral.background import Report, Work
from corral.errors import BadRequest, CorralError, InvalidName, ModelNotFound, RemoteModel, TemplateError
from corral.golang import gojson
from corral.messages import Json, Message, Progress
from corral.models import assemble
from corral.models.config import ModelConfig, encode_config
from corral.models.model import Models
from corral.names import Digest, Name
from corral.store import Layer, MediaType, Store, encode_manifest

QUANTIZATIONS = ("F32", "F16", "BF16", "Q8_0", "Q4_K_S", "Q4_K_M", "Q4_K")

Pull = Callable[[Name], AsyncGenerator[Progress, None]]
"""Fetches a model that is not in the store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRequest:
    """What the new model is to be. Empty texts leave what the base has; `parameters` are laid over the base's."""

    name: Name
    from_: str = ""
    files: Mapping[str, Digest] = field(default_factory=dict)
    template: str = ""
    system: str = ""
    licenses: tuple[str, ...] = ()
    parameters: Mapping[str, Json] = field(default_factory=dict)
    messages: tuple[Message, ...] = ()
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    quantize: str = ""
    info: Mapping[str, Json] = field(default_factory=dict)


@dataclass(slots=True)
class _Draft:
    """The model as it takes shape."""

    layers: list[Layer]
    config: ModelConfig
    notes: list[str]
    created: list[Digest] = field(default_factory=list)
    """Blobs that were added to the store for it, to be discarded when the model is not made after all."""
    small: dict[Digest, bytes] = field(default_factory=dict)
    """The bytes of small blobs that were added, for `Store.write_manifest`."""

    def replace_all(self, store: Store, media_type: MediaType, data: bytes) -> None:
        """Puts a layer of this type in the place of those there are."""
        self.drop(media_type)
        self.append(store, media_type, data)

    def append(self, store: Store, media_type: MediaType, data: bytes) -> None:
        layer, created = self.add(store, media_type, data)
        self.layers.append(layer)
        self.notes.append(assemble.layer_note(layer.digest, created))

    def add(self, store: Store, media_type: MediaType, data: bytes) -> tuple[Layer, bool]:
        """A blob of its own, and whether it is new."""
        digest, size, created = store.add_bytes(data)
        self.small[digest] = data
        if created:
            self.created.append(digest)
        return Layer(media_type, digest, size), created

    def drop(self, *media_types: MediaType) -> None:
        kept = [
            (layer, note)
            for layer, note in zip(self.layers, self.notes, strict=True)
            if layer.media_type not in media_types
        ]
        self.layers, self.notes = [layer for layer, _ in kept], [note for _, note in kept]


async def create(
    request: CreateRequest, models: Models, pull: Pull, *, prune: bool = True
) -> AsyncGenerator[Progress, None]:
    """Makes the model, yielding the status lines of spec api §11.2. On any error there is no new manifest."""
    _check_sources(request)
    if request.template:
        await models.store.run(_check_template, request.template)
    if request.from_:
        name = _base_name(request.from_)
        if not await models.store.run(_is_there, models.store, name):
            async with contextlib.aclosing(pull(name)) as steps:
                async for step in steps:
                    yield step
        draft = await models.store.run(_from_model, models, name)
    else:
        await models.store.run(_check_files, request.files, models.store)
        work = Work(lambda report: _from_files(request.files, models.store, report))
        async with contextlib.aclosing(work.steps()) as steps:
            async for step in steps:
                yield step
        draft = work.result
    try:
        if not request.from_:
            yield Progress("verifying conversion")
        _check_quantize(request.quantize, draft.config.file_type)
        await models.store.run(_apply, request, draft, models.store)
        for note in draft.notes:
            yield Progress(note)
        yield Progress("writing manifest")
        await models.store.run_locking(_write, request.name, draft, models.store, prune)
    except BaseException:
        await models.store.run_locking(models.store.discard, draft.created)
        raise
    yield Progress("success")


def _check_sources(request: CreateRequest) -> None:
    if not request.from_ and not request.files:
        raise BadRequest("neither 'from' or 'files' was specified")


def _check_template(text: str) -> None:
    """`BadRequest` for a template that does not parse; blocking, for a second where the text is long."""
    try:
        template.parse(text)
    except TemplateError as error:
        raise BadRequest(f"template error: {error}") from error


def _base_name(text: str) -> Name:
    reference = names.parse_reference(text)
    if reference.cloud:
        raise RemoteModel(text)
    return reference.name


def _is_there(store: Store, name: Name) -> bool:
    try:
        store.manifest(name)
    except ModelNotFound:
        return False
    return True


def _from_model(models: Models, name: Name) -> _Draft:
    model = models.read(name)
    inherited = [replace(layer, from_=str(model.name)) for layer in model.layers]
    return _Draft(inherited, model.config, [assemble.layer_note(layer.digest, created=False) for layer in inherited])


def _check_files(files: Mapping[str, Digest], store: Store) -> None:
    """`BadRequest` unless all files are there and one of them is a GGUF (spec api §11.3, type detection)."""
    for name, digest in files.items():
        if not store.has_blob(digest):
            raise BadRequest(f'file "{name}" was not uploaded: there is no blob {digest}')
    if not any(name.lower().endswith(".gguf") or _is_gguf(store, digest) for name, digest in files.items()):
        if any(name.endswith(".safetensors") for name in files):
            raise BadRequest("safetensors cannot be converted yet, please give a GGUF file")
        raise BadRequest("unknown type")


def _from_files(files: Mapping[str, Digest], store: Store, report: Report) -> _Draft:
    made = assemble.assemble(files, store, progress=report)
    return _Draft(list(made.layers), made.config, list(made.notes), list(made.created))


def _is_gguf(store: Store, digest: Digest) -> bool:
    with open(store.open_path(digest), "rb") as file:
        return file.read(4) == b"GGUF"


def _check_quantize(wanted: str, has: str) -> None:
    """Spec api §11.4."""
    if not wanted:
        return
    kind = wanted.upper()
    if kind not in QUANTIZATIONS:
        raise CorralError(
            f"unsupported quantization type {wanted} - supported types are F32, F16, Q4_K_S, Q4_K_M, Q8_0"
        )
    if {"Q4_K": "Q4_K_M"}.get(kind, kind) == has:
        return
    if has not in ("F16", "BF16", "F32"):
        raise CorralError("quantization is only supported for F16, BF16 and F32 models")
    raise BadRequest(f"quantizing to {kind} is not supported yet")


def _apply(request: CreateRequest, draft: _Draft, store: Store) -> None:
    """Lays the request's changes over the base (spec api §11.3)."""
    if request.template:
        draft.drop(MediaType.PROMPT)
        draft.replace_all(store, MediaType.TEMPLATE, request.template.encode())
    if request.system:
        draft.replace_all(store, MediaType.SYSTEM, request.system.encode())
    for text in request.licenses:
        draft.append(store, MediaType.LICENSE, text.encode())
    if request.parameters:
        given = {name: value for name, value in request.parameters.items() if value is not None}
        merged = {**_stored_parameters(draft, store), **given}
        draft.replace_all(store, MediaType.PARAMS, assemble.encode_params(merged))
    if request.messages:
        rows = [{"role": message.role, "content": message.text} for message in request.messages]
        draft.replace_all(store, MediaType.MESSAGES, gojson.encode(rows) + b"\n")
    draft.config = msgspec.structs.replace(
        draft.config,
        renderer=request.renderer or draft.config.renderer,
        parser=request.parser or draft.config.parser,
        requires=request.requires.removeprefix("v") or draft.config.requires,
        **_info(request.info, draft.config),
    )


def _stored_parameters(draft: _Draft, store: Store) -> dict[str, Json]:
    for layer in draft.layers:
        if layer.media_type == MediaType.PARAMS:
            with open(store.open_path(layer.digest), "rb") as file:
                found = gojson.parse(file.read(1 << 20))
            return found if isinstance(found, dict) else {}
    return {}


_INFO_TEXTS = {
    "model_family": "model_family",
    "base_name": "base_name",
    "quantization_level": "file_type",
    "parameter_size": "model_type",
}
_INFO_NUMBERS = ("context_length", "embedding_length")


def _info(info: Mapping[str, Json], config: ModelConfig) -> dict[str, Json]:
    """Config members that a request's `info` sets; `BadRequest` for a value of the wrong kind."""
    changes: dict[str, Json] = {}
    for key, member in _INFO_TEXTS.items():
        value = info.get(key)
        if value is not None:
            if not isinstance(value, str):
                raise BadRequest(f'info field "{key}" must be a string')
            changes[member] = value
    for key in _INFO_NUMBERS:
        value = info.get(key)
        if value is not None:
            changes[key] = _natural(key, value)
    added = info.get("capabilities")
    if isinstance(added, list):
        changes["capabilities"] = (*config.capabilities, *(item for item in added if isinstance(item, str)))
    return changes


def _natural(key: str, value: Json) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRequest(f'info field "{key}" must be a number')
    if not 0 <= value < 1 << 63 or value != int(value):
        raise BadRequest(f'info field "{key}" must be a non-negative integer')
    return int(value)


def _write(name: Name, draft: _Draft, store: Store, prune: bool) -> None:
    config, _ = draft.add(store, MediaType.CONFIG, encode_config(draft.config))
    manifest = encode_manifest(config, tuple(draft.layers))
    store.write_manifest(store.resolve(name), manifest, prune, small=draft.small)


def check_relative(path: str) -> None:
    """A file's key must be a clean relative path with slashes (spec api §11.1)."""
    if path.startswith("/") or any(part in ("", ".", "..") for part in path.split("/")):
        raise InvalidName("file path must be relative")
