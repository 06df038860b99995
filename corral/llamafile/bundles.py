"""Bundles, as they are read: a GGUF file with an archive behind it, which has the rest of the model and a program.

The program is never run here. What is taken is checked against digests: the manifest's, which the description names,
and those of the layers, which the manifest names. How bundles are written: `corral.bundle`.
"""

import hashlib
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from corral import names
from corral.errors import CorralError, ModelFileError
from corral.llamafile.archive import Stretch, members, opened, printable
from corral.names import Digest, Name, parse_digest

VERSION = 1
"""Of the form. A bundle of a newer one is refused."""
DESCRIPTION = "corral-bundle.json"
"""The first member, which makes a file a bundle."""
MANIFEST = "model/manifest.json"
MAX_TEXT = 4 << 20
"""Bytes of the description and of the manifest."""
_MEDIA_TYPE = "application/vnd.ollama.image."
_END = b"PK\x05\x06"
_END_BYTES = 22
_LOCAL_BYTES = 30
_MOST_PADDING = 8192


_Decoded = TypeVar("_Decoded")


class Bundle(Struct, frozen=True):
    """The model of a bundle. `manifest` is the file byte for byte."""

    name: Name
    weights: Digest
    config: Digest
    manifest: bytes
    files: dict[Digest, Stretch]
    """Where every blob of the model lies, the weights at 0."""
    layers: tuple[tuple[str, Digest], ...]
    """The media types of the manifest's layers, each with its digest, in their order."""

    def of(self, kind: str) -> list[Digest]:
        """The layers of a kind, by the last word of their media type: `projector`, `system`."""
        return [digest for media_type, digest in self.layers if media_type == f"{_MEDIA_TYPE}{kind}"]


class _Weights(Struct):
    digest: str
    size: int


class _Description(Struct):
    version: int
    name: str = ""
    weights: _Weights = msgspec.field(default_factory=lambda: _Weights("", 0))
    manifest: str = ""


class _Layer(Struct, rename={"media_type": "mediaType"}):
    media_type: str
    digest: str
    size: int


class _Manifest(Struct):
    config: _Layer
    layers: list[_Layer]


def looks_like_bundle(path: Path) -> bool:
    """Whether a file begins as a GGUF file and ends as an archive with a description; False also for a broken one."""
    try:
        with opened(path) as file:
            if file.read(4) != b"GGUF":
                return False
            size = file.seek(0, 2)
            file.seek(max(size - _END_BYTES, 0))
            if file.read(4) != _END:
                return False
    except (OSError, ValueError, ModelFileError):
        return False
    try:
        return DESCRIPTION in members(path)
    except OSError:
        return False
    except ModelFileError:
        return True  # an archive behind a GGUF file that cannot be read: `read` says why


def read(path: Path) -> Bundle:
    """What a bundle holds of a model. `ModelFileError` says what is wrong with it; `OSError`."""
    found = members(path)
    described = _decoded(_text(path, found, DESCRIPTION), _Description, DESCRIPTION)
    if described.version != VERSION:
        raise ModelFileError(f"it is a bundle of form {described.version}; this program reads form {VERSION}")
    manifest = _text(path, found, MANIFEST)
    if str(digest_of(manifest)) != described.manifest:
        raise ModelFileError("the manifest in it is damaged")
    try:
        name, weights = names.parse(described.name), parse_digest(described.weights.digest)
        needed = _decoded(manifest, _Manifest, MANIFEST)
        kinds = tuple((layer.media_type, parse_digest(layer.digest)) for layer in needed.layers)
        layers = {parse_digest(layer.digest): layer.size for layer in (*needed.layers, needed.config)}
    except CorralError as error:
        raise ModelFileError(f"it does not describe a model: {error}") from error
    size = layers.pop(weights, -1)
    first = min((stretch.offset for stretch in found.values()), default=0)
    if size != described.weights.size or not 4 < size <= first:
        raise ModelFileError("it is damaged: its weights are not where it says")
    files = {weights: Stretch(0, size)}
    for digest, expected in layers.items():
        stretch = found.get(member_of(digest))
        if stretch is None or stretch.size != expected:
            raise ModelFileError(f'it is damaged: the layer "{digest}" of its model is missing or has another size')
        files[digest] = stretch
    return Bundle(name, weights, parse_digest(needed.config.digest), manifest, files, kinds)


def text(path: Path, stretch: Stretch) -> str:
    """A layer that is a text: a template, a system prompt. `ModelFileError` for one of more than `MAX_TEXT` bytes."""
    return _bytes(path, stretch, "a text").decode("utf-8", "replace")


def json(path: Path, stretch: Stretch) -> Any:
    """A layer that is JSON: parameters, messages, the config. `ModelFileError`."""
    return _decoded(_bytes(path, stretch, "a layer"), Any, "a layer")


def digest_of(manifest: bytes) -> Digest:
    """That of a manifest's bytes."""
    return Digest(hashlib.sha256(manifest).hexdigest())


def member_of(digest: Digest) -> str:
    """The member that has a blob of the model."""
    return f"model/{digest.filename}"


def check_whole(path: Path, end: int) -> None:
    """`ModelFileError` for a GGUF file behind whose data, at `end`, a bundle's archive begins, but does not end.

    Files may have some padding there.
    """
    with opened(path) as file:
        file.seek(end)
        head = file.read(_MOST_PADDING)
    at = head.find(DESCRIPTION.encode())
    if at >= _LOCAL_BYTES and head[at - _LOCAL_BYTES :].startswith(b"PK\x03\x04"):
        raise ModelFileError(f'"{path.name}" is a bundle that was cut off: get the file anew')


def _decoded(raw: bytes, kind: type[_Decoded], member: str) -> _Decoded:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelFileError(f'"{member}" in its archive cannot be read: {printable(str(error))}') from error


def _text(path: Path, found: dict[str, Stretch], member: str) -> bytes:
    if member not in found:
        raise ModelFileError(f'its archive has no "{member}"')
    return _bytes(path, found[member], member)


def _bytes(path: Path, stretch: Stretch, member: str) -> bytes:
    if stretch.size > MAX_TEXT:
        raise ModelFileError(f'"{member}" in its archive has {stretch.size} bytes: more than {MAX_TEXT}')
    with opened(path) as file:
        file.seek(stretch.offset)
        return file.read(stretch.size)
