"""`/show`: what is known of the model that is talked with, and of the session. Source: spec cli §5.3."""

from collections.abc import Callable

import click

from corral.cli.chat import help_texts
from corral.cli.chat.session import Session, parameters_text
from corral.cli.commands.show import sections_text
from corral.cli.display.text import LAYOUT, printable
from corral.cli.framework.commands import program_name


def show(session: Session, line: str) -> None:
    words = line.split()[1:]
    if not words:
        help_texts.show("show")
    elif (part := PARTS.get(words[0])) is None:
        click.echo(f"Unknown command '/show {printable(words[0])}'. Type /? for help")
    else:
        part(session)


def _info(session: Session) -> None:
    click.echo(sections_text(session.subject.shown, memory=program_name() != "ollama"), nl=False, err=True)


def _license(session: Session) -> None:
    _say(session.subject.shown.license or "No license was specified for this model.")


def _modelfile(session: Session) -> None:
    _say(session.subject.shown.modelfile)


def _parameters(session: Session) -> None:
    click.echo("Model defined parameters:")
    lines = session.subject.shown.parameters.splitlines()
    for line in lines or ["No additional parameters were specified for this model."]:
        click.echo(f"  {printable(line, keep=LAYOUT)}")
    click.echo()
    if session.parameters:
        click.echo(f"User defined parameters:\n{printable(parameters_text(session.parameters), keep=LAYOUT)}")


def _system(session: Session) -> None:
    system = session.system or session.subject.shown.system
    _say(f"{system}\n" if system else "No system message was specified for this model.")


def _template(session: Session) -> None:
    _say(session.subject.shown.template or "No prompt template was specified for this model.")


def _say(text: str) -> None:
    click.echo(printable(text, keep=LAYOUT))


PARTS: dict[str, Callable[[Session], None]] = {
    "info": _info,
    "license": _license,
    "modelfile": _modelfile,
    "parameters": _parameters,
    "system": _system,
    "template": _template,
}
