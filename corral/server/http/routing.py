"""A path, its methods, its handler, its dialect, what it needs of its callers, and what it says of itself."""

import inspect

from starlette.routing import Route as StarletteRoute

from corral.server.http.dialect import Dialect
from corral.server.http.needs import ADMIN, Needs
from corral.server.http.operation import Operation
from corral.server.http.streaming import Handler, Route

MAX_BODY = 256 << 20
"""Bytes a request may have: pictures come as base64."""


class DocumentedRoute(StarletteRoute):
    """A route that can be described. The description of its handler is that handler's docstring."""

    def __init__(
        self,
        path: str,
        handler: Handler,
        methods: set[str],
        dialect: Dialect,
        operation: Operation,
        needs: Needs,
        max_body: int,
        is_quick: bool,
    ) -> None:
        served = Route(handler, dialect, needs, max_body=max_body, reads_body=operation.takes_bytes, is_quick=is_quick)
        super().__init__(path, served, methods=list(methods))
        self.methods = methods  # starlette adds HEAD to every GET by itself
        self.dialect = dialect
        self.operation = operation
        self.needs = needs
        self.handler_name = getattr(handler, "__name__", "")
        self.description = " ".join((inspect.getdoc(handler) or "").split())


def route(
    path: str,
    handler: Handler,
    *methods: str,
    dialect: Dialect,
    operation: Operation = Operation(),  # noqa: B008 - a frozen value
    needs: Needs = ADMIN,
    max_body: int = MAX_BODY,
    is_quick: bool = False,
) -> DocumentedRoute:
    """HEAD only where it is listed (spec api §2.2). A handler that takes bytes reads the body itself, as it comes.

    `max_body`: bytes of a body that is read for the handler. `is_quick`: see `streaming.Route`.
    """
    return DocumentedRoute(path, handler, set(methods), dialect, operation, needs, max_body, is_quick)
