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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    home = tmp_path_factory.mktemp("strict")
    with running_server(home) as server:
        for name, jinja in (("turns", TURNS), ("ids", IDS)):
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
