"""Readers of one model family's answers, one file a family (spec cli §16.3).

A family's file has `NAMES`, the parser names it goes by, `MARKS`, the special tokens it reads by, and
`build(tools, prompt)`, which makes a reader for an answer to `prompt`; if its models think, also `CONTENT`, what
closes a thought so that content may begin. Names of models that do not think, or call no tools, stand in
`WITHOUT_THINKING` and `WITHOUT_TOOLS`. Being in this folder is all it takes.
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
    """What models can do whose answers a parser reads: call tools, think; nothing for an unknown parser (cli §14.5)."""
    module = _modules().get(name)
    if module is None:
        return ()
    can = {
        "tools": name not in getattr(module, "WITHOUT_TOOLS", ()),
        "thinking": content_mark(name) != "" and name not in getattr(module, "WITHOUT_THINKING", ()),
    }
    return tuple(capability for capability, is_there in can.items() if is_there)


@cache
def _modules() -> dict[str, Any]:
    found = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    return {name: module for module in found for name in module.NAMES}
