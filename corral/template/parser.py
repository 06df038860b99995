"""Go template text → syntax tree, within a budget. Source: the documentation of Go's text/template.

Whatever the text, parsing ends after steps in proportion to its length: `MAX_SOURCE` bounds that, `MAX_NESTING` the
depth. Functions and variables are checked against what is known here, as Go does. Executes nothing.
"""

from collections.abc import Iterator, Set

from corral.errors import TemplateError
from corral.template import nodes
from corral.template.constants import read_character, read_number, read_string
from corral.template.lexer import ActionPiece, TextPiece, Token, broken, lex
from corral.template.nodes import Body, Command, Pipeline, Program, Statement, Term

MAX_SOURCE = 256 * 1024
"""Characters of a template. The longest in use have some 20,000; parsing this many takes a third of a second."""

MAX_NESTING = 100
"""Blocks within each other, each `else if` being one, and parentheses within each other."""

_KEYWORDS = {"block", "break", "continue", "define", "else", "end", "if", "nil", "range", "template", "with"}
_BRANCHES: dict[str, type[nodes.If]] = {"if": nodes.If, "with": nodes.With, "range": nodes.Range}


def parse(source: str, functions: Set[str]) -> Program:
    """The program of a template that may call `functions`.

    `TemplateError` in Go's form, `template: :LINE: reason`, when it is broken or beyond the budget.
    """
    if len(source) > MAX_SOURCE:
        raise TemplateError(f"template: :1: longer than {MAX_SOURCE} characters")
    try:
        source.encode()
    except UnicodeEncodeError as error:
        raise broken(source, error.start, "half of a surrogate pair") from error
    return _Parser(source, functions).program()


class _Action:
    """The tokens of an action, read one after the other."""

    def __init__(self, piece: ActionPiece) -> None:
        self.piece = piece
        self._at = 0

    def peek(self, ahead: int = 0) -> Token:
        return self.piece.tokens[min(self._at + ahead, len(self.piece.tokens) - 1)]

    def next(self) -> Token:
        token = self.peek()
        self._at += 1
        return token

    def takes(self, *texts: str) -> bool:
        """Whether the next token is a keyword or sign of these; if so it is taken."""
        token = self.peek()
        found = token.kind in ("word", "sign", "end") and token.text in texts
        self._at += found
        return found


