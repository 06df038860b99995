"""LangChain4j's client for Ollama, through which many of Java's programs ask, against the real engine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client_kits import Results, clients_server, is_weather_call, run_java
from tests.conftest import add_model
from tests.speakers import speaker
from tests.tool_templates import JINJA

PAIR = [
    f'<tool_call>\n{{"name": "get_weather", "arguments": {{"city": "{city}", "days": {days}}}}}\n</tool_call>'
    for city, days in (("Rome", 2), ("Oslo", 1))
]
"""Two calls, in the order of `TWO`."""
TWO = [["get_weather", {"city": "Rome", "days": 2}], ["get_weather", {"city": "Oslo", "days": 1}]]


@pytest.fixture(scope="module")
def results(starter_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Results]:
    work = tmp_path_factory.mktemp("client-java")
    with clients_server(work, starter_gguf) as server:
        add_model(server.models, "pair", speaker(work / "pair.gguf", *PAIR, chat_template=JINJA))
        yield run_java(server, "Langchain4j.java")


def test_lists_and_cards(results: Results) -> None:
    found = results["models"]
    names = {"smollm2", "native", "caller", "bert", "chatter", "pair", "hears"}
    assert set(found["listed"]) == {f"{name}:latest" for name in names}
    assert found["dated"]
    assert found["capabilities"] == ["completion", "tools"]
    assert (found["running"], found["context"]) == (["chatter:latest"], 1024)


def test_chat_whole_and_streamed_say_the_same(results: Results) -> None:
    whole, streamed = results["chat"], results["stream"]
    assert whole["text"]
    assert (whole["finish"], whole["usage"][1]) == ("LENGTH", 12)
    assert len(streamed["deltas"]) > 1
    assert "".join(streamed.pop("deltas")) == whole["text"]
    assert streamed == whole


@pytest.mark.parametrize("scenario", ["tools", "tools_streamed"])
def test_an_agent_calls_a_tool_and_answers(results: Results, scenario: str) -> None:
    found = results[scenario]
    (call,) = found["calls"]
    assert is_weather_call(*call)
    assert found.get("completed", found["calls"]) == found["calls"]
    assert found["finish"] == "TOOL_EXECUTION"
    assert found["answer"]


def test_calls_of_one_answer_are_kept_apart(results: Results) -> None:
    """The client takes a call for complete when one with another index begins."""
    found = results["two_tools_streamed"]
    assert found["calls"] == found["completed"] == TWO
    assert found["answer"]


def test_structured_output(results: Results) -> None:
    found = results["parsed"]
    assert found.keys() == {"sky", "degrees"}
    assert found["sky"] in ("clear", "grey")
    assert isinstance(found["degrees"], int)
    assert isinstance(results["json_mode"], dict)


def test_a_text_goes_on_whole_and_streamed(results: Results) -> None:
    found = results["generate"]
    assert "".join(found["deltas"]) == found["streamed"] == found["text"] != ""


def test_embeddings(results: Results) -> None:
    found = results["embeddings"]
    assert [len(vector) for vector in found] == [64, 64]
    for vector in found:
        assert sum(number * number for number in vector) == pytest.approx(1, abs=1e-5)


def test_errors_are_the_clients_own(results: Results) -> None:
    assert results["errors"] == {
        "unknown": ["ModelNotFoundException", '{"error":"model \'nope\' not found"}'],
        "no_chat": ["InvalidRequestException", '{"error":"\\"bert\\" does not support chat"}'],
        "streamed": ["ModelNotFoundException", '{"error":"model \'nope\' not found"}'],
        "no_server": ["RuntimeException", "java.net.ConnectException"],
    }
