"""Thoughts between two tags at the start of an answer (spec cli §16.2)."""

from collections.abc import Iterator
from enum import Enum, auto

from corral.messages import Chunk
from corral.parsers.base import Warning, unfinished


class _State(Enum):
    OPENING = auto()
    """Nothing yet but white space or a part of the opening tag."""
    BEFORE_THOUGHT = auto()
    THOUGHT = auto()
    BEFORE_CONTENT = auto()
    CONTENT = auto()


class ThinkingParser:
    """Thinking up to the first closing tag, content after it; all content when no opening tag comes first.

    `inside`: the prompt ends in the opening tag, so the answer begins as a thought (a repeated tag is left out). What
    is held back when the answer ends belongs to where it stands; the specification's loss of it is not imitated.
    """

    def __init__(self, opening: str, closing: str, *, inside: bool = False) -> None:
        self.warnings: list[Warning] = []
        self._opening = opening
        self._closing = closing
        self._inside = inside
        self._state = _State.OPENING
        self._held = ""

    @property
    def is_past(self) -> bool:
        """Whether all that comes is content."""
        return self._state is _State.CONTENT

    def feed(self, text: str) -> Iterator[Chunk]:
        if self._state is _State.CONTENT:
            if text:
                yield Chunk(content=text)
            return
        self._held += text
        state = None
        while state is not self._state:
            state = self._state
            yield from self._step()

    def flush(self) -> Iterator[Chunk]:
        held, self._held = self._held, ""
        if not held:
            return
        if self._state is _State.THOUGHT or (self._inside and self._state is _State.OPENING):
            yield Chunk(thinking=held)
        elif self._state is _State.OPENING:
            yield Chunk(content=held)

    def _step(self) -> Iterator[Chunk]:
        match self._state:
            case _State.OPENING:
                self._open()
            case _State.BEFORE_THOUGHT | _State.BEFORE_CONTENT:
                self._held = self._held.lstrip()
                if self._held:
                    self._state = _State.THOUGHT if self._state is _State.BEFORE_THOUGHT else _State.CONTENT
            case _State.THOUGHT:
                thought, closing, rest = self._held.partition(self._closing)
                keep = 0 if closing else unfinished(thought, (self._closing,))
                if len(thought) > keep:
                    yield Chunk(thinking=thought[: len(thought) - keep])
                self._held = rest if closing else thought[len(thought) - keep :]
                if closing:
                    self._state = _State.BEFORE_CONTENT
            case _State.CONTENT:
                yield Chunk(content=self._held)
                self._held = ""

    def _open(self) -> None:
        rest = self._held.lstrip()
        if rest.startswith(self._opening):
            self._held = rest[len(self._opening) :]
            self._state = _State.BEFORE_THOUGHT
        elif self._opening.startswith(rest):
            return
        elif self._inside:
            self._state = _State.BEFORE_THOUGHT
        else:
            self._state = _State.CONTENT
