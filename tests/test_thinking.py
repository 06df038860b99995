"""Thinking on, off and by level, through the server and the real engine: separated, refused, in a format after.

The models are speakers: what they say is known, word for word.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.asking import Answer, post
from tests.conftest import RunningServer, add_model, running_server
from tests.speakers import speaker

GOLDENS = Path(__file__).parent / "goldens"

GO = """{{- range .Messages }}<|im_start|>{{ .Role }}
{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
{{ if .ThinkLevel }}effort: {{ .ThinkLevel }}
{{ end }}{{ if and .IsThinkSet (not .Think) }}<think></think>
{{ end }}"""

OPEN = GO.removesuffix("{{ end }}") + "{{ else }}<think>\n{{ end }}"
"""One whose prompt ends within the thought."""

ALWAYS = "{{ .Tools }}" + GO.partition("{{ if .ThinkLevel }}")[0] + "<think>\n"
"""One whose prompt ends within a thought whether it is wanted or not, as that of DeepSeek R1."""

HARMONY = """{{- range .Messages }}<|start|>{{ .Role }}<|message|>{{ .Content }}<|end|>{{ end }}
{{- if .ThinkLevel }}Reasoning: {{ .ThinkLevel }}{{ end }}<|start|>assistant"""

JINJA = """{%- for message in messages %}<|im_start|>{{ message.role }}
{% if message.reasoning_content %}<think>
{{ message.reasoning_content }}
</think>

{% endif %}{{ message.content }}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think>

</think>

{% endif %}{% endif %}"""

JINJA_ALWAYS = """{%- if tools %}{{ tools | tojson }}{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content.split('</think>')[-1] }}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}"""

THOUGHT = ("<think>", "\nLet me", " see.", "</think>", "\n\nIt is", " four.")
HARMONY_THOUGHT = (
    *("<|channel|>", "analysis", "<|message|>", "Let me", " see."),
    *("<|end|><|start|>assistant<|channel|>final<|message|>", "It is", " four."),
)
HARMONY_CALL = (
    *("<|channel|>", "analysis", "<|message|>", "Let me", " see."),
    *("<|end|><|start|>assistant<|channel|>commentary<|message|>", "I look", " it up."),
    *("<|end|><|start|>assistant<|channel|>commentary to=functions.", "get_weather"),
    *(" <|constrain|>json<|message|>", '{"city": ', '"Oslo"}', "<|call|>"),
)
SAYINGS: dict[str, tuple[str, tuple[str, ...]]] = {
    "go": (GO, THOUGHT),
    "open": (OPEN, THOUGHT[1:]),
    "always": (ALWAYS, THOUGHT[1:]),
    "closed": (GO, THOUGHT[:4]),
    "endless": (GO, THOUGHT[:3]),
    "hasty": (GO, ("It is", " four.")),
    "harmony": (
        HARMONY,
        HARMONY_THOUGHT,
    ),
    "harmony-tools": (
        (GOLDENS / "templates" / "gpt-oss.gotmpl").read_text(),
        HARMONY_CALL,
    ),
    "native": ("", THOUGHT),
    "native-always": ("", THOUGHT[1:]),
    "native-harmony": ("", HARMONY_THOUGHT),
    "native-harmony-tools": ("", HARMONY_CALL),
    "native-harmony-plain": ("", ("It is", " four.")),
    "native-harmony-unknown": ("", ("to=functions.nope<|message|>", '{"city": "Oslo"}')),
}
MARKS = dict.fromkeys(("<|channel|>", "<|message|>"), "control")

MODELS = ("go", "open", "harmony", "native")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    home = tmp_path_factory.mktemp("thinking")
    with running_server(home) as server:
        for name, (template, pieces) in SAYINGS.items():
            own = JINJA_ALWAYS if "always" in name else JINJA
            own = (GOLDENS / "native" / "gpt-oss.jinja").read_text() if "harmony" in name else own
            jinja = None if template else own
            file = speaker(home / f"{name}.gguf", *pieces, chat_template=jinja, special=MARKS)
            add_model(server.models, name if jinja else f"{name}-plain", file)
            if template:
                made: dict[str, Any] = {"model": name, "from": f"{name}-plain", "template": template, "stream": False}
                if name.startswith("harmony"):
                    made["info"] = {"model_family": "gptoss"}
                assert post(server, "/api/create", made).json == {"status": "success"}
        yield server


def ask(server: RunningServer, model: str, *, route: str = "/api/chat", **more: Any) -> Answer:
    options = {"temperature": 0, "num_predict": 60, "num_thread": 1, **more.pop("options", {})}
    question = {"prompt": "2+2"} if route == "/api/generate" else {"messages": [{"role": "user", "content": "2+2"}]}
    return post(server, route, {"model": model, "stream": False, "options": options, **question, **more})


def said(answer: Answer) -> tuple[str, str]:
    """Thoughts and content of an answer, streamed or not."""
    assert answer.status == 200, answer.body
    parts = [line.get("message", line) for line in answer.lines]
    content = "".join(part.get("content", part.get("response", "")) for part in parts)
    return "".join(part.get("thinking", "") for part in parts), content


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("route", ["/api/chat", "/api/generate"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("think", [None, True])
def test_thoughts_are_separated(
    server: RunningServer, model: str, route: str, stream: bool, think: bool | None
) -> None:
    answer = ask(server, model, route=route, stream=stream, think=think)
    assert said(answer) == ("Let me see.", "It is four.")
    assert answer.lines[-1]["done_reason"] == "stop"


@pytest.mark.parametrize("model", MODELS)
def test_no_line_of_a_stream_has_thoughts_and_content(server: RunningServer, model: str) -> None:
    messages = [line["message"] for line in ask(server, model, stream=True).lines]
    assert not [message for message in messages if message["content"] and message.get("thinking")]
    assert len([message for message in messages if message.get("thinking")]) >= 2


WEATHER = {
    "type": "function",
    "function": {
        "name": "get-weather",
        "parameters": {"type": "object", "properties": {"city": {"enum": ["Oslo"]}}, "required": ["city"]},
    },
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("think", [None, "low", False])
def test_harmony_thinks_calls_and_says_so_in_channels(server: RunningServer, stream: bool, think: Any) -> None:
    """The model knows the tool by an identifier; its call comes back under the tool's name."""
    answer = ask(server, "harmony-tools", stream=stream, think=think, tools=[WEATHER])
    parts = [line["message"] for line in answer.lines]
    assert said(answer) == ("Let me see.", "I look it up.")
    (call,) = [call for part in parts for call in part.get("tool_calls", [])]
    assert call["function"] == {"index": 0, "name": "get-weather", "arguments": {"city": "Oslo"}}
    shown = ask(server, "harmony-tools", tools=[WEATHER], _debug_render_only=True).json["_debug_info"]
    assert "type get_weather = (_: {" in shown["rendered_template"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "thoughts", "content", "calls"),
    [
        ("native-harmony", "Let me see.", "It is four.", []),
        ("native-harmony-tools", "Let me see.", "I look it up.", ["get-weather"]),
        ("native-harmony-plain", "", "It is four.", []),
        ("native-harmony-unknown", "", 'to=functions.nope<|message|>{"city": "Oslo"}', []),
    ],
)
def test_nothing_that_harmony_says_is_lost_with_the_models_own_template(
    server: RunningServer, model: str, thoughts: str, content: str, calls: list[str], stream: bool
) -> None:
    answer = ask(server, model, stream=stream, tools=[WEATHER])
    assert said(answer) == (thoughts, content)
    parts = [line["message"] for line in answer.lines]
    assert [call["function"]["name"] for part in parts for call in part.get("tool_calls", [])] == calls


