"""Commands and the group of all of them, which find, run and explain themselves. Source: spec cli §1."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import EllipsisType, MappingProxyType
from typing import Any, Literal, TypeAlias

import click

from corral.cli.framework.flags import Flag, canonical
from corral.cli.framework.help_pages import command_page, fitted, group_page, unknown_command
from corral.errors import BadRequest

Arguments = tuple[str, ...]
Completed: TypeAlias = Literal[
    "models",
    "models or files",
    "running",
    "files",
    "commands",
    "shells",
    "actions",
    "engines",
]
"""What a shell completes an argument with."""


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
    """A command with its help page, whose `{program}` and `{Program}` become the name that the program goes by.

    `settings` are the fields of `Config` that its page explains, `completes` what the arguments are, one after the
    other; `...` at its end: all others are as the last one. `actions`: the words that its first argument may be, and
    what each does.
    """

    def __init__(
        self,
        synopsis: str,
        *,
        count: Count,
        completes: Sequence[Completed | EllipsisType],
        actions: Mapping[str, str],
        aliases: Sequence[str],
        settings: Sequence[str],
        **rest: Any,
    ) -> None:
        super().__init__(**rest)
        self.synopsis = synopsis
        self.count = count
        self.completes = completes
        self.actions = actions
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
        usage = f"{program} {self.synopsis} [flags]"
        sentence = (self.help or "").replace("{program}", program).replace("{Program}", program.capitalize())
        page = command_page(self.name or "", sentence, usage, self.aliases, self.flags(ctx), self.settings)
        formatter.write(_for_window(page))


def command(
    synopsis: str,
    sentence: str,
    *,
    count: Count,
    completes: Sequence[Completed | EllipsisType] = (),
    actions: Mapping[str, str] = MappingProxyType({}),
    flags: Iterable[Flag] = (),
    aliases: Sequence[str] = (),
    settings: Sequence[str] = ("host",),
) -> Callable[[Callable[..., None]], Command]:
    """Makes a function a command: it is called with `arguments` and a keyword for each flag."""

    def wrap(function: Callable[..., None]) -> Command:
        return Command(
            synopsis,
            count=count,
            completes=completes,
            actions=actions,
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
        self.find = find
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return self.find(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        found = self.get_command(ctx, args[0])
        if found is None:
            raise unknown_command(args[0], program_name(ctx), list(self.table))
        return args[0], found, args[1:]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, canonical(args, self._flags(ctx), interspersed=False))

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        page = group_page(program_name(ctx), self.help or "", self.table, self._flags(ctx))
        formatter.write(_for_window(page))

    def _flags(self, ctx: click.Context) -> list[Flag]:
        return [parameter for parameter in self.get_params(ctx) if isinstance(parameter, Flag)]


def _for_window(page: str) -> str:
    if not sys.stdout.isatty():
        return page
    from corral.cli.display import terminal

    return fitted(page, terminal.size(sys.stdout)[0])


def program_name(ctx: click.Context | None = None) -> str:
    """The name the command was started under: `corral`, or `ollama` through a link of that name."""
    return (ctx or click.get_current_context()).find_root().info_name or "corral"
