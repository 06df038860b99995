"""What can be read off the syntax tree of a model's template, and the two ways one is changed. Executes nothing."""

from collections.abc import Iterator

from msgspec.structs import replace

from corral.template import nodes, parser
from corral.template.functions import FUNCTIONS
from corral.template.nodes import Body, Pipeline, Program, Statement


def parse(source: str) -> Program:
    """`TemplateError` in Go's form, `template: :LINE: reason`, when the template is broken or beyond the budget."""
    # `call` is one of Go's functions; a template that mentions it parses, and fails where it runs.
    return parser.parse(source, FUNCTIONS.keys() | {"call"})


def with_response(program: Program) -> Program:
    """The program with `{{ .Response }}` at its end (spec cli §14.3, templates that mention neither form)."""
    end = len(program.source)
    command = nodes.Command(end, end, (nodes.Field(end, end, ("Response",)),))
    action = nodes.Action(end, end, Pipeline(end, end, (command,)))
    return replace(program, root=(*program.root, action))


def cut_after_response(program: Program) -> Program:
    """The program without what comes after the first action that prints `.Response` (spec cli §14.4)."""
    return replace(program, root=_cut(program.root)[0])


def _cut(body: Body) -> tuple[Body, bool]:
    kept: list[Statement] = []
    for node in body:
        if isinstance(node, nodes.Action) and any("Response" in names for names in _fields_of(node.pipeline)):
            return (*kept, node), True
        if isinstance(node, nodes.If):
            inner, found = _cut(node.body)
            if found:
                return (*kept, replace(node, body=inner, else_body=())), True
            other, found = _cut(node.else_body)
            if found:
                return (*kept, replace(node, else_body=other)), True
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
    for body in _bodies_with_thinking(program.root, in_messages=False):
        if isinstance(body[0], nodes.Text):
            opening = body[0].text.strip()
        if isinstance(body[-1], nodes.Text):
            closing = body[-1].text.strip()
    return (opening, closing) if opening and closing else None


def _bodies_with_thinking(body: Body, *, in_messages: bool) -> Iterator[Body]:
    """The nearest body around each `.Thinking` whose innermost `range` goes over messages."""
    for node in body:
        pipe = getattr(node, "pipeline", None)
        inside = in_messages
        if isinstance(node, nodes.Range):
            inside = any("Messages" in names for names in _fields_of(node.pipeline))
        if pipe is not None and inside and any(names[:1] == ("Thinking",) for names in _fields_of(pipe)):
            yield body
        for inner in _bodies(node):
            yield from _bodies_with_thinking(inner, in_messages=inside)


def tool_tag(program: Program) -> str:
    """What the template writes before a tool call, up to a brace; `{` when there is nothing (spec cli §16.1)."""
    branch = _tool_call_branch(program.root)
    text = _first_text(branch.body) if branch else None
    return (text or "").replace("\r\n", "\n").partition("{")[0].strip() or "{"


def _tool_call_branch(body: Body) -> nodes.If | None:
    for node in body:
        if isinstance(node, nodes.If) and any("ToolCalls" in names for names in _fields_of(node.pipeline)):
            return node
        for inner in _bodies(node):
            found = _tool_call_branch(inner)
            if found is not None:
                return found
    return None


def _first_text(body: Body) -> str | None:
    for node in body:
        if isinstance(node, nodes.Action):
            return None
        if isinstance(node, nodes.Text) and node.text.strip():
            return node.text
        for inner in _bodies(node):
            text = _first_text(inner)
            if text is not None:
                return text
    return None


def _bodies(node: Statement) -> tuple[Body, ...]:
    return (node.body, node.else_body) if isinstance(node, nodes.If) else ()


def _pipes(body: Body) -> Iterator[Pipeline]:
    for node in body:
        pipe: Pipeline | None = getattr(node, "pipeline", None)
        if pipe is not None:
            yield pipe
        for inner in _bodies(node):
            yield from _pipes(inner)


def _fields_of(pipe: Pipeline) -> Iterator[tuple[str, ...]]:
    """The field chains read in a pipeline, parentheses included."""
    for command in pipe.commands:
        for term in command.terms:
            if isinstance(term, nodes.Field | nodes.Variable):
                yield term.fields
            elif isinstance(term, nodes.Parenthesized):
                yield from _fields_of(term.pipeline)
                yield term.fields
