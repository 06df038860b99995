"""The conversation at the `>>> ` prompt. Keeps the messages and sends them all each time. Source: spec cli §5.

prompt_toolkit edits the line; it is imported by `run` only when there is a conversation.
"""

import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click
from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import History, InMemoryHistory

from corral import config as settings
from corral.cli import connection
from corral.cli.answer import Answer, Look, print_answer, timings_text
from corral.cli.attachments import attach, begins_with_file
from corral.cli.display.text import LAYOUT, printable
from corral.client.answers import Shown
from corral.errors import CorralError
from corral.messages import Message

if TYPE_CHECKING:
    from corral.cli.run import Wishes

PLACEHOLDER = "Send a message (/? for help)"
BLOCK = '"""'
HISTORY_LINES = 100

HELP = """\
Available Commands:
  /clear          Clear session context
  /bye            Exit
  /?, /help       Help for a command

Use \"\"\" to begin a multi-line message.
"""


class Conversation:
    """A conversation with a model; the model's own messages come first."""

    def __init__(self, model: str, shown: Shown, wishes: "Wishes", look: Look) -> None:
        self._model = model
        self._wishes = wishes
        self._look = look
        self._begun = tuple(Message(role, content) for role, content in shown.messages)
        self._messages: list[Message] = []
        self._sees_or_hears = shown.sees_or_hears
        self._session: PromptSession[str] = PromptSession(history=_history())

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
        if self._look.verbose and answer.metrics:
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
            format=self._wishes.format,
            think=self._wishes.think,
            keep_alive=self._wishes.keep_alive,
        )
        return print_answer(chunks, self._look)


def _hint(text: str) -> Callable[[], FormattedText]:
    """Shown while nothing is typed; not left on the screen when the prompt is left."""
    return lambda: FormattedText([] if get_app().is_done else [("fg:ansibrightblack", text)])


def _history() -> History:
    config = settings.load().config
    return InMemoryHistory() if config.no_history else LineHistory(config.home / "history")


class LineHistory(History):
    """The history file that Ollama keeps too: plain text, an entry a line, the last hundred (spec cli §5.5)."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file

    def load_history_strings(self) -> Iterable[str]:
        """The newest first."""
        return reversed(self._lines())

    def store_string(self, string: str) -> None:
        """Rewritten as a whole, so that a crash leaves the old one. A conversation goes on without its history."""
        lines = [*self._lines(), *filter(None, string.splitlines())][-HISTORY_LINES:]
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._file.parent, prefix="history-")  # only its owner may read it
            with open(handle, "w", encoding="utf-8", errors="replace") as stream:
                stream.writelines(f"{line}\n" for line in lines)
            Path(name).replace(self._file)
        except OSError as error:
            print(f"Warning: cannot keep the history: {error}", file=sys.stderr)

    def _lines(self) -> list[str]:
        try:
            return self._file.read_text("utf-8", "replace").splitlines()
        except OSError:
            return []
