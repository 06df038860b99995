"""Tools from definition to result, through the server and the real engine: offered, called, answered, cut off, forced.

The models are speakers: what they say is known, word for word.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.asking import Answer, ask, metric, post
from tests.conftest import RunningServer, add_model, running_server
from tests.speakers import speaker
from tests.tool_templates import ADD, GO, JINJA, WEATHER

GOLDENS = Path(__file__).parent / "goldens" / "native"

OSLO = '{"name": "get_weather", "arguments": {"city": "Oslo"}}'

SAYINGS: dict[str, tuple[str | bytes, ...]] = {
    "call": ("<tool_call>", f"\n{OSLO}\n", "</tool_call>"),
    "two": (
        *("Sure. ", "<tool_call>", f"\n{OSLO}\n", "</tool_call>", "\n<tool_call>\n{"),
        *('"name": "add", ', '"arguments": {"a": 1}}\n</tool_call>'),
    ),
    "unclosed": ("Sure. ", "<tool_call>", '\n{"name": "get_weather", "argum'),
    "unknown": ("<tool_call>", '\n{"name": "no', 'pe", "arguments": {}}\n', "</tool_call>"),
    "list": ("<tool_call>", '\n{"name": "add"', ', "arguments": [1]}\n', "</tool_call>"),
    "bare": ('{"name": "get_', 'weather", "arguments": {"city": "Rome"}}'),
    "prose": ("<tool_call>", " is the tag I use"),
    "half": ("<tool_call>", '{"name": "add", "arguments": {"a": "', "☂".encode(), '"}}'),
    "silent": ("<tool_call>", '\n{"name": "now"', ', "arguments": null}\n', "</tool_call>"),
    "short": ('{"name": "n', 'ow"}'),
    "json": ('{"answer": ', "42}"),
    "rain": ("Rain: ", "☂".encode(), " tomorrow"),
}

STRICT = (GOLDENS / "llama3.1.jinja").read_text()
"""With calls of this form the engine takes whatever begins with a brace for one, and then fails."""

OTHERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "json-strict": (STRICT, ('{"answer": ', "42}")),
    "sure-strict": (STRICT, ("Sure: ", '{"answer": ', "42}", " is it")),
    "thought": (
        (GOLDENS / "qwen3.jinja").read_text(),
        ("<think>", "Hm", "</think>", "\n\nWell. ", "<tool_call>", '\n{"name": "no', 'pe"}\n', "</tool_call>"),
    ),
}

CALL = {"function": {"index": 0, "name": "get_weather", "arguments": {"city": "Oslo"}}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with each saying under a Go template (`call`) and under the model's own (`call-native`)."""
    home = tmp_path_factory.mktemp("tools")
    with running_server(home) as server:
        for name, pieces in SAYINGS.items():
            add_model(server.models, f"{name}-plain", speaker(home / f"{name}.gguf", *pieces))
            add_model(
                server.models, f"{name}-native", speaker(home / f"{name}-native.gguf", *pieces, chat_template=JINJA)
            )
            made = {"model": name, "from": f"{name}-plain", "template": GO, "stream": False}
            assert post(server, "/api/create", made).json == {"status": "success"}
        for name, (jinja, pieces) in OTHERS.items():
            add_model(server.models, name, speaker(home / f"{name}.gguf", *pieces, chat_template=jinja))
        refusing = (
            "{%- if messages[0].content == 'forbidden' %}{{- raise_exception('no weather here') }}{% endif %}" + JINJA
        )
        add_model(server.models, "refusing", speaker(home / "refusing.gguf", "no", chat_template=refusing))
        yield server


def function(**facts: Any) -> dict[str, Any]:
    return {"type": "function", "function": facts}


def chat(server: RunningServer, model: str, *, num_predict: int = 40, **more: Any) -> Answer:
    options = {"temperature": 0, "num_predict": num_predict, "num_thread": 1}
    messages = [{"role": "user", "content": "weather"}]
    asked = {"model": model, "messages": messages, "tools": [WEATHER, ADD], "stream": False, "options": options}
    return post(server, "/api/chat", {**asked, **more})


def messages_of(answer: Answer) -> list[dict[str, Any]]:
    """The messages of an answer's lines, their calls without ids, which are checked to be there."""
    assert answer.status == 200, answer.body
    found = [line["message"] for line in answer.lines]
    for message in found:
        for call in message.get("tool_calls", []):
            assert re.fullmatch(r"[A-Za-z0-9_]{8,40}", call.pop("id"))
    return found


