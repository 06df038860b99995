"""Conversations of three turns with the real model: a call it has to make, the call's result, and a further question.

What the model says is its own business. That it calls and its arguments fit, that each prompt has the earlier turns
and that these are not read again, is ours.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import ollama
import pytest
from gguf.scripts.gguf_new_metadata import MetadataDetails, copy_with_new_metadata

from tests.asking import metric, post
from tests.conftest import RunningServer, add_model, running_server
from tests.tool_templates import GO, JINJA, WEATHER

MODELS = ("go", "jinja")
QUESTION = {"role": "user", "content": "What is the weather in Oslo?"}
RESULT = "12 degrees and rain"
FURTHER = {"role": "user", "content": "Should I take an umbrella?"}
BRIEFLY = {"temperature": 0, "num_predict": 32, "num_thread": 1}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
TOOLS = [WEATHER, CLOCK]
QWEN3 = Path(__file__).parent / "goldens" / "templates" / "qwen3.gotmpl"
"""A template that leaves out the thoughts of earlier answers."""
NAMED = {"type": "function", "function": {"name": "get_weather"}}


@pytest.fixture(scope="module")
def server(starter_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with the real model twice: under a Go template that knows tools, and with such a Jinja template."""
    home = tmp_path_factory.mktemp("conversation")
    with running_server(home) as server:
        add_model(server.models, "plain", starter_gguf)
        add_model(server.models, "jinja", with_chat_template(starter_gguf, home / "jinja.gguf", JINJA))
        made = {"model": "go", "from": "plain", "template": GO, "stream": False}
        assert post(server, "/api/create", made).json == {"status": "success"}
        made |= {"model": "thinking", "template": QWEN3.read_text()}
        assert post(server, "/api/create", made).json == {"status": "success"}
        yield server


def with_chat_template(source: Path, target: Path, text: str) -> Path:
    """A copy of a GGUF file with another chat template."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, "llama")
    new = MetadataDetails(gguf.GGUFValueType.STRING, text)
    copy_with_new_metadata(reader, writer, {gguf.Keys.Tokenizer.CHAT_TEMPLATE: new}, [])
    return target


def turn(server: RunningServer, model: str, messages: list[Any], **more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The message of a turn, streamed or not, and the last line of its answer."""
    body = {"model": model, "messages": messages, "tools": TOOLS, "options": BRIEFLY, "stream": False, **more}
    answer = post(server, "/api/chat", body)
    assert answer.status == 200, answer.body
    parts = [line["message"] for line in answer.lines]
    message = {"role": "assistant", "content": "".join(part["content"] for part in parts)}
    calls = [call for part in parts for call in part.get("tool_calls", [])]
    return (message | {"tool_calls": calls} if calls else message), answer.lines[-1]


def prompt_of(server: RunningServer, model: str, messages: list[Any]) -> str:
    body = {"model": model, "messages": messages, "tools": TOOLS, "_debug_render_only": True}
    return str(post(server, "/api/chat", body).json["_debug_info"]["rendered_template"])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("choice", ["required", NAMED], ids=["required", "named"])
def test_a_conversation_goes_on_from_a_forced_call(
    server: RunningServer, model: str, stream: bool, choice: Any
) -> None:
    tools = TOOLS if choice == NAMED else [WEATHER]
    called, last = turn(server, model, [QUESTION], stream=stream, tool_choice=choice, tools=tools)
    (call,) = called["tool_calls"]
    assert (called["content"], last["done_reason"]) == ("", "stop")
    assert (call["function"]["index"], call["function"]["name"]) == (0, "get_weather")
    arguments = call["function"]["arguments"]
    assert arguments["city"] in ("Oslo", "Rome")
    assert arguments.keys() <= {"city", "days"}
    assert isinstance(arguments.get("days", 1), int)

    result = {"role": "tool", "content": RESULT, "tool_name": "get_weather", "tool_call_id": call["id"]}
    said, last = turn(server, model, messages := [QUESTION, called, result], stream=stream)
    assert said["content"] or said.get("tool_calls")
    assert last["done_reason"] in ("stop", "length")

    messages += [said, FURTHER]
    prompt = prompt_of(server, model, messages)
    texts = (QUESTION["content"], '"get_weather"', arguments["city"], RESULT, said["content"], FURTHER["content"])
    assert [prompt.find(text) >= 0 for text in texts] == [True] * len(texts)
    further, last = turn(server, model, messages, stream=stream)
    assert further["content"] or further.get("tool_calls")
    assert last["prompt_eval_count"] > 100


