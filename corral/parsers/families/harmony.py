"""Answers of gpt-oss: messages with a header, a channel and maybe a recipient (spec cli §16.3).

    <|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>commentary to=functions.NAME
    <|constrain|>json<|message|>{…}<|call|>

`analysis` is thinking, `final` and `commentary` are content, what is addressed to a function is a tool call.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum, auto

import msgspec

from corral.messages import Chunk, Message, Tool, ToolCall
from corral.parsers.base import OutputParser, Warning, unfinished
from corral.parsers.calls import decode_object

NAMES = ("harmony",)
CONTENT = "<|end|><|start|>assistant<|channel|>final<|message|>"
MARKS = ("<|start|>", "<|channel|>", "<|constrain|>", "<|message|>", "<|end|>", "<|call|>", "<|return|>")


def build(tools: Sequence[Tool], prompt: str) -> OutputParser:
    """A reader for the answer to `prompt`, which ends in `<|start|>assistant`, in a header or in a message's body."""
    parser = HarmonyParser(identifiers(tool.name for tool in tools))
    _, start, begun = prompt.rpartition("<|start|>")
    if start and "<|" in begun:
        for _ in parser.feed(start + begun):
            pass
    return parser


def identifiers(names: Iterable[str]) -> dict[str, str]:
    """For each tool's name the TypeScript identifier that the prompt uses, all different."""
    new_names: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9_$]", "", re.sub(r"[-. ]", "_", name)) or "unnamed"
        plain = f"_{plain}" if plain[0].isdigit() else plain
        identifier, count = plain, 1
        while identifier in new_names.values():
            count += 1
            identifier = f"{plain}_{count}"
        new_names.setdefault(name, identifier)
    return new_names


def with_identifiers(messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[list[Message], list[Tool]]:
    """Conversation and tools with every tool under the identifier that the prompt uses."""
    new_names = identifiers(tool.name for tool in tools)

    def renamed(message: Message) -> Message:
        calls = tuple(
            msgspec.structs.replace(call, name=new_names.get(call.name, call.name)) for call in message.tool_calls
        )
        return msgspec.structs.replace(
            message, tool_calls=calls, tool_name=new_names.get(message.tool_name, message.tool_name)
        )

    return (
        [renamed(message) for message in messages],
        [msgspec.structs.replace(tool, name=new_names[tool.name]) for tool in tools],
    )


class _State(Enum):
    BETWEEN = auto()
    """Before a message: a header is to come."""
    HEADER = auto()
    BODY = auto()


class HarmonyParser:
    """Reads messages one after the other; text without a header is content, and so is a call of an unknown tool.

    `new_names`: for each tool's name the identifier the model knows it by; the name itself is read, too.
    """

    def __init__(self, new_names: dict[str, str]) -> None:
        self.warnings: list[Warning] = []
        self._names = {name: name for name in new_names} | {identifier: name for name, identifier in new_names.items()}
        self._state = _State.BETWEEN
        self._held = ""
        self._header = ""
        self._channel = ""
        self._recipient = ""
        self._body: list[str] = []
        """What a tool is sent, until it is all there."""
        self._count = 0

    def feed(self, text: str) -> Iterator[Chunk]:
        self._held += text
        yield from self._advance(ended=False)

    def flush(self) -> Iterator[Chunk]:
        yield from self._advance(ended=True)
        if self._state is _State.BODY:
            yield from self._end_body()
        held, self._held = self._held, ""
        if self._state is _State.HEADER and not _HEADER_ONLY.fullmatch(held):
            yield Chunk(content=held)

    def _advance(self, *, ended: bool) -> Iterator[Chunk]:
        before = None
        while before != (self._state, len(self._held)):
            before = (self._state, len(self._held))
            match self._state:
                case _State.BETWEEN:
                    self._begin(ended)
                case _State.HEADER:
                    self._read_header()
                case _State.BODY:
                    yield from self._read_body(ended)

    def _begin(self, ended: bool) -> None:
        rest = self._held.lstrip()
        if rest.startswith(_BODY_ENDS):
            self._held = rest.partition("|>")[2]
        elif rest.startswith(_BEGINS):
            self._held = rest.removeprefix("<|start|>")
            self._state = _State.HEADER
        elif rest and (ended or not any(mark.startswith(rest) for mark in (*_BEGINS, *_BODY_ENDS))):
            self._open_body("")

    def _read_header(self) -> None:
        header, message, rest = self._held.partition("<|message|>")
        if message:
            self._held = rest
            self._open_body(header + message)
        elif len(header) > MAX_HEADER:
            self._open_body("")

    def _open_body(self, header: str) -> None:
        channel = re.search(r"<\|channel\|>\s*(\w*)", header)
        recipient = re.search(r"\bto=([^\s<]+)", header)
        self._header = header
        self._channel = channel[1] if channel else ""
        self._recipient = recipient[1] if recipient and recipient[1] not in ("user", "assistant", "all") else ""
        self._state = _State.BODY

    def _read_body(self, ended: bool) -> Iterator[Chunk]:
        end = _BODY_END.search(self._held)
        certain = len(self._held) - (0 if ended else unfinished(self._held, (*_BODY_ENDS, "<|start|>")))
        text = self._held[: end.start() if end else certain]
        self._held = self._held[len(text) :]
        if self._recipient:
            self._body.append(text)
        elif text:
            yield Chunk(thinking=text) if self._channel == "analysis" else Chunk(content=text)
        if end:
            yield from self._end_body()
            self._state = _State.BETWEEN

    def _end_body(self) -> Iterator[Chunk]:
        if not self._recipient:
            return
        body, self._body = "".join(self._body), []
        name, self._recipient = self._names.get(self._recipient.removeprefix("functions.")), ""
        arguments = decode_object(body) if body.strip() else {}
        if name is None or arguments is None:
            self.warnings.append("tool_call_unparsed")
            yield Chunk(content=self._header + body)
            return
        yield Chunk(tool_calls=(ToolCall(name=name, arguments=arguments, index=self._count),))
        self._count += 1


MAX_HEADER = 256
"""Characters. A header has a role, a channel, a recipient and a content type; longer text is none."""

_BEGINS = ("<|start|>", "<|channel|>", "<|message|>", "<|constrain|>", "to=")
_BODY_ENDS = ("<|end|>", "<|call|>", "<|return|>")
_BODY_END = re.compile(r"<\|(?:end|call|return|start)\|>")
_HEADER_ONLY = re.compile(
    r"\s*\w*\s*(?:to=\S*)?\s*(?:<\|channel\|>\w*)?\s*(?:to=\S*)?\s*(?:<\|constrain\|>\w*)?\s*(?:<[|\w]*)?"
)
