"""Manifests: the JSON that says which blobs make up a model. Knows its form, not where it lies nor what it means.

Form and media types: spec cli §8. Everything read here may come from a stranger.
"""

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

import msgspec

from corral.errors import CorralError, StoreError
from corral.golang import gojson
from corral.names import Digest, Name, parse_digest

MAX_MANIFEST_BYTES = 4 << 20
"""A manifest has a few hundred bytes a layer; more than this is no manifest."""


class MediaType(StrEnum):
    """What a layer holds. A manifest may name others: they are carried along and not used."""

    MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
    OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
    """The same form under another name, as tools for OCI artifacts push it."""
    CONFIG = "application/vnd.docker.container.image.v1+json"
    MODEL = "application/vnd.ollama.image.model"
    PROJECTOR = "application/vnd.ollama.image.projector"
    ADAPTER = "application/vnd.ollama.image.adapter"
    TEMPLATE = "application/vnd.ollama.image.template"
    PROMPT = "application/vnd.ollama.image.prompt"
    """The old name of a template layer."""
    SYSTEM = "application/vnd.ollama.image.system"
    PARAMS = "application/vnd.ollama.image.params"
    MESSAGES = "application/vnd.ollama.image.messages"
    LICENSE = "application/vnd.ollama.image.license"
    TENSOR = "application/vnd.ollama.image.tensor"
    JSON = "application/vnd.ollama.image.json"


@dataclass(frozen=True, slots=True)
class Layer:
    """One blob of a model. `from_` is the model or file it was taken over from, empty when it was made here."""

    media_type: str
    digest: Digest
    size: int
    from_: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that has passed `parse_manifest`. `raw` is the file, byte for byte: its hash is the model's id."""

    config: Layer
    layers: tuple[Layer, ...]
    raw: bytes = field(repr=False)
    media_type: str = MediaType.MANIFEST
    """What the manifest says it is; a registry wants it under no other."""

    @property
    def digest(self) -> Digest:
        return Digest(hashlib.sha256(self.raw).hexdigest())

    @property
    def blobs(self) -> tuple[Layer, ...]:
        """Everything that must be in the store for this model: its layers, then its config."""
        return (*self.layers, self.config)

    @property
    def size(self) -> int:
        """Bytes of all layers and the config."""
        return sum(layer.size for layer in self.blobs)


@dataclass(frozen=True, slots=True)
class Stored:
    """A manifest as it lies in a store, under the spelling of the name it has there."""

    name: Name
    manifest: Manifest
    digest: Digest
    """SHA-256 of the manifest file: the model's id."""
    modified: float
    """When the manifest file was last written, in seconds since the epoch."""
    size: int
    """Bytes of all layers and the config."""

    @property
    def weights(self) -> Layer | None:
        """The layer of the model's weights; None when it has none in one file."""
        return next((layer for layer in self.manifest.layers if layer.media_type == MediaType.MODEL), None)

    @property
    def parent(self) -> str:
        """What the weights were taken over from: a model's short name or a file's name; empty when unknown."""
        return self.weights.from_ if self.weights is not None else ""


class _WireLayer(msgspec.Struct):
    media_type: str = msgspec.field(name="mediaType")
    digest: str
    size: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
    from_: str | None = msgspec.field(name="from", default=None)
    name: str | None = None


class _WireManifest(msgspec.Struct):
    config: _WireLayer
    layers: list[_WireLayer] | None
    media_type: object = msgspec.field(name="mediaType", default=None)


class _WireIndex(msgspec.Struct):
    manifests: list[object]


def _is_index(raw: bytes) -> bool:
    """Whether it is what registries have for images of several platforms."""
    try:
        msgspec.json.decode(raw, type=_WireIndex)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


_decoder = msgspec.json.Decoder(_WireManifest)


def parse_manifest(raw: bytes) -> Manifest:
    """The manifest in `raw`; `StoreError` says what is wrong with it. Unknown members are ignored."""
    if len(raw) > MAX_MANIFEST_BYTES:
        raise StoreError(f"manifest of {len(raw)} bytes is larger than the {MAX_MANIFEST_BYTES} that are allowed")
    try:
        wire = _decoder.decode(raw)
        layers = tuple(_layer(layer) for layer in wire.layers or ())
        is_oci = wire.media_type == MediaType.OCI_MANIFEST
        return Manifest(_layer(wire.config), layers, raw, MediaType.OCI_MANIFEST if is_oci else MediaType.MANIFEST)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if _is_index(raw):
            raise StoreError("invalid manifest: it is a list of manifests (an OCI index), not a model") from error
        raise StoreError(f"invalid manifest: {_reason(error)}") from error
    except CorralError as error:
        raise StoreError(f"invalid manifest: {error}") from error


def encode_manifest(config: Layer, layers: tuple[Layer, ...]) -> bytes:
    """The manifest file of a model made here (spec cli §8): fixed order of keys, a newline at the end."""
    document = {
        "schemaVersion": 2,
        "mediaType": str(MediaType.MANIFEST),
        "config": _members(config),
        "layers": [_members(layer) for layer in layers],
    }
    return gojson.encode(document) + b"\n"


def _layer(wire: _WireLayer) -> Layer:
    if not wire.digest.startswith("sha256:"):
        raise StoreError("invalid digest format")
    return Layer(wire.media_type, parse_digest(wire.digest), wire.size, wire.from_ or "", wire.name or "")


def _members(layer: Layer) -> dict[str, str | int]:
    members: dict[str, str | int] = {
        "mediaType": str(layer.media_type),
        "digest": str(layer.digest),
        "size": layer.size,
    }
    if layer.from_:
        members["from"] = layer.from_
    if layer.name:
        members["name"] = layer.name
    return members


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return str(error)[:200]
