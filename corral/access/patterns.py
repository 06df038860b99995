"""Patterns of model names, as a key lists those it is for. `*` stands for any letters within one part of a name.

Names are compared as the store does: complete, and without regard to case. What a pattern leaves out is filled in as in
a name, but a pattern with a `*` and without a tag means every tag, and `*` alone every model.
"""

from collections.abc import Iterable
from functools import lru_cache

from corral.errors import BadRequest, InvalidName
from corral.names import Name, parse

MAX_LENGTH = 400
ANY = "*"


def allows(patterns: Iterable[str], name: Name) -> bool:
    """Whether a name fits one of the patterns, which have passed `check`."""
    folded = name.folded
    parts = (folded.host, folded.namespace, folded.model, folded.tag)
    return any(all(map(_fits, _parts(pattern), parts)) for pattern in patterns)


def check(pattern: str) -> None:
    """`BadRequest` for a pattern that fits no name."""
    try:
        if len(pattern) > MAX_LENGTH:
            raise InvalidName(pattern)
        Name(*(part.replace(ANY, "x") for part in _parts(pattern)))
    except InvalidName:
        sentence = f'"{pattern[:80]}" is no pattern of model names; write it as llama3.2, qwen*, team/* or hf.co/*/*'
        raise BadRequest(sentence) from None


@lru_cache(4096)
def _parts(pattern: str) -> tuple[str, str, str, str]:
    """Host, namespace, model and tag, in lower case. `InvalidName` for too many parts, or none."""
    text = pattern.strip().lower()
    if text == ANY:
        return ANY, ANY, ANY, ANY
    tag = ANY if ANY in text else "latest"
    colon = text.rfind(":")
    if colon > text.rfind("/"):
        text, tag = text[:colon], text[colon + 1 :]
    name = parse(text.replace(ANY, "x"))  # fills in what is left out, and refuses what is no name
    given = text.split("://", 1)[-1].split("/")
    host, namespace, model = [name.host, name.namespace][: 3 - len(given)] + given
    return host, namespace, model, tag


def _fits(pattern: str, text: str) -> bool:
    """Whether the whole text fits. Takes time in proportion to it, however many `*` there are."""
    head, *rest = pattern.split(ANY)
    if not rest:
        return text == head
    *middle, tail = rest
    if not text.startswith(head) or len(text) < len(head) + len(tail) or not text.endswith(tail):
        return False
    at, end = len(head), len(text) - len(tail)
    for part in middle:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
