"""Text with calls of tools in it, each between two marks; what stands between them is read by the family's function.

    some text <opening>…<closing> more text

White space at a call goes where there is no text on its other side; between two texts it stays, so that no words are
joined. (Ollama drops it there, too; spec cli §16.3.)
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias

from msgspec import Struct

from corral.messages import Chunk, Json, Tool, ToolCall
from corral.parsers.base import OutputParser, Warning, unfinished

Calls: TypeAlias = Sequence[tuple[str, dict[str, Json]]]
"""Names of tools with their arguments."""


class Block(Struct, frozen=True):
    """A stretch of an answer that is no text but calls."""

    opening: str
    closing: str
    read: Callable[[str], Calls]
    """The calls in the stretch, which comes with its marks, without the closing one where the answer ends before it.
    None, or a `ValueError`, when there is no call to be read."""


class TaggedParser:
    """Reads text with `blocks` of calls of `tools` in it; a block that cannot be read is content.

    `ignored`: marks that mean nothing here and go.
    """

    def __init__(self, tools: Sequence[Tool], blocks: Iterable[Block], ignored: Sequence[str] = ()) -> None:
        self.warnings: list[Warning] = []
        self._names = {tool.name for tool in tools}
        self._blocks = {block.opening: block for block in blocks}
        self._marks = (*self._blocks, *ignored)
        self._mark = re.compile("|".join(map(re.escape, sorted(self._marks, key=len, reverse=True))))
        self._block: Block | None = None
        self._held = ""
        self._looked = 0
        """How much of `_held` has been searched for the end of the block."""
        self._space: list[str] = []
        """White space that goes if nothing but calls follows."""
        self._has_text = False
        self._is_after_call = False
        self._count = 0

    def feed(self, text: str) -> Iterator[Chunk]:
        self._held += text
        yield from self._advance(ended=False)

    def flush(self) -> Iterator[Chunk]:
        yield from self._advance(ended=True)
        space, self._space = "".join(self._space), []
        if space and not self._is_after_call:
            yield Chunk(content=space)

    def _advance(self, *, ended: bool) -> Iterator[Chunk]:
        before = None
        while before != (self._block, len(self._held)):
            before = (self._block, len(self._held))
            yield from self._read_text(ended) if self._block is None else self._read_block(self._block, ended)

    def _read_text(self, ended: bool) -> Iterator[Chunk]:
        found = self._mark.search(self._held)
        end = found.start() if found else len(self._held) - (0 if ended else unfinished(self._held, self._marks))
        text, self._held = self._held[:end], self._held[end:]
        yield from self._written(text)
        if found is not None:
            self._block, self._looked = self._blocks.get(found[0]), len(found[0])
            if self._block is None:
                self._held = self._held[len(found[0]) :]

    def _read_block(self, block: Block, ended: bool) -> Iterator[Chunk]:
        end = self._held.find(block.closing, self._looked)
        if end < 0 and not ended:
            self._looked = max(self._looked, len(self._held) - len(block.closing))
            return
        end = len(self._held) if end < 0 else end + len(block.closing)
        text, self._held = self._held[:end], self._held[end:]
        self._block = None
        yield from self._called(block, text)

    def _called(self, block: Block, text: str) -> Iterator[Chunk]:
        try:
            calls = block.read(text)
        except ValueError:
            calls = ()
        if not calls or any(name not in self._names for name, _ in calls):
            self.warnings.append("tool_call_unparsed")
            yield from self._written(text)
            return
        for name, arguments in calls:
            yield Chunk(tool_calls=(ToolCall(name=name, arguments=arguments, index=self._count),))
            self._count += 1
        self._is_after_call = True
        if not self._has_text:
            self._space = []

    def _written(self, text: str) -> Iterator[Chunk]:
        body = text.rstrip()
        if body:
            whole = "".join(self._space) + body
            yield Chunk(content=whole if self._has_text or not self._is_after_call else whole.lstrip())
            self._space, self._has_text, self._is_after_call = [], True, False
        if len(body) < len(text):
            self._space.append(text[len(body) :])


class Chained:
    """Two readers, one after the other: what the first leaves as content goes through the second."""

    def __init__(self, first: OutputParser, second: OutputParser) -> None:
        self._first = first
        self._second = second

    @property
    def warnings(self) -> list[Warning]:
        return [*self._first.warnings, *self._second.warnings]

    def feed(self, text: str) -> Iterator[Chunk]:
        yield from self._through_second(self._first.feed(text))

    def flush(self) -> Iterator[Chunk]:
        yield from self._through_second(self._first.flush())
        yield from self._second.flush()

    def _through_second(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            if chunk.content:
                yield from self._second.feed(chunk.content)
            else:
                yield chunk
