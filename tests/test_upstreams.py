"""Models that other servers answer for: what they are asked, what becomes of what they say, and who is asked next.

The other server is a small program that answers well or lies, as the name of its model says.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.asking import Answer, Streaming, ask, post, until
from tests.certificates import self_signed
from tests.conftest import FAKE_ENGINE, RunningServer, add_model, running_server
from tests.fake_upstream import BEHAVIOURS, LYING_VECTORS, USAGE, FakeUpstream, dead_url, fake_upstream
from tests.test_tls import https_server

HELLO = [{"role": "user", "content": "hello"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "adds",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
    },
}


def named(behaviour: str) -> str:
    """The name here of the model that behaves so."""
    return behaviour.replace(" ", "-")


def configured(
    folder: Path,
    models: Mapping[str, list[dict[str, Any]]],
    spill: str = "local-first",
    capabilities: Mapping[str, list[str]] | None = None,
) -> str:
    """The path of a `corral.toml` with these upstreams, and what they can do, by the names of models."""
    lines = []
    for name, upstreams in models.items():
        tables = ", ".join(
            "{" + ", ".join(f"{key} = {json.dumps(value)}" for key, value in one.items()) + "}" for one in upstreams
        )
        lines.append(f'[models."{name}"]\nupstreams = [{tables}]\nspill = "{spill}"\n')
        if capabilities and name in capabilities:
            lines.append(f"capabilities = {json.dumps(capabilities[name])}\n")
    file = folder / "corral.toml"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines))
    return str(file)


@contextmanager
def front(
    home: Path,
    models: Mapping[str, list[dict[str, Any]]],
    *,
    spill: str = "local-first",
    capabilities: Mapping[str, list[str]] | None = None,
    **variables: str,
) -> Iterator[RunningServer]:
    """A Corral with these upstreams."""
    variables.setdefault("CORRAL_UPSTREAM_TIMEOUT", "1s")
    config = configured(home, models, spill, capabilities)
    with running_server(home, CORRAL_CONFIG=config, **variables) as server:
        yield server


@pytest.fixture(scope="module")
def server(upstream: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A Corral whose models behave as their names say; those that end in `-or-good` have a second, good server."""
    home = tmp_path_factory.mktemp("front") / "home"
    home.mkdir()
    key = home / "key"
    key.write_text("secret-of-ours\n")
    key.chmod(0o600)
    loose = home / "loose"
    loose.write_text("secret-of-ours\n")
    loose.chmod(0o666)
    models: dict[str, list[dict[str, Any]]] = {
        named(one): [{"url": upstream.url, "model": one, "key_file": str(key)}]
        for one in dict.fromkeys((*BEHAVIOURS, *LYING_VECTORS))
    }
    with fake_upstream() as good:
        second = {"url": good.url, "model": "good", "weight": 0.001}
        models |= {
            f"{named(one)}-or-good": [{"url": upstream.url, "model": one, "key_file": str(key)}, second]
            for one in BEHAVIOURS
        }
        models |= {
            "dead": [{"url": dead_url()}],
            "loose": [{"url": upstream.url, "key_file": str(loose)}],
            "keyless": [{"url": upstream.url, "model": "401"}],
        }
        with front(home, models) as running:
            yield running


def chat(server: RunningServer, model: str, **more: Any) -> Answer:
    return post(server, "/api/chat", {"model": named(model), "messages": HELLO, "stream": False, **more})


def last_asked(upstream: FakeUpstream, path: str = "/v1/chat/completions") -> Any:
    return upstream.asked(path)[-1]


