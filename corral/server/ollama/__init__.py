"""Ollama's native API, a dialect: every path, its methods and who answers. Source: spec api."""

from corral.server.http.routing import route
from corral.server.ollama import models, routes

ROUTES = (
    route("/", routes.root, "GET", "HEAD"),
    route("/api/version", routes.version, "GET", "HEAD"),
    route("/api/status", routes.status, "GET"),
    route("/api/generate", routes.generate, "POST"),
    route("/api/chat", routes.chat, "POST"),
    route("/api/render", routes.render, "POST"),
    route("/api/embed", routes.embed, "POST"),
    route("/api/embeddings", routes.embeddings, "POST"),
    route("/api/tags", models.tags, "GET", "HEAD"),
    route("/api/ps", models.ps, "GET"),
    route("/api/show", models.show, "POST"),
    route("/api/create", models.create, "POST"),
    route("/api/blobs/{digest}", models.blob, "HEAD", "POST", reads_body=True),
    route("/api/copy", models.copy, "POST"),
    route("/api/delete", models.delete, "DELETE"),
    route("/api/pull", models.pull, "POST"),
    route("/api/push", models.push, "POST"),
    route("/api/export", models.export, "POST"),
    route("/api/import", models.import_, "POST"),
    route("/api/me", routes.me, "POST"),
)
