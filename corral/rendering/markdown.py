"""Markdown → HTML, block by block, so that a text that grows need not be rendered again from its beginning.

HTML in the text is shown as text, and a picture as a link, since it would be loaded from somewhere.
"""

import html
import re
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock, table
from markdown_it.token import Token
from mdit_py_plugins.tasklists import tasklists_plugin
from msgspec import Struct

from corral.rendering import clean, code, formulas

MAX_CHARACTERS = 32_768
"""Characters that are rendered at once, which takes some tenths of a second."""
MAX_COLUMNS = 100
"""Columns of a table. A wider one is shown as it was written: each short row below it would get as many empty cells."""
_CACHED_CHARACTERS = 16_384
_REORDERING = re.compile("[\u202a-\u202e\u2066-\u2069]")
"""Characters that show text in another order than it has, so that a command could look like another one."""


class Block(Struct, frozen=True):
    """A paragraph, list, table or the like: the line on which it begins, from 0, and its HTML."""

    line: int
    html: str


def blocks(text: str) -> tuple[Block, ...]:
    """The blocks of a text of at most `MAX_CHARACTERS`. The last one may still be open: more text may change it."""
    return _remembered(text) if len(text) <= _CACHED_CHARACTERS else _rendered(text)


@lru_cache(maxsize=256)
def _remembered(text: str) -> tuple[Block, ...]:
    return _rendered(text)


def _rendered(text: str) -> tuple[Block, ...]:
    shown = _REORDERING.sub(lambda found: f"⟦U+{ord(found[0]):04X}⟧", text)
    parser, context = _parser(), dict[str, Any]()
    return tuple(
        Block(
            tokens[0].map[0] if tokens[0].map else 0,
            clean.cleaned(parser.renderer.render(tokens, parser.options, context)),
        )
        for tokens in _top_level(parser.parse(shown, context))
    )


def _top_level(tokens: Sequence[Token]) -> Iterator[Sequence[Token]]:
    """The tokens of each block."""
    begin, depth = 0, 0
    for place, token in enumerate(tokens):
        depth += token.nesting
        if depth == 0:
            yield tokens[begin : place + 1]
            begin = place + 1


@cache
def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False, "linkify": True, "maxNesting": 60, "highlight": code.highlighted})
    parser.enable(["table", "strikethrough", "linkify"])
    parser.block.ruler.at("table", _table, {"alt": ["paragraph", "reference"]})
    parser.use(tasklists_plugin)
    formulas.add_to(parser)
    parser.add_render_rule("image", _picture)
    for cell in ("th_open", "td_open"):
        parser.add_render_rule(cell, _cell)
    return parser


def _table(state: StateBlock, first: int, last: int, silent: bool) -> bool:
    columns = state.src.count("|", state.bMarks[first], state.eMarks[first]) - 1
    return columns <= MAX_COLUMNS and table(state, first, last, silent)


def _cell(_: Any, tokens: Sequence[Token], place: int, __: Any, ___: Any) -> str:
    """A cell with an attribute for its alignment: styles are not let through."""
    token = tokens[place]
    side = str(token.attrs.get("style", "")).removeprefix("text-align:")
    return f'<{token.tag} align="{html.escape(side)}">' if side else f"<{token.tag}>"


def _picture(_: Any, tokens: Sequence[Token], place: int, __: Any, ___: Any) -> str:
    token = tokens[place]
    address = html.escape(str(token.attrs.get("src", "")))
    return f'<a href="{address}">{html.escape(token.content) or address}</a>'
