"""What goes to another server and comes back from it, in every dialect that clients speak."""

import base64
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.asking import Answer, post, until
from tests.conftest import RunningServer
from tests.dialects import events
from tests.fake_upstream import FakeUpstream
from tests.test_upstreams import HELLO, front, last_asked, named

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
BEHAVIOURS = ("good", "reasoning_content", "calls", "cut", "error amid")


@pytest.fixture(scope="module")
def server(upstream: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    models = {named(one): [{"url": upstream.url, "model": one}] for one in BEHAVIOURS}
    with front(tmp_path_factory.mktemp("front"), models) as running:
        yield running


CHATS: dict[str, dict[str, Any]] = {
    "/api/chat": {"messages": HELLO},
    "/v1/chat/completions": {"messages": HELLO},
    "/v1/messages": {"messages": HELLO, "max_tokens": 100},
    "/v1/responses": {"input": "hello"},
}
"""What a conversation is in each dialect, by its route."""


def chat(server: RunningServer, path: str, model: str, *, stream: bool = False, **more: Any) -> Answer:
    return post(server, path, {"model": named(model), "stream": stream, **CHATS[path], **more})


def tool(path: str, **more: Any) -> dict[str, Any]:
    """The definition of a tool in each dialect; `more`: what it says beside the usual."""
    match path:
        case "/v1/messages":
            return {"name": "add", "description": "adds", "input_schema": SCHEMA, **more}
        case "/v1/responses":
            return {"type": "function", "name": "add", "description": "adds", "parameters": SCHEMA, **more}
        case _:
            function = {"name": "add", "description": "adds", "parameters": SCHEMA, **more}
            return {"type": "function", "function": function}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("path", CHATS)
def test_whether_a_tools_schema_is_strict_is_passed_on(
    server: RunningServer, upstream: FakeUpstream, path: str, strict: bool
) -> None:
    assert chat(server, path, "good", tools=[tool(path, strict=strict)]).status == 200
    (asked,) = last_asked(upstream)["tools"]
    function = {"name": "add", "description": "adds", "parameters": SCHEMA, "strict": strict}
    assert asked == {"type": "function", "function": function}


@pytest.mark.parametrize("path", CHATS)
def test_nothing_is_said_of_strictness_where_a_request_says_nothing(
    server: RunningServer, upstream: FakeUpstream, path: str
) -> None:
    for more in ({}, {"strict": None}):
        assert chat(server, path, "good", tools=[tool(path, **more)]).status == 200
        assert "strict" not in last_asked(upstream)["tools"][0]["function"]


@pytest.mark.parametrize("path", CHATS)
def test_strictness_is_true_or_false(server: RunningServer, path: str) -> None:
    answer = chat(server, path, "good", tools=[tool(path, strict="very")])
    assert (answer.status, "strict" in answer.body.decode()) == (400, True), answer.body


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
def test_what_a_function_says_beside_the_usual_is_passed_on(
    server: RunningServer, upstream: FakeUpstream, path: str
) -> None:
    more = {"x_examples": [{"a": 1}], "returns": {"type": "integer"}}
    definition = tool(path, Strict=True, nothing=None, **more)
    assert chat(server, path, "good", tools=[definition]).status == 200
    usual = {"name": "add", "description": "adds", "parameters": SCHEMA, "strict": True}
    assert last_asked(upstream)["tools"][0]["function"] == usual | more


THINKING: dict[str, dict[str, Any]] = {
    "/api/chat": {"think": "high"},
    "/v1/chat/completions": {"reasoning_effort": "high"},
    "/v1/messages": {"output_config": {"effort": "high"}},
    "/v1/responses": {"reasoning": {"effort": "high"}},
}


@pytest.mark.parametrize("path", CHATS)
def test_thinking_is_asked_for_and_comes_back(server: RunningServer, upstream: FakeUpstream, path: str) -> None:
    answer = chat(server, path, "reasoning_content", **THINKING[path]).json
    asked = last_asked(upstream)
    assert (asked["reasoning_effort"], asked["chat_template_kwargs"]) == ("high", {"enable_thinking": True})
    match path:
        case "/api/chat":
            found = answer["message"]["thinking"], answer["message"]["content"]
        case "/v1/chat/completions":
            found = answer["choices"][0]["message"]["reasoning"], answer["choices"][0]["message"]["content"]
        case "/v1/messages":
            thought, text = answer["content"]
            found = thought["thinking"], text["text"]
        case _:
            thought, text = answer["output"]
            found = thought["summary"][0]["text"], text["content"][0]["text"]
    assert found == ("Hm.", "Yes.")


FORMATS: dict[str, dict[str, Any]] = {
    "/api/chat": {"format": SCHEMA},
    "/v1/chat/completions": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "sum", "schema": SCHEMA}}
    },
    "/v1/messages": {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
    "/v1/responses": {"text": {"format": {"type": "json_schema", "name": "sum", "schema": SCHEMA}}},
}


@pytest.mark.parametrize("path", CHATS)
def test_a_schema_that_the_answer_has_to_fit_is_passed_on(
    server: RunningServer, upstream: FakeUpstream, path: str
) -> None:
    assert chat(server, path, "good", **FORMATS[path]).status == 200
    schema = {"name": "answer", "schema": SCHEMA, "strict": True}
    assert last_asked(upstream)["response_format"] == {"type": "json_schema", "json_schema": schema}


