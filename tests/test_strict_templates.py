"""Templates that refuse conversations as clients send them: they get it in a form they accept, through the server."""

from collections.abc import Iterator
from typing import Any

import pytest

from corral.messages import Message, ToolCall
from corral.template.turns import alternating_turns
from tests.asking import Answer, post
from tests.conftest import RunningServer, add_model, running_server
from tests.tiny_models import tiny_llama
from tests.tool_templates import WEATHER

TURNS = """{%- for message in messages %}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}
{{- '[' + message.role + ']' + message.content + '[/' + message.role + ']' }}{% endfor %}"""
"""As Gemma's and Llama 2's do."""

ONE_SYSTEM = """{%- for message in messages %}
{%- if message.role == 'system' and not loop.first %}
{{- raise_exception('System message must be at the beginning.') }}{% endif %}
{{- '[' + message.role + ']' + message.content }}{% endfor %}"""
"""As Qwen 3.5's does."""

SYSTEM_AND_TURNS = """{%- if messages[0].role == 'system' %}{{- '[system]' + messages[0].content }}{% endif %}
{%- for message in messages[1:] if messages[0].role == 'system' else messages %}
{%- if message.role == 'system' or (message.role == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}
{{- '[' + message.role + ']' + message.content }}{% endfor %}"""
"""As Gemma 3's does."""

ONLY_THE_FIRST = """{%- for message in messages %}
{%- if message.role == 'user' %}{{- '[user]' }}
{{- messages[0].content + '|' if messages[0].role == 'system' and loop.last }}{{- message.content }}
{%- elif message.role == 'assistant' %}{{ '[assistant]' + message.content }}{% endif %}{% endfor %}"""
"""As Mistral's do: further system texts are left out without a word."""

NO_SYSTEM = """{%- for message in messages %}{%- if message.role in ['user', 'assistant'] %}
{{- '[' + message.role + ']' + message.content }}{% endif %}{% endfor %}"""
"""As those of small and old models do; the engine puts a system text in front of the question after it."""

RESPELT = """{%- for message in messages %}
{{- '[' + message.role + ']' }}
{{- message.content | tojson if message.role == 'system' else message.content }}{% endfor %}"""

IDS = """{%- if tools %}{{ tools | tojson }}{% endif %}
{%- for message in messages %}
{%- if message.tool_calls %}
{%- for call in message.tool_calls %}
{%- if call.id is not defined or call.id | length != 9 %}
{{- raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}{% endif %}
{{- '[CALL ' + call.id + ']' + call.function.name }}{% endfor %}
{%- elif message.role == 'tool' %}
{%- if message.tool_call_id is not defined or message.tool_call_id | length != 9 %}
{{- raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}{% endif %}
{{- '[RESULT ' + message.tool_call_id + ']' + message.content }}
{%- else %}{{ '[' + message.role + ']' + message.content }}{% endif %}{% endfor %}"""
"""As Mistral's do."""

TYPES = """{%- for tool in tools or [] %}{{- '[' + tool.function.name }}
{%- for name, part in tool.function.parameters.properties.items() %}
{{- ' ' + name + ':' + ('number' if part.type in ['integer', 'number'] else part.type) }}
{{- '?' if part.nullable }}{% endfor %}{{- ']' }}{% endfor %}
{%- for message in messages %}{{- '[' + message.role + ']' + message.content }}
{{- wonder() if message.content == 'fail' }}
{%- if message.content == 'no' %}{{ raise_exception('not that') }}{% endif %}{% endfor %}"""
"""As those of gpt-oss and Gemma 4 in the manner in which they look at types."""

