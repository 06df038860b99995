"""What OllamaSharp, the client of .NET's programs, sends and needs: requests as it writes them, over the fake engine.

Source: its public code. Every body has `CustomHeaders`, most of what is unset is null, names are read case-sensitively
and moments strictly.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from tests.asking import Answer, ask, post
from tests.conftest import RunningServer
from tests.dialects import dialect_server
from tests.tool_templates import WEATHER

LEGACY = {"numa": None, "mirostat": 0, "mirostat_tau": None, "tfs_z": 1.0, "num_gqa": None, "low_vram": False}
OPTIONS = {"temperature": 0, "num_ctx": None, "stop": None, "num_predict": 8, **LEGACY}
SAID = {"images": None, "tool_calls": None, "thinking": None, "tool_name": None}
CALL = {"id": None, "function": {"index": None, "name": "get_weather", "arguments": {"city": "Oslo"}}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with dialect_server(tmp_path_factory.mktemp("ollamasharp")) as server:
        yield server


def send(server: RunningServer, path: str, **body: Any) -> Answer:
    answer = post(server, path, {**body, "CustomHeaders": {}})
    assert answer.status == 200, answer.body
    return answer


def chat(server: RunningServer, *messages: dict[str, Any], **more: Any) -> list[Any]:
    unset = {"format": None, "template": None, "keep_alive": None, "tools": None, "think": None, "logprobs": None}
    turns = [{**SAID, **message} for message in messages]
    return send(server, "/api/chat", **{**unset, "model": "tiny", "messages": turns, "stream": True, **more}).lines


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def is_moment(text: str) -> bool:
    """Whether a moment is ISO 8601 with an offset."""
    return datetime.fromisoformat(text).tzinfo is not None


def test_the_root_says_that_it_runs(server: RunningServer) -> None:
    assert ask(server, "GET", "/").body.strip()


def test_a_chat_with_every_field_it_writes(server: RunningServer) -> None:
    lines = chat(server, user("!say=Hello|%20you"), options=OPTIONS)
    assert "".join(line["message"]["content"] for line in lines) == "Hello you"
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert {line["message"]["role"] for line in lines} == {"assistant"}
    assert all(is_moment(line["created_at"]) for line in lines)
    last = lines[-1]
    assert all(type(last[name]) is int for name in last if name.endswith(("_count", "_duration")))


@pytest.mark.parametrize("nothing", [{"messages": None}, {"messages": []}])
def test_a_chat_without_messages_loads(server: RunningServer, nothing: dict[str, Any]) -> None:
    (line,) = send(server, "/api/chat", model="tiny", stream=True, **nothing).lines
    assert (line["done"], line["done_reason"]) == (True, "load")


def test_calls_and_their_results_go_back_without_ids(server: RunningServer) -> None:
    """Microsoft.Extensions.AI writes a result as JSON and names neither the tool nor the call."""
    turns = (
        user("Weather?"),
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": '{"CallId":"1","Result":"clear"}'},
    )
    lines = chat(server, *turns, tools=[{**WEATHER, "CustomHeaders": {}}])
    assert lines[-1]["done"]
    asked = chat(server, user("!say= !call=get_weather"), tools=[WEATHER])
    (call,) = [call["function"] for line in asked for call in line["message"].get("tool_calls", ())]
    assert (call["name"], type(call["arguments"]), call["index"]) == ("get_weather", dict, 0)


@pytest.mark.parametrize("think", [True, "low", "medium", "high"])
def test_thinking_that_a_model_cannot_do_is_refused_with_a_sentence(server: RunningServer, think: bool | str) -> None:
    answer = post(server, "/api/chat", {"model": "tiny", "messages": [user("x")], "think": think, "CustomHeaders": {}})
    assert (answer.status, answer.error) == (400, '"tiny" does not support thinking')
    assert chat(server, user("x"), think=False)[-1]["done"]


def test_generate_with_every_field_it_writes(server: RunningServer) -> None:
    names = ("suffix", "images", "system", "template", "context", "format", "keep_alive", "think", "width", "height")
    unset = dict.fromkeys((*names, "steps"))
    lines = send(
        server, "/api/generate", **{**unset, "model": "plain", "prompt": "!tokens=2", "stream": True, "raw": False}
    ).lines
    assert lines[-1]["done"]
    assert isinstance(lines[-1]["context"], list)


def test_a_text_unloads(server: RunningServer) -> None:
    (line,) = send(server, "/api/generate", model="plain", prompt="", keep_alive="0s", stream=True).lines
    assert line["done_reason"] == "unload"


def test_embeddings(server: RunningServer) -> None:
    answer = send(server, "/api/embed", model="bert", input=["the sky"], options=None, keep_alive=None, truncate=None)
    ((*vector,),) = answer.json["embeddings"]
    assert all(isinstance(number, float) for number in vector)


def test_lists_are_read_strictly(server: RunningServer) -> None:
    send(server, "/api/generate", model="plain", prompt="", keep_alive="5m", stream=True)
    listed = ask(server, "GET", "/api/tags").json["models"]
    loaded = ask(server, "GET", "/api/ps").json["models"]
    assert len(listed) == 3
    assert loaded
    for model in (*listed, *loaded):
        assert all(isinstance(model[name], str) for name in ("name", "model", "digest"))
        assert type(model["size"]) is int
        assert all(
            isinstance(model["details"][name], str)
            for name in ("parent_model", "format", "family", "parameter_size", "quantization_level")
        )
    assert all(is_moment(model["modified_at"]) for model in listed)
    assert all(is_moment(model["expires_at"]) and type(model["context_length"]) is int for model in loaded)


def test_show_copy_and_delete(server: RunningServer) -> None:
    shown = send(server, "/api/show", model="plain").json
    assert isinstance(shown["capabilities"], list)
    assert isinstance(shown["model_info"]["general.architecture"], str)
    send(server, "/api/copy", source="plain", destination="other")
    answer = ask(server, "DELETE", "/api/delete", {"model": "other", "CustomHeaders": {}})
    assert answer.status == 200


def test_the_error_that_has_its_own_exception(server: RunningServer) -> None:
    """Of a 400 it reads the sentence, by which it knows that a model cannot call tools."""
    body = {"model": "plain", "messages": [user("x")], "tools": [WEATHER], "CustomHeaders": {}}
    answer = post(server, "/api/chat", body)
    assert answer.status == 400
    assert "does not support tools" in answer.error
