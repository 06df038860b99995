"""Makes bundles without what runs them, for tests of how they are read and started."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from corral import bundle, names
from corral.bundle import Runtime
from corral.models import assemble
from corral.store import Layer, MediaType, Store, encode_manifest
from tests.tiny_models import tiny_llama

NAME = names.parse("tiny")


def store_with_model(root: Path) -> Store:
    """With the model `tiny`, which has a template, a system prompt, parameters and messages."""
    store = Store(root)
    made = assemble.assemble({"tiny.gguf": tiny_llama(root.parent / "tiny.gguf")}, store, system="You are tiny.")
    stored = assemble.write_model(NAME, made, store)
    texts = {
        MediaType.TEMPLATE: b"{{ .Prompt }}",
        MediaType.PARAMS: b'{"num_ctx":64,"stop":["x"]}\n',
        MediaType.MESSAGES: b'[{"role":"user","content":"hi"}]',
        MediaType.LICENSE: b"MIT",
    }
    layers = [layer for layer in stored.manifest.layers if layer.media_type not in texts]
    for media_type, data in texts.items():
        digest, size, _ = store.add_bytes(data)
        layers.append(Layer(media_type, digest, size))
    store.write_manifest(NAME, encode_manifest(stored.manifest.config, tuple(layers)))
    return store


def make_bundle(
    folder: Path, description: Mapping[str, Any] | None = None, files: Mapping[str, Path] | None = None
) -> Path:
    """A bundle of the model `tiny`, with a runtime as it is described, or one for no Python at all."""
    store = store_with_model(folder / "bundled-models")
    runtime = Runtime(files or {}, description or {"code": "", "targets": [], "sha256": {}})
    path = folder / "tiny-bundle.gguf"
    bundle.write(NAME, store, runtime, path, lambda _: None)
    store.close()
    return path


def rewritten(path: Path, change: Mapping[str, bytes | None], *, compression: int = zipfile.ZIP_STORED) -> Path:
    """The same bundle with other bytes in members, without those that are None, and with new ones."""
    with zipfile.ZipFile(path) as archive:
        begin = min(info.header_offset for info in archive.infolist())
        members: dict[str, bytes | None] = {name: archive.read(name) for name in archive.namelist()}
    members |= change
    with path.open("r+b") as file:
        file.truncate(begin)
        file.seek(begin)
        with zipfile.ZipFile(file, "a", compression) as archive:
            for name, data in members.items():
                if data is not None:
                    archive.writestr(name, data)
    return path
