"""What is found: files, the models they make up, and what is left where it is, with the reason. Values only."""

from dataclasses import dataclass
from pathlib import Path

from corral.names import Digest, Name


@dataclass(frozen=True, slots=True)
class File:
    """A file of another program's."""

    path: Path
    """Where it was found, under the name that its program shows."""
    real: Path
    """Where its bytes are, links followed."""
    size: int
    """In bytes."""
    digest: Digest | None = None
    """Where its program knows it: Hugging Face names large files by their SHA-256."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that could be adopted."""

    name: Name
    tool: str
    parts: tuple[File, ...]
    """The model's file, or all parts of a split one."""
    projectors: tuple[File, ...] = ()

    @property
    def files(self) -> tuple[File, ...]:
        return (*self.parts, *self.projectors)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True, slots=True)
class Left:
    """What is not adopted, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Found:
    """What is in some folders."""

    models: tuple[Candidate, ...] = ()
    left: tuple[Left, ...] = ()
