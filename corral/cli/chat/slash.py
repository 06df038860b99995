"""The commands of a conversation, such as `/clear`: a table, and how a line finds its row. Source: spec cli §5.3."""

from collections.abc import Callable
from dataclasses import dataclass

import click

from corral.cli.chat.session import Session


@dataclass(frozen=True, slots=True)
class SlashCommand:
    """A command that a line is when it begins with one of `prefixes`. `run` gets the whole line."""

    prefixes: tuple[str, ...]
    run: Callable[[Session, str], None]
    synopsis: str
    """Its left column of the help page."""
    sentence: str


def run(session: Session, line: str) -> None:
    """Runs the command that a line begins with, or says that there is none."""
    for command in COMMANDS:
        if line.startswith(command.prefixes):
            command.run(session, line)
            return
    click.echo(f"Unknown command '{line.split()[0]}'. Type /? for help")


def _clear(session: Session, line: str) -> None:
    session.messages = [message for message in session.messages if message.role == "system"]
    click.echo("Cleared session context")


def _leave(session: Session, line: str) -> None:
    session.ended = True


def _help(session: Session, line: str) -> None:
    rows = "".join(f"  {command.synopsis:<16}{command.sentence}\n" for command in COMMANDS)
    click.echo(f'Available Commands:\n{rows}\nUse """ to begin a multi-line message.\n', err=True)


COMMANDS = (
    SlashCommand(("/clear",), _clear, "/clear", "Clear session context"),
    SlashCommand(("/bye", "/exit"), _leave, "/bye", "Exit"),
    SlashCommand(("/?", "/help"), _help, "/?, /help", "Help for a command"),
)
"""In the order of the help page; no two have a prefix in common."""
