"""The files that a request for a new model names: by digest in the store, or where they lie on this machine.

A file of this machine is taken over only under the digest that the request gives it. So a caller learns nothing of a
file whose bytes it does not know: not even whether there is one. Source: spec api §11.1, §11.3.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal

from corral import llamafile
from corral.background import Report
from corral.errors import BadRequest, CorralError, InvalidName
from corral.golang import gojson
from corral.llamafile import bundles
from corral.models.assemble import NO_DIGEST, throttled_progress
from corral.names import Digest
from corral.store import Store

Files = Mapping[str, Digest]
"""Files of a folder, by their relative names."""

Kind = Literal["gguf", "safetensors"]

MAX_CONFIG = 1 << 20
"""Bytes of a `config.json` that are looked at."""

LARGE = 8 << 20
"""Bytes of a file whose hashing takes long enough to be reported."""


def check_relative(path: str) -> None:
    """A file's key must be a clean relative path with slashes (spec api §11.1); `InvalidName`."""
    if path.startswith("/") or any(part in ("", ".", "..") for part in path.split("/")):
        raise InvalidName("file path must be relative")


def take_over(
    files: Files, paths: Mapping[Digest, Path], store: Store, record: Callable[[list[Digest]], None], report: Report
) -> None:
    """Sees to it that the store has every file; blocking, for as long as hashing takes.

    What it has not is taken over from where `paths` say it lies. `record` gets blobs that are new. `BadRequest` names a
    file that is in neither place, or is another one there.
    """
    for name, digest in files.items():
        if store.has_blob(digest):
            continue
        path = paths.get(digest)
        if path is None or not _adopt(path, digest, store, record, report):
            raise BadRequest(f'file "{name}" was not uploaded: there is no blob {digest}')


def _adopt(path: Path, digest: Digest, store: Store, record: Callable[[list[Digest]], None], report: Report) -> bool:
    """Whether the file, or a model's file in it, has this digest, and is a blob now."""
    try:
        stretches: Iterable[llamafile.Stretch | None] = (None,)
        match llamafile.container(path):
            case "llamafile":
                stretches = llamafile.read(path).files.values()
            case "bundle":
                stretches = bundles.read(path).files.values()
        for stretch in stretches:
            size = path.stat().st_size if stretch is None else stretch.size
            count = throttled_progress(report, f"adding {path.name}", NO_DIGEST, size) if size >= LARGE else None
            if stretch is None:
                adopted = store.adopt(path, progress=count)
            else:
                adopted = store.adopt_part(path, stretch.offset, stretch.size, count)
            if adopted.created:
                record([adopted.digest])
            if adopted.digest == digest:
                return True
    except (CorralError, OSError, ValueError):  # what is wrong with the file is for those who may read it
        pass
    return False


def kind_of(files: Files, store: Store) -> Kind:
    """What files make up a model: safetensors by their names, else GGUF (spec api §11.3); `BadRequest` for others."""
    if any(name.endswith(".safetensors") for name in files):
        return "safetensors"
    starts = [_first_bytes(store, digest) for digest in files.values()]
    if any(name.lower().endswith(".gguf") for name in files) or any(start[:4] == b"GGUF" for start in starts):
        return "gguf"
    if any(start == _ZIP for start in starts):
        raise BadRequest("unknown type\nPyTorch files cannot be read; give the model's safetensors or GGUF files")
    raise BadRequest("unknown type")


def is_fp8(files: Files, store: Store) -> bool:
    """Whether the weights of a safetensors folder are in FP8 (spec api §11.4)."""
    if "config.json" not in files:
        return False
    with open(store.open_path(files["config.json"]), "rb") as file:
        try:
            config = gojson.parse(file.read(MAX_CONFIG))
        except CorralError:
            return False
    match config:
        case {"quantization_config": {"quant_method": "fp8"}}:
            return True
        case {"quantization_config": {"quant_method": "compressed-tensors", "format": "float-quantized"}}:
            return True
        case _:
            return False


_ZIP = b"PK\x03\x04"
"""What PyTorch's files begin with."""


def _first_bytes(store: Store, digest: Digest) -> bytes:
    with open(store.open_path(digest), "rb") as file:
        return file.read(4)
