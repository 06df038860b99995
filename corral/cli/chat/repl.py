"""The conversation at the `>>> ` prompt: reads texts, answers them, and runs slash commands. Source: spec cli §5.

It is imported by `run` only when there is a conversation.
"""

import click

from corral import config
from corral.cli.chat import keyboard, models, slash, typed
from corral.cli.chat.answer import Answer, Stopped, print_answer, timings_text
from corral.cli.chat.attachments import attach, begins_with_file
from corral.cli.chat.history import LineHistory
from corral.cli.chat.prompt import Prompt
from corral.cli.chat.session import Session
from corral.cli.display.text import LAYOUT, printable
from corral.errors import CorralError
from corral.messages import Message, media_of


def converse(session: Session) -> None:
    """Loads the model, then reads, answers, prints, and goes on until the session has ended."""
    settings = config.load().config
    session.keeps_history = not settings.no_history
    history = LineHistory(settings.home / "history", kept=session.keeps_history)
    prompt = Prompt(history, config.editor_command(settings))
    with keyboard.quiet() as keys:
        keys.mark_pastes()
        models.wait_until_loaded(session)
        models.show_first_messages(session)
        prompt.keep_typed()
        while not session.ended:
            history.kept = session.keeps_history
            try:
                text = prompt.read()
            except KeyboardInterrupt:
                if prompt.is_empty:
                    click.echo("\nUse Ctrl + d or /bye to exit.")
                continue
            except EOFError:
                click.echo()
                return
            keys.mark_pastes()
            if _take(session, text):
                prompt.keep_typed()


def _take(session: Session, text: str) -> bool:
    """Answers a text or runs the command that it is; whether it took its time."""
    said = typed.read(text)
    if said.is_command and not begins_with_file(said.text, media=session.subject.shown.sees_or_hears):
        try:
            slash.run(session, said.text)
        except KeyboardInterrupt:
            click.echo()
        return said.text.startswith(("/load", "/save"))
    if said.text.strip():
        _answer(session, said.text)
        return True
    return False


def _answer(session: Session, text: str) -> None:
    """Asks, prints the answer and keeps both. Of an answer that was stopped, what was said is kept; a question of
    which nothing was answered is forgotten.
    """
    question = _question(session, text)
    if question is None:
        return
    try:
        answer = print_answer(session.ask(question), session.display)
    except Stopped as stopped:
        answer = stopped.answer
    except KeyboardInterrupt:
        answer = Answer("", "", None)
    except CorralError as error:
        if "does not support thinking" in str(error) or "invalid think value" in str(error):
            click.echo(f"error: {printable(str(error), keep=LAYOUT)}")
            return
        raise
    click.echo("\n")
    if answer.content or answer.thinking or answer.metrics:
        session.messages += [question, Message.of("assistant", answer.content, thinking=answer.thinking)]
    if session.display.verbose and answer.metrics:
        click.echo(timings_text(answer.metrics), err=True)


def _question(session: Session, text: str) -> Message | None:
    """The message that a text is, with the files that it names; None when one of them cannot be used."""
    try:
        attached = attach(text, media=session.subject.shown.sees_or_hears)
    except CorralError as error:
        click.echo(f'Couldn\'t process file: "{error}"', err=True)
        return None
    for note in attached.notes:
        click.echo(printable(note), err=True)
    return Message.of("user", attached.prompt, media=[media_of(file) for file in attached.files])
