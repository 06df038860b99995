"""A schema while it is made ready for the engine: its parts, where each stands, and what is left out of it.

Knows no keyword's meaning. `safety` makes a draft and `policy` edits it; both belong to one call and share nothing.
"""

from typing import NoReturn

from msgspec import Struct, field

from corral.messages import Json
from corral.schemas.pointers import pointer


class InvalidSchema(Exception):
    """A part of a schema that cannot be used: its pointer, and the reason."""

    def __init__(self, pointer: str, reason: str) -> None:
        super().__init__(pointer, reason)
        self.pointer = pointer
        self.reason = reason


class Place(Struct, frozen=True):
    """Where a part stands in the schema as it was given."""

    keys: tuple[str | int, ...] = ()
    level: int = 1
    """How many schemas it is within, itself included, counted from the definition it belongs to."""
    definition: str = ""
    """The name of that definition, empty for the root."""

    def at(self, *keys: str | int) -> str:
        return pointer(*self.keys, *keys)

    def inside(self, *keys: str | int) -> "Place":
        return Place((*self.keys, *keys), self.level + 1, self.definition)

    def refuse(self, reason: str, *keys: str | int) -> NoReturn:
        raise InvalidSchema(self.at(*keys), reason)


class Part(Struct, eq=False):
    """A schema within the schema."""

    place: Place
    value: Json
    """A dict of the draft's own that may be edited, or true or false."""
    parent: "Part | None" = None
    """The part it is an alternative of (`allOf`, `anyOf`, `oneOf`): both speak of the same value."""


class Draft(Struct):
    root: Json
    definitions: dict[str, Json]
    parts: list[Part]
    """Inner parts before those they are in."""
    ignored: list[str] = field(default_factory=list)
    """Pointers to constraints that were left out because the engine cannot enforce them."""
