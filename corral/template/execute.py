"""Runs a template's syntax tree on a map of values, within a budget. Knows text/template, not messages."""

from collections.abc import Callable
from enum import Enum, auto
from typing import Any, TypeAlias

from corral.errors import TemplateError
from corral.template import nodes
from corral.template.functions import FUNCTIONS, LAZY, is_true, type_name
from corral.template.nodes import Body, Program
from corral.template.values import Struct, Value, text

MAX_DEPTH = 100
"""Template calls inside each other. Templates in use have two or three."""

STEPS = 500_000
"""Nodes, terms and blocks of 16 characters a run may touch, beyond what its input pays for: about a second of work."""

OUTPUT = 1_000_000
"""Characters a run may write beyond what its input pays for."""

SMALL_STEPS, SMALL_OUTPUT = 1_000, 20_000
"""The same of a run that is to take no longer than handing it to a thread is worth."""


class Budget:
    """What may still be spent on one rendering, however many runs that takes.

    The input pays for its own handling: each of `values` (messages, tools) `STEPS_PER_VALUE`, each of `characters` in
    them being written `COPIES` times, so that a long conversation is no attack.
    """

    STEPS_PER_VALUE = 2_000
    COPIES = 4

    __slots__ = ("output", "steps")

    def __init__(self, *, values: int = 0, characters: int = 0) -> None:
        self.steps = STEPS + values * self.STEPS_PER_VALUE + characters
        self.output = OUTPUT + characters * self.COPIES

    @classmethod
    def small(cls) -> "Budget":
        """For some two milliseconds of work."""
        budget = cls()
        budget.steps, budget.output = SMALL_STEPS, SMALL_OUTPUT
        return budget

    def step(self, count: int = 1) -> None:
        self.steps -= count
        if self.steps < 0:
            raise TemplateError("takes too many steps")

    def write(self, characters: int) -> None:
        self.output -= characters
        if self.output < 0:
            raise TemplateError("writes too much text")


def execute(program: Program, data: dict[str, Value], budget: Budget) -> str:
    """What the template prints for `data`. `TemplateError` says where it failed; nothing is printed then."""
    run = _Run(program, budget)
    try:
        run.template(program.root, data)
    except TemplateError as error:
        raise TemplateError(f"template: {run.place()}: {error}") from error
    except RecursionError as error:
        raise TemplateError(f"template: {run.place()}: exceeded maximum template depth") from error
    return "".join(run.output)


class _Leave(Enum):
    """How a list of nodes was left before its end."""

    BREAK = auto()
    CONTINUE = auto()


_Absent = object()
"""No value piped in, as against a piped nil."""

Scope: TypeAlias = list[tuple[str, Any]]


