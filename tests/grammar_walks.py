"""Answers written letter by letter under a grammar, as a model would that has a bias and no sense."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np

from corral.schemas import Schema, grammar

END = 256
"""The token that ends an answer; all others are bytes."""

Choose = Callable[[str, list[str]], str]
"""What comes next, given what has come and the ASCII characters that may; the empty text ends the answer."""


def grammar_of(schema: Schema) -> str:
    """What the engine makes its grammar of."""
    return schema.grammar or grammar.of_schema(schema.value)


def compiled(text: str) -> Any:
    """A matcher of one's own, at the beginning of an answer."""
    matcher: Any = _compiled(text)
    assert not matcher.is_error(), matcher.get_error()
    return matcher.deep_copy()


_compiled = cache(grammar._matcher)


def written(text: str, choose: Choose, longest: int) -> str:
    """An answer under a grammar; cut off at a length."""
    matcher = compiled(text)
    answer = b""
    while len(answer) < longest and not matcher.is_stopped():
        allowed = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")[: END + 1]
        assert not matcher.is_error(), matcher.get_error()
        options = [chr(byte) for byte in range(32, 127) if allowed[byte]] + ([""] if allowed[END] else [])
        # Within a letter that takes more bytes there is one way to go on.
        chosen = choose(answer.decode(errors="replace"), options) if options else chr(int(allowed.argmax()))
        if not chosen:
            break
        matcher.consume_token(chosen.encode("latin-1")[0])
        answer += chosen.encode("latin-1")
    return answer.decode()


def fits(text: str, answer: str) -> bool:
    """Whether a grammar admits an answer as a whole."""
    matcher = compiled(text)
    raw = list(answer.encode())
    return int(matcher.try_consume_tokens(raw)) == len(raw) and bool(matcher.is_accepting())


def preferring(characters: str) -> Choose:
    """Takes the first of the characters that may come, over and over, but ends each string; else what ends soonest."""

    def choose(answer: str, options: list[str]) -> str:
        if '"' in options and is_within_string(answer):
            return '"'
        preferred = [*characters, "]", "}", "", ","]
        return next((character for character in preferred if character in options), options[0])

    return choose


def is_within_string(answer: str) -> bool:
    return sum(1 for _ in _quotes(answer)) % 2 == 1


def _quotes(answer: str) -> Iterator[int]:
    at = 0
    while at < len(answer):
        if answer[at] == '"':
            yield at
        at += 2 if answer[at] == "\\" else 1
