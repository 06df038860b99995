"""Answers in a format, through the server: JSON, schemas of every kind, what is wrong with one, and thinking."""

import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest

from corral.schemas import accepts_prefix
from tests.asking import Answer, post
from tests.conftest import RunningServer, add_model, running_server
from tests.speakers import speaker
from tests.test_structured_schemas import AT_THE_LIMIT
from tests.tool_templates import GO, JINJA


@pytest.fixture(scope="module")
def native_server(starter_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that lets the engine run the model's own Jinja template."""
    home = tmp_path_factory.mktemp("native")
    add_model(home / ".ollama" / "models", "smollm2:135m", starter_gguf)
    with running_server(home, OLLAMA_GO_TEMPLATE="false") as server:
        yield server


ROUTES = ("/api/generate", "/api/chat")


def asked(route: str, **more: Any) -> dict[str, Any]:
    """A request that asks the same on both routes."""
    prompt = "Describe a person as JSON."
    question = {"prompt": prompt} if route == "/api/generate" else {"messages": [{"role": "user", "content": prompt}]}
    options = {"temperature": 0, "num_predict": 100, "num_thread": 1, **more.pop("options", {})}
    return {"model": "smollm2:135m", "stream": False, "options": options, **question, **more}


def said(answer: Answer) -> str:
    """The text of an answer, streamed or not."""
    assert answer.status == 200, answer.body
    return "".join(line["message"]["content"] if "message" in line else line["response"] for line in answer.lines)


def workers(server: RunningServer) -> set[int]:
    return {child.pid for child in psutil.Process(server.process.pid).children()}


PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "role": {"enum": ["admin", "guest", None]},
        "scores": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "maxItems": 3},
        "home": {"$ref": "#/$defs/place"},
    },
    "required": ["name", "role", "scores", "home"],
    "additionalProperties": False,
    "$defs": {
        "place": {
            "type": "object",
            "properties": {"zip": {"type": "string", "pattern": "^[0-9]{5}$"}, "since": {"$ref": "#/$defs/year"}},
            "required": ["zip", "since"],
            "additionalProperties": False,
        },
        "year": {"type": "integer", "minimum": 1990, "maximum": 1999},
    },
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_fits_a_nested_schema(real_server: RunningServer, route: str, stream: bool) -> None:
    answer = post(real_server, route, asked(route, format=PERSON, stream=stream))
    jsonschema.validate(json.loads(said(answer)), PERSON)


@pytest.mark.parametrize("route", ROUTES)
def test_an_answer_fits_also_with_the_models_own_template(native_server: RunningServer, route: str) -> None:
    schema = {"type": "array", "items": {"type": "number", "multipleOf": 0.25, "maximum": 9}, "maxItems": 3}
    jsonschema.validate(json.loads(said(post(native_server, route, asked(route, format=schema)))), schema)


@pytest.mark.parametrize("given", ["json", {}, {"title": "Person"}, {"properties": {}}])
@pytest.mark.parametrize("route", ROUTES)
def test_json_is_an_object(real_server: RunningServer, route: str, given: Any) -> None:
    answer = post(real_server, route, asked(route, format=given, options={"num_predict": 400}))
    text = said(answer)
    if answer.json["done_reason"] == "stop":
        assert isinstance(json.loads(text), dict)
    else:  # a small model may find no end
        assert text.startswith("{")
        assert accepts_prefix({"type": "object"}, text)


@pytest.mark.parametrize("route", ROUTES)
def test_a_schema_that_the_engine_would_ignore_is_refused(real_server: RunningServer, route: str) -> None:
    answer = post(real_server, route, asked(route, format={"properties": {"a": {"type": "foo"}}}))
    expected = 'invalid format: "#/properties/a/type": unknown type "foo"'
    assert (answer.status, answer.json) == (400, {"error": expected})


@pytest.mark.parametrize("route", ROUTES)
def test_what_is_no_format_keeps_its_status(real_server: RunningServer, route: str) -> None:
    answer = post(real_server, route, asked(route, format="xml"))
    expected = r'invalid format: "\"xml\""; expected "json" or a valid JSON Schema object'
    assert (answer.status, answer.json) == (500, {"error": expected})


@pytest.mark.parametrize("wrong", ["xml", {"type": "foo"}])
def test_other_checks_come_before_the_format(real_server: RunningServer, wrong: Any) -> None:
    asks: dict[str, Any] = asked("/api/chat", format=wrong)
    others: tuple[dict[str, Any], ...] = ({"model": "nobody"}, {"think": True}, {"messages": []})
    statuses = [
        post(real_server, "/api/chat", {**asks, **other}).status for other in (*others, {"_debug_render_only": True})
    ]
    assert statuses == [404, 400, 200, 200]


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_not_enforced_is_named_in_a_header(real_server: RunningServer, stream: bool) -> None:
    schema = {"type": "array", "items": {"enum": ["ä", "b"]}, "uniqueItems": True, "maxItems": 2}
    body = asked("/api/chat", format={"type": "object", "properties": {"ä": schema}, "required": ["ä"]}, stream=stream)
    assert post(real_server, "/api/chat", body).headers["x-corral-unenforced"] == "#/properties/%C3%A4/uniqueItems"


def test_schemas_at_the_limit_do_the_engine_no_harm(real_server: RunningServer) -> None:
    post(real_server, "/api/generate", asked("/api/generate", options={"num_predict": 1}))
    before = workers(real_server)
    for schema in AT_THE_LIMIT:
        answer = post(real_server, "/api/generate", asked("/api/generate", format=schema, options={"num_predict": 3}))
        assert answer.status == 200, answer.body
    assert workers(real_server) == before


