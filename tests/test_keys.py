"""A server that asks for keys, over the fake engine: what strangers get, what a key may do, and what is noted of it."""

import json
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from corral.access.file import KeyFile
from corral.access.keys import Wish
from corral.access.scopes import SCOPES, Scope
from corral.server import page
from corral.server.http.openapi import document
from corral.server.http.routing import DocumentedRoute
from corral.server.serve import ROUTES
from tests.asking import Answer, ask, until
from tests.commands import Shell
from tests.conftest import FAKE_ENGINE, RunningServer, StartServer, add_model, running_server
from tests.tiny_models import tiny_llama

NEEDED: dict[Scope | None, str] = {
    None: "/",
    "infer": """
        /api/answers/{id} /api/chat /api/detokenize /api/embed /api/embeddings /api/generate /api/key /api/markdown
        /api/me /api/ps /api/render /api/rerank /api/show /api/status /api/tags /api/tokenize /api/version
        /docs /openapi.json
        /v1/audio/transcriptions /v1/chat/completions /v1/completions /v1/embeddings /v1/messages
        /v1/messages/count_tokens /v1/models /v1/models/{name:path} /v1/rerank /v1/responses /v1/responses/{id}
        /v1/responses/{id}/input_items /v1/v1/messages /v1/v1/messages/count_tokens
    """,
    "manage": """
        /api/blobs /api/blobs/{digest} /api/copy /api/create /api/delete /api/export /api/import /api/pull /api/push
        /api/search /metrics
    """,
    "admin": """
        /api/keys /api/log /api/nodes /api/nodes/drain /api/nodes/resume /api/quarantine /api/quarantine/release
        /api/requests
    """,
}
"""Which scope each path needs."""
COUNTED = """
    /api/chat /api/detokenize /api/embed /api/embeddings /api/generate /api/render /api/rerank /api/tokenize
    /v1/audio/transcriptions /v1/chat/completions /v1/completions /v1/embeddings /v1/messages
    /v1/messages/count_tokens /v1/rerank /v1/responses /v1/v1/messages /v1/v1/messages/count_tokens
"""
"""Paths whose requests count towards the limits of a key: those that ask a model."""
SENTENCE = "this server wants an API key that it knows: set OLLAMA_API_KEY"


