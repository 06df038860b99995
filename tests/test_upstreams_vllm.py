"""Answers of a real vLLM, as it gave them: recorded, and played to a Corral in front (`vllm_recording.py`)."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.asking import ask, until
from tests.conftest import RunningServer
from tests.test_upstreams import front
from tests.vllm_recording import Stage, asked, models_of, played


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with played() as one:
        yield one
        assert one.strange == [], "Corral asks otherwise than it did when this was recorded: record it anew"


@pytest.fixture(scope="module")
def server(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with front(tmp_path_factory.mktemp("front"), models_of(stage), CORRAL_UPSTREAM_TIMEOUT="60s") as running:
        yield running


def events(stage: Stage, **wanted: Any) -> list[Any]:
    """The events of the one recorded stream whose request has these fields."""
    (found,) = [
        one["body"]
        for one in stage.exchanges
        if one["request"] and all(one["request"].get(name) == value for name, value in wanted.items())
    ]
    lines = [line.removeprefix("data: ") for line in found.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def usage(events: list[Any]) -> tuple[int, int]:
    (found,) = [event["usage"] for event in events if event.get("usage") and not event["choices"]]
    return found["prompt_tokens"], found["completion_tokens"]


@pytest.mark.parametrize("name", ["chat", "chat with log probabilities"])
def test_a_chat_is_read_piece_by_piece(server: RunningServer, stage: Stage, name: str) -> None:
    said = events(stage, max_tokens=12, prompt=None, logprobs=True if "log" in name else None)
    deltas = [choice["delta"].get("content") for event in said for choice in event["choices"]]
    *lines, last = asked(server, name).lines
    assert [line["message"]["content"] for line in lines] == [one for one in deltas if one] != []
    assert last["done_reason"] == "length"
    assert (last["prompt_eval_count"], last["eval_count"]) == usage(said)
    if "log" in name:
        given = [choice["logprobs"] for event in said for choice in event["choices"]]
        theirs = [one for logprobs in given if logprobs for one in logprobs["content"]]
        ours = [one for line in lines for one in line["logprobs"]]
        assert [(one["token"], one["bytes"]) for one in ours] == [(one["token"], one["bytes"]) for one in theirs]
        assert [len(one["top_logprobs"]) for one in ours] == [2] * 12


def test_a_raw_prompt_has_log_probabilities_in_the_older_form(server: RunningServer, stage: Stage) -> None:
    said = events(stage, prompt="one two")
    *lines, last = asked(server, "raw with log probabilities").lines
    assert [line["response"] for line in lines] == [one["choices"][0]["text"] for one in said if one["choices"]][:12]
    found = [one for line in lines for one in line["logprobs"]]
    theirs = [one["choices"][0]["logprobs"] for one in said if one["choices"] and one["choices"][0]["logprobs"]]
    assert [one["token"] for one in found] == [token for one in theirs for token in one["tokens"]]
    assert [one["logprob"] for one in found] == [value for one in theirs for value in one["token_logprobs"]]
    assert (last["done_reason"], last["eval_count"]) == ("length", 12)


def test_the_stop_word_is_the_one_that_vllm_names(server: RunningServer) -> None:
    answer = asked(server, "stop word").json
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("stop_sequence", "o")
    assert answer["content"] == [{"type": "text", "text": " tw"}]


def test_a_format_is_kept_to(server: RunningServer) -> None:
    lines = asked(server, "format").lines
    assert json.loads("".join(line["message"]["content"] for line in lines)) == {"colour": "red"}
    assert lines[-1]["done_reason"] == "stop"


def test_a_call_that_comes_in_parts_and_is_cut_off_is_not_made(server: RunningServer, stage: Stage) -> None:
    (request,) = [one["request"] for one in stage.exchanges if one["request"] and one["request"].get("tools")]
    deltas = [one["choices"][0]["delta"] for one in events(stage, tools=request["tools"]) if one["choices"]]
    parts = [call["function"].get("arguments", "") for delta in deltas for call in delta.get("tool_calls") or ()]
    (choice,) = asked(server, "tool").json["choices"]
    assert (choice["finish_reason"], "tool_calls" in choice["message"]) == ("length", False)
    assert len(parts) > 5
    assert choice["message"]["content"].startswith('{"name": "paint", "arguments": ')
    assert "".join(parts).strip() in choice["message"]["content"]


def test_errors_are_said_in_the_words_of_vllm(server: RunningServer, stage: Stage) -> None:
    too_long, unknown = asked(server, "too long"), asked(server, "unknown")
    assert too_long.status == 400
    assert "maximum context length is 768 tokens" in too_long.error
    assert unknown.status == 502
    assert f'upstream "{stage.name}" has no model "unknown"' in unknown.error


def test_its_list_of_models_says_how_long_a_context_may_be(server: RunningServer) -> None:
    until(lambda: b'"max_model_len":768' in ask(server, "GET", "/v1/models").body)
    (found,) = [one for one in ask(server, "GET", "/v1/models").json["data"] if one["id"] == "m:latest"]
    assert found["owned_by"] == "vllm"
