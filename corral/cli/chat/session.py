"""What a conversation is at a moment: the model, the options, what was said. Knows no terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from corral.cli import connection
from corral.cli.chat.options import DisplayOptions, RunOptions
from corral.client import Stream
from corral.client.answers import Shown
from corral.errors import BadRequest
from corral.messages import Chunk, Json, Message, Progress, Think


@dataclass(frozen=True, slots=True)
class Subject:
    """The model that is talked with, and what is known of it."""

    name: str
    shown: Shown

    @property
    def thinks(self) -> bool:
        return "thinking" in self.shown.capabilities

    @property
    def first_messages(self) -> Sequence[Message]:
        """The messages that the model begins with; the server puts them before those that are sent."""
        return [Message.of(role, content) for role, content in self.shown.messages]


class Session:
    """A conversation's state, which slash commands change. Every question is sent with all messages before it."""

    def __init__(
        self, subject: Subject, options: RunOptions, display: DisplayOptions, *, keeps_history: bool = True
    ) -> None:
        self.subject = subject
        self.options = options
        self.display = display
        self.parameters: dict[str, Json] = {}
        """What `/set parameter` has set; it is laid over the model's own parameters."""
        self.messages: list[Message] = []
        """What was said here, system messages included."""
        self.keeps_history = keeps_history
        """Whether what is typed goes to the history file."""
        self.ended = False

    @property
    def system(self) -> str:
        """The system message that was set here last; empty: none was."""
        return next((message.text for message in reversed(self.messages) if message.role == "system"), "")

    def set_system(self, text: str) -> None:
        """The model reads it from here on: it replaces one that nothing was said after."""
        if self.messages and self.messages[-1].role == "system":
            self.messages.pop()
        self.messages.append(Message.of("system", text))

    def clear(self) -> None:
        """Forgets what was said, except the system message."""
        system = self.system
        self.messages = [Message.of("system", system)] if system else []

    def set_think(self, think: Think) -> None:
        self.options = replace(self.options, think=think)

    def set_format(self, format: Json) -> None:
        self.options = replace(self.options, format=format)

    def ask(self, question: Message) -> Stream[Chunk]:
        """The answer as it comes. Neither the question nor the answer is added to the messages."""
        # A server that was started in the background may have ended while nothing was asked.
        return connection.connect().chat(
            self.subject.name,
            [*self.messages, question],
            format=self.options.format,
            options=self.parameters,
            think=self._think,
            keep_alive=self.options.keep_alive,
            progress=True,
        )

    @property
    def _think(self) -> Think:
        """As it was asked for; else a model that can think does."""
        if self.options.think is not None:
            return self.options.think
        return True if self.subject.thinks else None

    def load(self) -> Stream[Chunk]:
        """Has the server load the model, so that the first answer need not wait for it."""
        return connection.connect().generate(
            self.subject.name, options=self.parameters, keep_alive=self.options.keep_alive, progress=True
        )

    def find(self, model: str) -> Subject:
        """Another model to talk with. `NotFound`; `BadRequest` for one that does not talk."""
        shown = connection.connect().show(model)
        if "embedding" in shown.capabilities:
            raise BadRequest(f"'{model}' is an embedding model: it turns texts into vectors, and does not answer")
        if "image" in shown.capabilities:
            raise BadRequest("image generation models are not currently supported")
        return Subject(model, shown)

    def turn_to(self, subject: Subject) -> None:
        """Goes on with another model; the parameters and the system message stay, what was said does not."""
        self.subject = subject
        self.clear()

    def save(self, model: str) -> Stream[Progress]:
        """Makes a model that goes on from here: this one, with the system message, parameters and messages so far.

        Its messages are texts: a Modelfile has no place for pictures and thoughts.
        """
        # Made from the model itself, not from its parent: its own template, parameters and adapters count here too.
        fields: dict[str, Json] = {"from": self.subject.name}
        if system := self.system:
            fields["system"] = system
        if self.parameters:
            fields["parameters"] = self.parameters
        said = [*self.subject.first_messages, *(message for message in self.messages if message.role != "system")]
        if said:
            fields["messages"] = [{"role": message.role, "content": message.text} for message in said]
        return connection.connect().create(model, fields)

    @property
    def has_media(self) -> bool:
        """Whether pictures or sounds were shown to the model."""
        return any(message.media for message in self.messages)


def parameters_text(parameters: Mapping[str, Json]) -> str:
    """The lines of parameters that were set here: name and value in columns."""
    rows = ((name, value if isinstance(value, list) else [value]) for name, value in parameters.items())
    return "".join(f"  {name:<30} {', '.join(map(value_text, values))}\n" for name, values in rows)


def value_text(value: Json) -> str:
    """A parameter's value as it is typed."""
    match value:
        case bool():
            return "true" if value else "false"
        case float() if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        case _:
            return str(value)
