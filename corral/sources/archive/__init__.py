"""Models in one file: a tar that is an OCI image layout, to carry between machines, with or without a network.

Blobs are there once, however many models share them; manifests keep every byte; every blob is verified when it is
written and when it is read. Any tool for OCI images can read it.
"""

import hashlib
import os
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path, PurePosixPath
from typing import TypeVar

import msgspec

from corral import names
from corral.background import Report, Work
from corral.errors import BadRequest, CorralError, InvalidName, NotFound, SourceError, StoreError
from corral.messages import Progress
from corral.models.assemble import throttled_progress
from corral.names import Digest, Name, parse_digest
from corral.sources.archive import tar
from corral.store import MAX_MANIFEST_BYTES, Layer, Manifest, Store, disk, parse_manifest
from corral.store.blobs import require_space
from corral.system.files import exists

REF_NAME = "org.opencontainers.image.ref.name"
"""The annotation of a manifest in the index that has the model's name."""

_LAYOUT = "oci-layout"
_LAYOUT_BYTES = b'{"imageLayoutVersion":"1.0.0"}'
_INDEX = "index.json"
_INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
"""What the index calls every manifest, though most say of themselves that they are Docker's: the form is the same, and
skopeo and its kin find by name, and copy with layers they do not know, only what the index calls this."""
_MAX_INDEX_BYTES = 16 << 20
_OURS = "application/vnd.ollama.image."


async def export(models: Sequence[Name], store: Store, path: Path) -> AsyncGenerator[Progress, None]:
    """Writes models into a new archive at `path`, which appears when it is complete.

    `BadRequest` when there is such a file, `ModelNotFound`, `StoreError` also for a blob that is damaged, `DiskFull`.
    """
    work = Work(lambda report: _export(models, store, path, report))
    async with aclosing(work.steps()) as steps:
        async for step in steps:
            yield step
    yield Progress("success")


async def import_(
    path: Path, store: Store, *, only: Name | None = None, prune: bool = True
) -> AsyncGenerator[Progress, None]:
    """Adds the models of an archive, or `only` one of them. None is added unless all that is needed is there and sound.

    `NotFound` for a missing file or model, `SourceError` for an archive that is broken or hostile, `StoreError`.
    """
    work = Work(lambda report: _import(path, store, only, prune, report))
    async with aclosing(work.steps()) as steps:
        async for step in steps:
            yield step
    yield Progress("success")


_Decoded = TypeVar("_Decoded", bound=msgspec.Struct)


class _Descriptor(msgspec.Struct, rename={"media_type": "mediaType"}):
    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] = {}


class _Index(msgspec.Struct):
    manifests: list[_Descriptor]


class _Layout(msgspec.Struct, rename={"version": "imageLayoutVersion"}):
    version: str


# Writing


def _export(models: Sequence[Name], store: Store, path: Path, report: Report) -> None:
    if not models:
        raise BadRequest("no models to export")
    report(Progress("reading manifests"))
    stored = {model.name.folded: model for model in map(store.manifest, models)}.values()
    index = _encode_index([(model.name, model.manifest) for model in stored])
    blobs = {layer.digest: layer for model in stored for layer in model.manifest.blobs}
    if os.path.lexists(path):
        raise BadRequest(f'"{path}" exists already')
    size = sum(layer.size for layer in blobs.values()) + sum(len(model.manifest.raw) for model in stored)
    require_space(path.parent, size)
    with (
        disk.explained(path, "writing"),
        disk.appearing(path, disk.temporary(path.parent, ".corral-")) as archive,
    ):
        _write_file(archive, _LAYOUT, _LAYOUT_BYTES)
        _write_file(archive, _INDEX, index)
        for digest, raw in {model.digest: model.manifest.raw for model in stored}.items():
            _write_file(archive, _blob_name(digest), raw)
        for layer in sorted(blobs.values(), key=lambda layer: (layer.size, layer.digest)):
            _write_blob(archive, store, layer, report)
        disk.write_all(archive, tar.END)
        report(Progress("writing archive"))


