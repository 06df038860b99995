"""A model as it takes shape: its layers, its config, and what a request lays over its base. Knows no status line's
order and no file but blobs. Source: spec api §11.3.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import msgspec

from corral import gguf, published
from corral.cage import Cage
from corral.errors import BadRequest
from corral.gguf import lora
from corral.golang import gojson
from corral.messages import Json, Message
from corral.models import assemble
from corral.models.config import ModelConfig, encode_config
from corral.models.model import MAX_TEXT, Model
from corral.names import Digest, Name
from corral.store import Layer, MediaType, Store, encode_manifest

MAX_PARAMETERS = 1 << 20
"""Bytes of a stored layer of parameters that new ones are laid over."""


class Making:
    """Layers and config of the new model. Its methods block; they are called one after the other.

    `notes[n]` is the progress line for `layers[n]` (spec api §11.2).
    """

    def __init__(self, store: Store, cage: Cage) -> None:
        self.store = store
        self.cage = cage
        self.layers: list[Layer] = []
        self.notes: list[str] = []
        self.config = ModelConfig()
        self.kind = ""
        """The kind of quantisation that the model is to have; empty: that of its base."""
        self._created: list[Digest] = []
        self._small: dict[Digest, bytes] = {}
        self._lock = threading.Lock()

    def record(self, digests: Iterable[Digest]) -> None:
        """Remembers blobs that were added to the store for the model, for `discard`."""
        with self._lock:
            self._created += digests

    def discard(self) -> None:
        """Deletes what was added to the store and is not part of a model: all of it when none was made."""
        with self._lock:
            self.store.discard(self._created)

    def take_model(self, model: Model) -> None:
        """Begins with the layers and the config of another model."""
        self.layers = [replace(layer, from_=str(model.name)) for layer in model.layers]
        self.notes = [assemble.layer_note(layer.digest, created=False) for layer in self.layers]
        self.config = model.config

    def take_files(self, made: assemble.Assembled) -> None:
        """Begins with what files amount to; `ModelFileError` for an adapter among them that does not fit the model."""
        self.record(made.created)
        self.layers, self.notes, self.config = list(made.layers), list(made.notes), made.config
        for layer in self.layers:
            if layer.media_type == MediaType.ADAPTER:
                self._check_adapter(gguf.read(self.store.open_path(layer.digest)))

    @property
    def weights(self) -> Digest | None:
        """The model's GGUF file."""
        return next((layer.digest for layer in self.layers if layer.media_type == MediaType.MODEL), None)

    def replace_weights(self, digest: Digest, created: bool) -> gguf.GGUF:
        """Puts a file in the place of the model's, and its quantisation into the config; the file, checked."""
        file = gguf.read(self.store.open_path(digest))
        for position, layer in enumerate(self.layers):
            if layer.media_type == MediaType.MODEL:
                self.layers[position] = Layer(MediaType.MODEL, digest, file.size)
                self.notes[position] = assemble.layer_note(digest, created)
        self.config = msgspec.structs.replace(self.config, file_type=file.file_type)
        return file

    def add_adapter(self, digest: Digest, created: bool) -> None:
        """Puts an adapter behind the model's files; `ModelFileError` when it does not fit the model."""
        file = gguf.read(self.store.open_path(digest))
        self._check_adapter(file)
        position = sum(layer.media_type in _FILES for layer in self.layers)
        self.layers.insert(position, Layer(MediaType.ADAPTER, digest, file.size))
        self.notes.insert(position, assemble.layer_note(digest, created))

    def replace_text(self, media_type: MediaType, data: bytes) -> None:
        """Puts a layer of this type in the place of those there are."""
        self._drop(media_type, *([MediaType.PROMPT] if media_type is MediaType.TEMPLATE else []))
        self.append_text(media_type, data)

    def append_text(self, media_type: MediaType, data: bytes) -> None:
        layer, created = self._add(media_type, data)
        self.layers.append(layer)
        self.notes.append(assemble.layer_note(layer.digest, created))

    def replace_messages(self, messages: Sequence[Message]) -> None:
        rows = [{"role": message.role, "content": message.text} for message in messages]
        self.replace_text(MediaType.MESSAGES, gojson.encode(rows) + b"\n")

    def lay_over_parameters(self, given: Mapping[str, Json]) -> None:
        """Parameters over those there are; a null changes nothing."""
        parameters = {name: value for name, value in given.items() if value is not None}
        self.replace_text(MediaType.PARAMS, assemble.encode_params(self._stored_parameters() | parameters))

    def write(self, name: Name, prune: bool) -> None:
        """Stores config and manifest: from here on there is a model of that name."""
        config, _ = self._add(MediaType.CONFIG, encode_config(self.config))
        manifest = encode_manifest(config, tuple(self.layers))
        self.store.write_manifest(self.store.resolve(name), manifest, prune, small=self._small)
        used = {layer.digest for layer in (*self.layers, config)}
        with self._lock:
            self._created = [digest for digest in self._created if digest not in used]

    def _check_adapter(self, adapter: gguf.GGUF) -> None:
        if self.weights is not None:
            lora.check(adapter, published.read(self.store.open_path(self.weights)).text)

    def _add(self, media_type: MediaType, data: bytes) -> tuple[Layer, bool]:
        """`BadRequest` for more than a model's texts are read with."""
        if len(data) > MAX_TEXT:
            kind = media_type.rpartition(".")[2]
            raise BadRequest(f"a {kind} of {len(data)} bytes is too large: {MAX_TEXT} are the most")
        digest, size, created = self.store.add_bytes(data)
        self._small[digest] = data
        if created:
            self.record([digest])
        return Layer(media_type, digest, size), created

    def _drop(self, *media_types: MediaType) -> None:
        kept = [
            (layer, note)
            for layer, note in zip(self.layers, self.notes, strict=True)
            if layer.media_type not in media_types
        ]
        self.layers, self.notes = [layer for layer, _ in kept], [note for _, note in kept]

    def _stored_parameters(self) -> dict[str, Json]:
        for layer in self.layers:
            if layer.media_type == MediaType.PARAMS:
                with open(self.store.open_path(layer.digest), "rb") as file:
                    found = gojson.parse(file.read(MAX_PARAMETERS))
                return found if isinstance(found, dict) else {}
        return {}


_FILES = frozenset({MediaType.MODEL, MediaType.PROJECTOR, MediaType.ADAPTER})

_INFO_TEXTS = {
    "model_family": "model_family",
    "base_name": "base_name",
    "quantization_level": "file_type",
    "parameter_size": "model_type",
}
_INFO_NUMBERS = ("context_length", "embedding_length")


def info_changes(info: Mapping[str, Json], config: ModelConfig) -> dict[str, Json]:
    """Config members that a request's `info` sets; `BadRequest` for a value of the wrong kind (spec api §11.1)."""
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
