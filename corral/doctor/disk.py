"""The disk that models lie on: whether it can be written to, its room, and what it can share."""

import os
from collections.abc import Iterator
from pathlib import Path

from corral.doctor.findings import Finding
from corral.errors import CorralError
from corral.golang.units import byte_text
from corral.store import disk

SUBJECT = "Disk"

LITTLE = 5 << 30
"""Free bytes below which a download of usual size may not fit."""


def examine(models: Path) -> Iterator[Finding]:
    """The folder of the models, which need not be there yet."""
    folder = disk.nearest(models)
    if folder != models:
        yield Finding(SUBJECT, "ok", f'"{models}" is not there yet; it is made when the first model comes')
    if not folder.is_dir():
        yield Finding(SUBJECT, "wrong", f'"{folder}" is no folder', "set OLLAMA_MODELS to one, or move the file away")
        return
    if not os.access(folder, os.W_OK | os.X_OK):
        yield Finding(
            SUBJECT,
            "wrong",
            f'"{folder}" cannot be written to, so that no model can be added',
            f'`sudo chown -R "$USER" {folder}`, or another folder in OLLAMA_MODELS',
        )
    free = disk.free_bytes(folder)
    text = f'{byte_text(free)} are free for "{models}"'
    remedy = "delete models with `corral rm`, or set OLLAMA_MODELS to a folder on a larger disk"
    yield Finding(SUBJECT, "wrong", text, remedy) if free < LITTLE else Finding(SUBJECT, "ok", text)
    if folder == models and os.access(folder, os.W_OK | os.X_OK):
        yield from _sharing(folder)


def _sharing(folder: Path) -> Iterator[Finding]:
    """Whether files of yours can be taken over without copying them."""
    source, target = disk.temporary(folder, ".corral-doctor-"), disk.temporary(folder, ".corral-doctor-")
    try:
        with disk.explained(folder, "writing to"):
            source.write_bytes(b"doctor")
            with open(source, "rb", buffering=0) as file:
                can_clone = disk.clone(file, target)
            target.unlink(missing_ok=True)
            can_link = disk.hard_link(source, target)
    except CorralError as error:
        yield Finding(SUBJECT, "wrong", str(error), "make room on the disk, or see why it cannot be written to")
        return
    finally:
        source.unlink(missing_ok=True)
        target.unlink(missing_ok=True)
    if can_clone:
        yield Finding(SUBJECT, "ok", "files on the same disk are taken over without copying (reflinks)")
    elif can_link:
        yield Finding(SUBJECT, "ok", "files on the same disk are taken over without copying (hard links; no reflinks)")
    else:
        yield Finding(
            SUBJECT, "note", "files that become models are copied: this disk has neither reflinks nor hard links"
        )
    home = Path.home()
    if home.exists() and home.stat().st_dev != folder.stat().st_dev:
        yield Finding(SUBJECT, "note", f'"{folder}" is on another disk than "{home}": files from there are copied')
