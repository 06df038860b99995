"""Whole answers of the routes that ask a model, byte for byte, over the fake engine (spec api §5–§10)."""

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from tests.asking import ask, filtered, post
from tests.conftest import FAKE_ENGINE, RunningServer, add_model, running_server
from tests.engines import engines
from tests.tiny_models import CHATML, tiny_bert, tiny_llama

# A Jinja template that no known family has, so that the engine renders and parses.
JINJA = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    "{% if tools %}{{ tools }}{{ m.tool_calls }}{% endif %}"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    work = tmp_path_factory.mktemp("answers")
    models = work / "home" / ".ollama" / "models"
    add_model(models, "plain", tiny_llama(work / "plain.gguf"))
    add_model(models, "native", tiny_llama(work / "native.gguf", seed=1, chat_template=JINJA))
    add_model(models, "chatml", tiny_llama(work / "chatml.gguf", seed=2, chat_template=CHATML))
    add_model(models, "bert", tiny_bert(work / "bert.gguf"))
    with running_server(work / "home", CORRAL_ENGINE=str(FAKE_ENGINE), OLLAMA_MAX_LOADED_MODELS="9") as server:
        yield server


def generate(server: RunningServer, prompt: str, **more: Any) -> str:
    return filtered(post(server, "/api/generate", {"model": "plain", "prompt": prompt, **more}).body)


def chat(server: RunningServer, content: str, **more: Any) -> str:
    messages = [{"role": "user", "content": content}]
    return filtered(post(server, "/api/chat", {"model": "native", "messages": messages, **more}).body)


METRICS = (
    '"total_duration":N,"load_duration":N,"prompt_eval_count":{},"prompt_eval_duration":10000000,'
    '"eval_count":{},"eval_duration":{}'
)


def test_generate_streamed(server: RunningServer) -> None:
    assert generate(server, "!tokens=2", raw=True) == (
        '{"model":"plain","created_at":"T","response":"w1 ","done":false}\n'
        '{"model":"plain","created_at":"T","response":"w2 ","done":false}\n'
        '{"model":"plain","created_at":"T","response":"","done":true,"done_reason":"stop",'
        + METRICS.format(1, 2, 4000000)
        + "}\n"
    )


def test_generate_whole(server: RunningServer) -> None:
    assert generate(server, "!tokens=2", raw=True, stream=False) == (
        '{"model":"plain","created_at":"T","response":"w1 w2 ","done":true,"done_reason":"stop",'
        + METRICS.format(1, 2, 4000000)
        + "}"
    )


def test_the_limit_is_a_reason(server: RunningServer) -> None:
    answer = generate(server, "!tokens=9", raw=True, stream=False, options={"num_predict": 2})
    assert '"response":"w1 w2 ","done":true,"done_reason":"length"' in answer


def test_context_is_the_tokens_of_prompt_and_answer(server: RunningServer) -> None:
    answer = post(server, "/api/generate", {"model": "plain", "prompt": "!tokens=2 abc", "stream": False}).json
    again = {"model": "plain", "prompt": " go on", "context": answer["context"], "stream": False}
    assert post(server, "/api/generate", again).status == 200
    asked = [body["prompt"] for engine in engines(server.home) for body in engine.bodies()]
    assert "!tokens=2 abcw1 w2  go on" in asked


def test_chat_streamed_with_thoughts(server: RunningServer) -> None:
    assert chat(server, "!tokens=1 !think=hm|so") == (
        '{"model":"native","created_at":"T","message":{"role":"assistant","content":"","thinking":"hm"},"done":false}\n'
        '{"model":"native","created_at":"T","message":{"role":"assistant","content":"","thinking":"so"},"done":false}\n'
        '{"model":"native","created_at":"T","message":{"role":"assistant","content":"w1 "},"done":false}\n'
        '{"model":"native","created_at":"T","message":{"role":"assistant","content":""},"done":true,'
        '"done_reason":"stop",' + METRICS.format(2, 1, 2000000) + "}\n"
    )


