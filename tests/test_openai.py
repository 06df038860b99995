"""OpenAI's dialect over the fake engine: whole answers byte for byte, and what reaches the engine (spec api §17)."""

import base64
import json
import struct
from collections.abc import AsyncGenerator, Iterator
from typing import Any
from urllib.parse import quote

import pytest

from corral.inference.run import with_one_call
from corral.messages import Chunk, ToolCall
from tests.asking import Answer, ask, post
from tests.conftest import RunningServer
from tests.dialects import DIED, dialect_server, events, filtered, last_asked
from tests.tool_templates import WEATHER

HEAD = '"id":"chatcmpl-N","object":"chat.completion.chunk","created":T,"model":"tiny","system_fingerprint":"fp_ollama"'
WHOLE = HEAD.replace(".chunk", "")
PNG = base64.b64encode(bytes.fromhex("89504e470d0a1a0a")).decode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with dialect_server(tmp_path_factory.mktemp("openai")) as server:
        yield server


def chat(server: RunningServer, content: Any, **more: Any) -> Answer:
    body = {"model": "tiny", "messages": [{"role": "user", "content": content}], **more}
    return post(server, "/v1/chat/completions", body)


def streamed(*choices: str) -> str:
    return "".join(f"data: {{{HEAD},{choice}}}\n\n" for choice in choices)


def test_chat_streamed_with_usage(server: RunningServer) -> None:
    body = {
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "!say=Bon|jour"}, {"type": "text", "text": " now"}]},
        ],
        "model": "tiny",
        "max_completion_tokens": 16,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "store": False,
        "user": "u1",
        "parallel_tool_calls": True,
    }
    answer = post(server, "/v1/chat/completions", body)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
    assert filtered(answer.body) == (
        streamed(
            '"choices":[{"index":0,"delta":{"role":"assistant","content":"Bon"},"finish_reason":null}]',
            '"choices":[{"index":0,"delta":{"content":"jour"},"finish_reason":null}]',
            '"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]',
            '"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}',
        )
        + "data: [DONE]\n\n"
    )
    asked = last_asked(server)
    assert [(message["role"], message["content"]) for message in asked["messages"]] == [
        ("system", "Be brief."),
        ("user", "!say=Bon|jour now"),
    ]
    assert (asked["max_tokens"], asked["temperature"], asked["top_p"]) == (16, 0, 1)


def test_chat_whole(server: RunningServer) -> None:
    answer = chat(server, "!say=Hello|%20you")
    assert answer.headers["content-type"] == "application/json"
    assert filtered(answer.body) == (
        f'{{{WHOLE},"choices":[{{"index":0,"message":{{"role":"assistant","content":"Hello you"}},'
        '"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}'
    )


def test_a_call_comes_whole_and_once_after_the_thoughts(server: RunningServer) -> None:
    answer = chat(server, "!think=Two%20cities. !say= !call=get_weather", stream=True, tools=[WEATHER])
    assert filtered(answer.body) == (
        streamed(
            '"choices":[{"index":0,"delta":{"role":"assistant","content":"","reasoning":"Two cities."},'
            '"finish_reason":null}]',
            '"choices":[{"index":0,"delta":{"content":"","tool_calls":[{"id":"call_fake","index":0,"type":"function",'
            '"function":{"name":"get_weather","arguments":"{\\"city\\":\\"Oslo\\"}"}}]},"finish_reason":null}]',
            '"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]',
        )
        + "data: [DONE]\n\n"
    )


def test_calls_of_one_answer_have_their_own_places(server: RunningServer) -> None:
    rome = quote('{"city":"Rome"}')
    oslo = quote('{"city":"Oslo"}')
    said = f"!think=Two%20cities. !say= !call=get_weather|get_weather !arguments={rome}|{oslo}"
    delta = (
        '"choices":[{{"index":0,"delta":{{"content":"","tool_calls":[{{"id":"call_fake{}","index":{},"type":"function",'
        '"function":{{"name":"get_weather","arguments":"{{\\"city\\":\\"{}\\"}}"}}}}]}},"finish_reason":null}}]'
    )
    assert filtered(chat(server, said, stream=True, tools=[WEATHER]).body) == (
        streamed(
            '"choices":[{"index":0,"delta":{"role":"assistant","content":"","reasoning":"Two cities."},'
            '"finish_reason":null}]',
            delta.format("", 0, "Rome"),
            delta.format("1", 1, "Oslo"),
            '"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]',
        )
        + "data: [DONE]\n\n"
    )


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_a_call_that_was_chosen_comes_whatever_the_schema_has(server: RunningServer, choice: Any) -> None:
    """Schemas of MCP's tools have boolean parts."""
    parameters = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {"city": {"type": "string"}, "extra": True},
        "required": ["city"],
        "additionalProperties": False,
    }
    tool = {"type": "function", "function": {"name": "get_weather", "strict": True, "parameters": parameters}}
    found = events(chat(server, "Weather?", stream=True, tools=[tool], tool_choice=choice).body)
    (call,) = [call for _, data in found[:-1] for call in data["choices"][0]["delta"].get("tool_calls", ())]
    assert (call["index"], call["type"], call["function"]["name"]) == (0, "function", "get_weather")
    assert json.loads(call["function"]["arguments"]) == {"city": "x"}
    assert found[-2][1]["choices"][0]["finish_reason"] == "tool_calls"


