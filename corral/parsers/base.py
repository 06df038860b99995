"""What every reader of an answer offers, and the pieces they share. Knows no format."""

from collections.abc import Iterable, Iterator
from typing import Literal, Protocol, TypeAlias

from corral.messages import Chunk

Warning: TypeAlias = Literal["tool_call_unparsed", "tool_calls_rescued"]
"""`tool_call_unparsed`: a tool call was begun, could not be read, and was handed on as content.
`tool_calls_rescued`: an answer without the model's tool-call format was taken for tool calls."""


class OutputParser(Protocol):
    """Turns the text of an answer into chunks of content, thinking and tool calls; one serves one answer.

    However the text is cut into pieces, the chunks add up to the same, and no text is lost but tags and the white
    space around them. Ids of tool calls are given out above; their `index` rises from 0.
    """

    @property
    def warnings(self) -> list[Warning]:
        """What did not go as the format wants, in the order it happened."""
        ...

    def feed(self, text: str) -> Iterator[Chunk]:
        """What is certain after the next piece; what may still become a tag is held back."""
        ...

    def flush(self) -> Iterator[Chunk]:
        """What is left when the answer has ended."""
        ...


class PlainText:
    """An answer without anything to read: all of it is content."""

    def __init__(self) -> None:
        self.warnings: list[Warning] = []

    def feed(self, text: str) -> Iterator[Chunk]:
        if text:
            yield Chunk(content=text)

    def flush(self) -> Iterator[Chunk]:
        return iter(())


def unfinished(text: str, marks: Iterable[str]) -> int:
    """Length of the longest end of `text` that is the beginning of a mark, but not all of it."""
    longest = 0
    for mark in marks:
        for length in range(min(len(mark) - 1, len(text)), longest, -1):
            if text.endswith(mark[:length]):
                longest = length
                break
    return longest
