"""What is fed with random bytes: each target returns, or takes one of the errors that its reader declares.

Any other exception is a finding, and so is an input that takes more than `SECONDS` of processor time.
"""

import asyncio
import contextlib
import json
import os
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from corral import gguf, llamafile, media, modelfile, names
from corral.convert import safetensors
from corral.engine.llama import wire
from corral.engine.llama.events import EventReader
from corral.engine.llama.prefill import PrefillStats
from corral.errors import (
    BadRequest,
    CorralError,
    EngineError,
    InvalidName,
    ModelFileError,
    NotFound,
    SourceError,
    StoreError,
)
from corral.gguf import writer
from corral.llamafile import arguments, bundles
from corral.sources import archive
from corral.sources.registry.auth import parse_challenges
from corral.store import Store
from corral.store.manifest import parse_manifest

SECONDS = 2.0
MEGABYTES = 256
"""Of memory for the whole process, which takes a third of it before the first input."""

MEGABYTES_OF = {"media": 1024}
"""A picture may have 64 million pixels, also one of a few bytes; a server reads no more than two at once."""

Target = Callable[[bytes], None]

_SCRATCH = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
_FILE = Path(tempfile.gettempdir()) / f"corral-fuzz-{os.getpid()}"


class SlowError(Exception):
    """An input took too long."""


def run(name: str, data: bytes) -> None:
    """Feeds a target; raises what should not have come of it."""
    began = time.process_time()
    TARGETS[name](data)
    if (seconds := time.process_time() - began) > SECONDS:
        raise SlowError(f"{seconds:.1f} s for {len(data)} bytes")


def read_gguf(data: bytes) -> None:
    """Reads a model file and asks it everything that is asked when a model is made of it and shown."""
    try:
        file = gguf.read(_written(data))
        gguf.check_new(file)
    except ModelFileError as error:
        _check_sentence(error)
        return
    json.dumps(file.model_info(verbose=True), allow_nan=False)
    assert file.weights_bytes <= file.size
    assert file.kv_bytes_per_token() >= 0
    assert file.capabilities
    assert all(file.data_offset <= tensor.offset <= file.size - tensor.size for tensor in file.tensors)
    assert file.chat_template is None or isinstance(file.chat_template, str)
    if not file.big_endian and file.version > 1:
        writer.layout(writer.copied_fields(file), file.tensors, alignment=file.alignment, version=3)


def read_modelfile(data: bytes) -> None:
    """Reads a Modelfile to the end: its commands, and what they come to."""
    try:
        modelfile.contents(modelfile.parse(modelfile.decode(data)))
    except CorralError as error:  # which quotes the file's own line, as it is
        if len(str(error)) not in range(1, 1000 + len(data)):
            raise AssertionError(repr(error)) from error


def read_safetensors(data: bytes) -> None:
    """Reads the header of a file of tensors; every tensor lies within the file."""
    try:
        tensors = safetensors.read(_written(data), "model.safetensors")
    except ModelFileError as error:
        _check_sentence(error)
        return
    for tensor in tensors:
        tensor.read(0, 0)


def read_names(data: bytes) -> None:
    """Reads names of models, digests, and names of files of a split model: what comes out leads out of no folder."""
    text = data.decode("utf-8", "replace")
    with contextlib.suppress(InvalidName):
        name = names.parse(text)
        assert names.parse(name.full) == name
        assert len(name.path.parts) == 4
        assert not {"", ".", ".."} & set(name.path.parts)
    with contextlib.suppress(BadRequest):  # also for two suffixes
        names.parse_reference(text)
    with contextlib.suppress(InvalidName):
        digest = names.parse_digest(text)
        assert re.fullmatch(r"sha256-[0-9a-f]{64}", digest.filename)
        assert str(digest) == text.replace("-", ":")
    if (part := names.parse_split_part(text)) is not None:
        assert part.count >= 0


def read_manifest(data: bytes) -> None:
    """Reads a manifest: every layer has a digest and a size that a disk may have."""
    try:
        manifest = parse_manifest(data)
    except StoreError as error:
        _check_sentence(error)
        return
    assert manifest.size >= 0
    assert all(0 <= layer.size < 1 << 63 for layer in manifest.blobs)
    assert manifest.raw == data