def test_chat_whole_with_thoughts(server: RunningServer) -> None:
    assert chat(server, "!tokens=1 !think=hm|so", stream=False) == (
        '{"model":"native","created_at":"T","message":{"role":"assistant","content":"w1 ","thinking":"hmso"},'
        '"done":true,"done_reason":"stop",' + METRICS.format(2, 1, 2000000) + "}"
    )


WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def test_chat_with_a_tool_call(server: RunningServer) -> None:
    lines = chat(server, "!tokens=1 !call=weather", tools=[WEATHER]).splitlines()
    call = '{"id":"call_fake","function":{"index":0,"name":"weather","arguments":{"city":"Oslo"}}}'
    assert lines[-1] == (
        '{"model":"native","created_at":"T","message":{"role":"assistant","content":"","tool_calls":['
        + call
        + ']},"done":true,"done_reason":"stop",'
        + METRICS.format(2, 1, 2000000)
        + "}"
    )


def test_logprobs(server: RunningServer) -> None:
    same = '"token":"w1 ","logprob":-0.25,"bytes":[119,49,32]'
    other = '{"token":"other","logprob":-1.5,"bytes":[111,116,104,101,114]}'
    for more, alternatives in (
        ({}, ""),
        ({"top_logprobs": 1}, f',"top_logprobs":[{{{same}}}]'),
        ({"top_logprobs": 2}, f',"top_logprobs":[{{{same}}},{other}]'),
    ):
        line = generate(server, "!tokens=1", raw=True, logprobs=True, **more).splitlines()[0]
        begin = '{"model":"plain","created_at":"T","response":"w1 ","done":false,"logprobs":[{'
        assert line == begin + same + alternatives + "}]}"
    assert "logprobs" not in generate(server, "!tokens=1", raw=True, top_logprobs=2)


def test_html_is_escaped_as_go_does(server: RunningServer) -> None:
    answer = generate(server, "!say=%3Cb%3E%26%E2%80%A8%C3%A9%F0%9F%98%80", raw=True, stream=False)
    assert '"response":"\\u003cb\\u003e\\u0026\\u2028é😀"' in answer


GENERATED = '"response":"","done":true,"done_reason":'
CHATTED = '"message":{"role":"assistant","content":""},"done":true,"done_reason":'


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/api/generate", {}, GENERATED + '"load"}'),
        ("/api/generate", {"keep_alive": 0}, GENERATED + '"unload"}'),
        ("/api/generate", {"keep_alive": "0"}, GENERATED + '"unload"}'),
        ("/api/generate", {"keep_alive": 60}, GENERATED + '"load"}'),
        ("/api/chat", {}, CHATTED + '"load"}'),
        ("/api/chat", {"messages": []}, CHATTED + '"load"}'),
        ("/api/chat", {"keep_alive": 0}, CHATTED + '"unload"}'),
    ],
)
def test_loading_and_unloading(server: RunningServer, path: str, body: dict[str, Any], expected: str) -> None:
    for stream in (True, False, None):
        answer = post(server, path, {"model": "plain", "stream": stream, **body})
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json; charset=utf-8")
        assert filtered(answer.body) == '{"model":"plain","created_at":"T",' + expected


@pytest.mark.parametrize(
    ("keep_alive", "year"),
    [(-1, 2200), ("-1s", 2200), ("-5m", 2200), (1e12, 2200), (3600, 2020), ("1h", 2020), (None, 2020), (0.5e9, 2040)],
)
def test_ps_tells_until_when_a_model_is_kept(server: RunningServer, keep_alive: object, year: int) -> None:
    post(server, "/api/generate", {"model": "plain", "keep_alive": 300})
    assert post(server, "/api/generate", {"model": "plain", "keep_alive": keep_alive}).status == 200
    (entry,) = [row for row in ask(server, "GET", "/api/ps").json["models"] if row["name"] == "plain:latest"]
    assert int(entry["expires_at"][:4]) // 10 * 10 >= year
    assert list(entry) == [
        *("name", "model", "size", "digest", "details", "expires_at", "size_vram", "context_length"),
    ]
    assert (entry["size_vram"], entry["context_length"]) == (0, 2048)