TYPES_AND_TURNS = """{%- for tool in tools or [] %}{% for name, part in tool.function.parameters.properties.items() %}
{{- '[' + name + ':' + ('number' if part.type in ['integer', 'number'] else part.type) + ']' }}{% endfor %}{% endfor %}
""" + TURNS.lstrip()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    home = tmp_path_factory.mktemp("strict")
    with running_server(home) as server:
        templates = {"turns": TURNS, "ids": IDS, "one-system": ONE_SYSTEM, "system-and-turns": SYSTEM_AND_TURNS}
        templates |= {"only-the-first": ONLY_THE_FIRST, "no-system": NO_SYSTEM, "respelt": RESPELT}
        templates |= {"types": TYPES, "types-and-turns": TYPES_AND_TURNS}
        for name, jinja in templates.items():
            add_model(server.models, name, tiny_llama(home / f"{name}.gguf", chat_template=jinja))
        yield server


def chat(server: RunningServer, model: str, messages: list[Any], **more: Any) -> Answer:
    options = {"num_predict": 1, "num_thread": 1, "temperature": 0}
    asked = {"model": model, "messages": messages, "stream": False, "options": options, **more}
    return post(server, "/api/chat", asked)


def shown(server: RunningServer, model: str, messages: list[Any], **more: Any) -> str:
    answer = chat(server, model, messages, _debug_render_only=True, **more)
    assert answer.status == 200, answer.body
    return str(answer.json["_debug_info"]["rendered_template"])


def said(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def test_neighbours_are_joined_where_turns_have_to_be_taken(server: RunningServer) -> None:
    messages = [said("user", "One."), said("user", ""), said("user", "Two.")]
    messages += [said("assistant", "A."), said("assistant", "B."), said("user", "Three.")]
    expected = "[user]One.\n\nTwo.[/user][assistant]A.\n\nB.[/assistant][user]Three.[/user]"
    assert shown(server, "turns", messages) == expected
    assert chat(server, "turns", messages).status == 200
    assert shown(server, "ids", messages) == "[user]One.[user][user]Two.[assistant]A.[assistant]B.[user]Three."


def test_a_late_system_text_is_part_of_its_question_where_turns_have_to_be_taken(server: RunningServer) -> None:
    messages = [said("user", "One."), said("assistant", "A."), said("system", "Be brief."), said("user", "Two.")]
    expected = "[user]One.[/user][assistant]A.[/assistant][user]Be brief.\n\nTwo.[/user]"
    assert shown(server, "turns", messages) == expected
    assert shown(server, "ids", messages) == "[user]One.[assistant]A.[system]Be brief.[user]Two."


@pytest.mark.parametrize("model", ["one-system", "system-and-turns"])
@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (
            [said("user", "One."), said("assistant", "A."), said("system", "Be brief."), said("user", "Two.")],
            "[system]Be brief.[user]One.[assistant]A.[user]Two.",
        ),
        (
            [said("system", "Be kind."), said("user", "One."), said("system", "Be brief.")],
            "[system]Be kind.\n\nBe brief.[user]One.",
        ),
        (
            [said("system", "Be kind."), said("system", "Be brief."), said("user", "One."), said("developer", "Now.")],
            "[system]Be kind.\n\nBe brief.\n\nNow.[user]One.",
        ),
        (
            [said("user", "One."), said("assistant", "A."), said("system", "Be brief.")],
            "[user]One.[assistant]A.[user]Be brief.",
        ),
    ],
)
def test_late_system_texts_join_the_first_where_the_template_takes_one(
    server: RunningServer, model: str, messages: list[Any], expected: str
) -> None:
    assert shown(server, model, messages) == expected
    assert chat(server, model, messages).status == 200


KIND, BRIEF = said("system", "Be kind."), said("system", "Be brief.")
ONE, TWO, A = said("user", "One."), said("user", "Two."), said("assistant", "A.")


