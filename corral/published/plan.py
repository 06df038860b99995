"""What is to be written for a published file: a family's drafts, made final and checked. Reads headers only."""

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from corral import gguf
from corral.errors import ModelFileError
from corral.gguf import GGUF
from corral.gguf.types import DEFAULT_ALIGNMENT
from corral.gguf.writer import Layout, layout
from corral.published.draft import Draft
from corral.published.recipe import Recipe


class Drafts(Struct, frozen=True):
    """What a family makes of a file; None: no such part, or nothing of it has to change."""

    text: Draft | None = None
    projector: Draft | None = None


class Family(Struct, frozen=True, kw_only=True):
    """A published layout. `version` is to be raised when the rules come to make something else of a file."""

    name: str
    version: int
    architectures: tuple[str, ...]
    """As the published file names them."""
    recognises: Callable[[GGUF], bool]
    """Whether a file of one of these architectures has the layout."""
    derive: Callable[[GGUF], Drafts]


class Part(Struct, frozen=True):
    """One file that the engine is to be given: its keys, encoded, and its tensors in their order."""

    fields: Mapping[str, bytes]
    recipes: tuple[Recipe, ...]
    alignment: int

    def layout(self) -> Layout:
        """The whole part as one file."""
        tensors = [recipe.tensor for recipe in self.recipes]
        return layout(self.fields, tensors, alignment=self.alignment)


class Plan(Struct, frozen=True):
    """What the engine is given instead of a file. Without a `text`, the file itself is it; `rules` names the rules."""

    rules: str
    text: Part | None = None
    projector: Part | None = None

    @property
    def parts(self) -> tuple[Part, ...]:
        return tuple(part for part in (self.text, self.projector) if part is not None)


def part_of(draft: Draft | None) -> Part | None:
    """A draft made final; `ModelFileError` for one without tensors."""
    if draft is None:
        return None
    if not draft.recipes:
        raise ModelFileError("the file has no tensors that the engine could be given")
    alignment = draft.file.alignment if "general.alignment" in draft.fields else DEFAULT_ALIGNMENT
    return Part(draft.fields, tuple(draft.recipes), alignment)


def planned_file(part: Part, path: Path, again: Callable[[], bytes]) -> GGUF:
    """The part as `gguf.read` would find it, checked like any file; it keeps no header, but gets it from `again`.

    `path` is the published file, which errors name.
    """
    laid_out = part.layout()
    file = gguf.read_planned(laid_out.header, laid_out.size, path)
    return msgspec.structs.replace(file, contents=again)