def calls_of(path: str, answer: Any) -> list[tuple[str, Any]]:
    """Names and arguments of the calls in an answer that is not streamed."""
    match path:
        case "/api/chat":
            functions = [call["function"] for call in answer["message"]["tool_calls"]]
        case "/v1/chat/completions":
            functions = [call["function"] for call in answer["choices"][0]["message"]["tool_calls"]]
        case "/v1/messages":
            return [(one["name"], one["input"]) for one in answer["content"] if one["type"] == "tool_use"]
        case _:
            functions = [one for one in answer["output"] if one["type"] == "function_call"]
    arguments = [one["arguments"] for one in functions]
    read = [json.loads(one) if isinstance(one, str) else one for one in arguments]
    return [(one["name"], given) for one, given in zip(functions, read, strict=True)]


@pytest.mark.parametrize("path", CHATS)
def test_calls_of_tools_come_back(server: RunningServer, path: str) -> None:
    answer = chat(server, path, "calls", tools=[tool(path)]).json
    assert calls_of(path, answer) == [("add", {"a": 1}), ("add", {"a": 2})]


def test_calls_of_tools_come_back_in_a_stream(server: RunningServer) -> None:
    path = "/v1/chat/completions"
    answer = chat(server, path, "calls", stream=True, tools=[tool(path)])
    said = [data for _, data in events(answer.body) if data != "[DONE]"]
    calls = [call for one in said for choice in one["choices"] for call in choice["delta"].get("tool_calls", ())]
    assert [json.loads(call["function"]["arguments"]) for call in calls] == [{"a": 1}, {"a": 2}]
    assert said[-1]["choices"][0]["finish_reason"] == "tool_calls"
    claude = events(chat(server, "/v1/messages", "calls", stream=True, tools=[tool("/v1/messages")]).body)
    deltas = [data["delta"] for name, data in claude if name == "content_block_delta"]
    assert [json.loads(one["partial_json"]) for one in deltas if one.get("partial_json")] == [{"a": 1}, {"a": 2}]
    (last,) = [data["delta"] for name, data in claude if name == "message_delta"]
    assert last["stop_reason"] == "tool_use"
    responses = events(chat(server, "/v1/responses", "calls", stream=True, tools=[tool("/v1/responses")]).body)
    done = [data["arguments"] for name, data in responses if name == "response.function_call_arguments.done"]
    assert [json.loads(one) for one in done] == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("path", CHATS)
def test_an_answer_has_the_name_that_was_asked_for_and_a_header(
    server: RunningServer, upstream: FakeUpstream, path: str
) -> None:
    """The other server says that another model has answered."""
    whole = chat(server, path, "good")
    assert whole.json["model"] == "good"
    streamed = chat(server, path, "good", stream=True)
    assert '"model":"other"' not in streamed.body.decode()
    for answer in (whole, streamed):
        assert answer.headers["x-corral-replica"] == upstream.name
        assert answer.headers["x-corral-replica-reason"] == "the only one"


@pytest.mark.parametrize("model", ["cut", "error amid"])
@pytest.mark.parametrize("path", CHATS)
def test_an_answer_that_breaks_off_ends_in_one_error(
    server: RunningServer, upstream: FakeUpstream, path: str, model: str
) -> None:
    answer = chat(server, path, model, stream=True)
    body = answer.body.decode()
    assert (answer.status, body.count(f"upstream {json.dumps(upstream.name)}".replace('"', '\\"'))) == (200, 1), body
    assert "One" in body
    assert "[DONE]" not in body
    last = answer.lines[-1] if path == "/api/chat" else events(answer.body)[-1][1]
    assert "error" in json.dumps(last)


def test_texts_are_embedded_in_every_dialect(server: RunningServer, upstream: FakeUpstream) -> None:
    newer = post(server, "/api/embed", {"model": "good", "input": ["a", "b"], "dimensions": 2}).json
    assert newer["embeddings"] == [[0.6, 0.8]] * 2
    asked = last_asked(upstream, "/v1/embeddings")
    assert asked == {"model": "good", "input": ["a", "b"], "encoding_format": "float", "dimensions": 2}
    older = post(server, "/api/embeddings", {"model": "good", "prompt": "a"}).json
    assert older["embedding"] == pytest.approx([0.6, 0.8])
    openai = post(server, "/v1/embeddings", {"model": "good", "input": ["a", "b"]}).json
    assert [one["index"] for one in openai["data"]] == [0, 1]
    assert [one["embedding"] for one in openai["data"]] == [[0.6, 0.8]] * 2
    assert openai["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    packed = post(server, "/v1/embeddings", {"model": "good", "input": "a", "encoding_format": "base64"}).json
    assert struct.unpack("<2f", base64.b64decode(packed["data"][0]["embedding"])) == pytest.approx((0.6, 0.8))


def test_tokens_are_embedded_only_here(server: RunningServer) -> None:
    answer = post(server, "/v1/embeddings", {"model": "good", "input": [[1, 2]]})
    assert answer.status == 400
    sentence = '"good" is answered by other servers, which take no texts as tokens'
    assert answer.json["error"]["message"] == sentence


def test_a_new_key_is_taken_without_a_restart(tmp_path: Path, upstream: FakeUpstream) -> None:
    key = tmp_path / "key"
    key.write_text("first-secret\n")
    key.chmod(0o600)
    models: dict[str, list[dict[str, Any]]] = {"keyed": [{"url": upstream.url, "key_file": str(key)}]}
    with front(tmp_path / "front", models) as server:
        expired = chat(server, "/api/chat", "keyed")
        assert expired.status == 502
        assert "refuses the key in its key file (status 401)" in expired.error
        key.write_text("second-secret\n")
        until(lambda: chat(server, "/api/chat", "keyed").status == 200)
        assert "-secret" not in server.log.read_text()
