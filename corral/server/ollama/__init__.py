"""Ollama's native API, a dialect: every path, its methods, its handler, and how its errors are written.

Source: spec api.
"""

from corral.errors import ModelNotFound, ModelRequired, RemoteModel
from corral.server.http.error_table import Row, Table
from corral.server.http.routing import route
from corral.server.ollama import answers, create, explain, markdown, models, operations, quarantine, routes, search
from corral.server.ollama.errors import dialect

_ANY = dialect()
_GENERATE = dialect({ModelRequired: Row(404, lambda _: "model '' not found")})
_TRY_PULLING: Table = {ModelNotFound: Row(404, lambda error: f'model "{error.name}" not found, try pulling it first')}
_EMBED = dialect({ModelRequired: Row(404, lambda _: "model '' not found"), **_TRY_PULLING})
_EMBEDDINGS = dialect(_TRY_PULLING)
_SHOW = dialect({RemoteModel: Row(403, lambda _: "ollama cloud is disabled: remote model details are unavailable")})
_COPY = dialect({ModelNotFound: Row(404, lambda error: f'model "{error.name}" not found')})

ROUTES = (
    route("/", routes.root, "GET", "HEAD", dialect=_ANY, operation=operations.ROOT),
    route("/api/version", routes.version, "GET", "HEAD", dialect=_ANY, operation=operations.VERSION),
    route("/api/status", routes.status, "GET", dialect=_ANY, operation=operations.STATUS),
    route("/api/generate", routes.generate, "POST", dialect=_GENERATE, operation=operations.GENERATE),
    route("/api/chat", routes.chat, "POST", dialect=_ANY, operation=operations.CHAT),
    route("/api/render", routes.render, "POST", dialect=_ANY, operation=operations.RENDER),
    route("/api/embed", routes.embed, "POST", dialect=_EMBED, operation=operations.EMBED),
    route("/api/embeddings", routes.embeddings, "POST", dialect=_EMBEDDINGS, operation=operations.EMBEDDINGS),
    route("/api/rerank", routes.rerank, "POST", dialect=_ANY, operation=operations.RERANK),
    route("/api/tokenize", routes.tokenize, "POST", dialect=_ANY, operation=operations.TOKENIZE),
    route("/api/detokenize", routes.detokenize, "POST", dialect=_ANY, operation=operations.DETOKENIZE),
    route("/api/tags", models.tags, "GET", "HEAD", dialect=_ANY, operation=operations.TAGS),
    route("/api/ps", models.ps, "GET", dialect=_ANY, operation=operations.PS),
    route("/api/requests", explain.requests, "GET", dialect=_ANY, operation=operations.REQUESTS),
    route("/api/answers/{id}", answers.answer, "GET", dialect=_ANY, operation=operations.ANSWER),
    route("/api/answers/{id}", answers.stop, "DELETE", dialect=_ANY, operation=operations.STOPPED),
    route("/api/markdown", markdown.markdown, "POST", dialect=_ANY, operation=operations.MARKDOWN),
    route("/api/search", search.search, "GET", dialect=_ANY, operation=operations.SEARCH),
    route("/api/show", models.show, "POST", dialect=_SHOW, operation=operations.SHOW),
    route("/api/create", create.create, "POST", dialect=_ANY, operation=operations.CREATE),
    route("/api/log", explain.log, "GET", dialect=_ANY, operation=operations.LOG),
    route("/api/blobs", create.new_blob, "POST", dialect=_ANY, operation=operations.NEW_BLOB),
    route("/api/blobs/{digest}", create.blob, "HEAD", "POST", dialect=_ANY, operation=operations.BLOB),
    route("/api/quarantine", quarantine.listed, "GET", dialect=_ANY, operation=operations.QUARANTINE),
    route("/api/quarantine/release", quarantine.release, "POST", dialect=_ANY, operation=operations.RELEASE),
    route("/api/copy", models.copy, "POST", dialect=_COPY, operation=operations.COPY),
    route("/api/delete", models.delete, "DELETE", dialect=_ANY, operation=operations.DELETE),
    route("/api/pull", models.pull, "POST", dialect=_ANY, operation=operations.PULL),
    route("/api/push", models.push, "POST", dialect=_ANY, operation=operations.PUSH),
    route("/api/export", models.export, "POST", dialect=_ANY, operation=operations.EXPORT),
    route("/api/import", models.import_, "POST", dialect=_ANY, operation=operations.IMPORT),
    route("/api/me", routes.me, "POST", dialect=_ANY, operation=operations.ME),
)
