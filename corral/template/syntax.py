"""Go template text ↔ syntax tree, and what can be read off the tree. Executes nothing.

The parser is gotpl's; what it lets a hostile text do (run its number grammar for ever, recurse without end, raise
foreign errors) is stopped here.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

from gotpl.errors import TemplateSyntaxError
from gotpl.parse import nodes as go
from gotpl.parse.parser import parse_template

from corral.errors import TemplateError
from corral.template.functions import FUNCTIONS

MAX_SOURCE = 256 * 1024
"""Characters of a template. The longest in use have some twenty thousand; parsing this many takes about a second."""

Branch: TypeAlias = go.IfNode | go.RangeNode | go.WithNode


@dataclass(frozen=True, slots=True)
class Program:
    """A parsed template: its body, its named templates, and the text that positions in them point into."""

    source: str
    root: go.ListNode
    definitions: dict[str, go.ListNode]


def parse(source: str) -> Program:
    """`TemplateError` with Go's text, `template: :LINE: reason`, when the template is broken or too large."""
    if len(source) > MAX_SOURCE:
        raise TemplateError(f"template: :1: longer than {MAX_SOURCE} characters")
    if any(_LONG_OCTAL.search(code) for code in _code(source)):
        raise TemplateError("template: :1: octal number too long")
    try:
        tree = parse_template(source, functions=FUNCTIONS)
    except TemplateSyntaxError as error:
        raise TemplateError(f"template: :{error.line}: {_reason(error)}") from error
    except RecursionError as error:
        raise TemplateError("template: :1: nested too deeply") from error
    except (ValueError, IndexError, OverflowError) as error:
        raise TemplateError("template: :1: malformed constant") from error
    return Program(source, tree.root, {definition.name: definition.body for definition in tree.definitions})


# The lexer's patterns take time exponential in the digits of octal numbers that turn out to be none.
_LONG_OCTAL = re.compile(r"(?<![\w.])0[0-7_]{6,}")


def _code(source: str) -> Iterator[str]:
    """What stands in the actions of a template outside comments and quoted constants, cut where the lexer cuts."""
    start = source.find("{{")
    while start >= 0:
        at = start + 2
        at += 2 if _LEFT_TRIM.match(source, at) else 0
        if source.startswith("/*", at):
            at = source.find("*/", at + 2)
            if at < 0:
                return
        for piece in _PIECE.finditer(source, at):
            if piece[0] == "}}":
                at = piece.end()
                break
            if piece[0][0] not in "\"'`":
                yield piece[0]
        else:
            return
        start = source.find("{{", at)


_LEFT_TRIM = re.compile(r"-[ \t\r\n]")
_PIECE = re.compile(r"""}}|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`|[^}"'`]+|.""", re.DOTALL)


def _reason(error: TemplateSyntaxError) -> str:
    reason = str(error).removeprefix(f"template:{error.line}:{error.column}: ")
    if reason in ("unexpected else", "unexpected end"):
        return f"unexpected {{{{{reason.removeprefix('unexpected ')}}}}}"
    return re.sub(r"'([^']*)'", r'"\1"', reason)


def with_response(program: Program) -> Program:
    """The program with `{{ .Response }}` at its end (spec cli §14.3, templates that mention neither form)."""
    end = len(program.source.encode())
    field = go.FieldNode(("Response",), end, end)
    pipe = go.PipeNode((), False, (go.CommandNode((field,), end, end),), end, end)
    return replace(program, root=go.ListNode((*program.root.nodes, go.ActionNode(pipe, end, end))))


def cut_after_response(program: Program) -> Program:
    """The program without what comes after the first action that prints `.Response` (spec cli §14.4)."""
    return replace(program, root=_cut(program.root)[0])


