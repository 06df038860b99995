"""Requests that the API's document allows, and some that it does not, made up by schemathesis.

CORRAL_TEST_EXAMPLES=5000 pytest tests/test_openapi_cases.py    # more of them

The server asks for keys, so each request is sent twice: without a key, to be refused, and with one.

Checked of each reply: its status, its media type and its headers are documented; JSON, also every line of a stream,
fits its schema; an error has its dialect's envelope; and 500 is only answered where `BLAMELESS` says why. The server
and its workers live on, and its log has no traceback.

Checks of schemathesis that are left out: `not_a_server_error`, since Ollama answers some bad requests with 500 and
Corral does as well (`BLAMELESS` is stricter); `negative_data_rejection`, since requests are read leniently on purpose;
`positive_data_acceptance`, since what a schema allows may name a model that is not there; `unsupported_method`,
`allow_header_conformance` and those about authentication, since other tests have them; and those about sequences of
requests, since each request here stands alone.
"""

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from schemathesis import Case, GenerationMode, Response
from schemathesis.checks import CHECKS, load_all_checks

from corral.server.http.openapi import document
from corral.server.serve import ROUTES
from tests.conftest import RANDOM_CASES, RunningServer
from tests.dialects import dialect_server, events

EXAMPLES = RANDOM_CASES or 200
"""How many requests are made up, for all routes together: random ones, or the same 200 in each run."""

DOCUMENT = document(ROUTES)
OPERATIONS = [
    (path, method, mode)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE or "application/json" in operation.get("requestBody", {}).get("content", {})
]
"""Paths and methods, and whether what the document allows is asked or what it does not, where there is such a thing."""
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)

CLOSED = "http://127.0.0.1:9"
"""A port without a listener: no registry and no package index is reached."""

BLAMELESS = re.compile(
    r"""
    option\ ".*"\ must\ be\ of\ .*                  # Ollama answers options of the wrong type with 500,
    | invalid\ format:\ .*                          # a format that is none,
    | license\ must\ be\ a\ string\ or\ a\ list.*   # a license that is none,
    | unsupported\ quantization\ type\ .*          # a kind of quantising that is none,
    | models\ are\ looked\ for\ at\ .*             # and what comes from elsewhere, when nothing is reached there
    """,
    re.VERBOSE | re.DOTALL,
)
"""Sentences of errors for which 500 is right."""

load_all_checks()
DOCUMENTED: list[Any] = CHECKS.get_by_names(
    [
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
    ]
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "PIP_INDEX_URL"), CLOSED)
    with dialect_server(tmp_path_factory.mktemp("cases"), CORRAL_REQUIRE_KEY="1", **proxies) as running:
        yield running
        assert running.process.poll() is None
        assert "Traceback" not in running.log.read_text("utf-8", "replace")


@pytest.mark.parametrize(("path", "method", "mode"), OPERATIONS)
def test_every_reply_is_as_documented(server: RunningServer, path: str, method: str, mode: GenerationMode) -> None:
    operation = SCHEMA[path][method]
    key = {"authorization": f"Bearer {(server.home / '.ollama' / 'corral-key').read_text().strip()}"}
    count = math.ceil(EXAMPLES / len(OPERATIONS))

    @settings(
        max_examples=count,
        derandomize=not RANDOM_CASES,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode), data=st.data())
    def ask(case: Case[Any], data: st.DataObject) -> None:
        settle(case, data.draw, server.home)
        refused = case.call(base_url=server.url, timeout=60)
        assert (refused.status_code == 401) is (path != "/")
        case.validate_response(refused, checks=DOCUMENTED)
        response = case.call(base_url=server.url, headers=key, timeout=60)
        case.validate_response(response, checks=[*DOCUMENTED, is_blameless, has_fitting_lines, has_whole_events])

    ask()


NAMES = {"/api/copy": "source", "/api/create": "from", "/v1/models/{name}": "name"}
"""Fields with the name of a model that is there, where it is not `model`."""