def read_challenges(data: bytes) -> None:
    """Reads `WWW-Authenticate` headers: words without the signs that part them."""
    for challenge in parse_challenges(data.decode("latin-1").splitlines()):
        for word in (challenge.scheme, *challenge.parameters):
            assert re.fullmatch(r"[a-z0-9_-]+", word), word


def read_events(data: bytes) -> None:
    """Reads an engine's events, whole and in pieces, and makes of them what the client does."""
    whole, apart = _events([data]), _events([data[at : at + 7] for at in range(0, len(data), 7)])
    assert whole == apart
    calls: dict[int, wire.CallParts] = {}
    for event in whole:
        with contextlib.suppress(EngineError):
            completion = wire.decoded(wire.decode_completion, event)
            wire.completion_piece(completion, 2)
            wire.completion_finish(completion, PrefillStats())
            if completion.prompt_progress is not None:
                wire.progress_piece(completion.prompt_progress, PrefillStats())
        with contextlib.suppress(EngineError):
            for choice in wire.decoded(wire.decode_chat, event).choices:
                wire.chat_piece(choice, ())
                wire.collect_calls(calls, choice.delta.tool_calls)
    wire.finished_calls(calls)


def _events(pieces: list[bytes]) -> list[bytes]:
    """Up to the first that is an error."""
    reader = EventReader()
    found: list[bytes] = []
    with contextlib.suppress(EngineError):
        for piece in pieces:
            found.extend(reader.feed(piece))
    return found


def read_archive(data: bytes) -> None:
    """Takes the models of an archive into a store: all of each, or nothing at all."""
    with tempfile.TemporaryDirectory(dir=_SCRATCH) as folder:
        store = Store(Path(folder) / "models")
        try:
            asyncio.run(_imported(_written(data), store))
        except (SourceError, NotFound, StoreError) as error:
            _check_sentence(error)
        finally:
            store.close()
        assert {path.name for path in Path(folder).iterdir()} <= {"models"}
        assert {layer.digest for stored in store.list() for layer in stored.manifest.blobs} == store.references()


async def _imported(path: Path, store: Store) -> None:
    async for _ in archive.import_(path, store):
        pass


def read_llamafile(data: bytes) -> None:
    """Reads a llamafile or a bundle, and the arguments in a llamafile: all that is named lies within the file."""
    path = _written(data)
    try:
        bundle = bundles.read(path) if llamafile.container(path) == "bundle" else None
        found = llamafile.read(path) if bundle is None else None
    except ModelFileError as error:
        _check_sentence(error)
        return
    stretches = [*bundle.files.values()] if bundle is not None else []
    stretches += found.files.values() if found is not None else []
    assert stretches
    assert all(stretch.offset >= 0 and stretch.offset + stretch.size <= len(data) for stretch in stretches)
    if found is not None:
        json.dumps(found.arguments.parameters, allow_nan=False)
        assert len(found.arguments.system) <= arguments.MAX_SYSTEM


def read_media(data: bytes) -> None:
    """Reads a picture or a sound: a picture becomes a plain one."""
    try:
        (prepared,) = media.prepare([data])
    except BadRequest as error:
        _check_sentence(error)
        return
    assert prepared[:4] in (b"\x89PNG", b"RIFF", b"fLaC") or prepared == data


TARGETS: dict[str, Target] = {
    "gguf": read_gguf,
    "modelfile": read_modelfile,
    "safetensors": read_safetensors,
    "names": read_names,
    "manifest": read_manifest,
    "challenges": read_challenges,
    "events": read_events,
    "archive": read_archive,
    "llamafile": read_llamafile,
    "media": read_media,
}


def _check_sentence(error: CorralError) -> None:
    """An error speaks to a person, on a line of its own."""
    sentence = str(error)
    if not sentence or not sentence.replace("\n", " ").isprintable():
        raise AssertionError(repr(sentence)) from error


def _written(data: bytes) -> Path:
    _FILE.write_bytes(data)
    return _FILE
