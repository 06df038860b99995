"""From GGUF files to a model's layers and config (spec api §11.3). Knows what files are, not where they came from.

The one way from files to a manifest: the same file gives the same layers byte for byte, whether it was uploaded or
comes from a folder or out of a package. Files are kept as they are, so that their digests stay what their makers
published.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from corral import gguf, names, published
from corral.errors import BadRequest, ModelFileError, StoreError, reason_of
from corral.gguf import lora
from corral.gguf.split import merge
from corral.golang import gojson
from corral.golang.units import count_text
from corral.messages import Json, Progress
from corral.models.config import ModelConfig, encode_config
from corral.names import Digest, Name
from corral.published import File
from corral.store import Layer, MediaType, Store, Stored, encode_manifest
from corral.system.files import WITHOUT_WAITING
from corral.template import known

Source: TypeAlias = Digest | Path
"""Where a file is: a blob of the store, or a local file that the store is to adopt."""

NO_DIGEST = "0" * 19
"""The digest in progress lines that count bytes of no blob in particular (spec api §11.2)."""

BUILT_IN_PARSERS = {
    "gemma4": "gemma4",
    "laguna": "laguna",
    "nemotron_h": "nemotron-3-nano",
    "nemotron_h_moe": "nemotron-3-nano",
    "nemotron_h_omni": "nemotron-3-nano",
}
"""Renderer and parser of architectures that have ones of their own, by Ollama's names; a config may name others."""

_BUILT_IN_STOPS = {"gemma4": ("<turn|>",)}


@dataclass(frozen=True, slots=True)
class Assembled:
    """What files amount to. `notes[n]` is the progress line for `layers[n]` (spec api §11.2)."""

    layers: tuple[Layer, ...]
    config: ModelConfig
    notes: tuple[str, ...]
    created: tuple[Digest, ...]
    """Blobs that were added to the store for it, to be discarded when the model is not made after all."""


def assemble(
    files: Mapping[str, Source],
    store: Store,
    *,
    link: bool = True,
    progress: Callable[[Progress], None] = lambda _: None,
    system: str = "",
    parameters: Mapping[str, Json] = MappingProxyType({}),
) -> Assembled:
    """The layers of `files` (by their names), all put into the store: models, then projectors, adapters, templates.

    Hashes and copies: to be called in a thread. `link`: local files may be hard-linked. `system` and `parameters` are
    what came with the files; they are laid over what is known of them. Errors: `BadRequest` for what cannot be made one
    model, `ModelFileError` for a broken file, `StoreError`.
    """
    if not files:
        raise BadRequest("no files provided to convert")
    assembly = _Assembly(store, link, progress)
    try:
        groups = _grouped({name: assembly.read(source) for name, source in files.items()})
        _check_usable(groups)
        for file in (file for group in groups for file in group.values() if file.published_gguf.split is None):
            gguf.check_new(file.text)
        for group in groups:
            assembly.add(group, files)
        return assembly.result(system, parameters)
    except BaseException:
        store.discard(assembly.created)
        raise


def write_model(name: Name, made: Assembled, store: Store, prune: bool = True) -> Stored:
    """Stores the config and the manifest: from here on there is a model of that name."""
    config = encode_config(made.config)
    digest, size, created = store.add_bytes(config)
    manifest = encode_manifest(Layer(MediaType.CONFIG, digest, size), made.layers)
    try:
        return store.write_manifest(name, manifest, prune, small={digest: config})
    except BaseException:
        if created:
            store.discard([digest])
        raise