def _write_file(archive: FileIO, name: str, data: bytes) -> None:
    disk.write_all(archive, tar.header(name, len(data)) + data + tar.padding(len(data)))


def _write_blob(archive: FileIO, store: Store, layer: Layer, report: Report) -> None:
    """Copies a blob; `StoreError` if its bytes are not those of its digest."""
    count = throttled_progress(report, f"exporting {layer.digest.short}", str(layer.digest), layer.size)
    disk.write_all(archive, tar.header(_blob_name(layer.digest), layer.size))
    state, done = hashlib.sha256(), 0
    with disk.open_regular(store.open_path(layer.digest)) as blob:
        while chunk := blob.read(disk.COPY_BYTES):
            state.update(chunk)
            done += len(chunk)
            if done <= layer.size:
                disk.write_all(archive, chunk)
                count(done)
    if done != layer.size or state.hexdigest() != layer.digest.hex:
        raise StoreError(f'blob "{layer.digest}" is damaged: remove its model and pull it again')
    disk.write_all(archive, tar.padding(layer.size))


def _encode_index(models: Sequence[tuple[Name, Manifest]]) -> bytes:
    rows = [
        {
            "mediaType": _MANIFEST_TYPE,
            "digest": str(manifest.digest),
            "size": len(manifest.raw),
            "annotations": {REF_NAME: name.full},
        }
        for name, manifest in models
    ]
    return msgspec.json.encode({"schemaVersion": 2, "mediaType": _INDEX_TYPE, "manifests": rows})


# Reading


@dataclass(frozen=True, slots=True)
class _Contents:
    """A checked table of contents: the models, and where the blobs they need lie in the archive."""

    models: Mapping[Name, Manifest]
    blobs: Mapping[Layer, tar.Member]


def _import(path: Path, store: Store, only: Name | None, prune: bool, report: Report) -> None:
    report(Progress("reading archive"))
    added: list[Digest] = []
    try:
        with _opened(path) as archive:
            contents = _read_contents(archive, only)
            require_space(store.root, sum(layer.size for layer in contents.blobs if not store.has_blob(layer.digest)))
            for layer, member in contents.blobs.items():
                _read_blob(archive, member, layer, store, added, report)
        report(Progress("writing manifest"))
        for name, manifest in contents.models.items():
            store.write_manifest(name, manifest.raw, prune)
    except BaseException:
        store.discard(added)
        raise


@contextmanager
def _opened(path: Path) -> Iterator[FileIO]:
    with disk.explained(path, "reading"):
        if not exists(path):
            raise NotFound(f'no such file: "{path}"')
        if not path.is_file():
            raise BadRequest(f'"{path}" is not a file')
        opened = disk.open_regular(path)
    with opened as archive, disk.explained(path, "reading"):
        yield archive


def _read_contents(archive: FileIO, only: Name | None) -> _Contents:
    """Reads all but the blobs, and checks that what the models need is there, once and in its size."""
    files: dict[str, tar.Member] = {}
    for member in tar.members(archive):
        file_name = _safe_name(member.name)
        if file_name in files:
            raise SourceError(f'the archive has "{file_name}" twice')
        files[file_name] = member
    layout = _decoded(_read_file(archive, files, _LAYOUT, 4096), _Layout, _LAYOUT)
    if layout.version.split(".")[0] != "1":
        raise SourceError(f'the archive has the unknown version "{layout.version[:20]}"')
    index = _decoded(_read_file(archive, files, _INDEX, _MAX_INDEX_BYTES), _Index, _INDEX)
    models: dict[Name, Manifest] = {}
    for descriptor in index.manifests:
        name = _name_of(descriptor)
        if only is not None and name.folded != only.folded:
            continue
        if name in models:
            raise SourceError(f'the archive has the model "{name}" twice')
        models[name] = _read_manifest(archive, files, descriptor, name)
    if not models:
        raise NotFound(f'the archive has no model "{only}"' if only else "the archive has no models")
    return _Contents(models, _needed(models, files))


