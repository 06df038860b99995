"""The syntax tree of a Go template. Plain values; every node knows the characters of the source it was read from."""

from typing import TypeAlias

from msgspec import Struct


class Node(Struct, frozen=True):
    start: int
    end: int


class Dot(Node, frozen=True):
    """The value a template or block is at."""


class Nil(Node, frozen=True):
    """The constant nil."""


class Constant(Node, frozen=True):
    """A string, a character (as its number), a number, true or false."""

    value: str | bool | int | float | complex


class Function(Node, frozen=True):
    """A function's name, and the fields read from what it gives without arguments."""

    name: str
    fields: tuple[str, ...] = ()


class Field(Node, frozen=True):
    """A chain of fields of dot."""

    fields: tuple[str, ...]


class Variable(Node, frozen=True):
    """A variable with its `$`, and a chain of its fields."""

    name: str
    fields: tuple[str, ...] = ()


class Parenthesized(Node, frozen=True):
    """A pipeline in parentheses, and a chain of fields of its value."""

    pipeline: "Pipeline"
    fields: tuple[str, ...] = ()


Term: TypeAlias = Dot | Nil | Constant | Function | Field | Variable | Parenthesized


class Command(Node, frozen=True):
    """A function and its arguments, or a single term. Never empty."""

    terms: tuple[Term, ...]


class Pipeline(Node, frozen=True):
    """Commands of which each gets the value of the one before as its last argument. Never empty."""

    commands: tuple[Command, ...]
    variables: tuple[str, ...] = ()
    """Names that the value is bound to."""
    is_assignment: bool = False
    """Whether the names are those of variables that exist already."""


class Text(Node, frozen=True):
    text: str


class Action(Node, frozen=True):
    """Prints the value of a pipeline, unless it binds variables."""

    pipeline: Pipeline


class If(Node, frozen=True):
    pipeline: Pipeline
    body: "Body"
    else_body: "Body"
    """Empty when there is none; an `else if` is an `If` in it."""


class With(If, frozen=True):
    pass


class Range(If, frozen=True):
    pass


class Call(Node, frozen=True):
    """`{{template "name" pipeline}}`; a `{{block}}` is a definition and a call of it."""

    name: str
    pipeline: Pipeline | None


class Break(Node, frozen=True):
    pass


class Continue(Node, frozen=True):
    pass


Statement: TypeAlias = Text | Action | If | With | Range | Call | Break | Continue
Body: TypeAlias = tuple[Statement, ...]


class Program(Struct, frozen=True):
    """A parsed template: its body, its named templates, and the text that positions in them point into."""

    source: str
    root: Body
    definitions: dict[str, Body]
