"""Python's source without what it runs as well without: comments, and texts that only readers of the code want.

Every statement stays on its line, so that what a traceback says can be looked up in Corral's own source.
"""

import ast
import io
import tokenize
from collections.abc import Iterator
from typing import TypeGuard


def without_comments(source: str, *, keeps_docstrings: bool = False) -> str:
    """The source with neither comments nor strings that stand alone; `keeps_docstrings`: with those that are
    `__doc__` of a function or a class."""
    lines = source.split("\n")
    for string, is_all in _strings_alone(ast.parse(source), keeps_docstrings=keeps_docstrings):
        first, last = string.lineno - 1, (string.end_lineno or string.lineno) - 1
        before = lines[first].encode()[: string.col_offset].decode()
        after = lines[last].encode()[string.end_col_offset :].decode()
        lines[first : last + 1] = [before + "pass" if is_all else before.rstrip(), *[""] * (last - first)]
        lines[last] += after
    for token in tokenize.generate_tokens(io.StringIO("\n".join(lines)).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column].rstrip()
    return "\n".join(lines)


def _strings_alone(tree: ast.Module, *, keeps_docstrings: bool) -> Iterator[tuple[ast.Expr, bool]]:
    """Statements that are nothing but a string, each with whether something must stand in its place: it is the first of
    a block that has nothing else."""
    for node in ast.walk(tree):
        has_docstring = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if not isinstance(block, list):  # that of a lambda is an expression
                continue
            kept = 1 if keeps_docstrings and has_docstring and name == "body" else 0
            found = [statement for statement in block[kept:] if _is_string(statement)]
            for place, statement in enumerate(found):
                yield statement, place == 0 and len(found) == len(block)


def _is_string(statement: ast.stmt) -> TypeGuard[ast.Expr]:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
