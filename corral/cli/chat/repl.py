"""The conversation at the `>>> ` prompt: reads lines, answers them, and runs slash commands. Source: spec cli §5.

prompt_toolkit edits the line; it is imported by `run` only when there is a conversation.
"""

from collections.abc import Callable

import click
from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.formatted_text import FormattedText

from corral import config
from corral.cli.chat import slash
from corral.cli.chat.answer import print_answer, timings_text
from corral.cli.chat.attachments import attach, begins_with_file
from corral.cli.chat.history import history_of
from corral.cli.chat.session import Session
from corral.cli.display.text import LAYOUT, printable
from corral.errors import CorralError
from corral.messages import Message, media_of

PLACEHOLDER = "Send a message (/? for help)"
BLOCK = '"""'


class Repl:
    """Reads, answers, prints, and goes on until the session has ended."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._editor: PromptSession[str] = PromptSession(history=history_of(config.load().config))

    def run(self) -> None:
        for message in self._session.first_messages:
            text = printable(message.text, keep=LAYOUT)
            click.echo(f">>> {text}" if message.role == "user" else f"{text}\n")
        while not self._session.ended:
            try:
                text = self._read()
            except KeyboardInterrupt:
                if not self._editor.default_buffer.text:
                    click.echo("\nUse Ctrl + d or /bye to exit.")
                continue
            except EOFError:
                click.echo()
                return
            if text.startswith("/") and not (self._session.shown.sees_or_hears and begins_with_file(text)):
                slash.run(self._session, text)
            elif text.strip():
                self._answer(text)

    def _read(self) -> str:
        """A line, or a block of lines between triple quotes."""
        line = self._editor.prompt(">>> ", placeholder=_placeholder(PLACEHOLDER))
        if not line.lstrip().startswith(BLOCK):
            return line
        lines = [line.lstrip().removeprefix(BLOCK)]
        while not lines[-1].rstrip().endswith(BLOCK):
            lines.append(self._editor.prompt("... ", placeholder=_placeholder("Press Enter to send")))
        lines[-1] = lines[-1].rstrip().removesuffix(BLOCK)
        return "\n".join(lines)

    def _answer(self, text: str) -> None:
        """Asks, prints the answer and keeps both; an answer that is interrupted is not kept."""
        question = self._question(text)
        if question is None:
            return
        try:
            answer = print_answer(self._session.ask(question), self._session.display)
        except KeyboardInterrupt:
            click.echo("\n")
            return
        except CorralError as error:
            if "does not support thinking" in str(error) or "invalid think value" in str(error):
                click.echo(f"error: {printable(str(error))}")
                return
            raise
        self._session.messages += [question, Message.of("assistant", answer.content, thinking=answer.thinking)]
        click.echo("\n")
        if self._session.display.verbose and answer.metrics:
            click.echo(timings_text(answer.metrics), err=True)

    def _question(self, text: str) -> Message | None:
        """The message that a text is, with the files that it names; None when one of them cannot be used."""
        if not self._session.shown.sees_or_hears:
            return Message.of("user", text)
        try:
            attached = attach(text)
        except CorralError as error:
            click.echo(f'Couldn\'t process file: "{error}"', err=True)
            return None
        for note in attached.notes:
            click.echo(note, err=True)
        return Message.of("user", attached.prompt, media=[media_of(file) for file in attached.files])


def _placeholder(text: str) -> Callable[[], FormattedText]:
    """Shown while nothing is typed; not left on the screen when the prompt is left."""
    return lambda: FormattedText([] if get_app().is_done else [("fg:ansibrightblack", text)])
