"""What a command is: flags read as Go's tools read them, a help page, errors as one line. Knows no command.

click does the dispatch and the conversions; the arguments are put into one canonical form before it sees them, because
users type flags as the original takes them (`--think` without a value, `--verbose=false`). Source: spec cli §1.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from typing import Any, Literal

import click

from corral.config import Config
from corral.errors import BadRequest

Kind = Literal["bool", "int", "string"]
Arguments = tuple[str, ...]


_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


class Flag(click.Option):
    """A flag of a kind. `bare` is the value it has when none is given; without it, a value must follow."""

    def __init__(self, *names: str, kind: Kind, sentence: str, bare: str | None = None, default: Any = ...) -> None:
        """Not given, the flag is `default`, or else what is blank in its kind."""
        self.kind = kind
        self.bare = "true" if kind == "bool" else bare
        blank = {"bool": False, "int": 0, "string": ""}[kind] if default is ... else default
        super().__init__(list(names), type=click.UNPROCESSED, is_flag=False, default=blank, help=sentence)

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


class Count:
    """How many arguments a command takes: exactly `exact`, `least` to `most`, or `least` and more."""

    def __init__(self, *, exact: int | None = None, least: int = 0, most: int | None = None) -> None:
        self.exact = exact
        self.least = least
        self.most = most

    def check(self, given: int) -> None:
        if self.exact is not None and given != self.exact:
            raise BadRequest(f"accepts {self.exact} arg(s), received {given}")
        if self.most is not None and not self.least <= given <= self.most:
            raise BadRequest(f"accepts between {self.least} and {self.most} arg(s), received {given}")
        if given < self.least:
            raise BadRequest(f"requires at least {self.least} arg(s), only received {given}")


class Command(click.Command):
    """A command with its help page; `settings` are the fields of `Config` that its page explains."""

    def __init__(self, synopsis: str, *, count: Count, aliases: Sequence[str], settings: Sequence[str], **rest: Any):
        super().__init__(**rest)
        self.synopsis = synopsis
        self.count = count
        self.aliases = aliases
        self.settings = settings

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, canonical(args, self.flags(ctx)))
        self.count.check(len(ctx.params["arguments"]))
        return rest

    def flags(self, ctx: click.Context) -> list[Flag]:
        return [parameter for parameter in self.get_params(ctx) if isinstance(parameter, Flag)]

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        program = program_name(ctx)
        parts = [self.help or "", f"Usage:\n  {program} {self.synopsis} [flags]"]
        if self.aliases:
            parts.append("Aliases:\n  " + ", ".join([self.name or "", *self.aliases]))
        parts.append("Flags:\n" + _flag_lines(self.flags(ctx), self.name or ""))
        if self.settings:
            parts.append("Environment Variables:\n" + _setting_lines(self.settings))
        formatter.write("\n\n".join(parts))


def command(
    synopsis: str,
    sentence: str,
    *,
    count: Count,
    flags: Iterable[Flag] = (),
    aliases: Sequence[str] = (),
    settings: Sequence[str] = ("host",),
) -> Callable[[Callable[..., None]], Command]:
    """Makes a function a command: it is called with `arguments` and a keyword for each flag."""

    def wrap(function: Callable[..., None]) -> Command:
        return Command(
            synopsis,
            count=count,
            aliases=aliases,
            settings=settings,
            name=synopsis.split()[0],
            help=sentence,
            callback=function,
            params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED), *flags],
        )

    return wrap


class Group(click.Group):
    """The root. A command's module is imported when the command is asked for."""

    def __init__(self, find: Callable[[str], Command | None], table: dict[str, str], **rest: Any) -> None:
        """`table`: each command's name and sentence, in the order of the help page."""
        super().__init__(invoke_without_command=True, **rest)
        self._find = find
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return self._find(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        found = self.get_command(ctx, args[0])
        if found is None:
            raise unknown_command(args[0], program_name(ctx), list(self._table))
        return args[0], found, args[1:]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        flags = [parameter for parameter in self.get_params(ctx) if isinstance(parameter, Flag)]
        return super().parse_args(ctx, canonical(args, flags, interspersed=False))

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        program = program_name(ctx)
        width = max(map(len, self._table))
        flags = [parameter for parameter in self.get_params(ctx) if isinstance(parameter, Flag)]
        rows = "\n".join(f"  {name:<{width}}  {sentence}" for name, sentence in self._table.items())
        parts = [
            self.help or "",
            f"Usage:\n  {program} [flags]\n  {program} [command]",
            f"Available Commands:\n{rows}",
            "Flags:\n" + _flag_lines(flags, program),
            f'Use "{program} [command] --help" for more information about a command.',
        ]
        formatter.write("\n\n".join(parts))


def program_name(ctx: click.Context | None = None) -> str:
    """The name the command was started under: `corral`, or `ollama` through a link of that name."""
    return (ctx or click.get_current_context()).find_root().info_name or "corral"


def canonical(tokens: Sequence[str], flags: Iterable[Flag], *, interspersed: bool = True) -> list[str]:
    """Every flag as `--name=value`, then `--` and the other arguments. `--help` and `-h` become `--help` alone.

    Not interspersed, everything from the first argument on is left as it is. `BadRequest` for what no flag is.
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
            raise BadRequest(f"flag needs an argument: {spelled}")
        return self._tokens.pop(0)


def unknown_command(name: str, program: str, known: Iterable[str]) -> BadRequest:
    """Names those that begin with what was typed, or differ from it in two letters at most."""
    alike = [
        candidate
        for candidate in known
        if candidate.startswith(name.lower()) or _distance(name.lower(), candidate) <= 2
    ]
    lines = [f'unknown command "{name}" for "{program}"']
    if alike:
        lines += ["", "Did you mean this?", *(f"\t{candidate}" for candidate in alike), ""]
    return BadRequest("\n".join(lines))


def _distance(one: str, other: str) -> int:
    """Levenshtein's: letters to insert, delete or replace."""
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        previous, row[0] = row[0], i
        for j, candidate in enumerate(other, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (letter != candidate))
    return row[-1]


def _flag_lines(flags: Sequence[Flag], owner: str) -> str:
    rows = [(flag.long, flag.synopsis, flag.help or "") for flag in flags]
    rows.append(("help", "  -h, --help", f"help for {owner}"))
    rows.sort()
    width = max(len(synopsis) for _, synopsis, _ in rows)
    return "\n".join(f"{synopsis:<{width}}   {sentence}" for _, synopsis, sentence in rows)


def _setting_lines(names: Sequence[str]) -> str:
    table = {setting.name: setting.metadata for setting in fields(Config)}
    return "\n".join(f"      {table[name]['variable']:<27}   {table[name]['sentence']}" for name in names)