def test_an_answer_comes_through_every_dialect(server: RunningServer, upstream: FakeUpstream) -> None:
    ollama = chat(server, "good")
    assert ollama.status == 200, ollama.json
    assert ollama.json["message"] == {"role": "assistant", "content": "One two three"}
    counts = {name: ollama.json[name] for name in ("prompt_eval_count", "eval_count", "done_reason")}
    assert counts == {"prompt_eval_count": 12, "eval_count": 3, "done_reason": "stop"}
    assert ollama.headers["x-corral-replica"] == upstream.name
    assert ollama.headers["x-corral-replica-reason"] == "the only one"
    openai = post(server, "/v1/chat/completions", {"model": "good", "messages": HELLO})
    assert openai.json["choices"][0]["message"]["content"] == "One two three"
    assert openai.json["usage"]["prompt_tokens_details"] == {"cached_tokens": 8}
    anthropic = post(server, "/v1/messages", {"model": "good", "messages": HELLO, "max_tokens": 9})
    assert anthropic.json["content"] == [{"type": "text", "text": "One two three"}]
    responses = post(server, "/v1/responses", {"model": "good", "input": "hello"})
    assert responses.json["output"][-1]["content"][0]["text"] == "One two three"
    generated = post(
        server, "/api/generate", {"model": "good", "prompt": "hello", "system": "be brief", "stream": False}
    )
    assert (generated.json["response"], "context" in generated.json) == ("One two three", False)
    assert last_asked(upstream)["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hello"},
    ]


def test_an_answer_is_streamed_as_it_comes(server: RunningServer, upstream: FakeUpstream) -> None:
    answer = post(server, "/api/chat", {"model": "good", "messages": HELLO})
    assert [line["message"]["content"] for line in answer.lines] == ["One", " two", " three", ""]
    assert answer.headers["x-corral-replica"] == upstream.name
    assert answer.lines[-1]["prompt_eval_count"] == USAGE["prompt_tokens"]


def test_a_raw_prompt_goes_to_completions(server: RunningServer, upstream: FakeUpstream) -> None:
    asked = {"model": "good", "prompt": "1, 2,", "raw": True, "stream": False, "options": {"num_predict": 5}}
    answer = post(server, "/api/generate", {**asked, "logprobs": True, "top_logprobs": 2})
    assert (answer.json["response"], answer.json["done_reason"]) == ("One two three", "length")
    assert answer.json["logprobs"][0]["token"] == "One"
    assert [one["token"] for one in answer.json["logprobs"][0]["top_logprobs"]] == ["One", " four"]
    assert last_asked(upstream, "/v1/completions") == {
        "model": "good",
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 5,
        "prompt": "1, 2,",
        "raw": True,
        "logprobs": 2,
    }


def test_only_what_was_asked_for_is_said_in_the_words_of_openais_api(
    server: RunningServer, upstream: FakeUpstream
) -> None:
    chat(server, "good")
    bare = {"model": "good", "stream": True, "stream_options": {"include_usage": True}, "messages": HELLO}
    assert last_asked(upstream) == bare
    options = {
        "temperature": 0.5, "top_k": 5, "min_p": 0.1, "repeat_penalty": 1.1, "seed": 3, "stop": ["END"],
        "num_predict": 7, "num_ctx": 4096, "num_gpu": 1,
    }  # fmt: skip
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    chat(server, "good", options=options, format=schema, think="high", tools=[TOOL], logprobs=True, top_logprobs=3)
    assert last_asked(upstream) == bare | {
        "temperature": 0.5, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "repeat_penalty": 1.1, "seed": 3,
        "stop": ["END"], "max_tokens": 7,
        "tools": [TOOL],
        "logprobs": True, "top_logprobs": 3,
        "chat_template_kwargs": {"enable_thinking": True}, "reasoning_effort": "high",
        "response_format": {
            "type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True},
        },
    }  # fmt: skip
    chat(server, "good", think=False, format="json")
    assert last_asked(upstream)["chat_template_kwargs"] == {"enable_thinking": False}
    assert last_asked(upstream)["response_format"] == {"type": "json_object"}


PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def test_pictures_calls_and_their_results_are_passed_on(server: RunningServer, upstream: FakeUpstream) -> None:
    messages = [
        {"role": "user", "content": "what is this?", "images": [PNG]},
        {"role": "assistant", "tool_calls": [{"function": {"name": "add", "arguments": {"a": 1}}}], "thinking": "Hm."},
        {"role": "tool", "content": "2", "tool_name": "add"},
        {"role": "assistant", "content": "It is"},
    ]
    assert post(server, "/api/chat", {"model": "good", "messages": messages, "stream": False}).status == 200
    asked = last_asked(upstream)
    pictures, called, result, _ = asked["messages"]
    assert {part["type"] for part in pictures["content"]} == {"text", "image_url"}
    assert f"data:image/png;base64,{PNG}" in json.dumps(pictures)
    (call,) = called["tool_calls"]
    assert call["function"] == {"name": "add", "arguments": '{"a":1}'}
    assert (result["tool_call_id"], result["content"]) == (call["id"], "2")
    assert called["reasoning_content"] == "Hm."
    assert (asked["continue_final_message"], asked["add_generation_prompt"]) == (True, False)
    choice = {"type": "function", "function": {"name": "add"}}
    body = {"model": "good", "messages": HELLO, "tools": [TOOL], "tool_choice": choice, "parallel_tool_calls": False}
    post(server, "/v1/chat/completions", body)
    assert (last_asked(upstream)["tool_choice"], last_asked(upstream)["parallel_tool_calls"]) == (choice, False)


@pytest.mark.parametrize("behaviour", ["reasoning_content", "reasoning", "tags"])
def test_thoughts_are_told_from_content(server: RunningServer, behaviour: str) -> None:
    message = chat(server, behaviour, think=True).json["message"]
    assert message == {"role": "assistant", "content": "Yes.", "thinking": "Hm."}


@pytest.mark.parametrize(
    ("behaviour", "arguments"),
    [("calls", [{"a": 1}, {"a": 2}]), ("calls numbered 0", [{"a": 1}, {"a": 2}]), ("calls in text", [{"a": 1}])],
)
def test_calls_of_tools_are_found(server: RunningServer, behaviour: str, arguments: list[Any]) -> None:
    message = chat(server, behaviour, tools=[TOOL]).json["message"]
    assert [call["function"]["arguments"] for call in message["tool_calls"]] == arguments
    assert message["content"] == ""


def test_a_call_that_was_cut_off_is_not_made(server: RunningServer) -> None:
    answer = chat(server, "cut call", tools=[TOOL]).json
    assert ("tool_calls" in answer["message"], answer["done_reason"]) == (False, "length")
    assert '"add"' in answer["message"]["content"]


def test_events_may_be_written_in_other_ways(server: RunningServer) -> None:
    answer = chat(server, "windows").json
    assert (answer["message"]["content"], answer["done_reason"]) == ("One two three", "length")


def test_the_stop_word_that_matched_is_passed_on(server: RunningServer) -> None:
    body = {"model": "stop-word", "messages": HELLO, "max_tokens": 9, "stop_sequences": ["END"]}
    answer = post(server, "/v1/messages", body).json
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("stop_sequence", "END")


@pytest.mark.parametrize("behaviour", ["no usage", "negative counts", "huge counts", "too large a count"])
def test_counts_that_cannot_be_are_counted_here(server: RunningServer, behaviour: str) -> None:
    answer = chat(server, behaviour).json
    pieces = 2 if behaviour == "no usage" else 1
    assert answer["eval_count"] == pieces
    assert 0 < answer["prompt_eval_count"] < 100


SENTENCES = {
    "html": "answers with text/html where a stream of events was asked for",
    "html stream": "ended in the middle of its answer",
    "plain json": "answers with application/json where a stream of events was asked for",
    "wrong json": "answers what cannot be read",
    "wrong types": "answers what cannot be read",
    "deep json": "answers what cannot be read",
    "nothing": "ended in the middle of its answer",
    "long line": "sends a line of more than 1048576 bytes",
    "long event": "sends an event of more than 1048576 bytes",
    "error event": "broke off its answer: out of memory",
    "redirect": "answers with a redirect, which is not followed",
    "401": "refuses the key in its key file (status 401)",
    "403": "refuses the key in its key file (status 403)",
    "404": 'has no model "404", or no /v1/chat/completions: The model `x` does not exist.',
    "429": "takes no more requests now: slow down",
    "500": "answers with status 500",
    "503": "answers with status 503: no worker",
    "drips": "has said nothing for 1 seconds",
    "silent": "has said nothing for 1 seconds",
    "cut at once": "broke the connection",
    "no http": "answers what is no HTTP, or breaks off in the middle",
}
"""What is said of a server that fails before its answer begins."""


