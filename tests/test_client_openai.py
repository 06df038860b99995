"""OpenAI's own clients, in Python (synchronous and asynchronous) and Node.js, against the real engine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client_kits import Results, clients_server, is_weather, is_weather_call, run_node, run_python
from tests.conftest import RunningServer


@pytest.fixture(scope="module")
def server(starter_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with clients_server(tmp_path_factory.mktemp("client-openai"), starter_gguf) as server:
        yield server


@pytest.fixture(scope="module", params=["sync", "async", "node"])
def results(request: pytest.FixtureRequest, server: RunningServer) -> Results:
    if request.param == "node":
        return run_node(server, "openai_sdk.mjs")
    return run_python(server, "openai_sdk.py", written_for=request.param)


def test_models(results: Results) -> None:
    found = results["models"]
    names = ("smollm2", "native", "bert", "chatter", "caller", "hears")
    assert set(found["listed"]) == {f"{name}:latest" for name in names}
    assert found["retrieved"] == "chatter"


def test_chat_whole_and_streamed_say_the_same(results: Results) -> None:
    whole, streamed = results["chat"], results["stream"]
    assert whole["text"]
    assert (whole["role"], whole["finish"], whole["refusal"]) == ("assistant", "length", None)
    assert whole["usage"][1] == 12
    assert whole["usage"][2] == whole["usage"][0] + 12
    assert len(streamed["deltas"]) > 1
    assert "".join(streamed["deltas"]) == streamed["text"] == whole["text"]
    assert {key: streamed[key] for key in ("role", "finish", "usage")} == {
        key: whole[key] for key in ("role", "finish", "usage")
    }


def test_a_stream_that_is_left_early_does_no_harm(results: Results) -> None:
    assert results["stream_of_chunks_left_early"] == {"role": "assistant", "next": results["chat"]["text"]}


@pytest.mark.parametrize("scenario", ["tools", "tools_native"])
def test_an_agent_calls_a_tool_and_answers(results: Results, scenario: str) -> None:
    found = results[scenario]
    ((kind, *call),) = found["calls"]
    assert kind == "function"
    assert is_weather_call(*call)
    assert found["finish"] in ("stop", "length")
    assert found["answer"]


def test_a_call_is_streamed(results: Results) -> None:
    found = results["tools_streamed"]
    assert is_weather_call(*found["call"])
    assert found["finish"] == "tool_calls"
    assert found["events"].count("tool_calls.function.arguments.done") == 1
    assert "tool_calls.function.arguments.delta" in found["events"]


def test_structured_output(results: Results) -> None:
    assert is_weather(results["parsed"])
    assert isinstance(results["json_mode"], dict)


def test_completions(results: Results) -> None:
    found = results["completions"]
    assert found["text"] == found["streamed"] != ""


def test_transcriptions(results: Results) -> None:
    found = results["transcriptions"]
    assert found["text"]
    assert found["text"] == found["tokens"].strip() == found["as_text"] == "".join(found["deltas"])
    kind, read, written, together = found["usage"]
    assert (kind, written, together) == ("tokens", 5, read + 5)
    assert found["done"] == ["transcript.text.done", found["text"], 5]
    assert found["deaf"] == ["BadRequestError", 400, '"chatter" does not support audio']
    unknown = 'response_format "verbose_json" cannot be given: the model writes words, without times'
    assert found["times"] == ["BadRequestError", 400, f'{unknown}; use "json" or "text"']
    other = 'the file "speech.ogg" is of the kind Ogg, which is not read: send WAV, MP3 or FLAC'
    assert found["kind"] == ["BadRequestError", 400, other]
    assert found["streamed"] == ["NotFoundError", 404, "model 'nope' not found"]


def test_embeddings_are_the_same_as_base64_and_as_numbers(results: Results) -> None:
    found = results["embeddings"]
    assert [len(vector) for vector in found["packed"]] == [64, 64]
    for packed, plain in zip(found["packed"], found["plain"], strict=True):
        assert packed == pytest.approx(plain, abs=1e-6)
        assert sum(number * number for number in packed) == pytest.approx(1, abs=1e-5)
    assert found["tokens"] > 0


def test_a_response_goes_on_from_the_one_before(results: Results) -> None:
    found = results["responses"]
    assert found["text"]
    assert found["second"]
    assert set(found["statuses"]) <= {"completed", "incomplete"}
    assert found["previous"]
    assert found["input_tokens"][1] > found["input_tokens"][0] + 4


def test_a_response_is_streamed(results: Results) -> None:
    found = results["responses_streamed"]
    assert found["deltas"] == found["text"] != ""
    assert (found["status"], found["numbers"]) == ("completed", True)


def test_tools_of_responses(results: Results) -> None:
    found = results["responses_tools"]
    assert is_weather_call(*found["call"])
    assert found["answer"]
    streamed = results["responses_tools_streamed"]
    name, arguments = streamed["call"]
    assert name == "tell"
    assert is_weather(arguments)
    assert streamed["events"].count("response.function_call_arguments.done") == 1
    assert streamed["events"][-1] == "response.completed"


def test_an_agent_of_responses_calls_a_tool_of_a_namespace_and_answers(results: Results) -> None:
    found = results["responses_agent"]
    ((namespace, *call),) = found["calls"]
    assert namespace == "weather"
    assert is_weather_call(*call)
    assert found["answer"]


def test_structured_output_of_responses(results: Results) -> None:
    assert is_weather(results["responses_parsed"])


def test_errors_are_the_clients_own(results: Results) -> None:
    assert results["errors"] == {
        "unknown": ["NotFoundError", 404, "model 'nope' not found"],
        "empty": ["BadRequestError", 400, "[] is too short - 'messages'"],
        "no_chat": ["BadRequestError", 400, '"bert" does not support chat'],
        "streamed": ["NotFoundError", 404, "model 'nope' not found"],
    }
    assert results["no_server"] == "APIConnectionError"
