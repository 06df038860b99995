"""The library that the engine compiles grammars with, asked before and after it. Knows no limits of ours.

`llguidance` is pinned to the version inside the engine: a newer one accepts what the engine then ignores.
"""

import re
from functools import cache
from typing import Any

import msgspec

from corral.messages import Json


def compile_error(schema: Json) -> str:
    """Why the engine cannot compile a schema, in words; empty when it can."""
    return error_of(of_schema(schema))


def error_of(grammar: str) -> str:
    """Why the engine cannot compile a grammar, in words; empty when it can."""
    matcher = _matcher(grammar)
    if not matcher.is_error():
        matcher.compute_bitmask()
    if not matcher.is_error():
        return ""
    return _in_words(str(matcher.get_error()))


def pattern_error(pattern: str) -> str:
    """Why a regular expression cannot be used; empty when it can."""
    return compile_error({"type": "string", "pattern": pattern})


def of_schema(schema: Json) -> str:
    """The grammar that llama.cpp makes of a schema."""
    return "%llguidance {}\nstart: %json " + msgspec.json.encode(schema).decode()


def accepts_prefix(grammar: str, text: str) -> bool:
    """Whether `text` fits a grammar without an error, or is the beginning of what does."""
    matcher = _matcher(grammar)
    raw = text.encode("utf-8", "surrogatepass")
    return not matcher.is_error() and int(matcher.try_consume_tokens(list(raw))) == len(raw)


def _matcher(grammar: str) -> Any:
    from llguidance import LLMatcher

    return LLMatcher(_bytes_as_tokens(), grammar, log_level=0)


class _Bytes:
    """A vocabulary of the 256 bytes and an end."""

    eos_token_id = 256
    bos_token_id = None
    tokens = (*(bytes([value]) for value in range(256)), b"<end>")
    special_token_ids = (256,)

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


@cache
def _bytes_as_tokens() -> Any:
    from llguidance import LLTokenizer, TokenizerWrapper

    return LLTokenizer(TokenizerWrapper(_Bytes()), n_vocab=257, slices=[])


def _in_words(error: str) -> str:
    """The part of the library's error that says something to a person."""
    reason = re.sub(r"\A(?:at \d+\(\d+\): )?(?:failed to compile JSON schema: )?(?:Unsatisfiable schema: )?", "", error)
    if reason.startswith("NoExtension"):
        return "nothing fits it"
    if reason.startswith("Regex is empty"):
        return "no string fits it"
    if reason.startswith("oneOf constraints"):
        return ONE_OF
    if "look-around" in reason or "lookarounds" in reason:
        return LOOK_AROUND
    if "backreferences" in reason:
        return BACK_REFERENCES
    if reason.startswith("regex parse error"):
        return "not a regular expression: " + reason.rsplit("error: ", 1)[-1].splitlines()[0]
    line = reason.splitlines()[0] if reason else "it cannot be compiled"
    return (line[0].lower() + line[1:])[:200].rstrip(".")


LOOK_AROUND = "look-around in a pattern is not supported"
BACK_REFERENCES = "back-references in a pattern are not supported"
ONE_OF = "more than one of oneOf may fit"