@pytest.mark.parametrize("behaviour", SENTENCES)
def test_a_server_that_fails_is_named_with_the_reason(
    server: RunningServer, upstream: FakeUpstream, behaviour: str
) -> None:
    answer = chat(server, behaviour)
    assert answer.status == (503 if behaviour == "429" else 502)
    assert answer.error.startswith(f'upstream "{upstream.name}" {SENTENCES[behaviour]}')
    assert "secret" not in answer.error


@pytest.mark.parametrize("behaviour", SENTENCES)
def test_a_request_is_sent_to_the_next_server_before_its_answer_begins(
    server: RunningServer, upstream: FakeUpstream, behaviour: str
) -> None:
    answer = post(server, "/api/chat", {"model": f"{named(behaviour)}-or-good", "messages": HELLO})
    assert [line["message"]["content"] for line in answer.lines] == ["One", " two", " three", ""]
    assert answer.headers["x-corral-replica"] != upstream.name


def test_a_request_that_is_refused_is_not_sent_again(server: RunningServer, upstream: FakeUpstream) -> None:
    before = len(upstream.requests)
    answer = chat(server, "400-or-good")
    assert (answer.status, len(upstream.requests) - before) == (400, 1)
    assert answer.error == (
        f'upstream "{upstream.name}" refuses the request: maximum context length is 4096 tokens, not …'
    )


AMID = {
    "cut": "broke the connection",
    "no end": "ended in the middle of its answer",
    "error amid": "broke off its answer: out of memory",
    "silent amid": "has said nothing for 1 seconds",
    "counts as text": "answers what cannot be read",
}
"""What is said of a server that fails when its answer has begun."""


@pytest.mark.parametrize("behaviour", AMID)
def test_an_answer_that_has_begun_ends_in_one_line_of_an_error(
    server: RunningServer, upstream: FakeUpstream, behaviour: str
) -> None:
    answer = post(server, "/api/chat", {"model": f"{named(behaviour)}-or-good", "messages": HELLO})
    first, *_, last = answer.lines
    assert (answer.status, first["message"]["content"]) == (200, "One")
    assert last["error"].startswith(f'upstream "{upstream.name}" {AMID[behaviour]}')


def test_an_endless_answer_is_ended_at_the_length_that_was_asked_for(
    server: RunningServer, upstream: FakeUpstream
) -> None:
    upstream.left.clear()
    answer = chat(server, "endless", options={"num_predict": 5}).json
    assert (answer["done_reason"], answer["message"]["content"][:12]) == ("length", "again again ")
    assert upstream.left.wait(30)


def test_an_endless_answer_ends_when_its_client_goes(server: RunningServer, upstream: FakeUpstream) -> None:
    upstream.left.clear()
    streaming = Streaming(server, "/api/chat", {"model": "endless", "messages": HELLO})
    assert streaming.line()["message"]["content"] == "again "
    streaming.hang_up()
    assert upstream.left.wait(30)


def test_fifty_rounds_of_lies_hang_nothing(server: RunningServer) -> None:
    lies = [one for one in (*SENTENCES, *AMID) if "silent" not in one and one != "drips"]
    for number in range(50):
        assert chat(server, lies[number % len(lies)], options={"num_predict": 8}).status in (502, 503)
    assert chat(server, "good").status == 200


def test_a_server_that_is_not_there_is_said_at_once(server: RunningServer) -> None:
    answer = chat(server, "dead")
    assert answer.status == 502
    assert answer.error.endswith("cannot be reached: connection refused")


