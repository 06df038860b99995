"""Readers of one model family's answers, one file a family (spec cli §16.3).

A family's file has `NAMES`, the parser names it goes by, `MARKS`, the special tokens it reads by, and
`build(tools, prompt)`, which makes a reader for an answer to `prompt`; if its models think, also `CONTENT`, what
closes a thought so that content may begin. Being in this folder is all it takes.
"""

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, TypeAlias

from corral.messages import Tool
from corral.parsers.base import OutputParser

Build: TypeAlias = Callable[[Sequence[Tool], str], OutputParser]


def families() -> dict[str, Build]:
    """The makers of readers by parser name."""
    return {name: module.build for name, module in _modules().items()}


def marks(name: str) -> tuple[str, ...]:
    """The special tokens a parser must see in an answer; none for an unknown parser."""
    module = _modules().get(name)
    return () if module is None else module.MARKS


def content_mark(name: str) -> str:
    """What stands between thoughts and content of a parser's models."""
    return str(getattr(_modules().get(name), "CONTENT", ""))


def capabilities(name: str) -> tuple[str, ...]:
    """What models can do whose answers a parser reads: call tools, perhaps think; nothing for an unknown parser."""
    if name not in _modules():
        return ()
    thinks = content_mark(name) and not name.endswith("-no-thinking")
    return ("tools", "thinking") if thinks else ("tools",)


@cache
def _modules() -> dict[str, Any]:
    found = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    return {name: module for module in found for name in module.NAMES}
