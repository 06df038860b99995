"""The commands of a Modelfile, as Ollama's grammar has them. Knows their form, not what they mean. Source: cli §7."""

import codecs
import re
from dataclasses import dataclass

from corral.errors import InvalidModelfile
from corral.modelfile import values

MAX_CHARACTERS = 16 << 20
MAX_COMMANDS = 1 << 16
"""The longest Modelfile that is read."""

_NAMES = ("from", "license", "template", "system", "adapter", "draft", "renderer", "parser", "parameter", "message")
NAMES = frozenset((*_NAMES, "requires"))
ROLES = ("system", "user", "assistant")

_BAD_COMMAND = "command must be one of " + ", ".join(f'"{name}"' for name in _NAMES) + ', or "requires"'
_BAD_ROLE = 'message role must be one of "system", "user", or "assistant"'

_BETWEEN = re.compile(r"(?:[ \t\n\r]|#[^\n\r]*+)*+")
_LETTERS = re.compile(r"[A-Za-z]*+")
_PARAMETER = re.compile(r"[A-Za-z0-9_]*+")
_BLANKS = " \t"
_SHOWN = 120
"""Characters of a line that an error shows."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its name in lower case, the value, and the line it begins on, counted from 1.

    `argument`: the name of a parameter or the role of a message, else empty.
    """

    name: str
    argument: str
    value: str
    line: int


@dataclass(frozen=True, slots=True)
class Modelfile:
    """The commands in their order, one of which at least is `from`."""

    commands: tuple[Command, ...]


def parse(text: str) -> Modelfile:
    """Reads a Modelfile; `InvalidModelfile` says what is wrong with which line.

    Takes time in proportion to the text's length, which is bounded by `MAX_CHARACTERS`.
    """
    if len(text) > MAX_CHARACTERS:
        raise InvalidModelfile(f"the Modelfile is longer than {MAX_CHARACTERS >> 20} million characters")
    commands = tuple(_Reader(text).commands())
    if not any(command.name == "from" for command in commands):
        raise InvalidModelfile("no FROM line")
    return Modelfile(commands)


def decode(data: bytes) -> str:
    """A file's bytes as text: UTF-8, or UTF-16 where it begins with that mark; broken bytes become U+FFFD."""
    for mark, encoding in ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")):
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace")
    return data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace")


class _Reader:
    """One walk over the text. A carriage return ends a line as a newline does, also before one."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._begin = 0
        self._line = 1

    def commands(self) -> list[Command]:
        found: list[Command] = []
        while self._skip():
            if len(found) >= MAX_COMMANDS:
                raise InvalidModelfile(f"more than {MAX_COMMANDS} commands", self._line)
            found.append(self._command())
        return found

    def _skip(self) -> bool:
        """Goes to the next command; whether there is one."""
        matched = _BETWEEN.match(self._text, self._position)
        self._go_to(matched.end() if matched else self._position)
        self._begin = self._position
        return self._position < len(self._text)

    def _command(self) -> Command:
        line = self._line
        name = self._word()
        argument = ""
        if name == "parameter":
            argument = self._until_blank(_PARAMETER)
        elif name == "message":
            argument = self._until_blank(_LETTERS)
            if argument not in ROLES:
                raise self._error(f"(line {self._line}): {_BAD_ROLE}")
        value = values.read(self._text, self._position)
        if value is None:
            raise self._ended("a quote is not closed")
        self._go_to(min(value.end, len(self._text)))
        return Command(name, argument, value.value, line)

    def _word(self) -> str:
        text, begin = self._text, self._position
        # The first character is taken for one of the word whatever it is; one that is not printed is dropped.
        matched = _LETTERS.match(text, begin + 1)
        end = matched.end() if matched else begin + 1
        word = text[begin:end] if text[begin].isprintable() else text[begin + 1 : end]
        if end >= len(text):
            raise self._ended("a command needs a value")
        if text[end] not in _BLANKS or word.lower() not in NAMES:
            line = self._line + (text[end] in "\n\r")
            raise self._error(f"(line {line}): {_BAD_COMMAND}")
        self._position = end + 1
        return word.lower()

    def _until_blank(self, characters: re.Pattern[str]) -> str:
        matched = characters.match(self._text, self._position)
        end = matched.end() if matched else self._position
        word = self._text[self._position : end]
        if end >= len(self._text):
            raise self._ended("a command needs a value")
        if self._text[end] not in _BLANKS:
            raise self._error(f"unexpected EOF: {word}", self._line)
        self._position = end + 1
        return word

    def _go_to(self, position: int) -> None:
        self._line += self._text.count("\n", self._begin, position) + self._text.count("\r", self._begin, position)
        self._position = self._begin = position

    def _ended(self, why: str) -> InvalidModelfile:
        return self._error(f"unexpected EOF\n{why}", self._line)

    def _error(self, sentence: str, line: int = 0) -> InvalidModelfile:
        """`line`: named before the text of the line; 0: the sentence has named it."""
        rest = self._text[self._begin : self._begin + 2 * _SHOWN]
        shown = values.NEWLINE.split(rest, maxsplit=1)[0]
        shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
        return InvalidModelfile(f"{sentence}\n{f'line {line}: ' if line else '  '}{shown}", self._line)