def test_harmony_is_made_to_call(server: RunningServer) -> None:
    answer = ask(server, "harmony-tools", tools=[WEATHER], tool_choice="required")
    (call,) = answer.json["message"]["tool_calls"]
    assert call["function"] == {"index": 0, "name": "get-weather", "arguments": {"city": "Oslo"}}


@pytest.mark.parametrize("model", ["go", "harmony"])
def test_thoughts_that_were_not_asked_for_are_no_content(server: RunningServer, model: str) -> None:
    assert said(ask(server, model, think=False)) == ("Let me see.", "It is four.")


def test_the_prompt_tells_whether_to_think(server: RunningServer) -> None:
    prompts = {
        think: ask(server, "go", think=think, _debug_render_only=True).json["_debug_info"]["rendered_template"]
        for think in (None, True, False, "low", "medium", "high", "max")
    }
    start = "<|im_start|>user\n2+2<|im_end|>\n<|im_start|>assistant\n"
    expected = {None: "effort: medium", True: "effort: medium", False: "<think></think>"}
    levels = {level: f"effort: {level}" for level in ("low", "medium", "high", "max")}
    assert prompts == {think: f"{start}{line}\n" for think, line in (*expected.items(), *levels.items())}


def test_harmony_knows_three_levels(server: RunningServer) -> None:
    prompts = {
        think: ask(server, "harmony", think=think, _debug_render_only=True).json["_debug_info"]["rendered_template"]
        for think in ("low", "max")
    }
    start = "<|start|>user<|message|>2+2<|end|>Reasoning: {}<|start|>assistant"
    assert prompts == {"low": start.format("low"), "max": start.format("high")}


def test_the_models_own_template_learns_whether_to_think(server: RunningServer) -> None:
    start = "<|im_start|>user\n2+2<|im_end|>\n<|im_start|>assistant\n"
    rendered = [
        ask(server, "native", think=think, _debug_render_only=True).json["_debug_info"]["rendered_template"]
        for think in (True, False)
    ]
    assert rendered == [start, f"{start}<think>\n\n</think>\n\n"]