@dataclass(frozen=True)
class Keyed:
    """A running server and the secrets of its keys, by their names."""

    server: RunningServer
    secrets: dict[str, str]

    def ask(self, name: str, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """A request with the key of that name."""
        return ask(self.server, method, path, body, {"authorization": f"Bearer {self.secrets[name]}", **headers})

    def make(self, name: str, **fields: Any) -> None:
        made = self.ask("first", "POST", "/api/keys", {"name": name, **fields})
        assert made.status == 201, made.body
        self.secrets[name] = made.json["secret"]

    def audit(self) -> list[dict[str, Any]]:
        """The lines of the audit log."""
        return [json.loads(line) for line in (self.server.home / "state" / "audit.log").read_text().splitlines()]


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> Iterator[Keyed]:
    home = tmp_path_factory.mktemp("keyed")
    add_model(home / ".ollama" / "models", "fake", tiny_gguf)
    add_model(home / ".ollama" / "models", "secret", tiny_llama(home / "secret.gguf", seed=3))
    with running_server(home, CORRAL_ENGINE=str(FAKE_ENGINE), CORRAL_REQUIRE_KEY="1") as server:
        secret = (home / ".ollama" / "corral-key").read_text().strip()
        found = Keyed(server, {"first": secret})
        for scope in SCOPES:
            found.make(scope, scope=scope)
        found.make("some", scope="manage", models=["fake", "mine*"])
        yield found


def test_every_route_needs_what_the_table_says() -> None:
    needed = {scope: set(paths.split()) for scope, paths in NEEDED.items()}
    assert {scope: {route.path for route in ROUTES if route.needs.scope == scope} for scope in needed} == needed
    assert {route.path for route in ROUTES if route.needs.asks_model} == set(COUNTED.split())
    assert all(isinstance(route, DocumentedRoute) for route in ROUTES)
    assert [route.path for route in page.ROUTES] == ["/", "/page/{version}/{path:path}"]


def operations() -> list[tuple[str, str, Scope | None]]:
    """Path with its parameters filled in, method and scope of each operation."""
    filled = {"{id}": "x", "{digest}": "sha256:" + "0" * 64, "{name:path}": "secret", "{name}": "secret"}
    found = []
    for route in ROUTES:
        path = route.path
        for parameter, value in filled.items():
            path = path.replace(parameter, value)
        found += [(path, method, route.needs.scope) for method in sorted(route.methods or ())]
    return found


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer corral-x"}, {"authorization": "Basic eDp5"}])
def test_a_stranger_is_refused_by_every_route_in_its_own_form(keyed: Keyed, headers: dict[str, str]) -> None:
    for path, method, scope in operations():
        answer = ask(keyed.server, method, path, b"{broken", headers)
        if scope is None:
            assert answer.status == 200
            continue
        assert (answer.status, answer.headers["www-authenticate"]) == (401, 'Bearer realm="corral"'), path
        if method == "HEAD":
            continue
        if path.startswith("/v1/messages"):
            error = answer.json["error"]
            assert (answer.json["type"], error["type"]) == ("error", "authentication_error")
            assert error["message"].startswith(SENTENCE)
        elif path.startswith("/v1/") and "messages" not in path:
            assert answer.json["error"]["code"] == "invalid_api_key"
            assert answer.json["error"]["message"].startswith(SENTENCE)
        elif path.startswith("/api/"):
            assert answer.error.startswith(SENTENCE)


def test_each_key_passes_where_its_scope_suffices(keyed: Keyed) -> None:
    for path, method, scope in operations():
        if scope is None or (path, method) in (("/api/keys", "DELETE"), ("/api/search", "GET")):
            continue
        for name in SCOPES:
            answer = keyed.ask(name, method, path, None if method in ("GET", "HEAD") else {})
            if SCOPES.index(name) < SCOPES.index(scope):
                assert answer.status == 403, (name, path)
                assert method == "HEAD" or f'of the scope "{scope}"'.encode() in answer.body.replace(b"\\", b"")
            else:
                assert answer.status not in (403, 429), (name, path, answer.body)
                assert answer.status != 401 or path == "/api/me"


def test_wrong_keys_all_end_the_same(keyed: Keyed) -> None:
    keyed.make("gone")
    revoked = keyed.secrets["gone"]
    assert keyed.ask("first", "DELETE", "/api/keys", {"key": "gone"}).status == 200
    right = keyed.secrets["first"]
    wrong = ["", "x", revoked, right[:-1], right + "x", right.upper(), " ", "é" * 20, "x" * 60_000]
    tries = [{"authorization": f"Bearer {one}"} for one in wrong] + [{"x-api-key": one} for one in wrong]
    tries += [{"authorization": right}, {"authorization": f"Basic {right}"}, {"cookie": f"key={right}"}, {}]
    answers = [ask(keyed.server, "GET", "/api/tags", None, headers) for headers in tries]
    assert {(answer.status, answer.body) for answer in answers} == {(401, answers[0].body)}
    assert ask(keyed.server, "GET", f"/api/tags?key={right}").status == 401


def test_a_key_comes_in_either_header(keyed: Keyed) -> None:
    secret = keyed.secrets["infer"]
    for headers in ({"x-api-key": secret}, {"authorization": f"bearer  {secret}"}):
        assert ask(keyed.server, "GET", "/api/tags", None, headers).status == 200
    both = {"authorization": "Bearer ollama", "x-api-key": secret}
    assert ask(keyed.server, "GET", "/api/tags", None, both).status == 200


CONFUSING = [
    "GET //api/tags",
    "GET /api//tags",
    "GET /api/tags/",
    "GET /api/./tags",
    "GET /x/../api/tags",
    "GET /page/../api/tags",
    "GET /page/x/../../api/tags",
    "GET /page/x/..%2f..%2fapi%2ftags",
    "GET /page/x/%2e%2e/%2e%2e/api/tags",
    "GET /%2e%2e/api/tags",
    "GET /api%2ftags",
    "GET /api%2Ftags",
    "GET /%61pi/tags",
    "GET /api/tags%00",
    "GET /api/tags%20",
    "GET /api/tags;x=/",
    "GET /api/tags?/",
    "GET /api/tags#/",
    "GET /API/TAGS",
    "GET \\api\\tags",
    "GET http://127.0.0.1/api/tags",
    "GET http://x/page/../api/tags",
    "GET /v1/models/",
    "HEAD /api/tags",
    "OPTIONS /api/tags",
    "TRACE /api/tags",
    "PROPFIND /api/tags",
    "POST /api/tags",
    "POST / HTTP-METHOD-OVERRIDE",
    "CONNECT /api/tags",
]
"""Requests that other servers have mistaken for some that need no key (CVE-2026-48746 and its like)."""


@pytest.mark.parametrize("line", CONFUSING)
def test_no_other_spelling_of_a_path_or_a_method_leads_past_the_key(keyed: Keyed, line: str) -> None:
    method, target = line.split(" ")[:2]
    host, _, port = keyed.server.host.partition(":")
    head = f"{method} {target} HTTP/1.1\r\nHost: {keyed.server.host}\r\nConnection: close\r\nAccept: text/html\r\n"
    more = "X-HTTP-Method-Override: GET\r\nX-Original-URL: /api/tags\r\nX-Rewrite-URL: /api/tags\r\n\r\n"
    with socket.create_connection((host, int(port)), 30) as connection:
        connection.sendall((head + more).encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    status = int(answer.split()[1])
    assert status in (301, 307, 400, 401, 403, 404, 405), answer
    assert b"fake" not in answer
    assert b"modified_at" not in answer


def test_a_key_is_asked_for_before_the_body_is_read(keyed: Keyed) -> None:
    host, _, port = keyed.server.host.partition(":")
    head = f"POST /api/pull HTTP/1.1\r\nHost: {keyed.server.host}\r\nContent-Length: 200000000\r\n\r\n"
    with socket.create_connection((host, int(port)), 30) as connection:
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 401 ")


def test_pages_of_other_origins_may_ask_and_are_told(keyed: Keyed) -> None:
    origin = {"origin": "http://localhost:3000"}
    asked = {**origin, "access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    preflight = ask(keyed.server, "OPTIONS", "/api/chat", None, asked)
    assert preflight.status == 204
    assert "Authorization" in preflight.headers["access-control-allow-headers"]
    refused = ask(keyed.server, "POST", "/api/chat", {}, origin)
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, origin["origin"])
    assert ask(keyed.server, "GET", "/", None, {"host": "llm.example.com"}).status == 200
    assert ask(keyed.server, "GET", "/api/tags", None, {"host": "llm.example.com"}).status == 401


@pytest.mark.parametrize("name", ["secret", "nothing"])  # one that is there, and one that is not
def test_a_key_for_some_models_learns_nothing_of_others(keyed: Keyed, name: str) -> None:
    asked = {"model": name, "prompt": "Hi", "messages": [{"role": "user", "content": "Hi"}], "stream": False}
    asked |= {"input": "Hi", "query": "q", "documents": ["d"], "content": "Hi", "tokens": [1], "max_tokens": 5}
    bodies: list[tuple[str, str, Any]] = [
        *(("POST", path, asked) for path in COUNTED.split() if path != "/v1/audio/transcriptions"),
        ("POST", "/api/show", asked),
        ("GET", f"/v1/models/{name}", None),
        ("POST", "/api/generate", {"model": name, "keep_alive": 0}),
        ("POST", "/api/copy", {"source": name, "destination": "mine"}),
        ("POST", "/api/copy", {"source": "fake", "destination": name}),
        ("POST", "/api/create", {"model": "mine", "from": name}),
        ("POST", "/api/create", {"model": name, "from": "fake"}),
        ("DELETE", "/api/delete", {"model": name}),
        ("POST", "/api/pull", {"model": name}),
        ("POST", "/api/push", {"model": name}),
        ("POST", "/api/export", {"models": [name], "path": "/tmp/x.tar"}),
        ("POST", "/api/import", {"model": name, "path": "/tmp/x.tar"}),
    ]
    for method, path, body in bodies:
        answer = keyed.ask("some", method, path, body)
        assert answer.status == 403, (path, answer.body)
        assert f'your key is not for the model "{name}:latest"' in answer.body.decode().replace("\\", "")
    form = (
        f'--x\r\ncontent-disposition: form-data; name="model"\r\n\r\n{name}\r\n--x\r\ncontent-disposition: form-data; '
    )
    form += 'name="file"; filename="a.wav"\r\n\r\nRIFF\r\n--x--\r\n'
    sound = {"content-type": "multipart/form-data; boundary=x"}
    answer = keyed.ask("some", "POST", "/v1/audio/transcriptions", form.encode(), **sound)
    assert answer.status in (400, 403), answer.body


def test_an_admin_of_some_models_releases_no_others_from_quarantine(keyed: Keyed) -> None:
    keyed.make("half", scope="admin", models=["fake"])
    for model in ("secret", "nothing", "sha256:" + "0" * 64):
        assert keyed.ask("half", "POST", "/api/quarantine/release", {"model": model}).status == 403
    nothing = keyed.ask("half", "POST", "/api/quarantine/release", {"model": "fake"})
    assert nothing.error == "nothing of it is in quarantine"
    assert keyed.ask("half", "GET", "/api/quarantine").json == {"files": []}


def test_lists_show_a_key_its_models(keyed: Keyed) -> None:
    for name in ("fake", "secret"):
        assert keyed.ask("infer", "POST", "/api/generate", {"model": name}).status == 200
    assert {model["name"] for model in keyed.ask("infer", "GET", "/api/tags").json["models"]} > {"secret:latest"}
    assert [model["name"] for model in keyed.ask("some", "GET", "/api/tags").json["models"]] == ["fake:latest"]
    assert [model["id"] for model in keyed.ask("some", "GET", "/v1/models").json["data"]] == ["fake:latest"]
    assert {model["name"] for model in keyed.ask("some", "GET", "/api/ps").json["models"]} == {"fake:latest"}
    assert keyed.ask("some", "GET", "/metrics").status == 403
    assert keyed.ask("some", "POST", "/api/generate", {"model": "FAKE:latest", "prompt": "Hi"}).status == 200


def test_a_key_for_some_models_cannot_take_the_files_of_others(keyed: Keyed) -> None:
    modelfile = keyed.ask("admin", "POST", "/api/show", {"model": "secret"}).json["modelfile"]
    found = re.search(r"sha256-([0-9a-f]{64})", modelfile)
    assert found
    asked = {"model": "mine", "files": {"model.gguf": f"sha256:{found[1]}"}, "stream": False}
    answer = keyed.ask("some", "POST", "/api/create", asked)
    assert (answer.status, answer.error) == (
        403,
        "a file that the request names belongs to a model that your key is not for",
    )
    assert keyed.ask("manage", "POST", "/api/create", asked).status == 200


def test_unloading_is_for_those_who_manage(keyed: Keyed) -> None:
    unload = {"model": "fake", "keep_alive": 0}
    assert keyed.ask("infer", "POST", "/api/generate", unload).status == 403
    assert keyed.ask("manage", "POST", "/api/generate", unload).json["done_reason"] == "unload"


def test_limits_of_a_key(keyed: Keyed) -> None:
    keyed.make("twice", requests_per_minute=2)
    asked = {"model": "fake", "prompt": "!tokens=3", "stream": False}
    statuses = [keyed.ask("twice", "POST", "/api/generate", asked).status for _ in range(3)]
    assert statuses == [200, 200, 429]
    refused = keyed.ask("twice", "POST", "/v1/chat/completions", b"{broken")
    assert refused.status == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 30
    assert refused.json["error"]["code"] == "rate_limit_exceeded"
    assert keyed.ask("twice", "GET", "/api/tags").status == 200  # asks no model
    keyed.make("brief", tokens_per_minute=10)
    with_words = {"model": "fake", "prompt": "!tokens=40", "stream": False}
    assert keyed.ask("brief", "POST", "/api/generate", with_words).status == 200
    refused = keyed.ask("brief", "POST", "/api/generate", with_words)
    assert refused.status == 429
    assert int(refused.headers["retry-after"]) > 180  # forty tokens and the prompt's, of ten a minute


def test_a_client_that_hangs_up_has_used_what_it_got(keyed: Keyed) -> None:
    keyed.make("hasty", tokens_per_minute=2)
    (keyed.server.home / "go").unlink(missing_ok=True)
    host, _, port = keyed.server.host.partition(":")
    body = json.dumps({"model": "fake", "prompt": "!tokens=9 !hold=5"}).encode()
    head = (
        f"POST /api/generate HTTP/1.1\r\nHost: x\r\nx-api-key: {keyed.secrets['hasty']}\r\nContent-Length: {len(body)}"
    )
    with socket.create_connection((host, int(port)), 30) as connection:
        connection.sendall(head.encode() + b"\r\n\r\n" + body)
        received = b""
        while b"w4" not in received:
            received += connection.recv(4096)
    until(lambda: keyed.ask("hasty", "POST", "/api/tokenize", {"model": "fake", "content": ""}).status == 429)


def test_answers_that_are_kept_belong_to_their_key(keyed: Keyed) -> None:
    asked = {"model": "fake", "prompt": "!tokens=2", "stream": False}
    keyed.ask("infer", "POST", "/api/generate", asked, **{"x-corral-keep-answer": "1", "x-request-id": "mine"})
    assert keyed.ask("infer", "GET", "/api/answers/mine").status == 200
    assert keyed.ask("admin", "GET", "/api/answers/mine").status == 404
    assert keyed.ask("admin", "DELETE", "/api/answers/mine").status == 404
    made = keyed.ask("infer", "POST", "/v1/responses", {"model": "fake", "input": "!tokens=2 and"})
    path = f"/v1/responses/{made.json['id']}"
    assert keyed.ask("infer", "GET", path).status == 200
    for method, other in (("GET", path), ("GET", f"{path}/input_items"), ("DELETE", path)):
        assert keyed.ask("admin", method, other).status == 404
    further = {"model": "fake", "input": "more", "previous_response_id": made.json["id"]}
    assert keyed.ask("admin", "POST", "/v1/responses", further).status == 400
    assert keyed.ask("infer", "POST", "/v1/responses", further).status == 200


def test_a_refused_request_keeps_no_answer(keyed: Keyed) -> None:
    for number in range(70):  # more than are kept
        headers = {"x-corral-keep-answer": "1", "x-request-id": f"stranger{number}"}
        assert ask(keyed.server, "POST", "/api/generate", {}, headers).status == 401
    headers = {"x-corral-keep-answer": "1", "x-request-id": "after"}
    keyed.ask("infer", "POST", "/api/generate", {"model": "fake", "prompt": "!tokens=1"}, **headers)
    assert keyed.ask("infer", "GET", "/api/answers/after").status == 200


def test_keys_are_shown_without_their_secrets(keyed: Keyed) -> None:
    listed = keyed.ask("admin", "GET", "/api/keys")
    assert {"first", *SCOPES} <= {key["name"] for key in listed.json["keys"]}
    current = keyed.ask("some", "GET", "/api/key").json
    assert (current["needed"], current["key"]["models"]) == (True, ["fake", "mine*"])
    assert not any(secret.encode() in listed.body for secret in keyed.secrets.values())
    wrong = keyed.ask("admin", "POST", "/api/keys", {"name": "x", "scope": "root"})
    assert (wrong.status, wrong.error) == (400, '"root" is no scope: one of infer, manage, admin')
    assert keyed.ask("admin", "DELETE", "/api/keys", {"key": "nobody"}).status == 404
    assert keyed.ask("admin", "DELETE", "/api/keys", {}).status == 400


def test_the_command_changes_the_keys_of_a_running_server(keyed: Keyed) -> None:
    shell = Shell(keyed.server.home, keyed.server.host)
    made = shell.run("keys", "create", "ci", "--scope", "manage")
    assert (made.status, made.stdout.startswith("corral-")) == (0, True)
    keyed.secrets["ci"] = made.stdout.strip()
    assert keyed.ask("ci", "GET", "/api/tags").status == 200
    assert "ci" in shell.run("keys").stdout
    assert shell.run("keys", "revoke", "ci").status == 0
    until(lambda: keyed.ask("ci", "GET", "/api/tags").status == 401)
    file = keyed.server.home / ".ollama" / "corral-keys.json"
    good = file.read_bytes()
    file.write_bytes(b"{broken")  # as somebody may who edits it
    time.sleep(1.1)  # the server looks once a second
    assert keyed.ask("admin", "GET", "/api/tags").status == 200
    assert "the keys of before still count" in keyed.server.log.read_text()
    file.write_bytes(good)


def test_commands_of_this_machine_have_a_key_and_others_are_told(keyed: Keyed, tmp_path: Path) -> None:
    assert "fake:latest" in Shell(keyed.server.home, keyed.server.host).run("list").stdout
    stranger = Shell(tmp_path, keyed.server.host)
    for command in (["list"], ["run", "fake", "Hi"], ["ps"], ["show", "fake"]):
        refused = stranger.run(*command)
        assert refused.status == 1
        assert "wants an API key; set OLLAMA_API_KEY" in refused.stderr
    assert stranger.run("list", OLLAMA_API_KEY=keyed.secrets["infer"]).status == 0
    forbidden = stranger.run("rm", "fake", OLLAMA_API_KEY=keyed.secrets["infer"])
    assert 'this needs a key of the scope "manage", and yours has "infer"' in forbidden.stderr


def test_what_is_managed_is_noted_with_who_did_it(keyed: Keyed) -> None:
    keyed.ask("manage", "POST", "/api/copy", {"source": "fake", "destination": "noted"})
    keyed.ask("manage", "DELETE", "/api/delete", {"model": "noted"})
    keyed.ask("manage", "DELETE", "/api/delete", {"model": "noted"})
    keyed.ask("infer", "DELETE", "/api/delete", {"model": "fake"})
    keyed.ask("manage", "POST", "/api/create", {"model": "mine", "from": "fake", "system": "do not note this"})
    keyed.ask("admin", "POST", "/api/generate", {"model": "fake", "keep_alive": 0, "prompt": ""})
    ids = {key["name"]: key["id"] for key in keyed.ask("admin", "GET", "/api/keys").json["keys"]}
    until(lambda: keyed.audit()[-1]["action"] == "unload")
    names = ("key_name", "action", "models", "outcome", "error")
    entries = keyed.audit()[-6:]
    assert [tuple(entry[name] for name in names) for entry in entries] == [
        ("manage", "POST /api/copy", ["fake:latest", "noted:latest"], "done", ""),
        ("manage", "DELETE /api/delete", ["noted:latest"], "done", ""),
        ("manage", "DELETE /api/delete", ["noted:latest"], "failed", "model_not_found"),
        ("infer", "DELETE /api/delete", [], "refused", "scope_missing"),
        ("manage", "POST /api/create", ["mine:latest", "fake:latest"], "done", ""),
        ("admin", "unload", ["fake:latest"], "done", ""),
    ]
    assert all(entry["who"] == ids[entry["key_name"]] and entry["address"] == "127.0.0.1" for entry in entries)
    text = (keyed.server.home / "state" / "audit.log").read_text()
    assert "do not note this" not in text
    assert "GET" not in {entry["action"].split()[0] for entry in keyed.audit()}


def test_no_secret_is_logged(keyed: Keyed) -> None:
    for text in (keyed.server.log.read_text(), (keyed.server.home / "state" / "audit.log").read_text()):
        assert not any(secret in text for secret in keyed.secrets.values())
        assert "corral-x" not in text


def test_the_document_says_how_a_key_is_sent() -> None:
    made = document(ROUTES)
    assert set(made["components"]["securitySchemes"]) == {"bearer", "header"}
    assert made["paths"]["/"]["get"]["security"] == []
    assert "401" not in made["paths"]["/"]["get"]["responses"]
    assert {"401", "403", "429"} <= set(made["paths"]["/api/chat"]["post"]["responses"])
    assert "429" not in made["paths"]["/api/tags"]["get"]["responses"]


def test_on_loopback_a_word_in_place_of_a_key_counts_for_nothing_and_a_key_does(start_server: StartServer) -> None:
    server = start_server()
    home = server.home
    for headers in ({}, {"authorization": "Bearer ollama"}, {"x-api-key": "none"}):
        assert ask(server, "GET", "/api/keys", None, headers).status == 200
    assert not (home / ".ollama" / "corral-keys.json").exists()
    made = ask(server, "POST", "/api/keys", {"name": "weak"}).json
    known = {"authorization": f"Bearer {made['secret']}"}
    assert ask(server, "GET", "/api/keys", None, known).status == 403
    assert ask(server, "GET", "/api/key", None, known).json["key"]["name"] == "weak"
    assert ask(server, "GET", "/api/key").json == {"needed": False, "key": None}
    audit = home / "state" / "audit.log"
    until(lambda: audit.exists() and "\n" in audit.read_text())  # it is written behind the answer
    assert json.loads(audit.read_text().splitlines()[0])["who"] == "local"


def test_the_first_key_is_made_once_and_lies_with_its_user(start_server: StartServer, tmp_path: Path) -> None:
    home = tmp_path / "home"
    server = start_server(home, CORRAL_REQUIRE_KEY="1")
    place = home / ".ollama" / "corral-key"
    secret = place.read_text().strip()
    log = server.log.read_text()
    assert f'It lies in "{place}"' in log
    assert secret not in log
    assert Shell(home, server.host).run("keys", "revoke", "first").status == 0
    assert not place.exists()
    Shell(home, server.host).run("keys", "create", "next")
    log_size = len(server.log.read_text())
    start_server(home, CORRAL_REQUIRE_KEY="1")
    assert "The first one was made" not in server.log.read_text()[log_size:]


def test_the_first_key_is_shown_on_a_terminal(tmp_path: Path) -> None:
    terminal = Shell(tmp_path, "127.0.0.1:0").terminal("serve", variables={"CORRAL_REQUIRE_KEY": "1"})
    terminal.wait_for("keeps it for you alone")
    terminal.wait_for("corral keys create NAME")
    terminal.process.terminate()
    outcome = terminal.finish()
    secret = (tmp_path / ".ollama" / "corral-key").read_text().strip()
    assert f"    {secret}\n" in outcome.stdout
    assert secret not in outcome.stderr


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"CORRAL_REQUIRE_KEY": "1", "CORRAL_INSECURE_NO_AUTH": "1"}, "exclude each other"),
        ({"CORRAL_TLS_CERT": "/nowhere/cert.pem"}, "CORRAL_TLS_KEY is not set"),
        ({"CORRAL_TLS_CERT": "/nowhere/c.pem", "CORRAL_TLS_KEY": "/nowhere/k.pem"}, 'cannot read "/nowhere/c.pem"'),
    ],
)
def test_settings_that_cannot_be_used_end_the_start(tmp_path: Path, variables: dict[str, str], sentence: str) -> None:
    outcome = Shell(tmp_path, "127.0.0.1:0").run("serve", **variables)
    assert outcome.status == 1
    assert sentence in outcome.stderr


def test_a_file_of_keys_that_cannot_be_used_ends_the_start(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / ".ollama")
    file.add(Wish(name="k"))
    file.path.write_text("{broken")
    outcome = Shell(tmp_path, "127.0.0.1:0").run("serve")
    assert outcome.status == 1
    assert "cannot be used" in outcome.stderr