@pytest.mark.parametrize("model", ["call", "call-native"])
def test_a_call_is_answered_as_one(server: RunningServer, model: str) -> None:
    assert messages_of(chat(server, model)) == [{"role": "assistant", "content": "", "tool_calls": [CALL]}]


@pytest.mark.parametrize("model", ["two", "two-native"])
def test_several_calls_are_answered_with_what_came_before(server: RunningServer, model: str) -> None:
    add = {"function": {"index": 1, "name": "add", "arguments": {"a": 1}}}
    whole = {"role": "assistant", "content": "Sure. ", "tool_calls": [CALL, add]}
    assert messages_of(chat(server, model)) == [whole]


def test_a_stream_tells_each_call_when_it_is_complete(server: RunningServer) -> None:
    add = {"function": {"index": 1, "name": "add", "arguments": {"a": 1}}}
    answer = chat(server, "two", stream=True)
    assert messages_of(answer) == [
        {"role": "assistant", "content": "Sure. "},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "assistant", "content": "", "tool_calls": [add]},
        {"role": "assistant", "content": ""},
    ]
    assert [line["done"] for line in answer.lines] == [False, False, False, True]
    assert answer.lines[-1]["done_reason"] == "stop"


def test_a_stream_of_the_models_own_template_tells_all_calls_at_the_end(server: RunningServer) -> None:
    answer = chat(server, "two-native", stream=True)
    *before, last = messages_of(answer)
    assert before == [{"role": "assistant", "content": "Sure. "}]
    assert [call["function"]["name"] for call in last["tool_calls"]] == ["get_weather", "add"]


