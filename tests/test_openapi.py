"""The API's document and page: what they say, and that the server shows them. `test_openapi_cases` tries it out."""

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from corral.server.http.openapi import described, document
from corral.server.serve import ROUTES
from tests.asking import ask
from tests.conftest import RunningServer, StartServer

DOCUMENT = document(ROUTES)


@pytest.fixture
def server(start_server: StartServer) -> RunningServer:
    return start_server()


def fits(name: str, value: Any) -> bool:
    """Whether a value fits a schema of the document."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    return bool(Draft202012Validator(schema).is_valid(value))


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_the_document_is_valid() -> None:
    validate(DOCUMENT)


def test_every_route_and_method_is_in_it() -> None:
    of_routes = {
        (re.sub(r":\w+\}", "}", route.path), method.lower()) for route in ROUTES for method in route.methods or ()
    }
    assert {(path, method) for path, method, _ in operations()} == of_routes


def test_every_route_has_a_sentence() -> None:
    assert [route.path for route in ROUTES if len(described(route)[0].split()) < 2] == []


def test_references_to_the_specification_are_not_for_readers() -> None:
    assert "spec api" not in json.dumps(DOCUMENT["paths"])


def test_every_field_of_a_request_may_be_null() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    requests = {name: schema for name, schema in schemas.items() if name.endswith("Request")}
    assert len(requests) > 12
    for name, schema in requests.items():
        assert fits(name, dict.fromkeys(schema["properties"])), name


@pytest.mark.parametrize(
    "request_",
    [
        {"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
        {"model": "m", "messages": [None, {"role": "user", "content": ["Hi"]}], "unknown": 1},
        {"tools": [{"function": {"parameters": {"properties": {"a": True, "b": None}}}}]},
        {"think": "high", "format": {"type": "object"}, "keep_alive": "5m", "options": {"seed": 1}},
    ],
)
def test_the_schema_allows_what_is_read(request_: dict[str, Any]) -> None:
    assert fits("Ollama.ChatRequest", request_)


@pytest.mark.parametrize(
    "request_",
    [[], {"model": 1}, {"messages": "Hi"}, {"messages": [{"images": [1]}]}, {"think": 1}, {"keep_alive": True}],
)
def test_the_schema_refuses_what_is_not_read(request_: Any) -> None:
    assert not fits("Ollama.ChatRequest", request_)


def test_the_whole_of_a_request_is_no_field() -> None:
    assert all("*" not in schema.get("properties", {}) for schema in DOCUMENT["components"]["schemas"].values())


def test_types_of_one_name_in_several_modules_have_different_names() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert {"OpenAI.responses.Reasoning", "OpenAI.openai.Reasoning"} <= set(schemas)


def test_what_a_request_has_to_have_is_required() -> None:
    schema = DOCUMENT["paths"]["/v1/messages"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    validator = Draft202012Validator({**schema, "components": DOCUMENT["components"]})
    asked = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], "system": None}
    assert validator.is_valid(asked)
    for name, value in (("max_tokens", 0), ("max_tokens", None), ("messages", []), ("model", "")):
        assert not validator.is_valid({**asked, name: value})


def test_a_form_is_described() -> None:
    operation = DOCUMENT["paths"]["/v1/audio/transcriptions"]["post"]
    ((kind, content),) = operation["requestBody"]["content"].items()
    assert (kind, content["schema"]["required"]) == ("multipart/form-data", ["file", "model"])
    assert all(field["description"] for field in content["schema"]["properties"].values())
    assert set(operation["responses"]["200"]["content"]) == {"application/json", "text/plain", "text/event-stream"}
    assert {"400", "404", "408", "413"} <= set(operation["responses"])


def test_a_dialect_has_its_own_envelope() -> None:
    assert fits("Ollama.Error", {"error": "model 'm' not found"})
    assert not fits("OpenAI.Error", {"error": "model 'm' not found"})
    statuses = DOCUMENT["paths"]["/v1/messages"]["post"]["responses"]
    assert set(statuses) == {"200", "400", "401", "403", "404", "408", "413", "429", "500", "501", "502", "503", "508"}
    assert statuses["404"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Anthropic.Error"}


def test_a_route_without_a_body_has_no_errors_of_bodies() -> None:
    assert not {"408", "413"} & set(DOCUMENT["paths"]["/v1/models/{name}"]["get"]["responses"])


def test_the_server_shows_the_document(server: RunningServer) -> None:
    answer = ask(server, "GET", "/openapi.json")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json == DOCUMENT


def test_the_root_is_still_ollamas(server: RunningServer) -> None:
    assert ask(server, "GET", "/").body == b"Ollama is running"


@pytest.mark.parametrize("path", ["/docs", "/openapi.json"])
def test_a_strange_origin_sees_neither(server: RunningServer, path: str) -> None:
    answer = ask(server, "GET", path, headers={"origin": "http://evil.example"})
    assert (answer.status, answer.body) == (403, b"")


class _Page(HTMLParser):
    """The elements of a page, the addresses it names, and the places in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.addresses: set[str] = set()
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        given = dict(attributes)
        self.addresses |= {given[name] or "" for name in ("href", "src") if name in given}
        self.places |= {given["id"] or ""} if "id" in given else set()


def test_the_page_lists_every_route_and_loads_nothing(server: RunningServer) -> None:
    answer = ask(server, "GET", "/docs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"].startswith("default-src 'none';")
    text = answer.body.decode()
    page = _Page(text)
    assert not page.elements & {"script", "link", "img", "iframe", "object", "form"}
    assert page.addresses == {"openapi.json", *(f"#{place}" for place in page.places)}
    for path, method, _ in operations():
        assert f"<b>{method.upper()}</b> <code>{path}</code>" in text
    assert "<td><code>file</code></td><td>file</td>" in text
    assert "<td><code>response_format</code></td><td><code>json</code> or <code>text</code></td>" in text