class _Parser:
    def __init__(self, source: str, functions: Set[str]) -> None:
        self._source = source
        self._functions = functions
        self._pieces: Iterator[TextPiece | ActionPiece] = lex(source)
        self._definitions: dict[str, Body] = {}
        self._variables = ["$"]
        """Names known where the parser is; a block remembers how many it found and cuts back to that."""
        self._blocks = self._loops = self._parentheses = 0
        """How many of each the parser is within."""

    def program(self) -> Program:
        body, stop = self._body()
        if stop is not None:
            raise self._broken(stop.peek(), f"unexpected {{{{{stop.peek().text}}}}}")
        return Program(self._source, body, self._definitions)

    def _broken(self, token: Token, reason: str) -> TemplateError:
        return broken(self._source, token.start, reason)

    def _unexpected(self, token: Token, context: str) -> TemplateError:
        shown = "end of action" if token.kind == "end" else f'"{token.text[:40]}"'
        return self._broken(token, f"unexpected {shown} in {context}")

    def _body(self) -> tuple[Body, _Action | None]:
        """Statements up to an `{{else}}` or `{{end}}`, which is given back, or up to the end of the template."""
        body: list[Statement] = []
        for piece in self._pieces:
            if isinstance(piece, TextPiece):
                body.append(nodes.Text(piece.start, piece.start + len(piece.text), piece.text))
                continue
            action = _Action(piece)
            if action.peek().kind == "word" and action.peek().text in ("else", "end"):
                return tuple(body), action
            statement = self._statement(action)
            if statement is not None:
                body.append(statement)
        return tuple(body), None

    def _inner_body(self, opening: _Action) -> tuple[Body, _Action]:
        """The statements within the block that an action opens."""
        self._blocks += 1
        if self._blocks > MAX_NESTING:
            raise broken(self._source, opening.piece.start, "nested too deeply")
        body, stop = self._body()
        self._blocks -= 1
        if stop is None:
            raise broken(self._source, len(self._source), "unexpected EOF")
        return body, stop

    def _last_body(self, opening: _Action) -> tuple[Body, int]:
        """The statements up to an `{{end}}`, and where that ends."""
        body, stop = self._inner_body(opening)
        if not stop.takes("end"):
            raise self._broken(stop.peek(), "expected end; found {{else}}")
        return body, self._close(stop, "end")

    def _close(self, action: _Action, context: str) -> int:
        if not action.takes("}}"):
            raise self._unexpected(action.peek(), context)
        return action.piece.end

    def _statement(self, action: _Action) -> Statement | None:
        """The statement that begins with an action; None for a definition."""
        word = action.peek().text if action.peek().kind == "word" else ""
        match word:
            case "if" | "with" | "range":
                return self._branch(action)
            case "break" | "continue":
                return self._leave_loop(action)
            case "define":
                self._define(action)
                return None
            case "block":
                return self._block(action)
            case "template":
                return self._call(action)
            case _:
                pipeline = self._pipeline(action, "command", "}}")
                return nodes.Action(action.piece.start, action.piece.end, pipeline)

    def _branch(self, action: _Action) -> nodes.If:
        known = len(self._variables)
        keyword = action.next().text
        pipeline = self._pipeline(action, keyword, "}}")
        self._loops += keyword == "range"
        body, stop = self._inner_body(action)
        self._loops -= keyword == "range"
        else_body: Body = ()
        if stop.takes("end"):
            end = self._close(stop, "end")
        else:
            stop.next()
            else_body, end = self._else(stop, keyword)
        del self._variables[known:]
        return _BRANCHES[keyword](action.piece.start, end, pipeline, body, else_body)

    def _else(self, action: _Action, keyword: str) -> tuple[Body, int]:
        """What an `{{else}}` begins: `{{else if}}` is an `{{if}}` in it that shares its `{{end}}`, and so is `with`."""
        following = action.peek()
        if following.kind == "word" and following.text == keyword != "range":
            self._blocks += 1
            nested = self._branch(action)
            self._blocks -= 1
            return (nested,), nested.end
        self._close(action, "else")
        return self._last_body(action)

    def _leave_loop(self, action: _Action) -> nodes.Break | nodes.Continue:
        keyword = action.next()
        end = self._close(action, f"{{{{{keyword.text}}}}}")
        if self._loops == 0:
            raise self._broken(keyword, f"{keyword.text} outside range")
        return (nodes.Break if keyword.text == "break" else nodes.Continue)(action.piece.start, end)

    def _define(self, action: _Action) -> None:
        keyword = action.next()
        if self._blocks:
            raise self._broken(keyword, "unexpected {{define}} within a block")
        name = self._name(action, "define clause")
        self._close(action, "define clause")
        self._add_definition(name, action)

    def _block(self, action: _Action) -> nodes.Call:
        action.next()
        name = self._name(action, "block clause")
        pipeline = self._pipeline(action, "block clause", "}}")
        self._add_definition(name, action)
        return nodes.Call(action.piece.start, action.piece.end, name, pipeline)

    def _add_definition(self, name: str, opening: _Action) -> None:
        """Reads the body of a named template, which knows no variables of ours. An empty one replaces no other."""
        variables, loops = self._variables, self._loops
        self._variables, self._loops = ["$"], 0
        body, _ = self._last_body(opening)
        self._variables, self._loops = variables, loops
        if _is_empty(self._definitions.get(name, ())):
            self._definitions[name] = body
        elif not _is_empty(body):
            raise broken(self._source, opening.piece.start, f'multiple definition of template "{name}"')

    def _call(self, action: _Action) -> nodes.Call:
        action.next()
        name = self._name(action, "template clause")
        pipeline = None if action.takes("}}") else self._pipeline(action, "template clause", "}}")
        return nodes.Call(action.piece.start, action.piece.end, name, pipeline)

    def _name(self, action: _Action, context: str) -> str:
        token = action.next()
        if token.kind != "string":
            raise self._unexpected(token, context)
        return self._constant(token)

    def _pipeline(self, action: _Action, context: str, closing: str) -> Pipeline:
        """A pipeline and the sign that closes it, `}}` or `)`."""
        start = action.peek().start
        variables, is_assignment = self._declarations(action, context)
        commands: list[Command] = []
        while not action.takes(closing):
            command = self._command(action, context)
            if commands and isinstance(command.terms[0], nodes.Constant | nodes.Dot | nodes.Nil):
                raise self._broken(action.peek(), f"non executable command in pipeline stage {len(commands) + 1}")
            commands.append(command)
        if not commands:
            raise self._broken(action.peek(), "missing value for command")
        return Pipeline(start, commands[-1].end, tuple(commands), variables, is_assignment)

    def _declarations(self, action: _Action, context: str) -> tuple[tuple[str, ...], bool]:
        """The variables a pipeline binds; a `range` may bind two."""
        names: list[str] = []
        while action.peek().kind == "variable" and action.peek(1).text in (":=", "=", ","):
            names.append(action.next().text)
            sign = action.next()
            if sign.text != ",":
                self._variables += names
                return tuple(names), sign.text == "="
            if context != "range" or len(names) > 1:
                raise self._broken(sign, f"too many declarations in {context}")
            if action.peek().kind != "variable" and action.peek().text != "}}":
                raise self._broken(action.peek(), "range can only initialize variables")
        if names:
            raise self._unexpected(action.peek(), context)
        return (), False

    def _command(self, action: _Action, context: str) -> Command:
        """Terms up to a pipe, which is taken, or up to what closes the pipeline."""
        terms = [self._term(action, context)]
        while True:
            following = action.peek()
            if following.kind == "end" or following.text == ")":
                break
            if action.takes("|"):
                break
            if not following.is_spaced:
                raise self._unexpected(following, "operand")
            terms.append(self._term(action, context))
        return Command(terms[0].start, terms[-1].end, tuple(terms))

    def _term(self, action: _Action, context: str) -> Term:
        token = action.next()
        if token.text == ".":
            return self._without_fields(action, nodes.Dot(token.start, token.end))
        match token.kind:
            case "field":
                fields, end = _fields(action, token.end)
                return nodes.Field(token.start, end, (token.text[1:], *fields))
            case "variable":
                if token.text not in self._variables:
                    raise self._broken(token, f'undefined variable "{token.text}"')
                fields, end = _fields(action, token.end)
                return nodes.Variable(token.start, end, token.text, fields)
            case "string":
                return self._without_fields(action, nodes.Constant(token.start, token.end, self._constant(token)))
            case "number" | "character":
                value = self._number(token)
                return self._without_fields(action, nodes.Constant(token.start, token.end, value))
            case "word":
                return self._word(action, token, context)
            case "sign" if token.text == "(":
                return self._parenthesized(action, token)
        raise self._unexpected(token, context)

    def _word(self, action: _Action, token: Token, context: str) -> Term:
        if token.text in ("true", "false"):
            return self._without_fields(action, nodes.Constant(token.start, token.end, token.text == "true"))
        if token.text == "nil":
            return self._without_fields(action, nodes.Nil(token.start, token.end))
        if token.text in _KEYWORDS:
            raise self._unexpected(token, context)
        if token.text not in self._functions:
            raise self._broken(token, f'function "{token.text}" not defined')
        fields, end = _fields(action, token.end)
        return nodes.Function(token.start, end, token.text, fields)

    def _parenthesized(self, action: _Action, opening: Token) -> nodes.Parenthesized:
        self._parentheses += 1
        if self._parentheses > MAX_NESTING:
            raise self._broken(opening, "nested too deeply")
        pipeline = self._pipeline(action, "parenthesized pipeline", ")")
        self._parentheses -= 1
        closing = action.peek(-1)
        fields, end = _fields(action, closing.end)
        return nodes.Parenthesized(opening.start, end, pipeline, fields)

    def _without_fields(self, action: _Action, term: Term) -> Term:
        if action.peek().kind == "field" and not action.peek().is_spaced:
            raise self._broken(action.peek(), f'unexpected "{action.peek().text[:40]}" after a constant or dot')
        return term

    def _constant(self, token: Token) -> str:
        value = read_string(token.text)
        if value is None:
            raise self._broken(token, "invalid syntax of a quoted string")
        return value

    def _number(self, token: Token) -> int | float | complex:
        try:
            return read_character(token.text) if token.kind == "character" else read_number(token.text)
        except ValueError as error:
            raise self._broken(token, str(error)) from error


def _fields(action: _Action, end: int) -> tuple[tuple[str, ...], int]:
    """The chain of fields that follows a term at once, and where the whole ends."""
    fields: list[str] = []
    while action.peek().kind == "field" and not action.peek().is_spaced and action.peek().text != ".":
        token = action.next()
        fields.append(token.text[1:])
        end = token.end
    return tuple(fields), end


def _is_empty(body: Body) -> bool:
    return all(isinstance(statement, nodes.Text) and statement.text.isspace() for statement in body)