def test_calls_in_a_whole_answer(server: RunningServer) -> None:
    answer = chat(server, "!think=Hm !call=get_weather", tools=[WEATHER])
    assert filtered(answer.body).split('"choices":')[1].split(',"usage"')[0] == (
        '[{"index":0,"message":{"role":"assistant","content":"w1 w2 w3 ","reasoning":"Hm",'
        '"tool_calls":[{"id":"call_fake","index":0,"type":"function",'
        '"function":{"name":"get_weather","arguments":"{\\"city\\":\\"Oslo\\"}"}}]},"finish_reason":"tool_calls"}]'
    )
    assert answer.json["usage"]["completion_tokens_details"] == {"reasoning_tokens": 1}


def test_the_turn_after_calls(server: RunningServer) -> None:
    calls = [
        {
            "type": "function",
            "id": f"call_{city}",
            "function": {"name": "get_weather", "arguments": f'{{"city":"{city}"}}'},
        }
        for city in ("Rome", "Oslo")
    ]
    messages = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "reasoning_content": "Two cities.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "call_Rome", "content": "20 C"},
        {"role": "tool", "tool_call_id": "call_Oslo", "content": [{"type": "text", "text": "3 C"}]},
        {"role": "user", "content": "!say=Rome%2020,|%20Oslo%203.|%0A%0A|more"},
    ]
    body = {"model": "tiny", "messages": messages, "options": {"num_ctx": 1024, "top_k": 7}, "stop": "\n\n"}
    answer = post(server, "/v1/chat/completions", body)
    assert filtered(answer.body).split(',"usage"')[0] == (
        f'{{{WHOLE},"choices":[{{"index":0,"message":{{"role":"assistant","content":"Rome 20, Oslo 3."}},'
        '"finish_reason":"stop"}]'
    )
    asked = last_asked(server)
    _, said, *results, _ = asked["messages"]
    assert said == {"role": "assistant", "content": "", "reasoning_content": "Two cities.", "tool_calls": calls}
    assert results == [
        {"role": "tool", "content": text, "name": "get_weather", "tool_call_id": f"call_{city}"}
        for city, text in (("Rome", "20 C"), ("Oslo", "3 C"))
    ]
    assert asked["top_k"] == 7


@pytest.mark.parametrize("stop", ["b", ["x", "b"], ["b", None, 3]])
def test_stop_words(server: RunningServer, stop: Any) -> None:
    choice = chat(server, "!say=a|b|c", stop=stop).json["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("a", "stop")


def test_a_schema_reaches_the_engine(server: RunningServer) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
    answer = chat(server, "2+2?", response_format=wanted, seed=7, n=1, logit_bias=None, tools=None)
    assert "n" in json.loads(answer.json["choices"][0]["message"]["content"])


def test_several_choices(server: RunningServer) -> None:
    whole = chat(server, "!tokens=2", n=3, seed=5).json
    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2]
    assert whole["usage"]["completion_tokens"] == 6
    found = events(chat(server, "!tokens=2", n=2, stream=True).body)
    texts = {0: "", 1: ""}
    for _, data in found[:-1]:
        for choice in data["choices"]:
            texts[choice["index"]] += choice["delta"].get("content", "")
    assert texts == {0: "w1 w2 ", 1: "w1 w2 "}
    assert found[-1] == ("", "[DONE]")


def test_log_probabilities(server: RunningServer) -> None:
    choice = chat(server, "!say=Hi", logprobs=True, top_logprobs=1).json["choices"][0]
    (item,) = choice["logprobs"]["content"]
    assert list(item) == ["token", "logprob", "bytes", "top_logprobs"]
    assert item["bytes"] == list(b"Hi")


def test_completion_whole_and_streamed(server: RunningServer) -> None:
    answer = post(server, "/v1/completions", {"model": "plain", "prompt": "!tokens=1"})
    assert filtered(answer.body) == (
        '{"id":"cmpl-N","object":"text_completion","created":T,"model":"plain","system_fingerprint":"fp_ollama",'
        '"choices":[{"text":"w1 ","index":0,"finish_reason":"stop"}],'
        '"usage":{"prompt_tokens":4,"completion_tokens":1,"total_tokens":5}}'
    )
    body = {"model": "plain", "prompt": ["!tokens=1", "!tokens=1"], "stream": True}
    found = events(post(server, "/v1/completions", body).body)
    assert found[-1] == ("", "[DONE]")
    ends = [choice for _, data in found[:-1] for choice in data["choices"] if choice["finish_reason"]]
    assert sorted(choice["index"] for choice in ends) == [0, 1]


