"""`/set`: what a conversation can be set to. Source: spec cli §5.3."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias, cast

import click

from corral.cli.chat import help_texts, typed
from corral.cli.chat.options import THINK_LEVELS
from corral.cli.chat.session import Session, value_text
from corral.cli.display.text import printable
from corral.messages import Json, Think
from corral.modelfile import read_parameter
from corral.options import KINDS

Setting: TypeAlias = Callable[[Session, Sequence[str], str], None]
"""Sets something: gets the words after its name, and the line they come from."""

_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)')


def set_(session: Session, line: str) -> None:
    """Sets what the line says, or says what can be set."""
    words = line.split()[1:]
    if not words:
        help_texts.show("set")
    elif (setting := SETTINGS.get(words[0])) is None:
        click.echo(f"Unknown command '/set {printable(words[0])}'. Type /? for help")
    else:
        setting(session, words[1:], line)


def _parameter(session: Session, words: Sequence[str], line: str) -> None:
    if len(words) < 2:
        help_texts.show("parameters")
        return
    name = words[0]
    rest = line.split(maxsplit=3)[3]
    try:
        value = read(name, rest)
    except ValueError as error:
        click.echo(f'Couldn\'t set parameter: "{printable(str(error))}"')
        return
    session.parameters[name] = value
    shown = ", ".join(map(value_text, value)) if isinstance(value, list) else " ".join(words[1:])
    click.echo(f"Set parameter '{name}' to '{printable(shown)}'")


def read(name: str, text: str) -> Json:
    """A parameter's value; `ValueError` with a sentence. Texts may stand in double quotes, as in a Modelfile."""
    if KINDS.get(name) != "strings":
        value = read_parameter(name, " ".join(text.split()))
        if value is None:
            raise ValueError(f"parameter '{name}' has no effect any more")
        return value
    return [quoted.replace('\\"', '"') if quoted else word for quoted, word in _WORD.findall(text)]


def _system(session: Session, words: Sequence[str], line: str) -> None:
    if not words:
        help_texts.show("set")
        return
    session.set_system(typed.unquoted(line.split(maxsplit=2)[2]))
    click.echo("Set system message.")


def _format(session: Session, words: Sequence[str], line: str) -> None:
    if list(words) != ["json"]:
        click.echo("Invalid or missing format. For 'json' mode use '/set format json'")
        return
    session.set_format("json")
    click.echo("Set format to 'json' mode.")


def _noformat(session: Session, words: Sequence[str], line: str) -> None:
    session.set_format(None)
    click.echo("Disabled format.")


def _think(session: Session, words: Sequence[str], line: str) -> None:
    level = words[0] if words else ""
    if len(words) > 1 or level not in ("", *THINK_LEVELS):
        click.echo(f'Couldn\'t set think: "{printable(" ".join(words))}" (must be {", ".join(THINK_LEVELS)}, or none)')
        return
    session.set_think(cast(Think, level) if level else True)
    click.echo(f"Set 'think' mode to '{level}'." if level else "Set 'think' mode.")
    _warn_of_thinking(session)


def _nothink(session: Session, words: Sequence[str], line: str) -> None:
    session.set_think(False)
    click.echo("Set 'nothink' mode.")
    _warn_of_thinking(session)


def _warn_of_thinking(session: Session) -> None:
    if not session.subject.thinks:
        click.echo(f'warning: model "{session.subject.name}" does not support thinking output', err=True)


def _history(session: Session, words: Sequence[str], line: str) -> None:
    session.keeps_history = True


def _nohistory(session: Session, words: Sequence[str], line: str) -> None:
    session.keeps_history = False


def _shows(mode: str, **changes: bool) -> Setting:
    """A setting of how answers are shown."""

    def setting(session: Session, words: Sequence[str], line: str) -> None:
        session.display = replace(session.display, **changes)
        click.echo(f"Set '{mode}' mode.")

    return setting


SETTINGS: dict[str, Setting] = {
    "parameter": _parameter,
    "system": _system,
    "history": _history,
    "nohistory": _nohistory,
    "wordwrap": _shows("wordwrap", wrap=True),
    "nowordwrap": _shows("nowordwrap", wrap=False),
    "markdown": _shows("markdown", markdown=True),
    "nomarkdown": _shows("nomarkdown", markdown=False),
    "format": _format,
    "noformat": _noformat,
    "verbose": _shows("verbose", verbose=True),
    "quiet": _shows("quiet", verbose=False),
    "think": _think,
    "nothink": _nothink,
}