class _Run:
    def __init__(self, program: Program, budget: Budget) -> None:
        self.program = program
        self.budget = budget
        self.output: list[str] = []
        self.at: nodes.Node | None = None
        self.depth = 0
        self.variables: Scope = []
        """Innermost last; a block remembers the length it found and cuts back to it."""

    def place(self) -> str:
        """`:LINE:COLUMN: executing "" at <…>` for the node that failed, columns in bytes, as Go counts."""
        source = self.program.source
        start, end = (0, 0) if self.at is None else (self.at.start, self.at.end)
        column = len(source[source.rfind("\n", 0, start) + 1 : start].encode())
        snippet = source[start:end].encode()[:40].decode("utf-8", "replace")
        return f':{source.count(chr(10), 0, start) + 1}:{column}: executing "" at <{snippet}>'

    def template(self, body: Body, dot: Value) -> None:
        """Runs a body as a template of its own: with `$` as its only variable."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TemplateError(f"exceeded maximum template depth ({MAX_DEPTH})")
        outer, self.variables = self.variables, [("$", dot)]
        self.walk(body, dot)
        self.variables = outer
        self.depth -= 1

    def walk(self, body: Body, dot: Value) -> _Leave | None:
        for node in body:
            self.budget.step()
            leave = _WALKS[type(node)](self, node, dot)
            if leave is not None:
                return leave
        return None

    def write(self, written: str) -> None:
        self.budget.write(len(written))
        self.output.append(written)

    def text(self, node: nodes.Text, dot: Value) -> None:
        self.write(node.text)

    def action(self, node: nodes.Action, dot: Value) -> None:
        value = self.pipeline(node.pipeline, dot)
        if not node.pipeline.variables:
            self.write(text(value))

    def branch(self, node: nodes.If, dot: Value) -> _Leave | None:
        mark = len(self.variables)
        value = self.pipeline(node.pipeline, dot)
        if is_true(value):
            leave = self.walk(node.body, value if isinstance(node, nodes.With) else dot)
        else:
            leave = self.walk(node.else_body, dot)
        del self.variables[mark:]
        return leave

    def loop(self, node: nodes.Range, dot: Value) -> _Leave | None:
        mark = len(self.variables)
        pipe = node.pipeline
        value = self.evaluate(pipe, dot)
        leave = None
        empty = True
        for key, item in _entries(value):
            empty = False
            self.budget.step()
            if pipe.variables:
                self.bind(pipe, (item,) if len(pipe.variables) == 1 else (key, item))
            left = self.walk(node.body, item)
            del self.variables[mark:]
            if left is _Leave.BREAK:
                break
        if empty:
            leave = self.walk(node.else_body, dot)
        return leave

    def call(self, node: nodes.Call, dot: Value) -> None:
        body = self.program.definitions.get(node.name)
        if body is None:
            self.at = node
            raise TemplateError(f'template "{node.name}" not defined')
        self.template(body, None if node.pipeline is None else self.pipeline(node.pipeline, dot))

    def leave_loop(self, node: nodes.Break | nodes.Continue, dot: Value) -> _Leave:
        return _Leave.BREAK if isinstance(node, nodes.Break) else _Leave.CONTINUE

    def pipeline(self, pipe: nodes.Pipeline, dot: Value) -> Value:
        value = self.evaluate(pipe, dot)
        if pipe.variables:
            self.bind(pipe, (value,))
        return value

    def evaluate(self, pipe: nodes.Pipeline, dot: Value) -> Value:
        value: Value = _Absent
        for command in pipe.commands:
            value = self.command(command, dot, value)
        return value

    def bind(self, pipe: nodes.Pipeline, values: tuple[Value, ...]) -> None:
        for name, value in zip(pipe.variables, values, strict=True):
            if not pipe.is_assignment:
                self.variables.append((name, value))
                continue
            self.variables[self.place_of(name)] = (name, value)

    def command(self, command: nodes.Command, dot: Value, piped: Value) -> Value:
        self.at = command
        first, *rest = command.terms
        if isinstance(first, nodes.Function) and not first.fields:
            return self.function(first, rest, dot, piped)
        if rest or piped is not _Absent:
            raise TemplateError("can't give argument to non-function")
        if isinstance(first, nodes.Nil):
            raise TemplateError("nil is not a command")
        return self.term(first, dot)

    def function(self, node: nodes.Function, rest: list[nodes.Term], dot: Value, piped: Value) -> Value:
        if node.name in LAZY:
            return self.lazy(node.name, rest, dot, piped)
        arguments = [self.term(term, dot) for term in rest]
        if piped is not _Absent:
            arguments.append(piped)
        self.at = node
        function = FUNCTIONS.get(node.name)
        if function is None:
            raise TemplateError(f'function "{node.name}" is not allowed here')
        self.budget.step(1 + sum(map(_cost, arguments)))
        try:
            value = function(*arguments)
        except (TypeError, ValueError, OverflowError, AttributeError) as error:
            raise TemplateError(f"error calling {node.name}: {_plainly(error)}") from error
        except TemplateError as error:
            raise TemplateError(f"error calling {node.name}: {error}") from error
        self.budget.step(_cost(value))
        return value

    def lazy(self, name: str, rest: list[nodes.Term], dot: Value, piped: Value) -> Value:
        """`and` gives the first false operand, `or` the first true one, both else the last; the rest is not run."""
        if not rest and piped is _Absent:
            raise TemplateError(f"wrong number of args for {name}: want at least 1 got 0")
        value: Value = None
        for term in rest:
            value = self.term(term, dot)
            if is_true(value) is (name == "or"):
                return value
        return value if piped is _Absent else piped

    def term(self, node: nodes.Term, dot: Value) -> Value:
        self.budget.step()
        match node:
            case nodes.Field():
                return self.fields(node, dot, node.fields)
            case nodes.Variable():
                return self.fields(node, self.variable(node.name), node.fields)
            case nodes.Constant():
                if isinstance(node.value, complex):
                    self.at = node
                    raise TemplateError("complex numbers are not supported")
                return node.value
            case nodes.Dot():
                return dot
            case nodes.Parenthesized():
                return self.fields(node, self.pipeline(node.pipeline, dot), node.fields)
            case nodes.Nil():
                return None
            case nodes.Function():
                return self.fields(node, self.function(node, [], dot, _Absent), node.fields)

    def variable(self, name: str) -> Value:
        return self.variables[self.place_of(name)][1]

    def place_of(self, name: str) -> int:
        """Where the innermost variable of a name stands."""
        for place in range(len(self.variables) - 1, -1, -1):
            if self.variables[place][0] == name:
                return place
        raise TemplateError(f'undefined variable "{name}"')

    def fields(self, node: Any, value: Value, names: tuple[str, ...]) -> Value:
        """The value at the end of a chain of fields; what is missing is nil, and so is all below it."""
        for name in names:
            if isinstance(value, dict):
                value = value.get(name)
            elif value is not None:
                self.at = node
                raise TemplateError(f"can't evaluate field {name} in type {type_name(value)}")
        return value


_WALKS: dict[type, Callable[[_Run, Any, Value], _Leave | None]] = {
    nodes.Text: _Run.text,
    nodes.Action: _Run.action,
    nodes.If: _Run.branch,
    nodes.With: _Run.branch,
    nodes.Range: _Run.loop,
    nodes.Call: _Run.call,
    nodes.Break: _Run.leave_loop,
    nodes.Continue: _Run.leave_loop,
}


def _entries(value: Value) -> Any:
    """Pairs of key and value of what a `range` goes over; maps in sorted key order."""
    match value:
        case None:
            return ()
        case list():
            return enumerate(value)
        case dict() if not isinstance(value, Struct):
            return ((key, value[key]) for key in sorted(value))
        case int() if not isinstance(value, bool):
            return ((number, number) for number in range(value))
        case _:
            raise TemplateError(f"range can't iterate over {type_name(value)}")


def _cost(value: Value) -> int:
    """Steps a function takes for the size of a value: one a block of 16 characters or entries."""
    return len(value) // 16 if isinstance(value, str | list | dict) else 0


def _plainly(error: Exception) -> str:
    return "wrong number or type of arguments" if isinstance(error, TypeError | AttributeError) else str(error)