def test_embed(server: RunningServer) -> None:
    answer = post(server, "/api/embed", {"model": "bert", "input": ["ab", "abcdef"]})
    assert filtered(answer.body) == (
        '{"model":"bert","embeddings":[[0.6666667,0.33333334,0.6666667],[0.9370426,0.15617377,0.31234753]],'
        '"total_duration":N,"load_duration":N,"prompt_eval_count":2}'
    )


def test_embed_in_fewer_dimensions_is_of_length_one_again(server: RunningServer) -> None:
    answer = post(server, "/api/embed", {"model": "bert", "input": "ab", "dimensions": 1})
    assert answer.json["embeddings"] == [[1.0]]
    for dimensions in (0, 3, 99, -1):
        answer = post(server, "/api/embed", {"model": "bert", "input": "ab", "dimensions": dimensions})
        assert len(answer.json["embeddings"][0]) == 3


@pytest.mark.parametrize("nothing", ["", [], None])
def test_embed_nothing_loads(server: RunningServer, nothing: object) -> None:
    assert filtered(post(server, "/api/embed", {"model": "bert", "input": nothing}).body) == (
        '{"model":"bert","embeddings":[]}'
    )


def test_legacy_embeddings(server: RunningServer) -> None:
    assert post(server, "/api/embeddings", {"model": "bert", "prompt": ""}).body == b'{"embedding":[]}'
    answer = post(server, "/api/embeddings", {"model": "bert", "prompt": "ab"})
    assert answer.status == 200
    assert len(answer.json["embedding"]) == 3


def test_an_embedding_that_is_no_number_is_refused(server: RunningServer) -> None:
    answer = post(server, "/api/embed", {"model": "bert", "input": ["good", "!nan"]})
    assert (answer.status, answer.error) == (400, "embedding contains NaN or Inf values")


@pytest.mark.parametrize("truncate", [True, False])
def test_an_embedding_that_the_engine_refuses_says_why(server: RunningServer, truncate: bool) -> None:
    """Where no text is too long, length is not the reason."""
    body = {"model": "bert", "input": ["short", "!error=400"], "options": {"num_batch": 64}, "truncate": truncate}
    answer = post(server, "/api/embed", body)
    assert (answer.status, answer.error) == (400, "refused with 400")


def test_debug_render(server: RunningServer) -> None:
    body = {"model": "chatml", "messages": [{"role": "user", "content": "hi"}], "_debug_render_only": True}
    assert filtered(post(server, "/api/chat", body).body) == (
        '{"model":"chatml","created_at":"T","message":{"role":"","content":""},"done":false,'
        '"_debug_info":{"rendered_template":"\\u003c|im_start|\\u003euser\\nhi\\u003c|im_end|\\u003e\\n'
        '\\u003c|im_start|\\u003eassistant\\n"}}'
    )


def test_a_prompt_that_was_cut_is_told_in_a_header(server: RunningServer) -> None:
    long = "word " * 3000
    answer = post(server, "/api/generate", {"model": "plain", "prompt": long, "stream": False, "raw": True})
    assert answer.status == 200
    assert int(answer.headers["x-corral-truncated-tokens"]) > 0
    body = {"model": "plain", "prompt": long, "stream": False, "raw": True, "truncate": False}
    refused = post(server, "/api/generate", body)
    assert (refused.status, refused.error) == (
        400,
        "request (3001 tokens) exceeds the available context size (2048 tokens), try increasing it",
    )


PIXEL = base64.b64encode(bytes.fromhex("89504e470d0a1a0a")).decode()


def test_a_picture_for_a_model_that_cannot_see_is_refused(server: RunningServer) -> None:
    answer = post(server, "/api/generate", {"model": "plain", "prompt": "hi", "images": [PIXEL]})
    assert answer.status == 400


def test_what_a_model_needs_is_shown_to_those_who_ask(server: RunningServer) -> None:
    assert "requirements" not in post(server, "/api/show", {"model": "plain"}).json
    shown = post(server, "/api/show", {"model": "plain", "requirements": True}).json
    assert list(shown)[-1] == "requirements"
    needs = shown["requirements"]
    assert list(needs) == ["weights", "context_length", "kv_cache", "total"]
    assert needs["total"] >= needs["weights"] + needs["kv_cache"] > 0