POINT: dict[str, Any] = {
    "type": "object",
    "properties": {"x": {"type": "number"}, "y": {"type": "number"}},
    "required": ["x", "y"],
}


@pytest.fixture(scope="module")
def counting_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with a model that counts for ever, as far as it is let, with a Go template and with its own."""
    home = tmp_path_factory.mktemp("counting")
    with running_server(home) as server:
        for name, jinja in (("plain", None), ("counts-native", JINJA)):
            add_model(
                server.models,
                name,
                speaker(home / f"{name}.gguf", *"1234567890", in_circles=True, chat_template=jinja),
            )
        made = {"model": "counts", "from": "plain", "template": GO, "stream": False}
        assert post(server, "/api/create", made).json == {"status": "success"}
        yield server


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "number"},
        {"type": ["number", "null"], "minimum": 0},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        POINT,
        {"type": "array", "items": {"type": "number", "multipleOf": 0.5}, "minItems": 2, "maxItems": 2},
        {"allOf": [POINT, {"properties": {"unit": {"enum": ["m", "km"]}}, "required": ["unit"]}]},
        {"type": "object", "properties": {"p": {"$ref": "#/$defs/p"}}, "required": ["p"], "$defs": {"p": POINT}},
    ],
)
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("model", ["counts", "counts-native"])
def test_a_model_that_counts_for_ever_comes_to_an_end(
    counting_server: RunningServer, model: str, route: str, schema: Any
) -> None:
    answer = post(counting_server, route, asked(route, model=model, format=schema, options={"num_predict": 200}))
    assert answer.json["done_reason"] == "stop", said(answer)
    jsonschema.validate(
        json.loads(said(answer), parse_float=Decimal if "multipleOf" not in str(schema) else float), schema
    )


@pytest.mark.parametrize("model", ["counts", "counts-native"])
def test_the_arguments_of_a_forced_call_end(counting_server: RunningServer, model: str) -> None:
    tool = {"type": "function", "function": {"name": "move", "parameters": POINT}}
    options = {"num_predict": 200}
    body = asked("/api/chat", model=model, tools=[tool], tool_choice="required", options=options)
    (call,) = post(counting_server, "/api/chat", body).json["message"]["tool_calls"]
    jsonschema.validate(call["function"]["arguments"], POINT)


def test_a_small_models_numbers_end(real_server: RunningServer) -> None:
    for schema in ({"type": "number"}, POINT):
        answer = post(real_server, "/api/generate", asked("/api/generate", format=schema))
        assert answer.json["done_reason"] == "stop", said(answer)
        jsonschema.validate(json.loads(said(answer)), schema)


def any_schema(chance: random.Random, levels: int) -> Any:
    """A schema whose answers are short."""
    kinds = ["string", "integer", "number", "boolean", "null", "enum", "const", "format", "pattern"]
    kinds += ["object"] * 4 + ["array", "anyOf", "tuple"] if levels else []

    def inner() -> Any:
        return any_schema(chance, levels - 1)

    match chance.choice(kinds):
        case "string":
            return {"type": "string", "minLength": chance.randint(0, 2), "maxLength": chance.randint(2, 8)}
        case "integer":
            least = chance.randint(-50, 50)
            return {"type": "integer", "minimum": least, "maximum": least + chance.randint(0, 500)}
        case "number":
            return {"type": "number", "minimum": 0, "maximum": chance.randint(1, 9), "multipleOf": 0.25}
        case "enum":
            return {"enum": chance.sample(["red", 1, 2.5, None, True, ["x"], {"k": "v"}, "żółw", 'a"b\\c'], 3)}
        case "const":
            return {"const": chance.choice(["→", 7, {"a": [1, {"b": None}]}])}
        case "format":
            return {"type": "string", "format": chance.choice(["date", "ipv4", "uuid"])}
        case "pattern":
            return {"type": "string", "pattern": chance.choice(["^[A-Z]{2}-[0-9]{1,3}$", "^(yes|no)$", "^x?y{2,4}$"])}
        case "array":
            return {"type": "array", "items": inner(), "minItems": chance.randint(0, 1), "maxItems": 2}
        case "tuple":
            return {"type": "array", "prefixItems": [inner(), inner()], "items": False, "minItems": 2}
        case "anyOf":
            return {"anyOf": [inner(), inner()]}
        case "object":
            names = chance.sample(["name", "age", "Größe", "a b", "x/y", '"', "tags"], chance.randint(1, 3))
            required = chance.sample(names, chance.randint(0, len(names)))
            properties = {name: inner() for name in names}
            return {
                "type": "object",
                "properties": properties,
                "required": required,
                "additionalProperties": False,
            }
        case kind:
            return {"type": kind}


def test_answers_of_the_real_model_fit_a_hundred_schemas(real_server: RunningServer) -> None:
    chance = random.Random(8)
    schemas = [any_schema(chance, 2) for _ in range(100)]

    def answer(number: int) -> tuple[str, str]:
        options = {"temperature": 0.8, "seed": number, "num_predict": 150}
        done = post(real_server, "/api/chat", asked("/api/chat", format=schemas[number], options=options))
        return said(done), done.json["done_reason"]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(answer, range(100)))
    complete = 0
    for schema, (text, reason) in zip(schemas, answers, strict=True):
        if reason == "stop":
            jsonschema.validate(json.loads(text), schema, format_checker=jsonschema.FormatChecker())
            complete += 1
    assert complete >= 95
