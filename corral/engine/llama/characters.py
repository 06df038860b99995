"""The tokens of a text that llama-server reports only in part.

It sends no event for a token that ends within a character: the event of the token that completes the character has its
whole text, and the count of tokens shows how many came before. Which they were is found by tokenizing that text: a
model writes a character as the tokenizer does, but for rare exceptions. Knows no wire format.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice

from msgspec import Struct

REMEMBERED = 4096
"""Texts whose tokens are remembered; most are single characters, and a language has some thousands."""

MAX_TRIES = 64
"""Beginnings of stop words that are tried for a text that was kept back."""


class TokenText(Struct, frozen=True):
    """A token of the vocabulary and the bytes it stands for, which need not be whole characters."""

    id: int
    bytes: bytes


class TokenTexts:
    """Texts → their tokens, each asked of `tokenize` once as long as it is remembered."""

    def __init__(self, tokenize: Callable[[str], Awaitable[tuple[TokenText, ...]]]) -> None:
        self._tokenize = tokenize
        self._known: OrderedDict[str, tuple[TokenText, ...]] = OrderedDict()

    async def of(self, text: str) -> tuple[TokenText, ...]:
        """The tokens as the tokenizer writes the text."""
        if text not in self._known:
            self._known[text] = await self._tokenize(text)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return self._known[text]

    async def matching(self, text: str, ids: Sequence[int | None]) -> tuple[TokenText, ...] | None:
        """The tokens of a text of which only some `ids` are known; None where the tokenizer writes it differently.

        Tokens without a text may stand before or behind it.
        """
        written = (await self.of(text))[-len(ids) :] if text else ()
        for place in (len(ids) - len(written), 0):
            silent = [*ids[:place], *ids[place + len(written) :]]
            known = ids[place : place + len(written)]
            if None in silent or any(one not in (None, found.id) for one, found in zip(known, written, strict=True)):
                continue
            no_text = [TokenText(one, b"") for one in silent if one is not None]
            return (*no_text[:place], *written, *no_text[place:])
        return None

    async def beginning(self, words: Sequence[str], ids: Sequence[int | None]) -> str:
        """The beginning of one of `words` that these tokens write, of which only some are known; empty: none is."""
        beginnings = (word[:size] for word in words for size in range(len(word) - 1, 0, -1))
        for text in islice(beginnings, MAX_TRIES):
            if await self.matching(text, ids) is not None:
                return text
        return ""
