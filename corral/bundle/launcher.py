"""A llamafile: a launcher program that the user has, a model appended to it, and the arguments it starts with.

The launcher is only copied and never run. Weights begin at whole pages, so that the program maps them. Source: the
README of llamafile ("Creating llamafiles").
"""

import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

from corral.background import Report
from corral.bundle.tail import add_aligned, member_info
from corral.errors import BadRequest, NotFound
from corral.llamafile import ARGUMENTS, PROGRAMS
from corral.llamafile.arguments import encode
from corral.messages import Progress
from corral.store import Layer, MediaType, Store, Stored, disk
from corral.store.blobs import require_space

MAX_LAUNCHER = 2 << 30


def write(stored: Stored, store: Store, program: Path, path: Path, report: Report, *, replaces: bool) -> int:
    """Writes the file, which appears when it is complete; its bytes. `BadRequest` for what is no launcher."""
    size = _check_launcher(program)
    manifest = stored.manifest
    weights = [layer for layer in manifest.layers if layer.media_type == MediaType.MODEL]
    projectors = [layer for layer in manifest.layers if layer.media_type == MediaType.PROJECTOR]
    for layer in manifest.layers:
        if layer.media_type == MediaType.ADAPTER:
            raise BadRequest(f'"{stored.name}" has an adapter, which no llamafile carries: make a bundle of it')
    if any(layer.media_type in (MediaType.TEMPLATE, MediaType.PROMPT, MediaType.MESSAGES) for layer in manifest.layers):
        report(Progress("without the template and messages of the model: a llamafile uses the one in its weights"))
    files = {"model.gguf": weights[0], **({"mmproj.gguf": projectors[0]} if projectors else {})}
    require_space(path.parent, size + sum(layer.size for layer in files.values()))
    target = disk.temporary(path.parent, ".corral-")
    with disk.explained(path, "writing"):
        try:
            shutil.copyfile(program, target)
            with zipfile.ZipFile(target, "a", zipfile.ZIP_STORED) as archive:
                archive.writestr(
                    member_info(ARGUMENTS),
                    encode(list(files), _text(store, manifest.layers), _params(store, manifest.layers)),
                )
                for member, layer in files.items():
                    is_large = layer.size > zipfile.ZIP64_LIMIT // 2
                    add_aligned(archive, archive.start_dir, member, store, layer, report, zip64=is_large)
            target.chmod(0o755)
            with target.open("rb+") as file:
                os.fsync(file.fileno())
            if replaces:
                target.replace(path)
            else:
                os.link(target, path)
        finally:
            target.unlink(missing_ok=True)
    return path.stat().st_size


def _check_launcher(program: Path) -> int:
    """Its bytes; `BadRequest` for a file that is no program, or has a model in it already."""
    if not program.exists():
        raise NotFound(f'no such file: "{program}"')
    with disk.explained(program, "reading"), disk.open_regular(program) as file:
        head, size = file.read(4), os.fstat(file.fileno()).st_size
    if not head.startswith(PROGRAMS):
        raise BadRequest(f'"{program}" is no launcher: it does not begin as a program does')
    if size > MAX_LAUNCHER:
        raise BadRequest(f'"{program}" is no launcher: it has {size} bytes')
    try:
        with zipfile.ZipFile(program) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return size  # a program without an archive, which gets one
    except (ValueError, LookupError, NotImplementedError, EOFError) as error:
        raise BadRequest(f'the archive in "{program}" cannot be read') from error
    if taken := [name for name in names if name == ARGUMENTS or name.lower().endswith(".gguf")]:
        raise BadRequest(f'"{program}" has "{taken[0]}" in it already; a launcher without a model is needed')
    return size


def _text(store: Store, layers: tuple[Layer, ...]) -> str:
    found = [layer for layer in layers if layer.media_type == MediaType.SYSTEM]
    return store.open_path(found[-1].digest).read_text("utf-8", "replace") if found else ""


def _params(store: Store, layers: tuple[Layer, ...]) -> dict[str, Any]:
    found = [layer for layer in layers if layer.media_type == MediaType.PARAMS]
    if not found:
        return {}
    try:
        read = json.loads(store.open_path(found[-1].digest).read_bytes())
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}
