"""How deeply a file's chat templates nest. Knows of Jinja no more than strings, brackets, tags and operators.

The engine's parser calls itself for each level of an expression and of a block, and its stack ends at some thousands.
"""

import re

from corral.errors import ModelFileError
from corral.gguf.file import GGUF

MAX_CHARACTERS = 1 << 18
"""Of one template; the longest ones in use have some tens of thousands."""
MAX_BLOCKS = 500
MAX_BRACKETS = 500
MAX_BRANCHES = 2000
MAX_OPERATIONS = 2000

_KEY = "tokenizer.chat_template"
_TAG = re.compile(r"\{#.*?(?:#\}|\Z)|(\{[{%])|\Z", re.DOTALL)
_PART = re.compile(
    r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"   # a string
      |(?P<end>[-+]?[%}]\})
      |(?P<open>[(\[{])|(?P<close>[)\]}])
      |(?P<word>[A-Za-z_]\w*)
      |(?P<operation>\*\*|//|[=!<>]=|[-+*/%~|.<>=])
      |[\s\S]""",
    re.VERBOSE,
)
_WORDS = frozenset({"and", "or", "not", "in", "is", "if", "else"})
_OPENING = frozenset(
    {"if", "for", "macro", "call", "filter", "set", "generation", "raw", "block", "autoescape", "with"}
)


def check_chat_templates(file: GGUF) -> None:
    """Raises `ModelFileError`, naming the key, for a chat template the engine could not even parse."""
    for key, value in file.metadata.items():
        if key.startswith(_KEY) and isinstance(value, str):
            if len(value) > MAX_CHARACTERS:
                raise ModelFileError(f'key "{key}" has {len(value)} characters, more than {MAX_CHARACTERS}')
            _check(key, value)


def _check(key: str, text: str) -> None:
    blocks = branches = position = 0
    while match := _TAG.search(text, position):
        position = match.end()
        if match[1] is None:
            if position >= len(text):
                return
            continue
        position, word = _check_tag(key, text, position)
        if match[1] != "{%":
            continue
        blocks = max(0, blocks + (word in _OPENING) - word.startswith("end"))
        branches += word == "elif"
        if blocks > MAX_BLOCKS:
            raise ModelFileError(f'key "{key}" has blocks nested deeper than {MAX_BLOCKS}')
        if branches > MAX_BRANCHES:
            raise ModelFileError(f'key "{key}" has more than {MAX_BRANCHES} branches')


def _check_tag(key: str, text: str, position: int) -> tuple[int, str]:
    """(where the tag ends, its first word); raises for an expression that nests too deeply or is too long.

    The first word of an assignment is its `=`: nothing follows that would have to end.
    """
    depth = operations = 0
    first = ""
    while match := _PART.match(text, position):
        position = match.end()
        match match.lastgroup:
            case "end" if depth <= 0:
                return position, first
            case "end":  # braces of dictionaries
                depth, position = depth - 1, match.start() + 1
            case "word":
                first = first or match[0]
                operations += match[0] in _WORDS
            case "operation":
                operations += 1
                first = "=" if match[0] == "=" and first == "set" else first
            case "open":
                depth += 1
                operations += 1
            case "close":
                depth -= 1
        if depth > MAX_BRACKETS:
            raise ModelFileError(f'key "{key}" has brackets nested deeper than {MAX_BRACKETS}')
        if operations > MAX_OPERATIONS:
            raise ModelFileError(f'key "{key}" has an expression of more than {MAX_OPERATIONS} operations')
    return position, first
