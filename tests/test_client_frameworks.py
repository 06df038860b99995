"""The libraries in which many programs meet a server of Ollama's or OpenAI's kind, against the real engine:
LangChain, LlamaIndex, LiteLLM, instructor; ollama-js and the AI SDK."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import kits
from tests.client_kits import Results, clients_server, is_weather, is_weather_call, run_node, run_python
from tests.conftest import RunningServer


@pytest.fixture(scope="module")
def server(starter_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with clients_server(tmp_path_factory.mktemp("client-frameworks"), starter_gguf) as server:
        yield server


@pytest.fixture(scope="module")
def python(server: RunningServer) -> Results:
    return run_python(server, "ollama_family.py")


@pytest.fixture(scope="module")
def node(server: RunningServer) -> Results:
    return run_node(server, "ollama_family.mjs")


def says_the_same_streamed(found: dict[str, Any]) -> bool:
    pieces = [delta for delta in found["deltas"] if delta]
    return len(pieces) > 1 and "".join(pieces) == found["text"]


def is_unit(vector: list[float]) -> bool:
    return len(vector) == 64 and sum(number * number for number in vector) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("scenario", ["langchain_ollama", "langchain_openai"])
def test_langchain(python: Results, scenario: str) -> None:
    found = python[scenario]
    assert says_the_same_streamed(found)
    assert found["usage"] == 12
    assert [is_unit(vector) for vector in found["vectors"]] == [True, True]


@pytest.mark.parametrize("client", ["langchain_ollama", "langchain_openai", "langchain_openai_responses"])
def test_an_agent_of_langchain(python: Results, client: str) -> None:
    found = python[client if client.endswith("responses") else f"{client}_tools"]
    assert is_weather_call(*found["call"])
    assert found["streamed"] == [found["call"]]
    assert found["answer"]


def test_structured_output_of_langchain(python: Results) -> None:
    answers = [python["langchain_ollama_parsed"], *python["langchain_openai_parsed"]]
    assert [is_weather(answer) for answer in answers] == [True, True, True]


def test_llama_index(python: Results) -> None:
    assert says_the_same_streamed(python["llama_index"])
    assert is_weather(python["llama_index_parsed"])
    found = python["llama_index_tools"]
    assert is_weather_call(*found["call"])
    assert found["answer"]


@pytest.mark.parametrize("scenario", ["litellm_ollama_chat", "litellm_openai"])
def test_litellm(python: Results, scenario: str) -> None:
    found = python[scenario]
    assert says_the_same_streamed(found)
    assert found["usage"] == 12
    assert is_weather(found["parsed"])


@pytest.mark.parametrize("scenario", ["litellm_ollama_tools", "litellm_openai_tools"])
def test_an_agent_of_litellm(python: Results, scenario: str) -> None:
    found = python[scenario]
    assert is_weather_call(*found["call"])
    assert found["answer"]


def test_embeddings_and_errors_of_litellm(python: Results) -> None:
    vectors = [vector for found in python["litellm_embeddings"].values() for vector in found]
    assert [is_unit(vector) for vector in vectors] == [True] * 4
    says_which = ["NotFoundError", True]
    assert python["litellm_errors"] == {"ollama_chat/nope": says_which, "openai/nope": says_which}


def test_instructor(server: RunningServer) -> None:
    found = run_python(server, "instructor_sdk.py", written_for="async", kit=kits.INSTRUCTOR)["modes"]
    assert {mode: is_weather(answer) for mode, answer in found.items()} == {
        "TOOLS": True,
        "JSON_SCHEMA": True,
        "JSON": True,
    }


def test_ollama_js(node: Results) -> None:
    assert "chatter:latest" in node["js_models"]["listed"]
    assert node["js_models"]["capabilities"] == ["completion", "tools"]
    chat = node["js_chat"]
    assert says_the_same_streamed(chat)
    assert chat["finish"] == "length"
    assert node["js_generate_left_early"]
    assert is_weather(node["js_parsed"])
    assert [is_unit(vector) for vector in node["js_embed"]] == [True, True]
    refusal = ["ResponseError", 404, "model 'nope' not found"]
    assert node["js_errors"] == {"whole": refusal, "streamed": refusal}


def test_an_agent_with_ollama_js(node: Results) -> None:
    found = node["js_tools"]
    assert [is_weather_call(*call) for call in found["calls"]] == [True]
    assert found["answer"]


def test_the_ai_sdk(node: Results) -> None:
    chat = node["ai_chat"]
    assert says_the_same_streamed(chat)
    assert (chat["usage"], chat["finish"]) == (12, "length")
    assert is_weather(node["ai_parsed"])
    assert is_unit(node["ai_embed"])
    assert node["ai_error"][:2] == ["AI_APICallError", 404]


def test_an_agent_of_the_ai_sdk(node: Results) -> None:
    found = node["ai_tools"]
    assert found["steps"] == 2
    assert all(is_weather_call(*call) for call in (*found["asked"], *found["streamed"]))
    assert len(found["streamed"]) == 1
    assert found["answer"]