def _needed(models: Mapping[Name, Manifest], files: Mapping[str, tar.Member]) -> Mapping[Layer, tar.Member]:
    found: dict[Digest, tuple[Layer, tar.Member]] = {}
    for name, manifest in models.items():
        for layer in manifest.blobs:
            member = files.get(_blob_name(layer.digest))
            if member is None:
                raise SourceError(f'the archive lacks the blob "{layer.digest}" of "{name}"')
            if member.size != layer.size:
                sizes = f"{member.size} bytes in the archive instead of {layer.size}"
                raise SourceError(f'the blob "{layer.digest}" of "{name}" has {sizes}')
            found[layer.digest] = layer, member
    return dict(found.values())


def _read_manifest(archive: FileIO, files: Mapping[str, tar.Member], descriptor: _Descriptor, name: Name) -> Manifest:
    try:
        digest = parse_digest(descriptor.digest)
        raw = _read_file(archive, files, _blob_name(digest), MAX_MANIFEST_BYTES)
        if hashlib.sha256(raw).hexdigest() != digest.hex:
            raise SourceError(f'"{digest}" has another digest')
        manifest = parse_manifest(raw)
    except CorralError as error:
        raise SourceError(f'the manifest of "{name}" in the archive cannot be used: {error}') from error
    if not any(layer.media_type.startswith(_OURS) for layer in manifest.layers):
        raise SourceError(f'"{name}" in the archive is no model')
    return manifest


def _read_blob(
    archive: FileIO, member: tar.Member, layer: Layer, store: Store, added: list[Digest], report: Report
) -> None:
    count = throttled_progress(report, f"importing {layer.digest.short}", str(layer.digest), layer.size)
    archive.seek(member.offset)
    if store.touch(layer.digest, layer.size):
        state, done = hashlib.sha256(), 0
        for chunk in _chunks(archive, member):
            state.update(chunk)
            count(done := done + len(chunk))
        _check(layer, Digest(state.hexdigest()))
        return
    with store.writer() as writer:
        for chunk in _chunks(archive, member):
            writer.write(chunk)
            count(writer.size)
        _check(layer, writer.digest)
        if writer.commit()[1]:
            added.append(layer.digest)


def _chunks(archive: FileIO, member: tar.Member) -> Iterator[bytes]:
    left = member.size
    while left:
        chunk = archive.read(min(disk.COPY_BYTES, left))
        if not chunk:
            raise SourceError("the archive is cut short")
        left -= len(chunk)
        yield chunk


def _check(layer: Layer, digest: Digest) -> None:
    if digest != layer.digest:
        raise SourceError(f'the blob "{layer.digest}" in the archive is damaged: its digest is "{digest}"')


def _read_file(archive: FileIO, files: Mapping[str, tar.Member], name: str, limit: int) -> bytes:
    member = files.get(name)
    if member is None:
        raise SourceError(f'the archive has no "{name}"')
    if member.size > limit:
        raise SourceError(f'"{name}" in the archive has {member.size} bytes')
    archive.seek(member.offset)
    return archive.read(member.size)


def _decoded(raw: bytes, kind: type[_Decoded], name: str) -> _Decoded:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SourceError(f'"{name}" in the archive cannot be read: {str(error)[:200]}') from error


def _name_of(descriptor: _Descriptor) -> Name:
    text = descriptor.annotations.get(REF_NAME, "")
    try:
        return names.parse(text)
    except InvalidName as error:
        raise SourceError(f'the archive has a model with the invalid name "{text[:200]}"') from error


def _safe_name(text: str) -> str:
    """The name of a file in the archive, without the `./` that some programs put before it."""
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or "\\" in text or not text.isprintable():
        raise SourceError(f"the archive has a file with the unsafe name {text[:200]!r}")
    return str(path)


def _blob_name(digest: Digest) -> str:
    return f"blobs/sha256/{digest.hex}"
