"""SentencePiece's `tokenizer.model`: pieces with scores, and how a text is normalised before they are found.

Source: sentencepiece_model.proto of the SentencePiece project, for numbers and defaults of the fields.
"""

import math
from collections.abc import Mapping

from msgspec import Struct

from corral.convert.tokenizers import metaspace, unigram
from corral.convert.tokenizers.files import SENTENCEPIECE, Folder
from corral.convert.tokenizers.protobuf import BrokenMessageError, Field, fields
from corral.convert.tokenizers.vocabulary import MAX_TOKENS, Token, TokenKind, Vocabulary, is_byte
from corral.errors import ModelFileError
from corral.gguf.types import ValueType
from corral.gguf.writer import encode


def read(folder: Folder) -> Vocabulary:
    try:
        model = _parse(memoryview(folder.read(SENTENCEPIECE)))
    except BrokenMessageError as error:
        raise ModelFileError(f'"{SENTENCEPIECE}" is not a SentencePiece model: {error}') from error
    if model.kind not in _KINDS:
        raise ModelFileError(f'"{SENTENCEPIECE}" is of kind {model.kind}, neither unigram nor BPE')
    tokens = dict(enumerate(model.pieces))
    unknown = next((token.text for token in model.pieces if token.kind is TokenKind.UNKNOWN), None)
    spellings = {token.text: number for number, token in tokens.items()}
    tokens = {number: _as_typed(token) for number, token in tokens.items()} | metaspace.added_tokens(folder, unknown)
    spellings |= {added.text: added.number for added in folder.added_tokens}
    prefix = folder.settings.get("add_prefix_space")
    more = {
        "tokenizer.ggml.add_space_prefix": encode(
            ValueType.BOOL, prefix if isinstance(prefix, bool) else model.adds_space
        ),
        "tokenizer.ggml.remove_extra_whitespaces": encode(ValueType.BOOL, model.removes_spaces),
    }
    if model.kind == _BPE:
        metaspace.check_bytes(spellings, SENTENCEPIECE)
    return Vocabulary(
        model="llama" if model.kind == _BPE else unigram.engine_model(spellings),
        tokens=tokens,
        has_scores=True,
        spellings=spellings,
        roles=model.roles,
        more=more | unigram.charsmap(model.charsmap, SENTENCEPIECE),
    )


class _Model(Struct, frozen=True):
    pieces: list[Token]
    kind: int
    adds_space: bool
    removes_spaces: bool
    charsmap: bytes
    roles: dict[str, int]


_UNIGRAM, _BPE = 1, 2
_KINDS = frozenset({_UNIGRAM, _BPE})
_PIECE_KINDS = {1: TokenKind.NORMAL, 2: TokenKind.UNKNOWN, 3: TokenKind.CONTROL, 4: TokenKind.USER_DEFINED}
_PIECE_KINDS |= {5: TokenKind.UNUSED, 6: TokenKind.BYTE}


def _parse(message: memoryview) -> _Model:
    pieces: list[Token] = []
    trainer: dict[int, Field] = {}
    normalizer: dict[int, Field] = {}
    for number, value in fields(message):
        if number == 1:
            if len(pieces) == MAX_TOKENS:
                raise BrokenMessageError(f"it has more than {MAX_TOKENS} pieces")
            pieces.append(_piece(_message(value), len(pieces)))
        elif number == 2:
            trainer |= fields(_message(value))
        elif number == 3:
            normalizer |= fields(_message(value))
    charsmap = normalizer.get(2, memoryview(b""))
    return _Model(
        pieces,
        int(_number(trainer.get(3, _UNIGRAM))),
        bool(normalizer.get(3, True)),
        bool(normalizer.get(4, True)),
        bytes(_message(charsmap)),
        {role: number for role, field in _ROLES.items() if 0 <= (number := _role(trainer, field)) < len(pieces)},
    )


_ROLES = {"bos": 41, "eos": 42, "pad": 43}
_DEFAULT_ROLES = {41: 1, 42: 2, 43: -1}


def _role(trainer: Mapping[int, Field], field: int) -> int:
    """A special token's number; negative ones are written as if they had 64 bits."""
    return int(_number(trainer.get(field, _DEFAULT_ROLES[field])))


def _piece(message: memoryview, number: int) -> Token:
    text, score, kind = "", 0.0, TokenKind.NORMAL
    for field, value in fields(message):
        if field == 1:
            try:
                text = bytes(_message(value)).decode()
            except UnicodeDecodeError as error:
                raise BrokenMessageError(f"piece {number} is not UTF-8") from error
        elif field == 2:
            score = float(_number(value))
        elif field == 3:
            if value not in _PIECE_KINDS:
                raise BrokenMessageError(f"piece {number} is of the unknown kind {value!r}")
            kind = _PIECE_KINDS[int(_number(value))]
    if not text:
        raise BrokenMessageError(f"piece {number} is empty")
    if not math.isfinite(score):
        raise BrokenMessageError(f"piece {number} has the score {score}")
    if kind is TokenKind.BYTE and not is_byte(text):
        raise BrokenMessageError(f'piece {number} is the byte "{text[:80]}"')
    return Token(text, kind, score)


def _as_typed(token: Token) -> Token:
    """A symbol that a user defined is found in a text before its spaces are written as ▁."""
    if token.kind is not TokenKind.USER_DEFINED:
        return token
    return Token(token.text.replace(metaspace.SPACE, " "), token.kind, token.score)


def _message(value: Field) -> memoryview:
    if not isinstance(value, memoryview):
        raise BrokenMessageError("a number where there should be a message")
    return value


def _number(value: Field) -> int | float:
    if isinstance(value, memoryview):
        raise BrokenMessageError("a message where there should be a number")
    return value