def _cut(body: go.ListNode) -> tuple[go.ListNode, bool]:
    kept: list[go.TemplateNode] = []
    for node in body.nodes:
        if isinstance(node, go.ActionNode) and any("Response" in names for names in _fields_of(node.pipeline)):
            return go.ListNode((*kept, node)), True
        if isinstance(node, go.IfNode | go.RangeNode | go.WithNode):
            inner, found = _cut(node.body)
            if found:
                return go.ListNode((*kept, replace(node, body=inner, else_body=None))), True
            if node.else_body is not None:
                other, found = _cut(node.else_body)
                if found:
                    return go.ListNode((*kept, replace(node, else_body=other))), True
        kept.append(node)
    return body, False


def names_used(program: Program) -> frozenset[str]:
    """Every field and variable name in the template, in lower case (spec cli §14.5)."""
    bodies = (program.root, *program.definitions.values())
    return frozenset(
        name.lower() for body in bodies for pipe in _pipes(body) for names in _fields_of(pipe) for name in names
    )


def think_tags(program: Program) -> tuple[str, str] | None:
    """The texts around `.Thinking` where messages are written, both non-empty, else None (spec cli §14.5)."""
    opening = closing = ""
    for nodes in _lists_with_thinking(program.root, in_messages=False):
        if isinstance(nodes[0], go.TextNode):
            opening = nodes[0].text.strip()
        if isinstance(nodes[-1], go.TextNode):
            closing = nodes[-1].text.strip()
    return (opening, closing) if opening and closing else None


def _lists_with_thinking(body: go.ListNode, *, in_messages: bool) -> Iterator[tuple[go.TemplateNode, ...]]:
    """The nearest node list around each `.Thinking` whose innermost `range` goes over messages."""
    for node in body.nodes:
        pipe = getattr(node, "pipeline", None)
        inside = in_messages
        if isinstance(node, go.RangeNode):
            inside = any("Messages" in names for names in _fields_of(node.pipeline))
        if pipe is not None and inside and any(names[:1] == ("Thinking",) for names in _fields_of(pipe)):
            yield body.nodes
        for inner in _bodies(node):
            yield from _lists_with_thinking(inner, in_messages=inside)


def tool_tag(program: Program) -> str:
    """What the template writes before a tool call, up to a brace; `{` when there is nothing (spec cli §16.1)."""
    branch = _tool_call_branch(program.root)
    text = _first_text(branch.body) if branch else None
    return (text or "").replace("\r\n", "\n").partition("{")[0].strip() or "{"


def _tool_call_branch(body: go.ListNode) -> go.IfNode | None:
    for node in body.nodes:
        if isinstance(node, go.IfNode) and any("ToolCalls" in names for names in _fields_of(node.pipeline)):
            return node
        for inner in _bodies(node):
            found = _tool_call_branch(inner)
            if found is not None:
                return found
    return None


def _first_text(body: go.ListNode) -> str | None:
    for node in body.nodes:
        if isinstance(node, go.ActionNode):
            return None
        if isinstance(node, go.TextNode) and node.text.strip():
            return node.text
        for inner in _bodies(node):
            text = _first_text(inner)
            if text is not None:
                return text
    return None


def _bodies(node: go.TemplateNode) -> tuple[go.ListNode, ...]:
    if isinstance(node, go.IfNode | go.RangeNode | go.WithNode):
        return (node.body,) if node.else_body is None else (node.body, node.else_body)
    return ()


def _pipes(body: go.ListNode) -> Iterator[go.PipeNode]:
    for node in body.nodes:
        pipe: go.PipeNode | None = getattr(node, "pipeline", None)
        if pipe is not None:
            yield pipe
        for inner in _bodies(node):
            yield from _pipes(inner)


def _fields_of(pipe: go.PipeNode) -> Iterator[tuple[str, ...]]:
    """The field chains read in a pipeline, parentheses included."""
    for command in pipe.commands:
        for term in command.arguments:
            if isinstance(term, go.FieldNode | go.VariableNode):
                yield term.fields
            elif isinstance(term, go.ParenthesizedNode):
                yield from _fields_of(term.pipeline)
                yield term.fields
