"""The conversation at the `>>> ` prompt. Keeps the messages and sends them all each time. Source: spec cli §5.

prompt_toolkit edits the line; it is imported by `run` only when there is a conversation.
"""

from collections.abc import Callable

import click
from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.formatted_text import FormattedText

from corral import config as settings
from corral.cli import connection
from corral.cli.chat.answer import Answer, print_answer, timings_text
from corral.cli.chat.attachments import attach, begins_with_file
from corral.cli.chat.history import history_of
from corral.cli.chat.options import DisplayOptions, RunOptions
from corral.cli.display.text import LAYOUT, printable
from corral.client.answers import Shown
from corral.errors import CorralError
from corral.messages import Message

PLACEHOLDER = "Send a message (/? for help)"
BLOCK = '"""'

HELP = """\
Available Commands:
  /clear          Clear session context
  /bye            Exit
  /?, /help       Help for a command

Use \"\"\" to begin a multi-line message.
"""


class Conversation:
    """A conversation with a model; the model's own messages come first."""

    def __init__(self, model: str, shown: Shown, options: RunOptions, display: DisplayOptions) -> None:
        self._model = model
        self._options = options
        self._display = display
        self._begun = tuple(Message(role, content) for role, content in shown.messages)
        self._messages: list[Message] = []
        self._sees_or_hears = shown.sees_or_hears
        self._session: PromptSession[str] = PromptSession(history=history_of(settings.load().config))

    def run(self) -> None:
        """Reads and answers until the user leaves."""
        for message in self._begun:
            text = printable(message.content, keep=LAYOUT)
            click.echo(f">>> {text}" if message.role == "user" else f"{text}\n")
        while True:
            try:
                text = self._read()
            except KeyboardInterrupt:
                if not self._session.default_buffer.text:
                    click.echo("\nUse Ctrl + d or /bye to exit.")
                continue
            except EOFError:
                click.echo()
                return
            if text.startswith("/") and not (self._sees_or_hears and begins_with_file(text)):
                if text.startswith(("/bye", "/exit")):
                    return
                self._obey(text)
            elif text.strip():
                self._answer(text)

    def _read(self) -> str:
        """A line, or a block of lines between triple quotes."""
        line = self._session.prompt(">>> ", placeholder=_hint(PLACEHOLDER))
        if not line.lstrip().startswith(BLOCK):
            return line
        lines = [line.lstrip().removeprefix(BLOCK)]
        while not lines[-1].rstrip().endswith(BLOCK):
            lines.append(self._session.prompt("... ", placeholder=_hint("Press Enter to send")))
        lines[-1] = lines[-1].rstrip().removesuffix(BLOCK)
        return "\n".join(lines)

    def _obey(self, text: str) -> None:
        if text.startswith("/clear"):
            self._messages = [message for message in self._messages if message.role == "system"]
            click.echo("Cleared session context")
        elif text.startswith(("/help", "/?")):
            click.echo(HELP, err=True)
        else:
            click.echo(f"Unknown command '{text.split()[0]}'. Type /? for help")

    def _answer(self, text: str) -> None:
        """Asks, prints the answer and keeps both; an answer that is interrupted is not kept."""
        question = self._question(text)
        if question is None:
            return
        try:
            answer = self._ask(question)
        except KeyboardInterrupt:
            click.echo("\n")
            return
        except CorralError as error:
            if "does not support thinking" in str(error) or "invalid think value" in str(error):
                click.echo(f"error: {printable(str(error))}")
                return
            raise
        self._messages += [question, Message("assistant", answer.content, answer.thinking)]
        click.echo("\n")
        if self._display.verbose and answer.metrics:
            click.echo(timings_text(answer.metrics), err=True)

    def _question(self, text: str) -> Message | None:
        if not self._sees_or_hears:
            return Message("user", text)
        try:
            attached = attach(text)
        except CorralError as error:
            click.echo(f'Couldn\'t process file: "{error}"', err=True)
            return None
        for note in attached.notes:
            click.echo(note, err=True)
        return Message("user", attached.prompt, images=attached.files)

    def _ask(self, question: Message) -> Answer:
        # A server that was started in the background may have ended while nothing was asked.
        chunks = connection.connect().chat(
            self._model,
            [*self._messages, question],
            format=self._options.format,
            think=self._options.think,
            keep_alive=self._options.keep_alive,
        )
        return print_answer(chunks, self._display)


def _hint(text: str) -> Callable[[], FormattedText]:
    """Shown while nothing is typed; not left on the screen when the prompt is left."""
    return lambda: FormattedText([] if get_app().is_done else [("fg:ansibrightblack", text)])
