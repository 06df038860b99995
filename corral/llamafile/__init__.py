"""Files of llamafile: a program that is also a zip archive, with a model's weights and the arguments it starts with.

Also tells such a file from a bundle and from any other (`container`). The archive is read with distrust, and the
program is never run. What is wanted lies uncompressed, so that it is a stretch of the file (`archive.py`); the
arguments are those of llama.cpp's programs (`arguments.py`). Source: the README of llamafile ("Creating llamafiles"),
PKWARE's APPNOTE for zip.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

from msgspec import Struct

from corral.errors import ModelFileError
from corral.llamafile import bundles
from corral.llamafile.archive import Stretch, members, opened
from corral.llamafile.arguments import Arguments, parse

__all__ = ["ARGUMENTS", "PROGRAMS", "Container", "Llamafile", "Stretch", "container", "read"]

Container: TypeAlias = Literal["llamafile", "bundle"]
"""What a model may lie in: its weights are a part of such a file."""

ARGUMENTS = ".args"
"""The member with the arguments, a line each."""
MAX_ARGUMENTS = 64 << 10
PROGRAMS = (b"MZ", b"\x7fELF", b"#!")
"""What a program that may be run begins with: llamafile's own, one of Linux, a script."""


class Llamafile(Struct, frozen=True):
    """What of it becomes a model. `arguments` are those that Corral has a meaning for."""

    weights: Stretch
    projector: Stretch | None
    arguments: Arguments

    @property
    def files(self) -> dict[str, Stretch]:
        """Its stretches by the names that they have as files of a model."""
        return {"model.gguf": self.weights, **({"mmproj.gguf": self.projector} if self.projector else {})}


def container(path: Path) -> Container | None:
    """What a file is that a model lies in; None for any other file, and for what is no file or cannot be read."""
    if _is_llamafile(path):
        return "llamafile"
    return "bundle" if bundles.looks_like_bundle(path) else None


def _is_llamafile(path: Path) -> bool:
    """Whether a file begins as a program and ends as an archive with a GGUF file in it; False also for a broken one."""
    try:
        with opened(path) as file:
            begins = file.read(4)
        return begins.startswith(PROGRAMS) and any(_is_gguf(name) for name in members(path))
    except (OSError, ValueError, ModelFileError):
        return False


def read(path: Path) -> Llamafile:
    """The parts of a llamafile. `ModelFileError` says what is wrong with it; `OSError`."""
    found = members(path)
    arguments = Arguments()
    if ARGUMENTS in found:
        arguments = parse(_text(path, found[ARGUMENTS]))
    models = {name: stretch for name, stretch in found.items() if _is_gguf(name)}
    projector = _named(models, arguments.projector, "--mmproj")
    if projector is None:
        projector = next((name for name in models if "mmproj" in name.lower()), None)
    rest = [name for name in models if name != projector]
    weights = _named(models, arguments.model, "--model") or (rest[0] if len(rest) == 1 else None)
    if weights is None:
        listed = ", ".join(f'"{name}"' for name in rest[:5])
        raise ModelFileError(
            f"it holds {len(rest)} models ({listed}) and its arguments name none" if rest else "it holds no GGUF file"
        )
    for name in filter(None, (weights, projector)):
        _check(path, name, models[name])
    return Llamafile(models[weights], models[projector] if projector else None, arguments)


def _is_gguf(name: str) -> bool:
    return name.lower().endswith(".gguf")


def _named(models: Mapping[str, Stretch], wanted: str, flag: str) -> str | None:
    """The member that an argument names; None where none does. Programs look below `/zip/`, too."""
    if not wanted:
        return None
    name = wanted.removeprefix("/zip/")
    if name not in models:
        raise ModelFileError(f'its arguments have {flag} "{wanted}", which it does not hold')
    return name


def _check(path: Path, name: str, stretch: Stretch) -> None:
    with opened(path) as file:
        file.seek(stretch.offset)
        if file.read(4) != b"GGUF":
            raise ModelFileError(f'"{name}" in it is no GGUF file')


def _text(path: Path, stretch: Stretch) -> str:
    if stretch.size > MAX_ARGUMENTS:
        raise ModelFileError(f"its arguments have {stretch.size} bytes: more than {MAX_ARGUMENTS}")
    with opened(path) as file:
        file.seek(stretch.offset)
        return file.read(stretch.size).decode("utf-8", "replace")
