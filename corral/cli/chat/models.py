"""`/load` and `/save`: another model to talk with, and a model made of the conversation. Source: spec cli §5.3."""

from contextlib import closing

import click

from corral import names
from corral.cli.chat.answer import print_answer
from corral.cli.chat.session import Session
from corral.cli.chat.waiting import wait_for_end
from corral.cli.display.progress import spinning
from corral.cli.display.text import LAYOUT, printable
from corral.client import Stream
from corral.errors import InvalidName, NotFound
from corral.messages import Chunk


def load(session: Session, line: str) -> None:
    """Goes on with another model, which was perhaps saved; nothing changes when it cannot be loaded."""
    model = _argument(line, "load")
    if model is None:
        return
    click.echo(f"Loading model '{printable(model)}'")
    before, said = session.subject, session.messages
    try:
        session.turn_to(session.find(model))
        wait_until_loaded(session)
    except NotFound:
        click.echo(f"Couldn't find model '{printable(model)}'")
        return
    except BaseException:
        session.subject, session.messages = before, said
        raise
    show_first_messages(session)


def save(session: Session, line: str) -> None:
    model = _argument(line, "save")
    if model is None:
        return
    try:
        names.parse(model)
    except InvalidName:
        click.echo(f"error: The model name '{printable(model)}' is invalid", err=True)
        return
    with spinning(f"saving {printable(model)}"), closing(session.save(model)) as steps:
        for _ in steps:
            pass
    if session.has_media:
        click.echo("Warning: only the words of the conversation are saved, not its pictures and sounds", err=True)
    click.echo(f"Created new model '{model}'")


def wait_until_loaded(session: Session) -> None:
    with closing(session.load()) as loading:
        wait_for_end(loading)


def show_first_messages(session: Session) -> None:
    """Prints the conversation that the model begins with, as it would stand here if it had been led here."""
    for message in session.subject.first_messages:
        if message.role == "user":
            first, *further = printable(message.text, keep=LAYOUT).split("\n")
            click.echo("\n".join([f">>> {first}", *(f"... {line}" for line in further)]))
        elif message.role == "assistant":
            print_answer(_alone(Chunk(content=message.text)), session.display)
            click.echo("\n")


def _alone(chunk: Chunk) -> Stream[Chunk]:
    yield chunk


def _argument(line: str, command: str) -> str | None:
    """The one word after a command; None, after its usage was shown, where there is not exactly one."""
    words = line.split()[1:]
    if len(words) == 1:
        return words[0]
    click.echo(f"Usage:\n  /{command} <modelname>")
    return None
