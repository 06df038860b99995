"""From the files of a repository to the quantisations that can be pulled of it. Knows names and sizes, opens nothing.

Source: the hub's documentation of pulling with Ollama: a tag is the name of a quantisation, in any case, or of a file.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from corral.errors import InvalidName
from corral.names import Name, parse_split_part

HOST = "hf.co"
"""The registry's host in the names of models, as short as the hub takes it."""

_KIND = (
    r"(?:UD-)?I?Q[1-9]_(?:[0-9]_[0-9]_[0-9]|K_(?:XXS|XS|S|M|L|XL)|XXS|XS|NL|[01KSML])"
    r"|TQ[12]_0|MXFP4(?:_MOE)?|BF16|F16|F32|FP16"
)
"""The names of quantisations; the longer ones first, since a shorter one may be their beginning."""

_QUANTISATION = re.compile(rf"(?:^|[-._/])({_KIND})(?=[-._/]|$)", re.IGNORECASE)
_NO_MODEL = re.compile(r"(?:^|[-._/])(?:mmproj|imatrix|vocab)(?:[-._]|$)", re.IGNORECASE)
_PROJECTOR = re.compile(r"(?:^|[-._/])mmproj(?:[-._]|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class File:
    """A file of a repository: its path there, and its size in bytes."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Quantisation:
    """A model as it can be pulled. `level` is its kind (`Q4_K_M`), empty where the file's name does not tell."""

    name: Name
    level: str
    size: int
    """Bytes of all its files, with the projector that comes along."""
    first: str
    """The path of its first file, in whose beginning the keys are."""
    first_size: int


def quantisations(repository: str, files: Iterable[File]) -> tuple[Quantisation, ...]:
    """What can be pulled of a repository (`owner/name`), the smallest first.

    A model in several files counts when they are all there. Of two files with one quantisation the first has its name,
    as it is what the registry gives for it; the others are named by their file. What no name can be made for is left
    out.
    """
    models: dict[str, list[File]] = {}
    projectors: list[File] = []
    for file in files:
        if not file.path.lower().endswith(".gguf"):
            continue
        if _PROJECTOR.search(file.path):
            projectors.append(file)
        elif not _NO_MODEL.search(file.path):
            part = parse_split_part(file.path)
            models.setdefault(part.stem if part else file.path, []).append(file)
    projector = min((file.size for file in projectors), default=0)
    found: list[Quantisation] = []
    taken: set[str] = set()
    for parts in sorted(models.values(), key=lambda parts: parts[0].path):
        parts.sort(key=lambda file: file.path)
        if not _is_whole(parts):
            continue
        level = level_of(parts[0].path)
        tag = level if level and level not in taken else parts[0].path.rpartition("/")[2]
        name = _name(repository, tag)
        if name is not None and tag not in taken:
            taken.add(tag)
            size = sum(part.size for part in parts) + projector
            found.append(Quantisation(name, level, size, parts[0].path, parts[0].size))
    return tuple(sorted(found, key=lambda one: (one.size, one.name)))


def level_of(path: str) -> str:
    """The kind of quantisation that a file's name tells, in capitals; of several in it the last. Empty: none."""
    found = _QUANTISATION.findall(path)
    return str(found[-1]).upper() if found else ""


def _is_whole(parts: list[File]) -> bool:
    """Whether a model's files, in order, are all that its first one's name promises."""
    split = parse_split_part(parts[0].path)
    return len(parts) == 1 if split is None else [file.path for file in parts] == _expected(parts[0].path)


def _expected(first: str) -> list[str]:
    split = parse_split_part(first)
    assert split is not None
    return [split.sibling(number) for number in range(1, min(split.count, 10_000) + 1)]


def _name(repository: str, tag: str) -> Name | None:
    owner, _, model = repository.partition("/")
    try:
        return Name(HOST, owner, model, tag)
    except InvalidName:
        return None