@pytest.mark.parametrize("stream", [False, True])
def test_the_official_client_holds_the_same_conversation(server: RunningServer, stream: bool) -> None:
    """It cannot say which tool to choose, so the call is one the model is led to by the only format it may keep to."""

    def get_weather(city: str) -> str:
        """The weather of a city.

        Args:
            city: The city's name
        """
        return f"{city}: {RESULT}"

    client = ollama.Client(host=server.url, timeout=60)
    form = {
        "type": "object",
        "properties": {
            "name": {"const": "get_weather"},
            "arguments": {"type": "object", "properties": {"city": {"enum": ["Oslo"]}}, "required": ["city"]},
        },
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }

    def ask(messages: list[Any], **more: Any) -> ollama.Message:
        chat: Any = client.chat  # whose declared forms are one for each value of `stream`
        answers = chat("go", messages, tools=[get_weather], options=BRIEFLY, stream=stream, **more)
        parts = [answer.message for answer in (answers if stream else [answers])]
        calls = [call for part in parts for call in part.tool_calls or ()]
        return ollama.Message(
            role="assistant", content="".join(part.content or "" for part in parts), tool_calls=calls or None
        )

    called = ask([QUESTION], format=form)
    assert called.tool_calls is not None
    (call,) = called.tool_calls
    assert (called.content, call.function.name, dict(call.function.arguments)) == ("", "get_weather", {"city": "Oslo"})
    result = {"role": "tool", "content": get_weather(**call.function.arguments), "tool_name": call.function.name}
    said = ask([QUESTION, called, result])
    assert said.content
    further = ask([QUESTION, called, result, said, FURTHER])
    assert further.content


@pytest.mark.parametrize("model", MODELS)
def test_a_growing_conversation_is_not_read_again(server: RunningServer, model: str) -> None:
    """What earlier prompts held is found in the cache, all but the few tokens where one prompt ended."""
    messages: list[Any] = [{"role": "user", "content": f"The weather in Oslo, {model}, please."}]
    lengths, found = [], []
    called, _ = turn(server, model, messages, tool_choice=NAMED)
    for more in ({"role": "tool", "content": RESULT, "tool_name": "get_weather"}, FURTHER, QUESTION):
        messages += [called, more]
        before = metric(server, "corral_prefix_cache_hits_total")
        called, last = turn(server, model, messages)
        found.append(metric(server, "corral_prefix_cache_hits_total") - before)
        lengths.append(last["prompt_eval_count"])
        if called.get("tool_calls"):
            called = {"role": "assistant", "content": json.dumps(called["tool_calls"])}
    assert [hits >= length * 0.95 for hits, length in zip(found[1:], lengths[:-1], strict=True)] == [True, True]


def test_thoughts_that_are_left_out_cost_no_more_than_their_answer(server: RunningServer) -> None:
    """The next prompt goes on where the thought stood; all before it is found in the cache."""
    messages: list[Any] = [{"role": "user", "content": "Oslo, its weather and its people: " + "tell me more. " * 40}]
    lengths, found = [], []
    for number in range(3):
        before = metric(server, "corral_prefix_cache_hits_total")
        said, last = turn(server, "thinking", messages, tools=[])
        found.append(metric(server, "corral_prefix_cache_hits_total") - before)
        lengths.append(last["prompt_eval_count"])
        thought = f"Thought {number} of many. " * 20
        messages += [{**said, "thinking": thought}, {"role": "user", "content": f"And {number} more?"}]
        prompt = prompt_of(server, "thinking", messages)
        assert [f"Thought {earlier} " in prompt for earlier in range(number + 1)] == [False] * (number + 1)
    assert [hits >= length * 0.9 for hits, length in zip(found[1:], lengths[:-1], strict=True)] == [True, True]
