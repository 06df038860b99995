"""A vocabulary as GGUF has it: every token with its kind and score. Knows neither where it comes from nor any file."""

import logging
import re
from collections.abc import Container, Mapping, Sequence
from enum import IntEnum

from msgspec import Struct
from msgspec.structs import replace

from corral.errors import ModelFileError
from corral.gguf.types import ValueType
from corral.gguf.writer import encode, encode_array

log = logging.getLogger(__name__)

MAX_TOKENS = 1 << 20
MAX_TOKEN_BYTES = 64 << 20
"""Tokens that a vocabulary may have, and the bytes of all their texts."""


class TokenKind(IntEnum):
    """What a token is to the engine, with the format's numbers."""

    NORMAL = 1
    UNKNOWN = 2
    """Stands for text that the vocabulary cannot spell."""
    CONTROL = 3
    """A mark that a text typed by a user never becomes."""
    USER_DEFINED = 4
    """Found in a text before anything else is."""
    UNUSED = 5
    BYTE = 6


class Token(Struct, frozen=True):
    """A token's text as the engine spells it, and its score: of two possible merges the higher is made first."""

    text: str
    kind: TokenKind = TokenKind.NORMAL
    score: float = 0.0


class Vocabulary(Struct, frozen=True):
    """Tokens by their numbers, which may have holes until it is `filled`.

    `model` and `pre` are the engine's names for the way of tokenising and of cutting a text up first; `spellings`:
    numbers of the tokens' texts in the checkpoint, where the engine spells them otherwise; `roles`: special tokens that
    the vocabulary itself names, such as `bos`; `more`: keys of this model.
    """

    model: str
    tokens: Mapping[int, Token]
    pre: str = "default"
    merges: Sequence[str] | None = None
    has_scores: bool = False
    spellings: Mapping[str, int] = {}
    roles: Mapping[str, int] = {}
    more: Mapping[str, bytes] = {}

    def filled(self, size: int) -> "Vocabulary":
        """The same with every number up to `size` taken: unused tokens `[PADn]` stand in holes and at the end."""
        if not 0 < size <= MAX_TOKENS:
            raise ModelFileError(f"the model has {size} tokens, not between 1 and {MAX_TOKENS}")
        if not self.tokens:
            raise ModelFileError("the tokenizer has no tokens")
        given = self._within(size)
        numbers: dict[str, int] = {}
        for number, token in given.items():
            if numbers.setdefault(token.text, number) != number:
                raise ModelFileError(f'token "{token.text[:80]}" has the numbers {numbers[token.text]} and {number}')
        tokens = {n: given.get(n) or Token(_free_name(n, numbers), TokenKind.UNUSED, -1000.0) for n in range(size)}
        if sum(len(token.text.encode()) for token in tokens.values()) > MAX_TOKEN_BYTES:
            raise ModelFileError(f"the tokens have more than {MAX_TOKEN_BYTES} bytes")
        spellings = {text: number for text, number in self.spellings.items() if number < size}
        return replace(self, tokens=tokens, spellings={**numbers, **spellings})

    def _within(self, size: int) -> Mapping[int, Token]:
        """The tokens that the model has numbers for. Marks beyond them are left out: Gemma 3 has one, for pictures,
        also where it sees none.
        """
        beyond = {number: token for number, token in self.tokens.items() if number >= size}
        if not beyond:
            return self.tokens
        if len(beyond) == len(self.tokens) or any(token.kind is not TokenKind.CONTROL for token in beyond.values()):
            last = max(beyond)
            raise ModelFileError(f"the tokenizer has tokens up to number {last}, and the model only {size} of them")
        log.warning("%d marks of the tokenizer are left out, whose numbers the model does not have", len(beyond))
        return {number: token for number, token in self.tokens.items() if number < size}

    @property
    def unknown(self) -> int | None:
        """The token that stands for what the vocabulary cannot spell."""
        return next((number for number, token in self.tokens.items() if token.kind is TokenKind.UNKNOWN), None)

    def number(self, text: str) -> int | None:
        """The token with this text in the checkpoint; the vocabulary must be filled."""
        return self.spellings.get(text)

    def fields(self) -> dict[str, bytes]:
        """The keys of the file; the vocabulary must be filled."""
        tokens = [self.tokens[number] for number in range(len(self.tokens))]
        found = {
            "tokenizer.ggml.model": encode(ValueType.STRING, self.model),
            "tokenizer.ggml.pre": encode(ValueType.STRING, self.pre),
            "tokenizer.ggml.tokens": encode_array(ValueType.STRING, [token.text for token in tokens]),
            "tokenizer.ggml.token_type": encode_array(ValueType.INT32, [int(token.kind) for token in tokens]),
        }
        if self.has_scores:
            found["tokenizer.ggml.scores"] = encode_array(ValueType.FLOAT32, [token.score for token in tokens])
        if self.merges is not None:
            found["tokenizer.ggml.merges"] = encode_array(ValueType.STRING, list(self.merges))
        return {**found, **self.more}


_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def is_byte(text: str) -> bool:
    """Whether a token's text is how SentencePiece spells a single byte."""
    return _BYTE.fullmatch(text) is not None


def has_every_byte(texts: Container[str]) -> bool:
    """Whether any text can be spelled, at worst byte by byte."""
    return all(f"<0x{byte:02X}>" in texts for byte in range(256))


def _free_name(number: int, taken: Mapping[str, int]) -> str:
    name = f"[PAD{number}]"
    while name in taken:
        name = f"[{name}]"
    return name