def test_embeddings_as_numbers_and_as_bytes(server: RunningServer) -> None:
    body = {"model": "bert", "input": ["ab", "abcdef"]}
    answer = post(server, "/v1/embeddings", body)
    assert answer.body.decode() == (
        '{"object":"list","data":[{"object":"embedding","embedding":[0.6666667,0.33333334,0.6666667],"index":0},'
        '{"object":"embedding","embedding":[0.9370426,0.15617377,0.31234753],"index":1}],'
        '"model":"bert","usage":{"prompt_tokens":2,"total_tokens":2}}'
    )
    rows = post(server, "/v1/embeddings", {**body, "encoding_format": "base64"}).json["data"]
    packed = [struct.unpack("<3f", base64.b64decode(row["embedding"])) for row in rows]
    assert packed == [
        tuple(struct.unpack("f", struct.pack("f", number))[0] for number in row["embedding"])
        for row in answer.json["data"]
    ]


def test_models(server: RunningServer) -> None:
    listed = ask(server, "GET", "/v1/models").json
    assert {(row["id"], row["object"], row["owned_by"]) for row in listed["data"]} == {
        (f"{name}:latest", "model", "library") for name in ("tiny", "plain", "bert")
    }
    shown = ask(server, "GET", "/v1/models/tiny").json
    assert (shown["id"], shown["object"]) == ("tiny", "model")
    missing = ask(server, "GET", "/v1/models/hf.co/someone/thing")
    assert missing.status == 404
    assert missing.json["error"]["message"] == "model 'hf.co/someone/thing:latest' not found"


def test_an_engine_that_dies_ends_the_stream_with_an_error(server: RunningServer) -> None:
    answer = chat(server, "!say=Once|more !crash-after=1", stream=True)
    first, last = events(answer.body)
    assert first[1]["choices"][0]["delta"] == {"role": "assistant", "content": "Once"}
    assert last[1]["error"].pop("message").startswith(DIED)
    assert last[1]["error"] == {"type": "api_error", "param": None, "code": None}
    early = chat(server, "!crash", stream=True)
    assert (early.status, early.headers["content-type"]) == (500, "application/json")
    assert early.json["error"]["type"] == "api_error"
    assert early.headers["x-should-retry"] == "true"


USER = [{"role": "user", "content": "hi"}]
EFFORTS = 'must be "minimal", "low", "medium", "high", "xhigh", "ultra", "max", or "none"'


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("chat/completions", b"", 400, "EOF"),
        ("chat/completions", {"model": "tiny", "messages": []}, 400, "[] is too short - 'messages'"),
        ("chat/completions", {"messages": USER}, 400, "model is required"),
        ("chat/completions", {"model": "nope", "messages": USER}, 404, "model 'nope' not found"),
        ("completions", {"prompt": "x"}, 404, "model '' not found"),
        ("completions", {"model": "plain", "prompt": "x", "stop": [1]}, 400, "invalid type for 'stop' field: float64"),
        (
            "completions",
            {"model": "plain", "prompt": [{}]},
            400,
            "prompt must be a text, a list of token ids, or a list of these",
        ),
        ("embeddings", {"model": "bert"}, 400, "invalid input"),
        ("embeddings", {"model": "bert", "input": [{}]}, 400, "invalid input type"),
        (
            "embeddings",
            {"model": "bert", "input": "x", "encoding_format": "hex"},
            400,
            "Invalid value for 'encoding_format' = hex. Supported values: ['float', 'base64'].",
        ),
        ("chat/completions", {"model": "tiny", "messages": USER, "n": 0}, 400, "n is 0, not between 1 and 16"),
        (
            "chat/completions",
            {"model": "tiny", "messages": USER, "n": 10**6},
            400,
            "n is 1000000, not between 1 and 16",
        ),
        (
            "chat/completions",
            {"model": "tiny", "messages": USER, "top_logprobs": 21},
            400,
            "top_logprobs must be between 0 and 20",
        ),
        (
            "chat/completions",
            {"model": "tiny", "messages": USER, "reasoning_effort": "huge"},
            400,
            f'invalid reasoning value: "huge" ({EFFORTS})',
        ),
    ],
)
def test_errors_have_the_envelope(server: RunningServer, path: str, body: Any, status: int, message: str) -> None:
    answer = post(server, f"/v1/{path}", body)
    assert answer.status == status
    kind = {400: "invalid_request_error", 404: "not_found_error"}[status]
    assert answer.json == {"error": {"message": message, "type": kind, "param": None, "code": None}}
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "invalid message content type: <nil>"),
        (5, "invalid message content type: int"),
        ([{"type": "video"}], "invalid message format"),
        ([5], "invalid message format"),
        (
            [{"type": "image_url", "image_url": {"url": "http://127.0.0.1/x.png"}}],
            "image URLs are not currently supported, please use base64 encoded data instead",
        ),
        ([{"type": "image_url", "image_url": "data:text/plain;base64,aGk="}], "invalid image input"),
        ([{"type": "image_url", "image_url": "data:image/png;base64,?"}], "invalid image input"),
        ([{"type": "input_audio", "input_audio": {"format": "wav"}}], "invalid input_audio format: missing data"),
        ([{"type": "input_audio", "input_audio": "x"}], "invalid input_audio format"),
    ],
)
def test_content_that_cannot_be_read(server: RunningServer, content: Any, message: str) -> None:
    answer = chat(server, content)
    assert (answer.status, answer.json["error"]["message"]) == (400, message)