def test_keys_are_sent_and_never_shown(server: RunningServer, upstream: FakeUpstream) -> None:
    chat(server, "good")
    _, headers, _ = upstream.requests[-1]
    assert headers["authorization"] == "Bearer secret-of-ours"
    assert "wants a key, and has no `key_file` here (status 401)" in chat(server, "keyless").error
    loose = chat(server, "loose")
    assert (loose.status, "others may write" in loose.error) == (502, True)
    assert "secret" not in loose.error
    assert b"secret-of-ours" not in ask(server, "GET", "/api/requests").body
    assert "secret-of-ours" not in server.log.read_text()


def test_texts_are_embedded(server: RunningServer, upstream: FakeUpstream) -> None:
    answer = post(server, "/api/embed", {"model": "good", "input": ["a", "b"]}).json
    assert answer["embeddings"] == [[0.6, 0.8], [0.6, 0.8]]
    assert answer["prompt_eval_count"] == 7
    assert last_asked(upstream, "/v1/embeddings") == {"model": "good", "input": ["a", "b"], "encoding_format": "float"}
    openai = post(server, "/v1/embeddings", {"model": "good", "input": "a"}).json
    assert len(openai["data"]) == 1


@pytest.mark.parametrize("behaviour", LYING_VECTORS)
def test_vectors_that_cannot_be_are_refused(server: RunningServer, upstream: FakeUpstream, behaviour: str) -> None:
    answer = post(server, "/api/embed", {"model": named(behaviour), "input": ["a", "b"]})
    assert answer.status == 502
    assert answer.error.startswith(f'upstream "{upstream.name}" ')
    assert "secret" not in answer.error


@pytest.mark.parametrize(
    ("path", "body", "what"),
    [
        ("/api/generate", {"prompt": "a", "context": [1]}, "`context` of an earlier answer"),
        ("/api/generate", {"prompt": "a", "suffix": "b"}, "`suffix`"),
        ("/api/generate", {"prompt": "a", "template": "{{ .Prompt }}"}, "`template`"),
        ("/api/generate", {"prompt": "a", "raw": True, "images": [PNG]}, "pictures with raw prompts"),
        ("/v1/completions", {"prompt": [1, 2]}, "prompts as tokens"),
        ("/api/render", {"messages": HELLO}, "requests that only render a prompt"),
        ("/api/tokenize", {"text": "a"}, "requests of this kind"),
        ("/api/detokenize", {"tokens": [1]}, "requests of this kind"),
        ("/api/rerank", {"query": "a", "documents": ["b"]}, "requests of this kind"),
    ],
)
def test_what_another_server_cannot_do_is_refused(
    server: RunningServer, path: str, body: dict[str, Any], what: str
) -> None:
    answer = post(server, path, {"model": "good", **body})
    sentence = f'"good" is answered by other servers, which take no {what}'
    assert (answer.status, sentence in answer.body.decode().replace('\\"', '"')) == (400, True)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("DELETE", "/api/delete", {"model": "good"}),
        ("POST", "/api/copy", {"source": "good", "destination": "other"}),
        ("POST", "/api/push", {"model": "good"}),
        ("POST", "/api/create", {"model": "other", "from": "good"}),
    ],
)
def test_models_of_other_servers_are_not_managed_here(
    server: RunningServer, method: str, path: str, body: dict[str, Any]
) -> None:
    answer = ask(server, method, path, {"stream": False, **body})
    assert answer.status >= 400
    assert "error" in answer.json


def test_loading_and_unloading_another_servers_model_does_nothing(server: RunningServer) -> None:
    loaded = post(server, "/api/generate", {"model": "good"}).json
    unloaded = post(server, "/api/generate", {"model": "good", "keep_alive": 0}).json
    assert (loaded["done_reason"], unloaded["done_reason"]) == ("load", "unload")


