"""From files to models: parts of split ones together, projectors with their models, a name for each. Opens nothing."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from corral.adopting.found import Candidate, File, Found, Left
from corral.errors import InvalidName
from corral.names import DEFAULT_HOST, DEFAULT_NAMESPACE, DEFAULT_TAG, Name, parse_split_part
from corral.sources.hub.files import level_of

Repository = tuple[str, str, str]
"""Host, namespace and model of a name."""

_PROJECTOR = re.compile(r"(?:^|[-._])mmproj(?:[-._]|$)", re.IGNORECASE)
_NO_MODEL = re.compile(r"(?:^|[-._])(?:imatrix|vocab)(?:[-._]|$)", re.IGNORECASE)
_WRONG = re.compile(r"[^A-Za-z0-9_.-]+")


def is_projector(path: Path) -> bool:
    """By its name."""
    return _PROJECTOR.search(path.stem) is not None


def grouped(
    files: Iterable[File], tool: str, repository: Callable[[File], Repository | None], *, is_shared: bool
) -> Found:
    """The models of files that lie together.

    `repository`: what a file's model is called, None where nobody says; then its own name does. `is_shared`: a
    projector is for each of the models; else for those whose name its own has in it, or for the only one.
    """
    sets, projectors, left = _sets(files)
    found: list[Candidate] = []
    for path, parts in sets.items():
        name = _name(path, repository(parts[0]))
        if missing := _missing(parts):
            left.append(Left(parts[0].path, missing))
        elif name is None:
            left.append(Left(parts[0].path, "has a name that no model can have: rename it"))
        else:
            found.append(Candidate(name, tool, tuple(sorted(parts, key=lambda part: part.path.name))))
    models = _with_projectors(found, projectors, is_shared)
    used = {file.path for model in models for file in model.projectors}
    left += [Left(file.path, _unused(found, is_shared)) for file in projectors if file.path not in used]
    return Found(_distinct(models), tuple(left))


def _sets(files: Iterable[File]) -> tuple[dict[Path, list[File]], list[File], list[Left]]:
    """The files of each model, by its path without the number of a part; projectors; what is neither."""
    sets: dict[Path, list[File]] = {}
    projectors: list[File] = []
    left: list[Left] = []
    for file in files:
        if is_projector(file.path):
            projectors.append(file)
        elif _NO_MODEL.search(file.path.stem):
            left.append(Left(file.path, "is no model by its name, but what belongs to one"))
        else:
            part = parse_split_part(file.path.name)
            sets.setdefault(file.path.with_name(part.stem) if part else file.path, []).append(file)
    return sets, projectors, left


def together(several: Iterable[Found]) -> Found:
    """All of them as one; a file found twice counts once, and of a name's two models the second gets another."""
    models: dict[tuple[Path, ...], Candidate] = {}
    left: dict[Left, None] = {}
    for found in several:
        for model in found.models:
            models.setdefault(tuple(part.real for part in model.parts), model)
        left |= dict.fromkeys(found.left)
    return Found(_distinct(models.values()), tuple(left))


def in_name(text: str) -> str:
    """A text with what no name may have replaced, so that it can be a part of one; it may be empty."""
    return _WRONG.sub("-", text).strip("-.")[:80]


def _missing(parts: Sequence[File]) -> str:
    """What a split model lacks; empty when it is whole."""
    split = parse_split_part(parts[0].path.name)
    if split is None or len(parts) == split.count:
        return ""
    return f"is one of {split.count} parts, of which {len(parts)} are there"


def _name(path: Path, repository: Repository | None) -> Name | None:
    """The model's, and its quantisation for a tag, where the file's name tells it."""
    stem = path.name.removesuffix(path.suffix) if path.suffix.lower() == ".gguf" else path.name
    level = level_of(path.name) or level_of(path.parent.name)
    if repository is None:
        repository = (DEFAULT_HOST, DEFAULT_NAMESPACE, in_name(base_of(stem)))
    try:
        return Name(*repository, level or DEFAULT_TAG)
    except InvalidName:
        return None


def base_of(stem: str) -> str:
    """A file's name without the quantisation at its end."""
    level = level_of(stem)
    head = stem[: len(stem) - len(level)]
    return head.rstrip("-._") if level and stem.upper().endswith(level) and head.rstrip("-._") else stem


def _with_projectors(models: Sequence[Candidate], projectors: Sequence[File], is_shared: bool) -> list[Candidate]:
    """Each model with the smallest projector that is for it, as a registry gives it."""
    given = []
    bases = [base_of(_stem(model.parts[0].path)).lower() for model in models]
    for model, base in zip(models, bases, strict=True):
        fitting = projectors
        if not is_shared and len(set(bases)) > 1:
            fitting = [file for file in projectors if base in file.path.name.lower()]
        best = min(fitting, key=lambda file: (file.size, file.path.name), default=None)
        given.append(replace(model, projectors=(best,)) if best else model)
    return given


def _stem(path: Path) -> str:
    """A file's name without its number as a part, and without its suffix."""
    part = parse_split_part(path.name)
    return part.stem if part else path.stem


def _unused(models: Sequence[Candidate], is_shared: bool) -> str:
    if not models:
        return "is a projector, and no model lies beside it"
    if is_shared:
        return "is a projector of which the models beside it take a smaller one"
    return "is a projector, and its name does not say of which model: `corral create` takes any two together"


def _distinct(models: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """The same, the second of a name being called by its file."""
    taken: set[Name] = set()
    named = []
    for model in models:
        name = model.name
        if name.folded in taken:
            name = replace(name, tag=in_name(_stem(model.parts[0].path)) or "other")
        number = 2
        while name.folded in taken:
            name = replace(model.name, tag=f"{model.name.tag[:70]}-{number}")
            number += 1
        taken.add(name.folded)
        named.append(replace(model, name=name))
    return tuple(named)