def throttled_progress(
    progress: Callable[[Progress], None], status: str, digest: str, total: int
) -> Callable[[int], None]:
    """A function of the bytes done so far, which reports each hundredth of `total` to `progress`, and the end."""
    step = max(total // 100, 1)
    reported = -step

    def count(done: int) -> None:
        nonlocal reported
        if done - reported >= step or done >= total > reported:
            reported = done
            progress(Progress(status, digest, total, done))

    return count


def layer_note(digest: Digest, created: bool) -> str:
    """The progress line for a layer (spec api §11.2)."""
    return f"{'creating new' if created else 'using existing'} layer {digest}"


_MEDIA_TYPES: dict[gguf.Kind, MediaType] = {
    "model": MediaType.MODEL,
    "projector": MediaType.PROJECTOR,
    "adapter": MediaType.ADAPTER,
}


class _Assembly:
    """One run of `assemble`: files go in, in any order; `result` puts them in theirs."""

    def __init__(self, store: Store, link: bool, progress: Callable[[Progress], None]) -> None:
        self._store = store
        self._link = link
        self._progress = progress
        self.created: list[Digest] = []
        """Blobs that the store did not have before."""
        self._found: dict[gguf.Kind, list[tuple[File, Layer, str]]] = {"model": [], "projector": [], "adapter": []}
        try:
            self._known = store.references()
        except StoreError:
            self._known = set()

    def read(self, source: Source) -> File:
        self._progress(Progress("parsing GGUF"))
        return _read(self._store.open_path(source) if isinstance(source, Digest) else source)

    def add(self, group: Mapping[str, File], files: Mapping[str, Source]) -> None:
        """A file, or a whole set of parts."""
        (name, read), *others = group.items()
        source, file = files[name], read.published_gguf
        if others or file.split is not None:
            digest = self._merge([part.published_gguf for part in group.values()])
        elif isinstance(source, Digest):
            digest = source
        else:
            count = throttled_progress(self._progress, "hashing", NO_DIGEST, file.size)
            adopted = self._store.adopt(source, self._link, count)
            digest = self._record_created(adopted.digest, adopted.created)
        if source != digest:  # else it was read and checked there
            read = _read(self._store.open_path(digest))
            file = read.published_gguf
            gguf.check_new(read.text)
        layer = Layer(_MEDIA_TYPES[file.kind], digest, file.size)
        self._found[file.kind].append((read, layer, layer_note(digest, digest not in self._known)))

    def result(self, system: str, parameters: Mapping[str, Json]) -> Assembled:
        models, projectors, adapters = self._found.values()
        if len(models) > 1:
            raise BadRequest(f"{len(models)} models were given, a model can only be made of one")
        if len(adapters) > 1:
            raise BadRequest("only one adapter is currently supported")
        if models and adapters:
            lora.check(adapters[0][0].text, models[0][0].text)
        rows = [(layer, note) for _, layer, note in (*models, *projectors, *adapters)]
        config = ModelConfig(model_format="gguf")
        if models:
            model = models[0][0]
            rows += self._template_and_parameters(model.text, system, parameters)
            config = _config(model.published_gguf, [file.published_gguf for file, _, _ in projectors])
        layers, notes = zip(*rows, strict=True)
        return Assembled(layers, config, notes, tuple(self.created))

    def _template_and_parameters(
        self, model: gguf.GGUF, system: str, parameters: Mapping[str, Json]
    ) -> list[tuple[Layer, str]]:
        """Layers of the template that the file's own is recognised as, of the system prompt, and of the parameters, of
        which stop words may go with the template."""
        known = _known_template(model)
        rows = []
        if known is not None:
            layer, _ = self._add(MediaType.TEMPLATE, known.text.encode())
            rows.append((layer, f"using autodetected template {known.name}"))
        if system:
            rows.append(self._add(MediaType.SYSTEM, system.encode()))
        stop = (
            known.stop if known is not None else _BUILT_IN_STOPS.get(BUILT_IN_PARSERS.get(model.architecture, ""), ())
        )
        if all_of_them := {**({"stop": list(stop)} if stop else {}), **parameters}:
            rows.append(self._add(MediaType.PARAMS, encode_params(all_of_them)))
        return rows

    def _add(self, media_type: MediaType, data: bytes) -> tuple[Layer, str]:
        digest, size, created = self._store.add_bytes(data)
        return Layer(media_type, self._record_created(digest, created), size), layer_note(digest, created)

    def _merge(self, parts: Sequence[gguf.GGUF]) -> Digest:
        merged = merge(parts)
        if (known := self._store.find_same(merged.size, merged.chunks())) is not None:
            return known
        count = throttled_progress(self._progress, "merging GGUF parts", NO_DIGEST, merged.size)
        with self._store.writer(merged.size) as writer:
            for chunk in merged.chunks():
                writer.write(chunk)
                count(writer.size)
            return self._record_created(*writer.commit())

    def _record_created(self, digest: Digest, created: bool) -> Digest:
        if created:
            self.created.append(digest)
        return digest


def encode_params(parameters: Mapping[str, Any]) -> bytes:
    """A params layer: one JSON object, keys sorted, a newline at the end (spec api §11.3)."""
    return gojson.encode(gojson.sort_keys(dict(parameters))) + b"\n"


def _read(path: Path) -> File:
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            first_bytes = file.read(4)
    except OSError as error:
        raise ModelFileError(f'cannot read "{path}": {reason_of(error)}') from error
    if not gguf.looks_like_gguf(first_bytes):
        raise BadRequest("supplied file was not in GGUF format")
    return published.read(path)


def _open_at_once(path: str, flags: int) -> int:
    """Opens without waiting for the writer of a pipe."""
    return os.open(path, flags | WITHOUT_WAITING)


def _grouped(files: Mapping[str, File]) -> Sequence[Mapping[str, File]]:
    """Each file by itself, the parts of a set together: those whose names differ in the number only."""
    groups: dict[str, dict[str, File]] = {}
    for name, file in files.items():
        part = names.parse_split_part(name)
        key = name if file.published_gguf.split is None else f"split {part.stem if part else ''}"
        groups.setdefault(key, {})[name] = file
    return list(groups.values())


def _check_usable(groups: Sequence[Mapping[str, File]]) -> None:
    """`BadRequest` for files from which no engine could load a model, before anything is stored."""
    for group in groups:
        for name, file in group.items():
            if file.published_gguf.big_endian:
                raise BadRequest(f'"{name}" is a big-endian GGUF file, which cannot be run here')
        if not any(file.published_gguf.tensors for file in group.values()):
            raise BadRequest(f'"{next(iter(group))}" has no tensors in it: it is no model')
    kinds = {file.published_gguf.kind for group in groups for file in group.values()}
    if kinds == {"projector"}:
        raise BadRequest("a projector alone is no model: give the file of its model, too")


def _known_template(model: gguf.GGUF) -> known.KnownTemplate | None:
    """None also for a text that writes the BOS token where the tokenizer does not: no Go template of ours does."""
    if not model.chat_template or (model.add_bos is False and "bos_token" in model.chat_template):
        return None
    ids = (model.bos_token_id, model.eos_token_id)
    tokens = [] if ids == (None, None) else model.values("tokenizer.ggml.tokens")
    bos, eos = ("" if number is None else str(tokens[number]) for number in ids)
    return known.recognise(model.chat_template, bos=bos, eos=eos)


def _config(model: gguf.GGUF, projectors: Sequence[gguf.GGUF]) -> ModelConfig:
    parser = BUILT_IN_PARSERS.get(model.architecture, "")
    return ModelConfig(
        model_format="gguf",
        model_family=model.architecture,
        model_families=(model.architecture, *(projector.architecture for projector in projectors)),
        model_type=count_text(model.parameter_count),
        file_type=model.file_type,
        renderer=parser,
        parser=parser,
        context_length=model.context_length or 0,
        embedding_length=model.embedding_length or 0,
    )