def test_a_request_that_comes_back_is_refused(tmp_path: Path) -> None:
    """Two servers that are each other's upstreams."""
    with fake_upstream() as good:
        home = tmp_path / "one"
        home.mkdir()
        with front(home, {"m": [{"url": good.url, "model": "good"}]}) as server:
            assert chat(server, "m").status == 200
            (_, headers, _) = good.requests[-1]
            own = headers["x-corral-via"]
            body = {"model": "m", "messages": HELLO, "stream": False}
            back = ask(server, "POST", "/api/chat", body, {"X-Corral-Via": f"abc, {own}"})
            assert (back.status, back.error) == (
                508,
                "the request has come back to this server: it is among its own upstreams",
            )
            far = ask(server, "POST", "/api/chat", body, {"X-Corral-Via": ", ".join("abcdefghi")})
            assert (far.status, "more than 8 servers" in far.error) == (508, True)
            near = ask(server, "POST", "/api/chat", body, {"X-Corral-Via": ", ".join("abcdefgh")})
            assert near.status == 200
            assert good.requests[-1][1]["x-corral-via"] == f"a, b, c, d, e, f, g, h, {own}"


def test_a_server_that_is_its_own_upstream_says_so(tmp_path: Path) -> None:
    url = dead_url()
    with front(tmp_path / "home", {"m": [{"url": url}]}, OLLAMA_HOST=url.removeprefix("http://")) as server:
        answer = chat(server, "m")
        assert answer.status == 502
        assert "the request has come back to this server: it is among its own upstreams" in answer.error


def test_openais_api_takes_what_other_servers_take(server: RunningServer, upstream: FakeUpstream) -> None:
    body = {"model": "good", "messages": HELLO, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.2}
    thinking = {"chat_template_kwargs": {"enable_thinking": False}}
    assert post(server, "/v1/chat/completions", {**body, **thinking}).status == 200
    asked = last_asked(upstream)
    assert (asked["top_k"], asked["min_p"], asked["repetition_penalty"]) == (5, 0.1, 1.2)
    assert asked["chat_template_kwargs"] == {"enable_thinking": False}


def test_a_server_that_failed_is_left_alone_until_it_is_found_to_work(tmp_path: Path) -> None:
    with fake_upstream() as one, fake_upstream() as other:
        home = tmp_path / "home"
        home.mkdir()
        two: list[dict[str, Any]] = [
            {"url": one.url, "model": "good", "weight": 100},
            {"url": other.url, "model": "good"},
        ]
        with front(home, {"m": two}) as server:
            served = [chat(server, "m").headers["x-corral-replica"] for _ in range(3)]
            assert served == [one.name, other.name, one.name], "by weight"
            one.failing = 503
            one.probed.clear()
            assert chat(server, "m").headers["x-corral-replica"] == other.name
            asked = len(one.requests)
            assert chat(server, "m").headers["x-corral-replica"] == other.name
            assert len(one.requests) == asked, "a server that failed got a request"
            metrics = ask(server, "GET", "/metrics").body.decode()
            assert f'corral_replica_up{{model_name="m:latest",replica="{one.name}"}} 0.0' in metrics
            assert f'corral_replica_up{{model_name="m:latest",replica="{other.name}"}} 1.0' in metrics
            assert f'corral_replica_failures_total{{model_name="m:latest",replica="{one.name}"}} 1.0' in metrics
            assert f'corral_replica_requests_total{{model_name="m:latest",replica="{other.name}"}} 3.0' in metrics
            assert one.probed.wait(30)
            one.failing = 0
            is_up = f'corral_replica_up{{model_name="m:latest",replica="{one.name}"}} 1.0'
            until(lambda: is_up in ask(server, "GET", "/metrics").body.decode())
            assert "works again" in server.log.read_text()
            assert chat(server, "m").headers["x-corral-replica"] == one.name


def test_where_all_have_failed_they_are_asked_again_at_once(tmp_path: Path) -> None:
    with fake_upstream() as one:
        home = tmp_path / "home"
        home.mkdir()
        with front(home, {"m": [{"url": one.url, "model": "good"}]}) as server:
            one.failing = 503
            assert chat(server, "m").status == 502
            answer = chat(server, "m")
            assert (answer.status, "answers with status 503" in answer.error) == (503, True)
            assert answer.headers["retry-after"] == "1"
            one.failing = 0
            assert chat(server, "m").status == 200