@pytest.mark.parametrize("arguments", ["{", "[1]", '"text"'])
def test_arguments_that_are_no_object(server: RunningServer, arguments: str) -> None:
    call = {"id": "call_1", "function": {"name": "f", "arguments": arguments}}
    messages = [*USER, {"role": "assistant", "tool_calls": [call]}]
    answer = post(server, "/v1/chat/completions", {"model": "tiny", "messages": messages})
    assert (answer.status, answer.json["error"]["message"]) == (400, "invalid tool call arguments")


def test_a_picture_for_a_model_without_eyes(server: RunningServer) -> None:
    answer = chat(server, [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}])
    assert (answer.status, answer.json["error"]["type"]) == (400, "invalid_request_error")


def test_a_bias_reaches_the_engine(server: RunningServer) -> None:
    assert chat(server, "hi", logit_bias={"5": -100, "7": 2.5}).status == 200
    assert last_asked(server)["logit_bias"] == [[5, -100.0], [7, 2.5]]


@pytest.mark.parametrize(
    ("bias", "message"),
    [
        ({"x": 1}, 'logit_bias names "x", which is no token\'s id'),
        ({"-1": 1}, 'logit_bias names "-1", which is no token\'s id'),
        ({"5": 101}, "logit_bias of token 5 is 101.0, not between -100 and 100"),
        ({str(number): 1 for number in range(1025)}, "logit_bias names 1025 tokens, more than 1024"),
    ],
)
def test_a_bias_that_cannot_be(server: RunningServer, bias: Any, message: str) -> None:
    answer = chat(server, "hi", logit_bias=bias)
    assert (answer.status, answer.json["error"]["message"]) == (400, message)
    beyond = chat(server, "hi", logit_bias={"99999999": 1})
    assert (beyond.status, "names token 99999999, but the model has" in beyond.json["error"]["message"]) == (400, True)


def test_only_one_call_where_there_may_be_one(server: RunningServer) -> None:
    chat(server, "!call=get_weather", tools=[WEATHER], parallel_tool_calls=False)
    assert last_asked(server)["parallel_tool_calls"] is False


def test_token_ids_instead_of_texts(server: RunningServer) -> None:
    tokens = post(server, "/api/tokenize", {"model": "bert", "content": "ab"}).json["tokens"]
    assert (
        post(server, "/v1/embeddings", {"model": "bert", "input": tokens}).json["data"]
        == (post(server, "/v1/embeddings", {"model": "bert", "input": "ab"}).json["data"])
    )
    several = post(server, "/v1/embeddings", {"model": "bert", "input": [tokens, "abcdef"]}).json["data"]
    assert several == post(server, "/v1/embeddings", {"model": "bert", "input": ["ab", "abcdef"]}).json["data"]
    tokens = post(server, "/api/tokenize", {"model": "plain", "content": "!say=yes"}).json["tokens"]
    for prompt in (tokens, [tokens]):
        answer = post(server, "/v1/completions", {"model": "plain", "prompt": prompt}).json
        assert [choice["text"] for choice in answer["choices"]] == ["yes"]
    wrong = post(server, "/v1/embeddings", {"model": "bert", "input": [10**7]})
    assert (wrong.status, wrong.json["error"]["message"].split(",")[0]) == (400, "10000000 is no token of the model")


async def test_calls_after_the_first_are_left_out() -> None:
    async def chunks() -> AsyncGenerator[Chunk, None]:
        yield Chunk("a", tool_calls=(ToolCall("f"), ToolCall("g")))
        yield Chunk("b", tool_calls=(ToolCall("h"),))
        yield Chunk(done_reason="stop")

    found = [chunk async for chunk in with_one_call(chunks(), "m")]
    assert [(chunk.content, [call.name for call in chunk.tool_calls]) for chunk in found] == [
        ("a", ["f"]),
        ("b", []),
        ("", []),
    ]
