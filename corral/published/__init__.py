"""Model files as Ollama's registry has them that the engine does not load: recognised, and what to give it instead.

Ollama's engine repairs such files in memory while it loads them; Corral's is not changed, and gets a *derived file*.
Here is what that has to contain (`plan`), by the header alone. A family is a module of `families/` and a row of its
table; `draft` is what its rules change, `recipe` how a tensor is made, `general` what holds for every file;
`arithmetic` computes tensors, in a child process. Where derived files lie and how they are written is
`corral.models.derived`. A file that no rule changes is given to the engine as it is.
"""

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from corral import gguf
from corral.errors import ModelFileError
from corral.gguf import GGUF
from corral.gguf.keys import quoted
from corral.published import general
from corral.published.draft import Draft
from corral.published.families import FAMILIES, UNRUNNABLE
from corral.published.plan import Drafts, Family, Part, Plan, part_of, planned_file
from corral.published.recipe import Kept
from corral.published.values import has_any

__all__ = ["Family", "File", "Part", "Plan", "plan", "read"]

_TOWERS = ("v.", "mm.", "a.", "s.", "mtp.")
"""How names of tensors begin that no text model of the engine's has."""


class File(Struct, frozen=True):
    """A file of the store, and what the engine gets of it."""

    published_gguf: GGUF
    """As it is on the disk, which is what a person is shown."""
    rules: str
    """The rules by which derived files are made; empty: the engine is given the file itself."""
    text: GGUF
    """The model as the engine gets it; of a file that is a projector, that."""
    projector: GGUF | None = None
    """The encoder of pictures and sounds that is in the model's file, as the engine gets it."""
    derives_text: bool = False
    computed_bytes: int = 0
    """Of the projector: those of tensors that are computed, and so are nowhere in the published file."""


def read(path: Path) -> File:
    """A file, checked as `gguf.read` checks it, but as the engine would get it. `ModelFileError`."""
    found = gguf.read_structure(path)
    made = plan(found)
    if made is None:
        gguf.check(found)
        return File(found, "", found)
    text = found if made.text is None else planned_file(made.text, path, lambda: _header(path, "text"))
    if made.text is None and found.kind != "projector":
        gguf.check(found)
    encoder, computed = None, 0
    if made.projector is not None:
        computed = sum(recipe.tensor.size for recipe in made.projector.recipes if recipe.how != Kept())
        encoder = planned_file(made.projector, path, lambda: _header(path, "projector"))
    if found.kind == "projector" and encoder is not None:
        return File(found, made.rules, encoder, computed_bytes=computed)
    return File(found, made.rules, text, encoder, made.text is not None, computed)


def plan(file: GGUF) -> Plan | None:
    """What the engine is to be given instead of a file; None: the file itself.

    `ModelFileError` for a model that no version of the engine can run, and for one whose layout is known but which
    lacks something that the rules need.
    """
    if file.architecture in UNRUNNABLE:
        raise ModelFileError(UNRUNNABLE[file.architecture])
    if file.kind == "adapter" or file.split is not None:
        return None
    family = next((row for row in FAMILIES if file.architecture in row.architectures and row.recognises(file)), None)
    if family is None:
        _check_no_tower(file, [tensor.name for tensor in file.tensors])
        if not general.may_apply(file):
            return None
        drafts = Drafts(projector=Draft.of(file)) if file.kind == "projector" else Drafts(text=Draft.of(file))
    else:
        drafts = family.derive(file)
    if drafts.text is not None:
        _check_no_tower(file, [recipe.name for recipe in drafts.text.recipes])
        general.apply_to_text(drafts.text)
    if drafts.projector is not None:
        general.apply_to_projector(drafts.projector)
    text = drafts.text if drafts.text is not None and drafts.text.is_changed else None
    if text is not None:
        text.drop_unread()
    projector = drafts.projector if drafts.projector is not None and drafts.projector.is_changed else None
    if text is None and projector is None:
        return None
    rules = f"{family.name}.{family.version}" if family is not None else "general"
    return Plan(f"{rules}-{general.VERSION}", part_of(text), part_of(projector))


def _check_no_tower(file: GGUF, names: Sequence[str]) -> None:
    """What the engine is to be given has no encoder's tensors; it would only say that there are more than expected."""
    name = next((name for name in names if name.startswith(_TOWERS)), "")
    if name and file.kind == "model" and has_any(file, "token_embd."):
        raise ModelFileError(
            f'the file has tensor "{name}" of an encoder beside a model of architecture "{quoted(file.architecture)}", '
            "a layout that is not known"
        )


def _header(path: Path, role: str) -> bytes:
    """The header of a planned part, made again."""
    made = plan(gguf.read_structure(path))
    part = None if made is None else made.text if role == "text" else made.projector
    if part is None:
        raise ModelFileError(f'"{path}" was changed while it was read')
    return part.layout().header
