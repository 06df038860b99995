"""OpenAI's API, a dialect: every path, its methods and its handler. Source: spec api §17–§19."""

from corral.errors import ModelRequired
from corral.server.http.error_table import Row
from corral.server.http.needs import ASK, READ
from corral.server.http.routing import route
from corral.server.openai import operations, routes
from corral.server.openai.errors import dialect
from corral.server.openai.responses import routes as responses
from corral.server.openai.transcriptions import MAX_FORM

_ANY = dialect()
_COMPLETIONS = dialect({ModelRequired: Row(404, lambda _: "model '' not found")})

ROUTES = (
    route("/v1/chat/completions", routes.chat_completions, "POST", dialect=_ANY, operation=operations.CHAT, needs=ASK),
    route(
        "/v1/completions",
        routes.text_completions,
        "POST",
        dialect=_COMPLETIONS,
        operation=operations.COMPLETIONS,
        needs=ASK,
    ),
    route("/v1/responses", responses.create, "POST", dialect=_ANY, operation=operations.RESPONSES, needs=ASK),
    route("/v1/responses/{id}", responses.retrieve, "GET", dialect=_ANY, operation=operations.RESPONSE, needs=READ),
    route("/v1/responses/{id}", responses.delete, "DELETE", dialect=_ANY, operation=operations.DELETED, needs=READ),
    route(
        "/v1/responses/{id}/input_items",
        responses.input_items,
        "GET",
        dialect=_ANY,
        operation=operations.INPUT_ITEMS,
        needs=READ,
    ),
    route(
        "/v1/audio/transcriptions",
        routes.transcribe,
        "POST",
        dialect=_ANY,
        operation=operations.TRANSCRIPTION,
        needs=ASK,
        max_body=MAX_FORM,
    ),
    route("/v1/embeddings", routes.embeddings, "POST", dialect=_ANY, operation=operations.EMBEDDINGS, needs=ASK),
    route("/v1/rerank", routes.rerank, "POST", dialect=_ANY, operation=operations.RERANK, needs=ASK),
    route("/v1/models", routes.models, "GET", dialect=_ANY, operation=operations.MODELS, needs=READ, is_quick=True),
    route("/v1/models/{name:path}", routes.model, "GET", dialect=_ANY, operation=operations.MODEL, needs=READ),
)
