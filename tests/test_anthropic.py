"""Anthropic's dialect over the fake engine: whole answers byte for byte, and what reaches the engine (spec api §20)."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.asking import Answer, ask, post
from tests.conftest import RunningServer
from tests.dialects import DIED, dialect_server, events, filtered, last_asked

SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
READ = {"name": "Read", "description": "Reads", "input_schema": SCHEMA, "cache_control": {"type": "ephemeral"}}
MESSAGE = '"id":"msg_N","type":"message","role":"assistant","model":"tiny"'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with dialect_server(tmp_path_factory.mktemp("anthropic")) as server:
        yield server


def ask_messages(server: RunningServer, content: Any, **more: Any) -> Answer:
    body = {"model": "tiny", "max_tokens": 64, "messages": [{"role": "user", "content": content}], **more}
    return post(server, "/v1/messages", body)


def event(name: str, data: str) -> str:
    return f'event: {name}\ndata: {{"type":"{name}"{data}}}\n\n'


def test_streamed_thinking_text_and_call(server: RunningServer) -> None:
    said = "!think=Hm !say=Let%20me%20look. !call=Read"
    body = {
        "model": "tiny",
        "max_tokens": 32000,
        "stream": True,
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1; cch=1a2b3;"},
            {"type": "text", "text": "You are brief.", "cache_control": {"type": "ephemeral"}},
        ],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": said}]},
            {"role": "system", "content": "Skills: none."},
        ],
        "tools": [READ, {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}],
        "tool_choice": {"type": "auto"},
        "thinking": {"type": "enabled", "budget_tokens": 31999},
        "context_management": {"edits": []},
        "metadata": {"user_id": "u"},
    }
    answer = ask(server, "POST", "/v1/messages?beta=true", body, {"x-api-key": "x", "anthropic-version": "2023-06-01"})
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
    assert answer.headers["cache-control"] == "no-cache"
    start = ',"index":{},"content_block":{}'
    delta = ',"index":{},"delta":{}'
    assert filtered(answer.body) == "".join(
        (
            event(
                "message_start",
                f',"message":{{{MESSAGE},"content":[],"stop_reason":null,"stop_sequence":null,'
                '"usage":{"input_tokens":7,"output_tokens":0}}',
            ),
            event("content_block_start", start.format(0, '{"type":"thinking","thinking":"","signature":""}')),
            event("content_block_delta", delta.format(0, '{"type":"thinking_delta","thinking":"Hm"}')),
            event("content_block_stop", ',"index":0'),
            event("content_block_start", start.format(1, '{"type":"text","text":""}')),
            event("content_block_delta", delta.format(1, '{"type":"text_delta","text":"Let me look."}')),
            event("content_block_stop", ',"index":1'),
            event(
                "content_block_start", start.format(2, '{"type":"tool_use","id":"call_fake","name":"Read","input":{}}')
            ),
            event(
                "content_block_delta",
                delta.format(2, '{"type":"input_json_delta","partial_json":"{\\"city\\":\\"Oslo\\"}"}'),
            ),
            event("content_block_stop", ',"index":2'),
            event(
                "message_delta",
                ',"delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"input_tokens":7,"output_tokens":1}',
            ),
            event("message_stop", ""),
        )
    )
    asked = last_asked(server)
    assert [(message["role"], message["content"]) for message in asked["messages"]] == [
        ("system", "You are brief.\n\nSkills: none."),
        ("user", said),
    ]
    assert [tool["function"]["name"] for tool in asked["tools"]] == ["Read"]


def test_the_turn_after_a_call(server: RunningServer) -> None:
    messages = [
        {"role": "user", "content": "Read a"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm", "signature": "kept by the client"},
                {"type": "text", "text": "Let me look."},
                {"type": "tool_use", "id": "call_r1", "name": "Read", "input": {"path": "a"}, "more": None},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "call_r1", "is_error": False},
                {"type": "tool_reference", "tool_name": "Read"},
                {"type": "text", "text": "Well? !say=Empty."},
            ],
        },
    ]
    answer = post(server, "/v1/messages", {"model": "tiny", "max_tokens": 64, "messages": messages, "tools": [READ]})
    assert filtered(answer.body).split(',"usage"')[0] == (
        f'{{{MESSAGE},"content":[{{"type":"text","text":"Empty."}}],"stop_reason":"end_turn","stop_sequence":null'
    )
    asked = last_asked(server)["messages"]
    assert [message["role"] for message in asked] == ["user", "assistant", "tool", "user"]
    assert (asked[1]["content"], asked[1]["reasoning_content"]) == ("Let me look.", "Hm")
    assert asked[1]["tool_calls"][0]["id"] == "call_r1"
    assert (asked[2]["content"], asked[2]["tool_call_id"]) == ("", "call_r1")


def test_a_call_in_a_whole_answer(server: RunningServer) -> None:
    answer = ask_messages(server, "!think=Hm !say= !call=Read", tools=[READ]).json
    assert answer["content"] == [
        {"type": "thinking", "thinking": "Hm", "signature": ""},
        {"type": "tool_use", "id": "call_fake", "name": "Read", "input": {"city": "Oslo"}},
    ]
    assert answer["stop_reason"] == "tool_use"


@pytest.mark.parametrize("stream", [False, True])
def test_the_stop_sequence_that_matched_is_said(server: RunningServer, stream: bool) -> None:
    answer = ask_messages(server, "!say=a|b|c", stop_sequences=["x", "b"], stream=stream)
    ended = events(answer.body)[-2][1]["delta"] if stream else answer.json
    assert (ended["stop_reason"], ended["stop_sequence"]) == ("stop_sequence", "b")
    ended = ask_messages(server, "!tokens=9", max_tokens=2).json
    assert (ended["stop_reason"], ended["stop_sequence"]) == ("max_tokens", None)


def test_what_was_found_in_the_cache_is_said_where_the_cache_was_asked_for(server: RunningServer) -> None:
    text = {"type": "text", "text": "the same words as before !say=ok", "cache_control": {"type": "ephemeral"}}
    first = ask_messages(server, [text]).json["usage"]
    second = ask_messages(server, [text]).json["usage"]
    assert second["cache_read_input_tokens"] > 0
    assert second["cache_read_input_tokens"] + second["input_tokens"] == sum(
        first.get(name, 0) for name in ("input_tokens", "cache_read_input_tokens")
    )
    del text["cache_control"]
    assert set(ask_messages(server, [text]).json["usage"]) == {"input_tokens", "output_tokens"}


def test_a_billing_block_that_changes_does_not_change_the_prompt(server: RunningServer) -> None:
    """Claude Code puts it first, with other figures in every request; the cache would be of no use behind it."""
    usages = []
    for figures in ("1a2b3", "4c5d6"):
        billing = {"type": "text", "text": f"x-anthropic-billing-header: cc_version=2.1; cch={figures};"}
        brief = {"type": "text", "text": "Be very brief, please.", "cache_control": {"type": "ephemeral"}}
        usages.append(ask_messages(server, "one two !say=ok", system=[billing, brief]).json["usage"])
    first, second = usages
    assert second["cache_read_input_tokens"] == first["input_tokens"] + first.get("cache_read_input_tokens", 0) - 1
    assert second["input_tokens"] == 1


def test_an_answer_fits_the_schema_that_was_given(server: RunningServer) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    wanted = {"effort": "low", "format": {"type": "json_schema", "schema": schema}}
    answer = ask_messages(server, "2+2?", output_config=wanted)
    assert "n" in json.loads(answer.json["content"][0]["text"])
    refused = ask_messages(server, "x", output_config={"format": {"type": "json_schema", "schema": {"type": "nope"}}})
    assert (refused.status, refused.json["error"]["type"]) == (400, "invalid_request_error")


def test_options_of_the_native_api_can_be_given(server: RunningServer) -> None:
    ask_messages(server, "hi", options={"top_k": 3, "num_predict": 9}, temperature=0.5, top_p=0.25)
    asked = last_asked(server)
    assert (asked["top_k"], asked["max_tokens"], asked["temperature"], asked["top_p"]) == (3, 64, 0.5, 0.25)


@pytest.mark.parametrize("path", ["/v1/messages/count_tokens", "/v1/v1/messages/count_tokens"])
def test_tokens_are_counted(server: RunningServer, path: str) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "one two three"}], "tools": []}
    assert post(server, path, body).json == {"input_tokens": 3}


def test_an_engine_that_dies_ends_the_stream_with_an_error(server: RunningServer) -> None:
    found = events(ask_messages(server, "!say=Once|more !crash-after=1", stream=True).body)
    assert [name for name, _ in found] == ["message_start", "content_block_start", "content_block_delta", "error"]
    assert found[-1][1]["type"] == "error"
    assert found[-1][1]["error"].pop("message").startswith(DIED)
    assert found[-1][1]["error"] == {"type": "api_error"}
    assert found[-1][1]["request_id"].startswith("req_")
    early = ask_messages(server, "!crash", stream=True)
    assert (early.status, early.json["error"]["type"]) == (500, "api_error")


PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
USER = [{"role": "user", "content": "x"}]


@pytest.mark.parametrize(
    ("body", "status", "kind", "message"),
    [
        (b"", 400, "invalid_request_error", "EOF"),
        ({"max_tokens": 5, "messages": USER}, 400, "invalid_request_error", "model is required"),
        (
            {"model": "tiny", "messages": USER},
            400,
            "invalid_request_error",
            "max_tokens is required and must be positive",
        ),
        ({"model": "tiny", "max_tokens": 5}, 400, "invalid_request_error", "messages is required"),
        ({"model": "nope", "max_tokens": 1, "messages": USER}, 404, "not_found_error", "model 'nope' not found"),
    ],
)
def test_errors_have_the_envelope(server: RunningServer, body: Any, status: int, kind: str, message: str) -> None:
    answer = post(server, "/v1/messages", body)
    assert answer.status == status
    assert json.loads(filtered(answer.body)) == {
        "type": "error",
        "error": {"type": kind, "message": message},
        "request_id": "req_N",
    }
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            [{"type": "image", "source": {"type": "url", "url": "http://x"}}],
            "invalid image source type: url. Only base64 images are supported.",
        ),
        ([{"type": "image"}], "invalid image source"),
        (
            [{"type": "image", "source": {"type": "base64", "data": "?"}}],
            "invalid base64 image data: illegal base64 data at input byte 0",
        ),
        ([{"type": "tool_use", "name": "f"}], "tool_use block missing required 'id' field"),
        ([{"type": "tool_use", "id": "1"}], "tool_use block missing required 'name' field"),
        ([{"type": "text"}], "text block missing required 'text' field"),
        ([{"type": "document", "source": {"type": "base64"}}], "only documents of plain text can be read"),
        ([5], "a block of content must be an object, not a number"),
        (5, "content must be a text or a list of blocks, not a number"),
    ],
)
def test_content_that_cannot_be_read(server: RunningServer, content: Any, message: str) -> None:
    answer = ask_messages(server, content)
    assert (answer.status, answer.json["error"]["message"]) == (400, message)
