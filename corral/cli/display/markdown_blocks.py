"""How Markdown's blocks look on a terminal: rich's, but nothing is left out, and code can be copied as it stands."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich import box
from rich.color import ColorSystem
from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Heading, HorizontalRule, ListItem, Markdown, MarkdownElement, TableElement
from rich.segment import Segment
from rich.style import Style
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from corral.cli.display.text import printable

LEAST_WIDTH = 20
"""Narrower windows break the lines themselves."""
MOST_COLOURED = 100_000
"""Letters of code that are still looked through for words to colour."""
_RULE = 24
"""Columns of the lines above and below code."""

THEME = Theme(
    {
        "markdown.h1": "bold underline",
        "markdown.h2": "bold underline",
        "markdown.h3": "bold",
        "markdown.h4": "bold",
        "markdown.h5": "bold",
        "markdown.h6": "bold",
        "markdown.a": "underline",
        "markdown.code": "cyan",
        "markdown.block_quote": "italic",
        "markdown.hr": "dim",
        "markdown.fence": "dim",
        "markdown.item.bullet": "bold",
        "markdown.item.number": "bold",
        "markdown.table.border": "dim",
        "markdown.table.header": "bold",
    }
)
"""Colours that are seen on a dark ground and on a light one."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line on the terminal: with the codes of its colours, and how many columns it takes."""

    text: str
    width: int


def parser() -> MarkdownIt:
    """A parser with which nothing vanishes: HTML, pictures and definitions of links are words like any others."""
    without = ["image", "reference", "html_block", "html_inline", "autolink"]
    return MarkdownIt("commonmark").enable(["strikethrough", "table"]).disable(without)


def lines_of(tokens: list[Token], width: int, *, colours: bool) -> Iterator[Line]:
    """The lines of parsed blocks, not wider than `width` unless that is less than `LEAST_WIDTH`."""
    console = Console(width=max(width, LEAST_WIDTH), theme=THEME, force_terminal=True, highlight=False, emoji=False)
    has_begun = False
    for segments in console.render_lines(_Blocks(tokens), pad=False):
        kept = _without_blanks_at_end(segments)
        has_begun = has_begun or bool(kept)
        if not has_begun:  # rich puts a blank line before a list
            continue
        text = "".join(_coded(segment.text, segment.style, colours=colours) for segment in kept)
        yield Line(text, sum(segment.cell_length for segment in kept))


def _coded(text: str, style: Style | None, *, colours: bool) -> str:
    """A text with the codes of its style; a terminal without colours still has bold and underlined letters."""
    if style is None:
        return text
    return (style if colours else style.without_color).render(text, color_system=ColorSystem.EIGHT_BIT)


def _without_blanks_at_end(segments: Iterable[Segment]) -> list[Segment]:
    """A line's texts, printable, without the blanks that rich fills it up with."""
    kept = [Segment(printable(segment.text), segment.style) for segment in segments if not segment.control]
    while kept and not (rest := kept[-1].text.rstrip(" ")):
        kept.pop()
    if kept:
        kept[-1] = Segment(rest, kept[-1].style)
    return kept


class _Title(Heading):
    LEVEL_ALIGN: ClassVar = {}
    """All on the left."""


class _Code(CodeBlock):
    """Code between two thin lines, nothing before or behind its own."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        code = str(self.text).rstrip("\n")
        name = self.lexer_name if self.lexer_name != "text" else ""
        rule = console.get_style("markdown.fence")
        head = f"── {name} " if name else ""
        yield Text(head + "─" * (_RULE - len(head)), style=rule, overflow="fold")
        lexer = self.lexer_name if len(code) <= MOST_COLOURED else "text"
        yield Syntax(code, lexer, theme="ansi_dark", background_color="default", word_wrap=True)
        yield Text("─" * _RULE, style=rule)


class _Item(ListItem):
    """An item of a list, with a point behind its number."""

    def render_number(self, console: Console, options: ConsoleOptions, number: int, last_number: int) -> RenderResult:
        width = len(str(last_number)) + 3
        style = console.get_style("markdown.item.number")
        lines = console.render_lines(self.elements, options.update(width=options.max_width - width), style=self.style)
        for index, line in enumerate(lines):
            yield Segment(f"{number}. ".rjust(width) if index == 0 else " " * width, style)
            yield from line
            yield Segment.line()


class _Line(HorizontalRule):
    """A line from side to side."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text("─" * options.max_width, style=console.get_style("markdown.hr"))


class _Grid(TableElement):
    """A table whose words are broken where a column is too narrow, not cut off."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = Table(box=box.SIMPLE, pad_edge=False, show_edge=False, style="markdown.table.border")
        for cell in self.header.row.cells if self.header and self.header.row else ():
            heading = cell.content.copy()
            heading.stylize("markdown.table.header")
            table.add_column(heading, overflow="fold")
        for row in self.body.rows if self.body else ():
            table.add_row(*(cell.content for cell in row.cells))
        yield table


class _Blocks(Markdown):
    """Tokens as rich's Markdown."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "heading_open": _Title,
        "fence": _Code,
        "code_block": _Code,
        "table_open": _Grid,
        "list_item_open": _Item,
        "hr": _Line,
    }

    def __init__(self, tokens: list[Token]) -> None:
        super().__init__("", justify="default", hyperlinks=False)
        self.inlines = {*Markdown.inlines, "a"}
        self.parsed = tokens
        for token in tokens:
            if token.children:
                token.children = list(_inline(token.children))


def _inline(tokens: Iterable[Token]) -> Iterator[Token]:
    """Every line break stays one; the address of a link stands behind its words, unless it is what they say."""
    href, words = "", ""
    for token in tokens:
        match token.type:
            case "softbreak":
                yield Token("hardbreak", "br", 0)
            case "link_open":
                href, words = str(token.attrs.get("href", "")), ""
                yield Token("a_open", "a", 1)
            case "link_close":
                yield Token("a_close", "a", -1)
                if href != words:
                    yield Token("text", "", 0, content=f" ({href})")
            case _:
                words += token.content
                yield token