@pytest.mark.parametrize(
    ("model", "content"),
    [
        ("unclosed", 'Sure. <tool_call>\n{"name": "get_weather", "argum'),
        ("unknown", '<tool_call>\n{"name": "nope", "arguments": {}}\n</tool_call>'),
        ("list", '<tool_call>\n{"name": "add", "arguments": [1]}\n</tool_call>'),
        ("prose", "<tool_call> is the tag I use"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_no_call_is_content_and_counted(server: RunningServer, model: str, content: str, stream: bool) -> None:
    before = warnings(server, model, "tool_call_unparsed")
    answers = messages_of(chat(server, model, stream=stream))
    assert "".join(message["content"] for message in answers) == content
    assert not any("tool_calls" in message for message in answers)
    assert warnings(server, model, "tool_call_unparsed") == before + 1


def warnings(server: RunningServer, model: str, kind: str) -> float:
    text = ask(server, "GET", "/metrics").body.decode()
    series = f'corral_answer_warnings_total{{model_name="{model}:latest",warning="{kind}"}}'
    return next((float(line.split()[-1]) for line in text.splitlines() if line.startswith(series)), 0.0)


def test_a_cut_off_call_of_the_models_own_template_is_text(server: RunningServer) -> None:
    before = warnings(server, "unclosed-native", "tool_call_unparsed")
    (message,) = messages_of(chat(server, "unclosed-native"))
    assert message == {"role": "assistant", "content": 'Sure. {"name": "get_weather", "arguments": {'}
    assert warnings(server, "unclosed-native", "tool_call_unparsed") == before + 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["json", "json-native", "json-strict"])
def test_json_that_is_no_call_is_content(server: RunningServer, model: str, stream: bool) -> None:
    answers = messages_of(chat(server, model, stream=stream))
    assert "".join(message["content"] for message in answers) == '{"answer": 42}'
    assert not any("tool_calls" in message for message in answers)


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_engine_cannot_parse_goes_on_where_it_broke_off(server: RunningServer, stream: bool) -> None:
    answer = chat(server, "sure-strict", stream=stream)
    assert "".join(message["content"] for message in messages_of(answer)) == 'Sure: {"answer": 42} is it'
    assert answer.lines[-1]["done_reason"] == "stop"
    answer = chat(server, "sure-strict", stream=stream, num_predict=3)
    assert "".join(message["content"] for message in messages_of(answer)) == 'Sure: {"answer": 42}'
    assert answer.lines[-1]["done_reason"] == "length"


@pytest.mark.parametrize("stream", [False, True])
def test_thoughts_are_not_sent_twice_where_the_engine_broke_off(server: RunningServer, stream: bool) -> None:
    messages = messages_of(chat(server, "thought", stream=stream))
    assert "".join(message.get("thinking", "") for message in messages) == "Hm"
    said = "".join(message["content"] for message in messages)
    assert said == 'Well. <tool_call>\n{"name": "nope"}\n</tool_call>'


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_the_engine_loses_its_way_in_is_read_without_it(server: RunningServer, stream: bool) -> None:
    """Its grammar begins with the tag and meets a piece that it did not foresee."""
    answers = messages_of(chat(server, "unknown-native", stream=stream))
    content = '<tool_call>\n{"name": "nope", "arguments": {}}\n</tool_call>'
    assert "".join(message["content"] for message in answers) == content
    assert "read without the engine" in server.log.read_text()


@pytest.mark.parametrize("model", ["bare", "bare-native"])
def test_a_call_without_tags_is_rescued_and_counted(server: RunningServer, model: str) -> None:
    before = warnings(server, model, "tool_calls_rescued")
    rome = {"function": {"index": 0, "name": "get_weather", "arguments": {"city": "Rome"}}}
    assert messages_of(chat(server, model)) == [{"role": "assistant", "content": "", "tool_calls": [rome]}]
    assert warnings(server, model, "tool_calls_rescued") == before + 1


@pytest.mark.parametrize("model", ["silent", "short", "short-native"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_call_without_arguments_is_one_where_the_tool_requires_none(
    server: RunningServer, model: str, stream: bool
) -> None:
    optional = {"type": "object", "properties": {"zone": {"type": "string"}}}
    for parameters in (optional, {"type": "object", "properties": {}}, None):
        now = function(name="now", parameters=parameters)
        answers = messages_of(chat(server, model, tools=[WEATHER, now], stream=stream))
        assert [call["function"] for message in answers for call in message.get("tool_calls", [])] == [
            {"index": 0, "name": "now", "arguments": {}}
        ]
        assert "".join(message["content"] for message in answers) == ""
    now = function(name="now", parameters={**optional, "required": ["zone"]})
    answers = messages_of(chat(server, model, tools=[WEATHER, now], stream=stream))
    assert not any("tool_calls" in message for message in answers)
    assert '"now"' in "".join(message["content"] for message in answers)


NUMBER = {
    "type": "object",
    "properties": {"x": {"enum": [1, 2]}},
    "required": ["x"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("model", ["call", "call-native", "bare", "bare-native", "prose-native"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_format_holds_also_with_tools(server: RunningServer, model: str, stream: bool) -> None:
    answers = messages_of(chat(server, model, format=NUMBER, stream=stream))
    assert "".join(message["content"] for message in answers) in ('{"x": 1}', '{"x": 2}')
    assert not any("tool_calls" in message for message in answers)


@pytest.mark.parametrize("model", ["bare", "bare-native"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_fits_the_format_is_a_call(server: RunningServer, model: str, stream: bool) -> None:
    answers = messages_of(chat(server, model, format="json", stream=stream))
    (call,) = [call for message in answers for call in message.get("tool_calls", [])]
    assert call["function"] == {"index": 0, "name": "get_weather", "arguments": {"city": "Rome"}}
    assert "".join(message["content"] for message in answers) == ""


@pytest.mark.parametrize("model", ["call", "call-native"])
def test_without_tools_nothing_is_a_call(server: RunningServer, model: str) -> None:
    (message,) = messages_of(chat(server, model, tools=[]))
    assert message == {"role": "assistant", "content": f"<tool_call>\n{OSLO}\n</tool_call>"}


@pytest.mark.parametrize("model", ["call", "call-native"])
def test_with_tools_forbidden_the_prompt_names_none(server: RunningServer, model: str) -> None:
    (message,) = messages_of(chat(server, model, tool_choice="none"))
    assert "tool_calls" not in message
    shown = chat(server, model, tool_choice="none", _debug_render_only=True)
    assert "get_weather" not in shown.json["_debug_info"]["rendered_template"]


@pytest.mark.parametrize("choice", ["tool", {"type": "web_search_preview"}, {"type": "tool"}, 7, [], True, {"name": 1}])
def test_a_choice_that_is_not_known_is_ignored_with_a_warning(server: RunningServer, choice: Any) -> None:
    (message,) = messages_of(chat(server, "rain", tool_choice=choice))
    assert message == {"role": "assistant", "content": "Rain: ☂ tomorrow"}
    shown = json.dumps(choice, separators=(",", ":")).replace('"', '\\"')
    assert f"tool_choice {shown} is ignored" in server.log.read_text()


@pytest.mark.parametrize(
    ("choice", "calls"),
    [({"type": "auto"}, 0), ({"type": "none"}, 0), ({"type": "any"}, 1), ({"type": "tool", "name": "go"}, 1)],
)
def test_a_choice_may_be_written_as_anthropics_clients_do(server: RunningServer, choice: Any, calls: int) -> None:
    (message,) = messages_of(chat(server, "rain", tools=[function(name="go")], tool_choice=choice, num_predict=100))
    assert len(message.get("tool_calls", [])) == calls


@pytest.mark.parametrize("model", ["prose", "prose-native"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_would_not_call_has_to(server: RunningServer, model: str, stream: bool) -> None:
    small = {"type": "object", "properties": {"x": {"enum": ["a", "b"]}}, "required": ["x"]}
    pick = function(name="pick", parameters=small)
    answers = messages_of(chat(server, model, tools=[pick], tool_choice="required", num_predict=100, stream=stream))
    (call,) = [call for message in answers for call in message.get("tool_calls", [])]
    assert (call["function"]["name"], call["function"]["arguments"]) in (("pick", {"x": "a"}), ("pick", {"x": "b"}))
    assert "".join(message["content"] for message in answers) == ""


@pytest.mark.parametrize("model", ["call", "call-native"])
def test_a_named_tool_and_no_other_is_called(server: RunningServer, model: str) -> None:
    none = {"type": "object", "properties": {}}
    two = [function(name=name, parameters=none) for name in ("first", "second")]
    chosen = {"type": "function", "function": {"name": "second"}}
    (message,) = messages_of(chat(server, model, tools=two, tool_choice=chosen, num_predict=100))
    assert message["tool_calls"] == [{"function": {"index": 0, "name": "second", "arguments": {}}}]


@pytest.mark.parametrize(
    ("parameters", "arguments"),
    [
        (None, {}),
        ({}, {}),
        ({"type": "object"}, {}),
        ({"type": "array"}, {}),
        ({"type": "object", "required": ["a"], "additionalProperties": {"const": 1}}, {"a": 1}),
    ],
)
def test_a_forced_call_has_no_arguments_but_what_the_tool_takes(
    server: RunningServer, parameters: Any, arguments: Any
) -> None:
    tools = [function(name="go", parameters=parameters)]
    (message,) = messages_of(chat(server, "call", tools=tools, tool_choice="required", num_predict=100))
    assert message["tool_calls"] == [{"function": {"index": 0, "name": "go", "arguments": arguments}}]


@pytest.mark.parametrize(
    "parameters",
    [
        {"properties": {"x": {"type": "boolean"}}, "required": ["x", "nope"]},
        {"properties": {"x": {"type": "boolean"}}, "required": ["X"]},
        {"properties": {"x": {"type": "boolean"}}, "required": ["x", "nope"], "additionalProperties": False},
        {"required": ["nope"]},
        {"properties": {"nope": True}, "required": ["nope", "nope"]},
    ],
)
@pytest.mark.parametrize("model", ["call", "call-native"])
def test_a_call_can_be_forced_where_required_names_what_is_not_declared(
    server: RunningServer, model: str, parameters: dict[str, Any]
) -> None:
    tool = function(name="go", parameters={"type": "object", **parameters})
    (message,) = messages_of(chat(server, model, tools=[tool], tool_choice="required", num_predict=400))
    (call,) = message["tool_calls"]
    named = set(parameters["required"]) & (set(parameters.get("properties", ())) or {"nope"})
    assert named <= call["function"]["arguments"].keys()


@pytest.mark.parametrize("tool", [{}, {"function": {}}, {"type": "function", "function": {"name": ""}}, None])
def test_a_tool_without_a_name_cannot_be_called(server: RunningServer, tool: Any) -> None:
    answer = chat(server, "call", tools=[tool], tool_choice="required")
    assert (answer.status, answer.error) == (400, "tool_choice wants a call, but no tool has a name")


@pytest.mark.parametrize("model", ["call", "call-native"])
def test_what_a_forced_call_refers_to_holds_though_the_prompt_leaves_it_out(server: RunningServer, model: str) -> None:
    """Every way in which a property can say elsewhere, or at once, what it may be."""
    properties = {
        "unit": {"$ref": "#/$defs/unit"},
        "maybe": {"anyOf": [{"$ref": "#/$defs/unit"}, {"type": "null"}]},
        "one": {"oneOf": [{"const": 1}]},
        "all": {"allOf": [{"enum": [2, 3]}, {"enum": [3, 4]}]},
        "inner": {"type": "object", "properties": {"unit": {"$ref": "#/$defs/unit"}}, "required": ["unit"]},
    }
    schema = {"type": "object", "properties": properties, "required": [*properties]}
    tool = function(name="measure", parameters={**schema, "$defs": {"unit": {"enum": ["C"]}}})
    shown = chat(server, model, tools=[tool], _debug_render_only=True).json["_debug_info"]["rendered_template"]
    assert '"$ref"' not in shown
    (message,) = messages_of(chat(server, model, tools=[tool], tool_choice="required", num_predict=200))
    (call,) = message["tool_calls"]
    arguments = call["function"]["arguments"]
    assert arguments.pop("maybe") in ("C", None)
    assert arguments.pop("inner")["unit"] == "C"
    assert arguments == {"unit": "C", "one": 1, "all": 3}


@pytest.mark.parametrize("model", ["call", "call-native"])
def test_a_tool_that_is_not_there_cannot_be_chosen(server: RunningServer, model: str) -> None:
    answer = chat(server, model, tool_choice={"type": "function", "function": {"name": "nope"}})
    assert (answer.status, answer.json) == (400, {"error": 'tool_choice names "nope", which is not among the tools'})


def test_the_prompt_has_tools_calls_and_results(server: RunningServer) -> None:
    calls = [
        {"function": {"name": "add", "arguments": {"b": [2], "a": 1}}},
        {"function": {"name": "get_weather", "arguments": {"city": "Oslo"}}},
    ]
    conversation = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hey"},
        {"role": "assistant", "tool_calls": calls},
        {"role": "tool", "tool_name": "add", "content": "3"},
        {"role": "tool", "tool_name": "get_weather", "content": "sun"},
    ]
    shown = chat(server, "call", messages=conversation, tools=[WEATHER], _debug_render_only=True)
    assert shown.json["_debug_info"]["rendered_template"] == (
        "<|im_start|>system\nBe brief.\n"
        'Call tools with <tool_call>{"name": …, "arguments": …}</tool_call>:\n'
        '{"type":"function","function":{"name":"get_weather","description":"The weather of a city","parameters":'
        '{"type":"object","required":["city"],"properties":{"city":{"type":"string","enum":["Oslo","Rome"]},'
        '"days":{"type":"integer"}}}}}<|im_end|>\n'
        "<|im_start|>user\nhey<|im_end|>\n"
        '<|im_start|>assistant\n<tool_call>\n{"name": "add", "arguments": {"a":1,"b":[2]}}\n'
        '{"name": "get_weather", "arguments": {"city":"Oslo"}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>add: 3</tool_response><|im_end|>\n"
        "<|im_start|>user\n<tool_response>get_weather: sun</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_the_models_own_template_gets_calls_and_results(server: RunningServer) -> None:
    conversation = [
        {"role": "user", "content": "hey"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", **CALL}]},
        {"role": "tool", "tool_name": "get_weather", "tool_call_id": "c1", "content": "sun"},
    ]
    shown = chat(server, "call-native", messages=conversation, _debug_render_only=True)
    rendered = shown.json["_debug_info"]["rendered_template"]
    assert '<tool_call>\n{"name": "get_weather", "arguments": {"city":' in rendered
    assert "<tool_response>\nsun\n</tool_response>" in rendered
    assert rendered.count('"name": "get_weather"') + rendered.count('"name":"get_weather"') == 2


ASKED = {"role": "user", "content": "hey"}
CALLED = {"role": "assistant", "content": "", "tool_calls": [CALL]}
SAID: dict[str, Any] = {"role": "assistant", "content": "Rain"}
UNANSWERED: dict[str, tuple[list[Any], str]] = {
    "a call": ([ASKED, CALLED], "</tool_call><|im_end|>\n<|im_start|>assistant\n"),
    "a call with text": ([ASKED, {**CALLED, "content": "Well."}], "</tool_call><|im_end|>\n<|im_start|>assistant\n"),
    "a call after a thought": ([ASKED, {**CALLED, "thinking": "Hm"}], "<|im_end|>\n<|im_start|>assistant\n"),
    "several calls": ([ASKED, {**CALLED, "tool_calls": [CALL, CALL]}], "<|im_end|>\n<|im_start|>assistant\n"),
    "two turns with calls": ([ASKED, CALLED, CALLED], "</tool_call><|im_end|>\n<|im_start|>assistant\n"),
    "text and a call": ([ASKED, SAID, CALLED], "</tool_call><|im_end|>\n<|im_start|>assistant\n"),
    "a call and text": ([ASKED, CALLED, SAID], "</tool_call><|im_end|>\n<|im_start|>assistant\nRain"),
    "two texts": ([ASKED, SAID, SAID], "assistant\nRain<|im_end|>\n<|im_start|>assistant\nRain"),
    "one text": ([ASKED, SAID], "<|im_start|>user\nhey<|im_end|>\n<|im_start|>assistant\nRain"),
}


@pytest.mark.parametrize("kind", UNANSWERED)
@pytest.mark.parametrize("tools", [[], [WEATHER]], ids=["no tools", "tools"])
def test_a_history_that_ends_in_turns_of_the_model_is_gone_on_with(
    server: RunningServer, kind: str, tools: list[Any]
) -> None:
    messages, end = UNANSWERED[kind]
    shown = chat(server, "rain-native", messages=messages, tools=tools, _debug_render_only=True)
    assert shown.status == 200, shown.body
    assert shown.json["_debug_info"]["rendered_template"].endswith(end)
    (message,) = messages_of(chat(server, "rain-native", messages=messages, tools=tools))
    assert message == {"role": "assistant", "content": "Rain: ☂ tomorrow"}
    *parts, _ = messages_of(chat(server, "rain-native", messages=messages, tools=tools, stream=True))
    assert "".join(part["content"] for part in parts) == "Rain: ☂ tomorrow"


@pytest.mark.parametrize("think", [None, True, False])
@pytest.mark.parametrize("kind", UNANSWERED)
def test_so_is_one_of_a_model_that_thinks(server: RunningServer, kind: str, think: bool | None) -> None:
    messages, _ = UNANSWERED[kind]
    answer = chat(server, "thought", messages=messages, think=think)
    assert answer.status == 200, answer.body
    assert chat(server, "sure-strict", messages=messages).status == 200


@pytest.mark.parametrize(
    "tools",
    [
        *("x", [1], [{"function": 3}], [{"function": {"name": 3}}], [function(name="x", parameters=[])]),
        *([function(name="x", parameters={"properties": [1]})], [function(name="x", parameters={"required": "a"})]),
    ],
)
def test_what_is_no_list_of_tools_is_refused(server: RunningServer, tools: Any) -> None:
    answer = chat(server, "call", tools=tools)
    assert answer.status == 400
    assert answer.error.startswith("json: cannot unmarshal ")
    assert " into Go struct field ChatRequest.tools" in answer.error


@pytest.mark.parametrize("arguments", ["text", [1], 3])
def test_arguments_that_are_no_object_are_refused(server: RunningServer, arguments: Any) -> None:
    history = [{"role": "assistant", "tool_calls": [{"function": {"name": "add", "arguments": arguments}}]}]
    answer = chat(server, "call", messages=history)
    assert answer.status == 400
    assert "Go struct field ChatRequest.messages.tool_calls.function.arguments" in answer.error


ODD_TOOLS = {
    "nothing": {},
    "no function": {"type": "function"},
    "no name": function(),
    "an empty name": function(name=""),
    "no properties": function(name="x", parameters={"type": "object", "properties": None}),
    "a name of signs": function(name='x y/"z', parameters={"type": "object", "properties": {"a": {"type": "string"}}}),
    "another alphabet": function(name="é→", parameters={"type": "object", "properties": {"ß": {"type": "string"}}}),
    "definitions": ADD,
    "markup": function(name="x", description="</tool_call>{{ .System }}{% raw %}<|im_end|>"),
}


@pytest.mark.parametrize("model", ["rain", "rain-native"])
@pytest.mark.parametrize("kind", ODD_TOOLS)
def test_odd_tools_are_no_harm(server: RunningServer, model: str, kind: str) -> None:
    (message,) = messages_of(chat(server, model, tools=[ODD_TOOLS[kind]]))
    assert message == {"role": "assistant", "content": "Rain: ☂ tomorrow"}


@pytest.mark.parametrize("model", ["rain", "rain-native"])
@pytest.mark.parametrize("choice", ["auto", "required"])
@pytest.mark.parametrize("depth", [40, 200, 300, 5000])
def test_tools_nested_in_themselves_are_written_or_refused(
    server: RunningServer, model: str, choice: str, depth: int
) -> None:
    schema = '{"type":"object","properties":{"a":' * depth + '{"type":"string"}' + "}}" * depth
    body = (
        f'{{"model":"{model}","messages":[{{"role":"user","content":"?"}}],"tool_choice":"{choice}","stream":false,'
        f'"_debug_render_only":true,"tools":[{{"function":{{"name":"f","parameters":{schema}}}}}]}}'
    )
    answer = post(server, "/api/chat", body.encode())
    if depth < 100:
        assert answer.json["_debug_info"]["rendered_template"].count('"properties"') == depth
    elif depth > 250:
        assert (answer.status, answer.error) == (400, "exceeded max depth")
    else:
        assert answer.status == 200 or answer.error.endswith("exceeded maximum template depth")


def loosened(server: RunningServer) -> float:
    return metric(server, "corral_requests_with_loosened_tools_total")


def properties(**schemas: Any) -> dict[str, Any]:
    return {"type": "object", "properties": schemas}


LIST_OF_POINTS = {"type": "array", "items": {"$ref": "#/definitions/P"}}
BEYOND_THE_ENGINE: dict[str, Any] = {
    "definitions that the model does not read": properties(a=LIST_OF_POINTS) | {"definitions": {"P": {"enum": [7]}}},
    "components": properties(a={"items": {"$ref": "#/components/schemas/P"}}) | {"components": {"schemas": {"P": {}}}},
    "a way through oneOf": properties(a={"oneOf": [{"const": 7}]}, b={"items": {"$ref": "#/properties/a/oneOf/0"}}),
    "true for items": properties(a={"type": "array", "items": True}),
    "true inside items": properties(a={"items": properties(b=True)}),
    "itself": properties(a={"items": {"$ref": "#"}}),
    "false after a tuple": properties(a={"items": {"prefixItems": [{"const": 7}], "items": False}}),
    "a huge number": properties(a={"items": {"type": "integer", "maximum": 1e100}}),
    "no type": properties(a={"type": "any"}, b={"items": {"type": "file"}}, c={"anyOf": [{"type": "date"}]}),
    "a type of another language": properties(a={"type": "STRING"}, b={"type": ["int", "None"]}),
    "a word for items": properties(a={"type": "array", "items": "string"}),
    "an empty enum": properties(a={"items": {"enum": []}}),
    "an empty allOf": properties(a={"items": {"allOf": []}}),
    "an empty anyOf": properties(a={"items": {"anyOf": []}}),
    "a list of properties": properties(a={"items": {"properties": []}}),
    "a bare name": properties(a={"items": {"$ref": "Point"}}),
    "an address": properties(a={"items": {"$ref": "https://example.com/point.json"}}),
    "a place where nothing stands": properties(a={"items": {"$ref": "#/definitions/Missing"}}),
    "nothing that fits": properties(a={"allOf": [{"const": 1}, {"const": 2}], "items": {"type": "foo"}}),
    "true": properties(a=True, b={"anyOf": [True, False]}, c=False),
    "required: true": properties(a={"type": "string", "required": True}) | {"required": True},
}


@pytest.mark.parametrize("kind", BEYOND_THE_ENGINE)
@pytest.mark.parametrize("model", ["call", "call-native"])
def test_a_tool_that_the_engine_cannot_express_hinders_no_other(server: RunningServer, model: str, kind: str) -> None:
    odd = function(name="odd", parameters=BEYOND_THE_ENGINE[kind])
    assert messages_of(chat(server, model, tools=[odd, WEATHER])) == [
        {"role": "assistant", "content": "", "tool_calls": [CALL]}
    ]


@pytest.mark.parametrize("kind", BEYOND_THE_ENGINE)
@pytest.mark.parametrize("model", ["prose", "prose-native"])
def test_such_a_tool_can_be_chosen(server: RunningServer, model: str, kind: str) -> None:
    odd = function(name="odd", parameters=BEYOND_THE_ENGINE[kind])
    options = {"temperature": 0, "num_predict": 100, "num_thread": 1, "stop": ["\n"]}
    answer = chat(server, model, tools=[WEATHER, odd], tool_choice={"function": {"name": "odd"}}, options=options)
    (message,) = messages_of(answer)
    said = message["content"] or str(message["tool_calls"])
    assert '{"name": "odd", "arguments": {' in said or "'name': 'odd'" in said


@pytest.mark.parametrize("model", ["prose", "prose-native"])
def test_of_a_chosen_tool_is_enforced_what_can_be(server: RunningServer, model: str) -> None:
    parameters = {
        **properties(a={"$ref": "#/definitions/P"}, b={"type": "any", "enum": ["x"]}, c={"const": 1, "required": True}),
        "required": ["a", "b"],
        "definitions": {"P": {"enum": [7]}},
    }
    before = loosened(server)
    tools = [function(name="odd", parameters=parameters)]
    answer = chat(server, model, tools=tools, tool_choice="required", num_predict=100)
    (message,) = messages_of(answer)
    (call,) = message["tool_calls"]
    assert call["function"] == {"index": 0, "name": "odd", "arguments": {"a": 7, "b": "x", "c": 1}}
    assert answer.headers["x-corral-unenforced"] == "odd#/properties/b/type"
    assert loosened(server) == before + 1
    assert "the tools' odd#/properties/b/type is not enforced" in server.log.read_text()


def test_what_the_engine_cannot_express_is_said_to_the_model_and_counted(server: RunningServer) -> None:
    odd = function(name="odd", parameters=properties(when={"type": "date"}, where=LIST_OF_POINTS))
    before = loosened(server)
    shown = chat(server, "rain-native", tools=[odd, ADD, WEATHER], _debug_render_only=True)
    rendered = shown.json["_debug_info"]["rendered_template"]
    assert '{"when": {"type": "date"}, "where": {"type": "array", "items": {"$ref": "#/definitions/P"}}}' in rendered
    assert messages_of(chat(server, "rain-native", tools=[odd, ADD, WEATHER]))[0]["content"] == "Rain: ☂ tomorrow"
    assert loosened(server) == before + 1
    assert "arguments of odd are checked in part only: " in server.log.read_text()


def test_of_many_tools_each_that_the_engine_cannot_express_is_found(server: RunningServer) -> None:
    tools = [WEATHER, ADD]
    tools += [
        function(name=f"t{n}", parameters=properties(a={"type": "foo" if n % 5 == 3 else "string"})) for n in range(15)
    ]
    (message,) = messages_of(chat(server, "two-native", tools=tools))
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["get_weather", "add"]
    assert "arguments of t3, t8, t13 are checked in part only: " in server.log.read_text()


def test_a_conversation_that_is_refused_is_not_taken_for_the_fault_of_a_tool(server: RunningServer) -> None:
    messages = [{"role": "user", "content": "forbidden"}]
    answer = chat(server, "refusing", messages=messages, tools=[WEATHER])
    assert (answer.status, answer.error) == (400, "the model's template refuses the conversation: no weather here")


@pytest.mark.parametrize("model", ["rain", "rain-native"])
@pytest.mark.parametrize(("limit", "said"), [(1, "Rain: "), (2, "Rain: "), (3, "Rain: "), (4, "Rain: ☂")])
@pytest.mark.parametrize("stream", [False, True])
def test_half_a_character_at_the_limit_is_not_sent(
    server: RunningServer, model: str, limit: int, said: str, stream: bool
) -> None:
    answer = chat(server, model, num_predict=limit, stream=stream)
    assert "".join(message["content"] for message in messages_of(answer)) == said
    assert answer.lines[-1]["done_reason"] == "length"


def test_half_a_character_within_a_call_leaves_text(server: RunningServer) -> None:
    (message,) = messages_of(chat(server, "half", num_predict=4))
    assert message == {"role": "assistant", "content": '<tool_call>{"name": "add", "arguments": {"a": "'}
