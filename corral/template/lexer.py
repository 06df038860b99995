"""Go template text → pieces of text and actions made of tokens. Source: the documentation of Go's text/template.

Every pattern here is linear in the text it reads. Knows tokens; what they mean together is `parser`'s subject.
"""

import re
from collections.abc import Iterator
from typing import Literal, TypeAlias

from msgspec import Struct

from corral.errors import TemplateError

Kind: TypeAlias = Literal["word", "field", "variable", "string", "character", "number", "sign", "end"]
"""`word`: names, keywords, true, false; `sign`: what stands for itself, as `|`; `end`: where the action is over."""


class Token(Struct, frozen=True):
    kind: Kind
    text: str
    start: int
    is_spaced: bool
    """Whether white space stands before it."""

    @property
    def end(self) -> int:
        return self.start + len(self.text)


class TextPiece(Struct, frozen=True):
    """Text between actions, white space beside trim markers taken away."""

    text: str
    start: int


class ActionPiece(Struct, frozen=True):
    """An action from its opening to its closing braces. The last of its tokens is the `end`."""

    tokens: tuple[Token, ...]
    start: int
    end: int


def broken(source: str, position: int, reason: str) -> TemplateError:
    """The error about what stands at a position, in Go's form: `template: :LINE: reason`."""
    return TemplateError(f"template: :{source.count(chr(10), 0, position) + 1}: {reason}")


def lex(source: str) -> Iterator[TextPiece | ActionPiece]:
    """The pieces in their order, without comments and empty texts. `TemplateError` at the first that is broken."""
    at, is_trimmed = 0, False
    while at < len(source):
        opening = source.find("{{", at)
        text_end = len(source) if opening < 0 else opening
        has_trim = opening >= 0 and _LEFT_TRIM.match(source, opening + 2) is not None
        start = _SPACE.match(source, at).end() if is_trimmed else at  # type: ignore[union-attr]  # matches nothing, too
        text = source[start:text_end].rstrip(_SPACES) if has_trim else source[start:text_end]
        if text:
            yield TextPiece(text, start)
        if opening < 0:
            return
        inside = opening + 2 + (2 if has_trim else 0)
        if source.startswith("/*", inside):
            at, is_trimmed = _comment_end(source, inside)
        else:
            tokens, at, is_trimmed = _tokens(source, inside)
            yield ActionPiece(tuple(tokens), opening, at)


_SPACES = " \t\r\n"
_SPACE = re.compile(f"[{_SPACES}]*")
_LEFT_TRIM = re.compile(f"-[{_SPACES}]")
_CLOSING = re.compile(f"(?:[{_SPACES}]+(-))?}}}}")


def _comment_end(source: str, start: int) -> tuple[int, bool]:
    """Where the text after a comment begins, and whether the comment has a trim marker at its end."""
    end = source.find("*/", start + 2)
    if end < 0:
        raise broken(source, start, "unclosed comment")
    closing = _CLOSING.match(source, end + 2)
    if closing is None or len(closing[0]) > 4:
        raise broken(source, end, "comment ends before closing delimiter")
    return closing.end(), closing[1] is not None


_TOKEN = re.compile(
    r"""
    (?P<number>[+-]?\.?[0-9][0-9A-Za-z_.]* | [+-])
    | (?P<field>\.\w*)
    | (?P<variable>\$\w*)
    | (?P<word>[^\W\d]\w*)
    | (?P<string>"(?:\\[^\n]|[^"\\\n])*" | `[^`]*`)
    | (?P<character>'(?:\\[^\n]|[^'\\\n])*')
    | (?P<sign>:=|[=|(),])
    """,
    re.VERBOSE,
)
_NUMBER = re.compile(
    r"""
    (?: [+-]? (?:
        0[xX][0-9a-fA-F_]* (?:\.[0-9a-fA-F_]*)? (?:[pP][+-]?[0-9_]*)?
        | 0[bB][01_]* | 0[oO][0-7_]*
        | [0-9_]* (?:\.[0-9_]*)? (?:[eE][+-]?[0-9_]*)?
    ) i? ){1,2}
    """,
    re.VERBOSE,
)
"""A number, or a sum of two as complex numbers are written; whether it is one of Go's is seen when it is read."""
_AFTER_NAME = re.compile(rf"[{_SPACES}.,|:()]|}}}}|\Z")


def _tokens(source: str, at: int) -> tuple[list[Token], int, bool]:
    """The tokens of an action from `at` on, where the text after it begins, and whether that is to be trimmed."""
    start = at
    tokens: list[Token] = []
    parentheses = 0
    while True:
        closing = _CLOSING.match(source, at)
        if closing is not None:
            if parentheses:
                raise broken(source, at, "unclosed left paren")
            tokens.append(Token("end", "}}", closing.end() - 2, True))
            return tokens, closing.end(), closing[1] is not None
        space = _SPACE.match(source, at)
        at, is_spaced = (at, False) if space is None else (space.end(), space.end() > at)
        if source.startswith("}}", at):
            continue
        found = _TOKEN.match(source, at)
        if found is None:
            raise _no_token(source, at, start)
        token = Token(found.lastgroup, _whole(source, found), at, is_spaced)  # type: ignore[arg-type]  # groups are kinds
        parentheses += {"(": 1, ")": -1}.get(token.text, 0)
        if parentheses < 0:
            raise broken(source, at, "unexpected right paren")
        at = token.end
        tokens.append(token)


def _whole(source: str, found: re.Match[str]) -> str:
    """The text of a token, checked for what may not follow it."""
    match found.lastgroup:
        case "number":
            number = _NUMBER.match(source, found.start())
            text = found[0] if number is None else number[0]
            end = found.start() + len(text)
            if len(text.strip("+-")) == 0 or (end < len(source) and _is_alphanumeric(source[end])):
                raise broken(source, found.start(), f'bad number syntax: "{found[0][:40]}"')
            return text
        case "word" | "field" | "variable":
            stray = next((character for character in found[0][1:] if not _is_alphanumeric(character)), "")
            if not stray and not _AFTER_NAME.match(source, found.end()):
                stray = source[found.end()]
            if stray:
                raise broken(source, found.start(), f"bad character U+{ord(stray):04X}")
    return found[0]


def _is_alphanumeric(character: str) -> bool:
    return character == "_" or character.isalpha() or character.isdecimal()


def _no_token(source: str, at: int, start: int) -> TemplateError:
    """Why no token begins at `at` of the action that begins at `start`."""
    unterminated = {'"': "quoted string", "`": "raw quoted string", "'": "character constant"}
    if at >= len(source):
        return broken(source, start, "unclosed action")
    if source[at] in unterminated:
        return broken(source, at, f"unterminated {unterminated[source[at]]}")
    if source[at] == ":":
        return broken(source, at, "expected :=")
    return broken(source, at, f"unexpected {_shown(source[at])} in action")


def _shown(character: str) -> str:
    return f'"{character}"' if character.isprintable() else f"U+{ord(character):04X}"