@pytest.mark.parametrize("model", ["go", "native"])
def test_earlier_thoughts_are_in_the_prompt(server: RunningServer, model: str) -> None:
    turns = [
        {"role": "user", "content": "1+1"},
        {"role": "assistant", "content": "Two.", "thinking": "Easy."},
        {"role": "user", "content": "2+2"},
    ]
    shown = ask(server, model, messages=turns, _debug_render_only=True).json["_debug_info"]["rendered_template"]
    assert "<think>" in shown
    assert shown.index("Easy.") < shown.index("</think>") < shown.index("Two.")


@pytest.mark.parametrize("think", [True, "high"])
@pytest.mark.parametrize("route", ["/api/chat", "/api/generate"])
def test_a_model_without_thoughts_refuses_to_think(server: RunningServer, route: str, think: Any) -> None:
    answer = ask(server, "go-plain", route=route, think=think)
    assert (answer.status, answer.json) == (400, {"error": '"go-plain" does not support thinking'})
    assert said(ask(server, "go-plain", route=route, think=False))[0] == ""


@pytest.mark.parametrize(
    ("think", "reason"),
    [
        ("huge", 'invalid think value: "huge" (must be "high", "medium", "low", "max", true, or false)'),
        (1, 'think must be a boolean or string ("high", "medium", "low", "max", true, or false)'),
    ],
)
def test_another_level_is_refused(server: RunningServer, think: Any, reason: str) -> None:
    answer = ask(server, "go", think=think)
    assert (answer.status, answer.json) == (400, {"error": reason})


FOUR = {
    "type": "object",
    "properties": {"sum": {"const": 4}},
    "required": ["sum"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("model", [*MODELS, "closed", "endless", "hasty"])
@pytest.mark.parametrize("route", ["/api/chat", "/api/generate"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_model_thinks_freely_before_it_keeps_to_a_format(
    server: RunningServer, model: str, route: str, stream: bool
) -> None:
    """Also where it would end after its thoughts, does not close them, or does not think at all."""
    answer = ask(server, model, route=route, stream=stream, format=FOUR)
    assert said(answer) == ("" if model == "hasty" else "Let me see.", '{"sum": 4}')
    assert answer.lines[-1]["done_reason"] == "stop"
    assert sum(line["done"] for line in answer.lines) == 1


@pytest.mark.parametrize("model", MODELS)
def test_without_thoughts_a_format_holds_from_the_start(server: RunningServer, model: str) -> None:
    answer = ask(server, model, format=FOUR, think=False)
    assert json.loads(said(answer)[1]) == {"sum": 4}


@pytest.mark.parametrize("model", ["always", "native-always"])
@pytest.mark.parametrize("route", ["/api/chat", "/api/generate"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("form", [FOUR, "json"], ids=["schema", "json"])
def test_a_prompt_that_opens_a_thought_keeps_to_a_format_without_one(
    server: RunningServer, model: str, route: str, stream: bool, form: Any
) -> None:
    answer = ask(server, model, route=route, stream=stream, format=form, think=False, options={"num_predict": 20})
    thoughts, content = said(answer)
    assert (thoughts, content[:1]) == ("", "{")
    assert form == "json" or json.loads(content) == {"sum": 4}
    thoughts, content = said(ask(server, model, route=route, stream=stream, format=FOUR))
    assert (thoughts, json.loads(content)) == ("Let me see.", {"sum": 4})


@pytest.mark.parametrize("model", ["always", "native-always"])
def test_such_a_prompt_closes_the_thought_only_before_what_is_constrained(server: RunningServer, model: str) -> None:
    def end_of_prompt(**more: Any) -> str:
        shown = ask(server, model, _debug_render_only=True, **more).json["_debug_info"]["rendered_template"]
        return str(shown.rpartition("assistant\n")[2])

    assert end_of_prompt(format=FOUR, think=False) == "<think>\n\n</think>\n\n"
    assert end_of_prompt(tools=[WEATHER], tool_choice="required") == "<think>\n\n</think>\n\n"
    assert end_of_prompt(format=FOUR) == end_of_prompt(think=False) == "<think>\n"


def test_such_a_conversation_goes_on_with_its_context(server: RunningServer) -> None:
    first = ask(server, "always", route="/api/generate", format=FOUR, think=False).json
    answer = ask(server, "always", route="/api/generate", format=FOUR, think=False, context=first["context"])
    assert said(answer) == ("", '{"sum": 4}')


@pytest.mark.parametrize("model", MODELS)
def test_thoughts_may_use_up_the_limit(server: RunningServer, model: str) -> None:
    answer = ask(server, model, format=FOUR, options={"num_predict": 2})
    assert (said(answer)[1], answer.json["done_reason"]) == ("", "length")
