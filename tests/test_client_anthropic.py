"""Anthropic's own clients, in Python (synchronous and asynchronous) and Node.js, against the real engine."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client_kits import Results, clients_server, is_weather, is_weather_call, run_node, run_python
from tests.conftest import RunningServer


@pytest.fixture(scope="module")
def server(starter_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with clients_server(tmp_path_factory.mktemp("client-anthropic"), starter_gguf) as server:
        yield server


@pytest.fixture(scope="module", params=["sync", "async", "node"])
def results(request: pytest.FixtureRequest, server: RunningServer) -> Results:
    if request.param == "node":
        return run_node(server, "anthropic_sdk.mjs")
    return run_python(server, "anthropic_sdk.py", written_for=request.param)


def test_a_message_whole_and_streamed_says_the_same(results: Results) -> None:
    whole, streamed = results["chat"], results["stream"]
    assert whole["text"]
    assert (whole["role"], whole["stop"], whole["usage"][1]) == ("assistant", "max_tokens", 12)
    assert len(streamed["deltas"]) > 1
    assert "".join(streamed["deltas"]) == streamed["text"] == whole["text"]
    assert (streamed["stop"], streamed["usage"]) == (whole["stop"], whole["usage"])


def test_tokens_are_counted_as_a_message_counts_them(results: Results) -> None:
    assert results["counted"] == results["chat"]["usage"][0] > 0


def test_a_stream_that_is_left_early_does_no_harm(results: Results) -> None:
    assert results["stream_of_events_left_early"] == {"first": "message_start", "next": results["chat"]["text"]}


@pytest.mark.parametrize("scenario", ["tools", "tools_native"])
def test_an_agent_calls_a_tool_and_answers(results: Results, scenario: str) -> None:
    found = results[scenario]
    (call,) = found["calls"]
    assert is_weather_call(*call)
    assert found["stop"] in ("end_turn", "max_tokens")
    assert found["answer"]


def test_a_call_is_streamed(results: Results) -> None:
    found = results["tools_streamed"]
    assert is_weather_call(*found["call"])
    assert json.loads(found["pieces"]) == found["call"][1]
    assert found["stop"] == "tool_use"


@pytest.mark.parametrize("scenario", ["parsed", "parsed_stream"])
def test_structured_output(results: Results, scenario: str) -> None:
    assert is_weather(results[scenario])


def test_errors_are_the_clients_own(results: Results) -> None:
    assert results["errors"] == {
        "unknown": ["NotFoundError", 404, "model 'nope' not found"],
        "empty": ["BadRequestError", 400, "messages is required"],
        "no_chat": ["BadRequestError", 400, '"bert" does not support chat'],
        "streamed": ["NotFoundError", 404, "model 'nope' not found"],
    }
    assert results["no_server"] == "APIConnectionError"
