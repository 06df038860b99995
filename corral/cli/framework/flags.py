"""Flags, read as Go's tools read them. Source: spec cli §1.

click takes the next word as the value of `--think`, whose value may be left out, and refuses `--verbose=false`. So the
arguments are brought into one canonical form before click sees them.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import click

from corral.errors import BadRequest

Kind = Literal["bool", "int", "string"]

_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


class Flag(click.Option):
    """A flag of a kind. `bare` is the value it has when none is given; without it, a value must follow."""

    def __init__(
        self,
        *names: str,
        kind: Kind,
        sentence: str,
        bare: str | None = None,
        default: Any = ...,
        values: Sequence[str] = (),
        files: bool = False,
        many: bool = False,
    ) -> None:
        """A flag that is not given is `default`, or else the empty value of its kind.

        `values`: what a shell completes its value with; `files`: whether that is the path of a file. `many`: it may be
        given several times, and is a tuple of texts.
        """
        self.kind = kind
        self.values = values
        self.files = files
        self.bare = "true" if kind == "bool" else bare
        blank = {"bool": False, "int": 0, "string": ""}[kind] if default is ... else default
        super().__init__(
            list(names),
            type=click.UNPROCESSED,
            is_flag=False,
            default=() if many else blank,
            multiple=many,
            help=sentence,
        )

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Reads its text as Go's strconv does, with its error texts."""
        if not isinstance(value, str) or self.kind == "string":
            return value
        if self.kind == "int":
            try:
                return int(value)
            except ValueError:
                raise self._invalid(value, "ParseInt") from None
        if value not in _TRUE + _FALSE:
            raise self._invalid(value, "ParseBool")
        return value in _TRUE

    def _invalid(self, value: str, function: str) -> BadRequest:
        reason = f'strconv.{function}: parsing "{value}": invalid syntax'
        return BadRequest(f'invalid argument "{value}" for "{self.spelled}" flag: {reason}')

    @property
    def long(self) -> str:
        """Its long name, without dashes."""
        return next(name for name in self.opts if name.startswith("--"))[2:]

    @property
    def short(self) -> str:
        """Its letter, or nothing."""
        return next((name[1:] for name in self.opts if not name.startswith("--")), "")

    @property
    def spelled(self) -> str:
        """As errors name it: `--file`, or `-f, --file`."""
        return f"-{self.short}, --{self.long}" if self.short else f"--{self.long}"

    @property
    def synopsis(self) -> str:
        """Its column of the help page."""
        head = f"  -{self.short}, --{self.long}" if self.short else f"      --{self.long}"
        if self.kind == "bool":
            return head
        if self.bare == "":
            return f"{head} [{self.kind}]"
        return f"{head} {self.kind}" + ("" if self.bare is None else f'[="{self.bare}"]')


class NeedsValue(BadRequest):
    """The last word is a flag that takes the next one as its value."""

    def __init__(self, flag: Flag, spelled: str) -> None:
        super().__init__(f"flag needs an argument: {spelled}")
        self.flag = flag


def canonical(tokens: Sequence[str], flags: Iterable[Flag], *, interspersed: bool = True) -> list[str]:
    """Every flag as `--name=value`, then `--` and the other arguments. `--help` and `-h` become `--help` alone.

    Not interspersed, everything from the first argument on is left as it is. `BadRequest` for an unknown flag,
    `NeedsValue` where the words end before a flag's value.
    """
    reader = _Reader(tokens, flags)
    found, rest = reader.read(interspersed)
    return ["--help"] if reader.help else [*found, "--", *rest]


class _Reader:
    """One walk over the tokens of a command line."""

    def __init__(self, tokens: Sequence[str], flags: Iterable[Flag]) -> None:
        self.help = False
        self._tokens = list(tokens)
        self._long = {flag.long: flag for flag in flags}
        self._short = {flag.short: flag for flag in self._long.values() if flag.short}

    def read(self, interspersed: bool) -> tuple[list[str], list[str]]:
        found: list[str] = []
        rest: list[str] = []
        while self._tokens:
            token = self._tokens.pop(0)
            if token == "--":
                break
            if token.startswith("--"):
                found += self._read_long(token)
            elif token.startswith("-") and token != "-":
                found += self._read_letters(token)
            else:
                rest.append(token)
                if not interspersed:
                    break
        return found, rest + self._tokens

    def _read_long(self, token: str) -> Iterator[str]:
        name, equals, value = token[2:].partition("=")
        if not name or name.startswith("-"):
            raise BadRequest(f"bad flag syntax: {token}")
        flag = self._long.get(name)
        if name == "help":
            self.help = True
        elif flag is None:
            raise BadRequest(f"unknown flag: --{name}")
        elif not equals:
            yield f"--{name}={self._value_of(flag, f'--{name}')}"
        else:
            yield f"--{name}={value}"

    def _read_letters(self, token: str) -> Iterator[str]:
        """A cluster of letters; the first that takes a value takes the rest of the cluster as it."""
        letters = token[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            flag = self._short.get(letter)
            if flag is None and letter == "h":
                self.help = True
                continue
            if flag is None:
                raise BadRequest(f"unknown shorthand flag: '{letter}' in {token}")
            if letters.startswith("=") or (letters and flag.bare is None):
                value, letters = letters.removeprefix("="), ""
            else:
                value = self._value_of(flag, f"'{letter}' in {token}")
            yield f"--{flag.long}={value}"

    def _value_of(self, flag: Flag, spelled: str) -> str:
        if flag.bare is not None:
            return flag.bare
        if not self._tokens:
            raise NeedsValue(flag, spelled)
        return self._tokens.pop(0)
