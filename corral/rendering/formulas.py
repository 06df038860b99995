r"""Formulas in TeX → MathML, which browsers draw themselves.

They are written between `$`, `$$`, `\(` and `\)`, or `\[` and `\]`.
"""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from mdit_py_plugins.dollarmath import dollarmath_plugin

MAX_CHARACTERS = 2_000
"""Characters of a formula. A longer one is shown as it was written."""
_MAX_DEPTH = 40
_CLOSING = {"\\(": "\\)", "\\[": "\\]"}


def add_to(parser: MarkdownIt) -> None:
    """Has a parser find formulas. A single `$` beside a space or a digit begins none: it is a price."""
    parser.use(
        dollarmath_plugin,
        allow_labels=False,
        allow_space=False,
        allow_digits=False,
        allow_blank_lines=False,
        double_inline=True,
        renderer=lambda formula, options: _as_mathml(formula, is_block=options["display_mode"]),
    )
    parser.inline.ruler.before("escape", "bracket_formula", _inline)
    parser.block.ruler.before("fence", "bracket_formula_block", _block, {"alt": ["paragraph", "list", "blockquote"]})
    parser.add_render_rule("bracket_formula", _render)


def _inline(state: StateInline, silent: bool) -> bool:
    opening = state.src[state.pos : state.pos + 2]
    if opening not in _CLOSING:
        return False
    end = state.src.find(_CLOSING[opening], state.pos + 2, state.pos + 2 + MAX_CHARACTERS)
    if end < 0:
        return False
    if not silent:
        token = state.push("bracket_formula", "math", 0)
        token.content, token.markup = state.src[state.pos + 2 : end], opening
    state.pos = end + 2
    return True


def _block(state: StateBlock, first: int, last: int, silent: bool) -> bool:
    r"""A formula on lines of its own, which would otherwise be taken for a list where one begins with `-`."""
    begin = state.bMarks[first] + state.tShift[first]
    if not state.src.startswith("\\[", begin):
        return False
    end = state.src.find("\\]", begin + 2, begin + 2 + MAX_CHARACTERS)
    if end < 0:
        return False
    line = next((line for line in range(first, last) if end <= state.eMarks[line]), None)
    if line is None or state.src[end + 2 : state.eMarks[line]].strip():
        return False
    if not silent:
        token = state.push("bracket_formula", "math", 0)
        token.content, token.markup, token.map = state.src[begin + 2 : end], "\\[", [first, line + 1]
    state.line = line + 1
    return True


def _render(_: Any, tokens: Sequence[Any], place: int, __: Any, ___: Mapping[str, Any]) -> str:
    token = tokens[place]
    return _as_mathml(token.content, is_block=token.markup == "\\[")


def _as_mathml(formula: str, *, is_block: bool) -> str:
    """MathML, or the formula as code where it is not understood or too long."""
    if len(formula) <= MAX_CHARACTERS and formula.count("{") <= _MAX_DEPTH * 10 and _depth(formula) <= _MAX_DEPTH:
        try:
            return convert(formula, display="block" if is_block else "inline")
        except Exception:  # the library has no common class for the errors of what is no TeX
            pass
    return f"<code>{html.escape(formula.strip())}</code>"


def _depth(formula: str) -> int:
    """How deep braces are nested: the library descends once for each."""
    depth = deepest = 0
    for character in formula:
        depth += (character == "{") - (character == "}")
        deepest = max(deepest, depth)
    return deepest