@pytest.mark.parametrize(
    ("model", "messages", "expected"),
    [
        ("only-the-first", [KIND, ONE], "[user]Be kind.|One."),
        ("only-the-first", [KIND, ONE, A, BRIEF, TWO], "[user]One.[assistant]A.[user]Be kind.\n\nBe brief.|Two."),
        ("only-the-first", [KIND, BRIEF, ONE], "[user]Be kind.\n\nBe brief.|One."),
        ("only-the-first", [ONE, A, BRIEF, TWO], "[user]One.[assistant]A.[user]Be brief.|Two."),
        ("only-the-first", [ONE, A, BRIEF], "[user]One.[assistant]A.[user]Be brief."),
        ("only-the-first", [KIND], "[user]Be kind."),
        ("no-system", [KIND, ONE, A, BRIEF, TWO], "[user]Be kind.\nOne.[assistant]A.[user]Be brief.\n\nTwo."),
        ("turns", [KIND, ONE, A, TWO], "[user]Be kind.\nOne.[/user][assistant]A.[/assistant][user]Two.[/user]"),
        ("respelt", [said("system", 'Say "a".'), ONE, A, BRIEF, TWO],
         '[system]"Say \\"a\\"."[user]One.[assistant]A.[system]"Be brief."[user]Two.'),
        ("only-the-first", [said("system", " "), ONE], "[user] |One."),
    ],
)  # fmt: skip
def test_no_system_text_is_left_out(server: RunningServer, model: str, messages: list[Any], expected: str) -> None:
    assert shown(server, model, messages) == expected
    assert chat(server, model, messages).status == 200


def test_texts_may_come_in_parts(server: RunningServer) -> None:
    parts = [{"type": "text", "text": "One "}, "and", {"type": "input_text", "text": " two."}]
    for content, expected in ((parts, "One and two."), ([], ""), (None, ""), ([{"type": "text", "text": ""}], "")):
        messages = [said("user", "Hi"), said("assistant", "A."), {"role": "user", "content": content}]
        assert shown(server, "ids", messages) == f"[user]Hi[assistant]A.[user]{expected}"
        assert chat(server, "ids", messages).status == 200
    unknown: list[Any] = [[{"type": "image_url", "image_url": {"url": "x"}}], [7], [None], [{"text": "a"}], [[]]]
    for bad in unknown:
        answer = chat(server, "ids", [{"role": "user", "content": bad}])
        assert answer.status == 400
        assert answer.error.startswith("json: cannot unmarshal array into Go struct field ChatRequest.messages.content")


@pytest.mark.parametrize("penalty", [0, -1, -0.5, 1e-300, 1e30, 0.0])
def test_no_penalty_for_repetition_is_an_engines_error(server: RunningServer, penalty: float) -> None:
    options = {"repeat_penalty": penalty, "repeat_last_n": 0, "num_predict": 2, "num_thread": 1}
    assert chat(server, "ids", [said("user", "One.")], options=options).status == 200
    assert chat(server, "ids", [said("user", "One.")], options={**options, "repeat_last_n": 64}).status == 200


@pytest.mark.parametrize("number", ["", "call_a3jfo5mi", "x" * 32])
@pytest.mark.parametrize("has_id", [False, True])
def test_calls_get_ids_of_nine_letters_where_they_have_to(server: RunningServer, number: str, has_id: bool) -> None:
    call = {"function": {"name": "get_weather", "arguments": {"city": "Oslo"}}, **({"id": number} if number else {})}
    result = {"tool_name": "get_weather", **({"tool_call_id": number} if has_id and number else {})}
    messages = [said("user", "W?"), said("assistant", "", tool_calls=[call]), said("tool", "12", **result)]
    prompt = shown(server, "ids", messages, tools=[WEATHER])
    _, _, conversation = prompt.partition("[user]")
    short = conversation.partition("[CALL ")[2][:9]
    assert conversation == f"W?[CALL {short}]get_weather[RESULT {short}]12"
    assert short.isalnum()
    assert shown(server, "ids", [*messages, said("user", "And?")], tools=[WEATHER]).startswith(prompt)
    assert chat(server, "ids", messages, tools=[WEATHER]).status == 200


def test_ids_that_fit_are_kept(server: RunningServer) -> None:
    call = {"id": "abc123XYZ", "function": {"name": "f", "arguments": {}}}
    messages = [said("user", "W?"), said("assistant", "", tool_calls=[call])]
    messages.append(said("tool", "12", tool_call_id="abc123XYZ"))
    assert shown(server, "ids", messages) == "[user]W?[CALL abc123XYZ]f[RESULT abc123XYZ]12"


