"""What a conversation is at a moment: the model, the options, what was said. Knows no terminal."""

from collections.abc import Sequence

from corral.cli import connection
from corral.cli.chat.options import DisplayOptions, RunOptions
from corral.client import Stream
from corral.client.answers import Shown
from corral.messages import Chunk, Message


class Session:
    """A conversation's state, which slash commands change. Every question is sent with all messages before it."""

    def __init__(self, model: str, shown: Shown, options: RunOptions, display: DisplayOptions) -> None:
        self.model = model
        self.shown = shown
        self.options = options
        self.display = display
        self.messages: list[Message] = []
        """What was said here. The server puts the messages that the model begins with before them."""
        self.ended = False

    @property
    def first_messages(self) -> Sequence[Message]:
        """The messages that the model begins with."""
        return [Message.of(role, content) for role, content in self.shown.messages]

    def ask(self, question: Message) -> Stream[Chunk]:
        """The answer as it comes. Neither the question nor the answer is added to the messages."""
        # A server that was started in the background may have ended while nothing was asked.
        return connection.connect().chat(
            self.model,
            [*self.messages, question],
            format=self.options.format,
            think=self.options.think,
            keep_alive=self.options.keep_alive,
        )
