"""Anthropic's API, a dialect: every path, its methods and its handler. Source: spec api §20."""

from corral.server.anthropic import operations, routes
from corral.server.anthropic.errors import DIALECT
from corral.server.http.needs import ASK
from corral.server.http.routing import route

ROUTES = (
    route("/v1/messages", routes.messages, "POST", dialect=DIALECT, operation=operations.MESSAGES, needs=ASK),
    route(
        "/v1/messages/count_tokens",
        routes.count_tokens,
        "POST",
        dialect=DIALECT,
        operation=operations.COUNT_TOKENS,
        needs=ASK,
    ),
    # What becomes of them where the base address is given with its /v1.
    route("/v1/v1/messages", routes.messages, "POST", dialect=DIALECT, operation=operations.MESSAGES, needs=ASK),
    route(
        "/v1/v1/messages/count_tokens",
        routes.count_tokens,
        "POST",
        dialect=DIALECT,
        operation=operations.COUNT_TOKENS,
        needs=ASK,
    ),
)