def test_results_without_ids_go_to_the_calls_of_their_names() -> None:
    calls = tuple(ToolCall(name, index=index) for index, name in enumerate(("add", "clock", "add")))
    results = [Message.of("tool", name, tool_name=name) for name in ("clock", "add", "add", "")]
    call, *answers = alternating_turns([Message.of("assistant", tool_calls=calls), *results])
    first, second, third = (call.id for call in call.tool_calls)
    assert len({first, second, third}) == 3
    assert [answer.tool_call_id for answer in answers[:3]] == [second, first, third]
    assert len(answers[3].tool_call_id) == 9


def test_what_is_refused_in_any_form_is_refused_in_the_templates_words(server: RunningServer) -> None:
    answer = chat(server, "turns", [said("assistant", "A."), said("user", "One.")])
    refusal = "the model's template refuses the conversation: Conversation roles must alternate user/assistant/user/"
    assert (answer.status, answer.error.startswith(refusal)) == (400, True)


def tool(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties}
    return {"type": "function", "function": {"name": name, "description": "d", "parameters": parameters}}


TYPELESS = {
    "no type": ({"description": "d"}, "any"),
    "nothing": ({}, "any"),
    "several types": ({"type": ["integer", "null"]}, "number?"),
    "alternatives": ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "string?"),
    "values": ({"enum": ["a", "b"]}, "string"),
    "a reference": ({"$ref": "#/$defs/p"}, "any"),
    "a reference to nothing": ({"items": {"$ref": "#/nowhere"}}, "array"),
    "a type that nothing is known of": ({"type": ["date", "time"]}, "date"),
}


@pytest.mark.parametrize("kind", TYPELESS)
def test_a_template_that_wants_one_type_for_every_property_is_shown_one(server: RunningServer, kind: str) -> None:
    schema, expected = TYPELESS[kind]
    tools = [tool("first", a=schema, b={"type": "integer"}), WEATHER]
    prompt = f"[first a:{expected} b:number][get_weather city:string days:number][user]Hi"
    assert shown(server, "types", [said("user", "Hi")], tools=tools) == prompt
    answer = chat(server, "types", [said("user", "Hi")], tools=tools)
    assert (answer.status, answer.json["message"]["role"]) == (200, "assistant")


def test_a_template_may_want_turns_and_types(server: RunningServer) -> None:
    messages = [said("user", "One."), said("user", "Two.")]
    assert shown(server, "types-and-turns", messages, tools=[tool("first", a={})]) == "[a:any][user]One.\n\nTwo.[/user]"


def test_only_what_the_template_is_shown_is_changed(server: RunningServer) -> None:
    """A forced call must fit the definition that the request gave."""
    options = {"temperature": 0, "num_predict": 60, "num_thread": 1}
    tools = [tool("first", a={"anyOf": [{"type": "integer", "enum": [7]}, {"type": "null"}]})]
    tools[0]["function"]["parameters"]["required"] = ["a"]
    answer = chat(server, "types", [said("user", "Hi")], tools=tools, tool_choice="required", options=options)
    (call,) = answer.json["message"]["tool_calls"]
    assert call["function"]["arguments"]["a"] in (7, None)
    assert "x-corral-unenforced" not in answer.headers


@pytest.mark.parametrize("tools", [[], [WEATHER], [tool("first", a={})]])
def test_a_template_that_fails_whatever_the_tools_says_why(server: RunningServer, tools: list[Any]) -> None:
    failed = chat(server, "types", [said("user", "fail")], tools=tools)
    assert failed.status >= 400
    assert failed.error.startswith("the model's template fails at the conversation: ")
    assert "\n" not in failed.error
    refused = chat(server, "types", [said("user", "no")], tools=tools)
    assert (refused.status, refused.error) == (400, "the model's template refuses the conversation: not that")
