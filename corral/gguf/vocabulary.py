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
