"""Readers of one model family's answers, one file a family (spec cli §16.3).

A family's file has `NAMES`, the parser names it goes by, and `build(tools, prompt)`, which makes a reader for an
answer to `prompt`. Being in this folder is all it takes to be found.
"""

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TypeAlias

from corral.messages import Tool
from corral.parsers.base import OutputParser

Build: TypeAlias = Callable[[Sequence[Tool], str], OutputParser]


@cache
def families() -> dict[str, Build]:
    """The makers of readers by parser name."""
    modules = [import_module(f"{__name__}.{module.name}") for module in iter_modules(__path__)]
    return {name: module.build for module in modules for name in module.NAMES}