def test_what_became_of_a_request_says_which_server_had_it(server: RunningServer, upstream: FakeUpstream) -> None:
    answer = chat(server, "good")
    (report,) = ask(server, "GET", f"/api/requests?id={answer.headers['x-request-id']}").json["requests"]
    assert (report["replica"], report["replica_reason"]) == (upstream.name, "the only one")
    assert (report["model"], report["cached_tokens"], report["reason"]) == ("good:latest", 8, "stop")


def test_lists_show_what_the_servers_say_of_themselves(server: RunningServer, upstream: FakeUpstream) -> None:
    until(lambda: b'"max_model_len":4096' in ask(server, "GET", "/v1/models").body)
    listed = {one["id"]: one for one in ask(server, "GET", "/v1/models").json["data"]}
    said = {"id": "good:latest", "object": "model", "created": 1700000000, "owned_by": "vllm", "max_model_len": 4096}
    said |= {"capabilities": ["completion", "tools"]}
    assert listed["good:latest"] == said
    assert listed["html:latest"].keys() == said.keys() - {"max_model_len"}
    assert ask(server, "GET", "/v1/models/good").json == said | {"id": "good"}
    tags = {one["name"]: one for one in ask(server, "GET", "/api/tags").json["models"]}
    assert len(tags) == len(listed)
    tag = tags["good:latest"]
    where = {"remote_model": "good", "remote_host": upstream.url.removesuffix("/v1")}
    assert {name: tag[name] for name in where} == where
    assert (len(tag["digest"]), tag["size"], tag["details"]["context_length"]) == (64, 0, 4096)
    assert tag["modified_at"].startswith("2023-11-1")
    shown = post(server, "/api/show", {"model": "good"}).json
    assert {name: shown[name] for name in where} == where
    assert shown["model_info"]["remote.context_length"] == 4096
    assert [one["url"] for one in shown["upstreams"]] == [where["remote_host"]]
    loaded = {one["name"]: one for one in ask(server, "GET", "/api/ps").json["models"]}
    assert loaded["good:latest"]["context_length"] == 4096
    assert "html:latest" not in loaded, "a server that does not list it"


def test_commands_show_models_of_other_servers(server: RunningServer, upstream: FakeUpstream) -> None:
    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "corral", *arguments]
        variables = {**os.environ, "OLLAMA_HOST": server.host, "HOME": str(server.home)}
        return subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout

    until(lambda: b"4096" in ask(server, "GET", "/api/ps").body)
    (row,) = [line.split() for line in run("list", "good").splitlines()[1:] if line.startswith("good:")]
    assert row[2] == "-"
    (row,) = [line.split() for line in run("ps").splitlines()[1:] if line.startswith("good:")]
    assert row[2:5] == ["-", "remote", "4096"]
    assert upstream.url.removesuffix("/v1") in run("show", "good")
    assert run("run", "good", "hello").strip() == "One two three"
    answer = chat(server, "good")
    explained = run("explain", answer.headers["x-request-id"])
    assert f"{upstream.name}: the only one" in explained


def test_a_key_for_other_models_neither_sees_nor_asks_those_of_other_servers(tmp_path: Path) -> None:
    with fake_upstream() as good:
        home = tmp_path / "home"
        home.mkdir()
        models = {name: [{"url": good.url, "model": "good"}] for name in ("mine", "theirs")}
        with front(home, models, CORRAL_REQUIRE_KEY="1") as server:
            command = [sys.executable, "-m", "corral", "keys", "create", "k", "--scope", "infer", "--model", "mine"]
            variables = {**os.environ, "HOME": str(home), "OLLAMA_HOST": server.host}
            made = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
            secret = made.stdout.strip()
            bearer = {"Authorization": f"Bearer {secret}"}
            until(lambda: ask(server, "GET", "/api/tags", None, bearer).status == 200)
            body = {"messages": HELLO, "stream": False}
            assert ask(server, "POST", "/api/chat", {"model": "mine", **body}, bearer).status == 200
            refused = ask(server, "POST", "/api/chat", {"model": "theirs", **body}, bearer)
            assert (refused.status, refused.error) == (403, 'your key is not for the model "theirs:latest"')
            tags = ask(server, "GET", "/api/tags", None, bearer).json["models"]
            assert [one["name"] for one in tags] == ["mine:latest"]
            assert ask(server, "POST", "/api/show", {"model": "theirs"}, bearer).status == 403
            assert secret not in str(good.requests), "a key of ours went to another server"


