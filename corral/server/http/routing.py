"""A path, its methods, its handler and its dialect."""

from starlette.routing import Route as StarletteRoute

from corral.server.http.dialect import Dialect
from corral.server.http.streaming import Handler, Route

MAX_BODY = 256 << 20
"""Bytes a JSON request may have: pictures come as base64."""


def route(path: str, handler: Handler, *methods: str, dialect: Dialect, reads_body: bool = False) -> StarletteRoute:
    """HEAD only where it is listed (spec api §2.2). `reads_body`: the handler takes the body itself, as it comes."""
    made = StarletteRoute(
        path, Route(handler, dialect, max_body=MAX_BODY, reads_body=reads_body), methods=list(methods)
    )
    made.methods = set(methods)  # starlette adds HEAD to every GET by itself
    return made
