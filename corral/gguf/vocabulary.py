"""Whether the engine can work with a model's tokens, which takes reading them all: a second at most. Knows no shapes.

The engine ends the process when two tokens are the same, and searches for ever with some lists of bytes.
"""

import re
import struct
from collections.abc import Sequence

from corral.errors import ModelFileError
from corral.gguf.file import GGUF, Array
from corral.gguf.keys import quoted

_TOKENS = "tokenizer.ggml.tokens"
_ESCAPE = re.compile(rb"\\(?:x(..)|(.))", re.DOTALL)
_LETTERS = {b"t": b"\t", b"n": b"\n", b"r": b"\r"}


def check_vocabulary(file: GGUF) -> None:
    """Raises `ModelFileError`, naming the token, for a vocabulary the engine could not work with."""
    tokens = file.metadata.get(_TOKENS)
    if not isinstance(tokens, Array):
        return
    strings = _read(file, tokens)
    _check_unique(strings)
    if file.text("tokenizer.ggml.model") == "rwkv":
        _check_bytes(strings)


def draft_misfit(file: GGUF, draft: GGUF) -> str:
    """Why one model cannot draft tokens for another; empty when it can.

    The rule is the engine's (`common_speculative_are_compatible`), which would otherwise turn each draft into text and
    into tokens again: the same kind of vocabulary with the same first and last tokens, at most `_MOST_MORE` tokens more
    in one, and the same text for each number from `_FIRST_COMPARED` on.
    """
    for key in ("tokenizer.ggml.model", "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"):
        if file.get(key) != draft.get(key):
            return f'they differ in "{key}"'
    for key in ("tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token"):
        if file.flag(key) != draft.flag(key):
            return f'they differ in "{key}"'
    tokens, others = (_tokens(one) for one in (file, draft))
    if not tokens or abs(len(tokens) - len(others)) > _MOST_MORE:
        return f"their vocabularies have {len(tokens)} and {len(others)} tokens"
    for number, (token, other) in enumerate(zip(tokens, others, strict=False)):
        if number >= _FIRST_COMPARED and token != other:
            return f'token {number} is "{quoted(token)}" in one and "{quoted(other)}" in the other'
    return ""


_MOST_MORE, _FIRST_COMPARED = 128, 5


def _tokens(file: GGUF) -> list[bytes]:
    tokens = file.metadata.get(_TOKENS)
    return _read(file, tokens) if isinstance(tokens, Array) else []


def _check_unique(tokens: Sequence[bytes]) -> None:
    """A token ends at its first NUL byte, as the engine reads them; empty ones are given names of their own by it."""
    if b"\0" in b"".join(tokens):
        tokens = [token.split(b"\0", 1)[0] for token in tokens]
    named = [token for token in tokens if token]
    if len(set(named)) == len(named):
        return
    seen: set[bytes] = set()
    for token in named:
        if token in seen:
            raise ModelFileError(f'key "{_TOKENS}" has the token "{quoted(token)}" twice')
        seen.add(token)


def _check_bytes(tokens: Sequence[bytes]) -> None:
    """RWKV's tokenizer goes on by the longest token that fits: the first byte of each must be one, too."""
    first: set[int] = set()
    single: set[int] = set()
    for token in tokens:
        plain = _ESCAPE.sub(_unescaped, token)
        if plain:
            first.add(plain[0])
        if len(plain) == 1:
            single.add(plain[0])
    if missing := first - single:
        raise ModelFileError(
            f'key "{_TOKENS}" has tokens that begin with the byte {min(missing)}, which is none itself'
        )


def _unescaped(match: re.Match[bytes]) -> bytes:
    digits, letter = match.groups()
    if digits is None:
        return _LETTERS.get(letter, letter)
    try:
        return bytes([int(digits, 16)])
    except ValueError:
        return b""


def _read(file: GGUF, array: Array) -> list[bytes]:
    """The strings of an array as they are in the file."""
    length = struct.Struct((">" if file.big_endian else "<") + ("Q" if file.version > 1 else "I"))
    unpack, prefix = length.unpack_from, length.size
    try:
        with file.open() as opened:
            opened.seek(array.offset)
            content = opened.read(array.size)
    except OSError as error:
        raise ModelFileError(f'cannot read "{file.path}": {error.strerror}') from error
    if len(content) < array.size:
        raise ModelFileError(f'the file became shorter while key "{_TOKENS}" was read')
    strings: list[bytes] = []
    at = 0
    for _ in range(array.length):
        begin = at + prefix
        at = begin + unpack(content, at)[0]
        strings.append(content[begin:at])
    return strings