def settle(case: Case[Any], draw: Callable[[st.SearchStrategy[Any]], Any], home: Path) -> None:
    """Has many requests ask for a model that is there, none delete it, and none write files outside `home`."""
    body = case.body
    if not isinstance(body, dict):
        return
    model = draw(st.sampled_from(["tiny", "plain", "tiny", "bert", "plain", "copy", None]))
    if model is not None and case.path not in ("/api/delete", "/api/create", "/api/pull", "/api/push"):
        body[NAMES.get(case.path, "model")] = model
    if case.path == "/api/create":
        body["model"] = draw(st.sampled_from(["made", "copy"]))
        body["from"] = model
    if case.path == "/api/copy":
        body["destination"] = "copy"
    if draw(st.booleans()):
        make_answerable(body, draw)
    for name in ("tokens", "prompt", "input", "context"):
        if isinstance(given := body.get(name), list):
            body[name] = without_tokens(given)
    if isinstance(path := body.get("path"), str):
        body["path"] = str(home / re.sub(r"[/\0]", "_", path)[:50])


def without_tokens(given: list[Any]) -> list[Any]:
    """A list, and those within it, without the model's tokens: of these the fake engine knows what it has said."""
    return [
        without_tokens(item) if isinstance(item, list) else item
        for item in given
        if not (type(item) in (int, float) and 0 <= item < VOCABULARY)
    ]


VOCABULARY = 350
"""Tokens that the models have at most."""

HARMLESS = {
    "model",
    "from",
    "source",
    "destination",
    "path",
    "prompt",
    "stream",
    "max_tokens",
    "truncate",
    "raw",
}
"""Fields whose values refuse no request, as long as they are of the right type."""

TEXTS = st.text(max_size=20)


def make_answerable(body: dict[str, Any], draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
    """Leaves out of a request what has a grammar of its own, and has it ask something."""
    for name in set(body) - HARMLESS - {"messages", "input"}:
        del body[name]
    if "prompt" in body:
        body["prompt"] = draw(TEXTS)
    if "input" in body:
        body["input"] = "." + draw(TEXTS)
    if "messages" in body:
        roles = st.sampled_from(["user", "assistant", "system"])
        others = draw(st.lists(st.fixed_dictionaries({"role": roles, "content": TEXTS}), max_size=3))
        body["messages"] = [*others, {"role": "user", "content": draw(TEXTS)}]
    if isinstance(body.get("max_tokens"), int):
        body["max_tokens"] = draw(st.integers(1, 30))
    if draw(st.booleans()):
        body["stream"] = draw(st.booleans())


def is_blameless(ctx: Any, response: Response, case: Case[Any]) -> None:
    """An error that is the server's own is no answer to a request, whatever it holds."""
    if response.status_code < 500:
        return
    error = response.json()["error"]
    sentence = error["message"] if isinstance(error, dict) else error
    assert BLAMELESS.fullmatch(sentence), sentence


def has_fitting_lines(ctx: Any, response: Response, case: Case[Any]) -> None:
    """Every line of a stream is an object of the documented schema."""
    if media_type(response) != "application/x-ndjson":
        return
    content = DOCUMENT["paths"][case.path][case.method.lower()]["responses"]["200"]["content"]
    schema = content["application/x-ndjson"]["x-itemSchema"]
    validator = Draft202012Validator({**schema, "components": DOCUMENT["components"]})
    lines = response.content.splitlines()
    assert lines
    for line in lines:
        validator.validate(json.loads(line))


def has_whole_events(ctx: Any, response: Response, case: Case[Any]) -> None:
    """A stream of events has some, and all of them hold objects; the last may be `[DONE]`."""
    if media_type(response) == "text/event-stream":
        found = [data for _, data in events(response.content)]
        assert found
        assert all(isinstance(data, dict) for data in found[:-1])
        assert isinstance(found[-1], dict) or found[-1] == "[DONE]"


def media_type(response: Response) -> str:
    return str(response.headers.get("content-type", [""])[0]).partition(";")[0]
