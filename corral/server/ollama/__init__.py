"""Ollama's native API, a dialect: every path, its methods, its handler, and how its errors are written.

Source: spec api.
"""

from corral.errors import ModelNotFound, ModelRequired, RemoteModel
from corral.server.http.error_table import Row, Table
from corral.server.http.needs import ADMIN, ASK, MANAGE, OPEN, READ
from corral.server.http.routing import route
from corral.server.ollama import (
    answers,
    create,
    explain,
    keys,
    markdown,
    models,
    nodes,
    operations,
    quarantine,
    routes,
    search,
)
from corral.server.ollama.errors import dialect

_ANY = dialect()
_GENERATE = dialect({ModelRequired: Row(404, lambda _: "model '' not found")})
_TRY_PULLING: Table = {ModelNotFound: Row(404, lambda error: f'model "{error.name}" not found, try pulling it first')}
_EMBED = dialect({ModelRequired: Row(404, lambda _: "model '' not found"), **_TRY_PULLING})
_EMBEDDINGS = dialect(_TRY_PULLING)
_SHOW = dialect({RemoteModel: Row(403, lambda _: "ollama cloud is disabled: remote model details are unavailable")})
_COPY = dialect({ModelNotFound: Row(404, lambda error: f'model "{error.name}" not found')})

ROUTES = (
    route("/", routes.root, "GET", "HEAD", dialect=_ANY, operation=operations.ROOT, needs=OPEN, is_quick=True),
    route(
        "/api/version",
        routes.version,
        "GET",
        "HEAD",
        dialect=_ANY,
        operation=operations.VERSION,
        needs=READ,
        is_quick=True,
    ),
    route("/api/status", routes.status, "GET", dialect=_ANY, operation=operations.STATUS, needs=READ, is_quick=True),
    route("/api/generate", routes.generate, "POST", dialect=_GENERATE, operation=operations.GENERATE, needs=ASK),
    route("/api/chat", routes.chat, "POST", dialect=_ANY, operation=operations.CHAT, needs=ASK),
    route("/api/render", routes.render, "POST", dialect=_ANY, operation=operations.RENDER, needs=ASK),
    route("/api/embed", routes.embed, "POST", dialect=_EMBED, operation=operations.EMBED, needs=ASK),
    route(
        "/api/embeddings", routes.embeddings, "POST", dialect=_EMBEDDINGS, operation=operations.EMBEDDINGS, needs=ASK
    ),
    route("/api/rerank", routes.rerank, "POST", dialect=_ANY, operation=operations.RERANK, needs=ASK),
    route("/api/tokenize", routes.tokenize, "POST", dialect=_ANY, operation=operations.TOKENIZE, needs=ASK),
    route("/api/detokenize", routes.detokenize, "POST", dialect=_ANY, operation=operations.DETOKENIZE, needs=ASK),
    route("/api/tags", models.tags, "GET", "HEAD", dialect=_ANY, operation=operations.TAGS, needs=READ, is_quick=True),
    route("/api/ps", models.ps, "GET", dialect=_ANY, operation=operations.PS, needs=READ, is_quick=True),
    route("/api/requests", explain.requests, "GET", dialect=_ANY, operation=operations.REQUESTS, needs=ADMIN),
    route("/api/answers/{id}", answers.answer, "GET", dialect=_ANY, operation=operations.ANSWER, needs=READ),
    route("/api/answers/{id}", answers.stop, "DELETE", dialect=_ANY, operation=operations.STOPPED, needs=READ),
    route("/api/markdown", markdown.markdown, "POST", dialect=_ANY, operation=operations.MARKDOWN, needs=READ),
    route("/api/search", search.search, "GET", dialect=_ANY, operation=operations.SEARCH, needs=MANAGE),
    route("/api/show", models.show, "POST", dialect=_SHOW, operation=operations.SHOW, needs=READ),
    route("/api/create", create.create, "POST", dialect=_ANY, operation=operations.CREATE, needs=MANAGE),
    route("/api/log", explain.log, "GET", dialect=_ANY, operation=operations.LOG, needs=ADMIN),
    route("/api/blobs", create.new_blob, "POST", dialect=_ANY, operation=operations.NEW_BLOB, needs=MANAGE),
    route("/api/blobs/{digest}", create.blob, "HEAD", "POST", dialect=_ANY, operation=operations.BLOB, needs=MANAGE),
    route("/api/quarantine", quarantine.listed, "GET", dialect=_ANY, operation=operations.QUARANTINE, needs=ADMIN),
    route(
        "/api/quarantine/release",
        quarantine.release,
        "POST",
        dialect=_ANY,
        operation=operations.RELEASE,
        needs=ADMIN,
    ),
    route("/api/copy", models.copy, "POST", dialect=_COPY, operation=operations.COPY, needs=MANAGE),
    route("/api/delete", models.delete, "DELETE", dialect=_ANY, operation=operations.DELETE, needs=MANAGE),
    route("/api/pull", models.pull, "POST", dialect=_ANY, operation=operations.PULL, needs=MANAGE),
    route("/api/push", models.push, "POST", dialect=_ANY, operation=operations.PUSH, needs=MANAGE),
    route("/api/export", models.export, "POST", dialect=_ANY, operation=operations.EXPORT, needs=MANAGE),
    route("/api/import", models.import_, "POST", dialect=_ANY, operation=operations.IMPORT, needs=MANAGE),
    route("/api/key", keys.current, "GET", dialect=_ANY, operation=operations.KEY, needs=READ),
    route("/api/keys", keys.listed, "GET", dialect=_ANY, operation=operations.KEYS, needs=ADMIN),
    route("/api/keys", keys.create, "POST", dialect=_ANY, operation=operations.NEW_KEY, needs=ADMIN),
    route("/api/keys", keys.revoke, "DELETE", dialect=_ANY, operation=operations.REVOKED, needs=ADMIN),
    route("/api/nodes", nodes.listed, "GET", dialect=_ANY, operation=operations.NODES, needs=ADMIN),
    route("/api/nodes/drain", nodes.drain, "POST", dialect=_ANY, operation=operations.DRAIN, needs=ADMIN),
    route("/api/nodes/resume", nodes.resume, "POST", dialect=_ANY, operation=operations.RESUME, needs=ADMIN),
    route("/api/me", routes.me, "POST", dialect=_ANY, operation=operations.ME, needs=READ),
)