def test_another_server_is_asked_by_https(tmp_path: Path, tiny_gguf: Path) -> None:
    node = tmp_path / "node"
    add_model(node / ".ollama" / "models", "fake", tiny_gguf)
    cert, key = self_signed(node)
    said = [{"role": "user", "content": "Hi !tokens=3"}]
    with https_server(node, cert, key) as port:
        models: dict[str, list[dict[str, Any]]] = {"m": [{"url": f"https://localhost:{port}", "model": "fake"}]}
        body = {"model": "m", "messages": said, "stream": False}
        with front(tmp_path / "one", models, SSL_CERT_FILE=str(cert), CORRAL_UPSTREAM_TIMEOUT="60s") as server:
            until(lambda: len(ask(server, "GET", "/api/ps").json["models"]) == 1)
            answer = post(server, "/api/chat", body)
            assert (answer.status, answer.json["message"]["content"]) == (200, "w1 w2 w3 ")
        with front(tmp_path / "two", models) as server:
            refused = post(server, "/api/chat", body)
            assert refused.status in (502, 503)
            assert "cannot be reached: self-signed certificate" in refused.error


@pytest.fixture
def model_here(tmp_path: Path, tiny_gguf: Path) -> Path:
    """A home with the model `fake` in its store."""
    home = tmp_path / "home"
    add_model(home / ".ollama" / "models", "fake", tiny_gguf)
    return home


def test_this_machine_answers_where_the_servers_before_it_fail(model_here: Path) -> None:
    with fake_upstream() as other:
        models: dict[str, list[dict[str, Any]]] = {"fake": [{"url": other.url, "model": "good"}]}
        with front(model_here, models, spill="remote-first", CORRAL_ENGINE=str(FAKE_ENGINE)) as server:
            said = {"model": "fake", "messages": [{"role": "user", "content": "Hi !tokens=3"}], "stream": False}
            first = post(server, "/api/chat", said)
            assert (first.headers["x-corral-replica"], first.json["message"]["content"]) == (
                other.name,
                "One two three",
            )
            assert first.headers["x-corral-replica-reason"] == "it comes before the others"
            other.failing = 503
            second = post(server, "/api/chat", said)
            assert (second.headers["x-corral-replica"], second.json["message"]["content"]) == ("local", "w1 w2 w3 ")
            here = post(server, "/api/chat", {**said, "model": "fake:local"})
            assert "x-corral-replica" not in here.headers


def test_a_model_here_that_cannot_be_loaded_is_answered_for_elsewhere(model_here: Path) -> None:
    with fake_upstream() as other:
        models: dict[str, list[dict[str, Any]]] = {"fake": [{"url": other.url, "model": "good"}]}
        with front(model_here, models, CORRAL_ENGINE="/nowhere/llama-server") as server:
            answer = chat(server, "fake")
            assert (answer.status, answer.headers["x-corral-replica"]) == (200, other.name)


def test_what_the_model_here_has_of_its_own_counts_elsewhere_too(model_here: Path) -> None:
    with fake_upstream() as other:
        models: dict[str, list[dict[str, Any]]] = {"mine": [{"url": other.url, "model": "good"}]}
        with front(model_here, models, spill="remote-first", CORRAL_ENGINE=str(FAKE_ENGINE)) as server:
            made = {"model": "mine", "from": "fake", "system": "Be brief.", "parameters": {"temperature": 0.3}}
            assert post(server, "/api/create", {**made, "stream": False}).status == 200
            chat(server, "mine", options={"seed": 4})
            asked = last_asked(other)
            assert asked["messages"][0] == {"role": "system", "content": "Be brief."}
            assert (asked["temperature"], asked["seed"]) == (0.3, 4)
