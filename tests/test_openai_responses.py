"""OpenAI's responses over the fake engine: events, what reaches the engine, what is kept (spec api §18)."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.asking import Answer, ask, post
from tests.conftest import RunningServer
from tests.dialects import DIED, dialect_server, events, filtered, last_asked


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with dialect_server(tmp_path_factory.mktemp("responses")) as server:
        yield server


def respond(server: RunningServer, given: Any, **more: Any) -> Answer:
    return post(server, "/v1/responses", {"model": "tiny", "input": given, **more})


SHELL = {
    "type": "function",
    "name": "shell",
    "description": "Runs",
    "strict": False,
    "parameters": {
        "type": "object",
        "properties": {"command": {"type": "array", "items": {"type": "string"}}},
        "required": ["command"],
        "additionalProperties": False,
    },
}
PATCH = {"type": "custom", "name": "apply_patch", "description": "Patch", "format": {"type": "grammar"}}


def test_streamed_reasoning_text_and_call(server: RunningServer) -> None:
    said = "!think=List. !say=Looking. !call=shell"
    answer = respond(
        server,
        [
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Read-only."}]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": said}]},
        ],
        instructions="You are Codex.",
        tools=[SHELL, PATCH, {"type": "web_search"}],
        tool_choice="auto",
        parallel_tool_calls=False,
        reasoning={"effort": "medium", "summary": "auto"},
        store=False,
        stream=True,
        include=["reasoning.encrypted_content"],
        prompt_cache_key="k1",
    )
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
    assert answer.headers["cache-control"] == "no-cache"
    lines = [line for line in filtered(answer.body).splitlines() if line.startswith("data: ")]
    text = '"annotations":[],"logprobs":[],"text":"Looking.","type":"output_text"'
    thought = '"summary":[{"text":"List.","type":"summary_text"}],"type":"reasoning"'
    assert lines[2:-1] == [
        (
            'data: {"item":{"id":"rs_N","summary":[],"type":"reasoning"},'
            '"output_index":0,"sequence_number":2,"type":"response.output_item.added"}'
        ),
        (
            'data: {"item_id":"rs_N","output_index":0,"part":{"text":"","type":"summary_text"},'
            '"sequence_number":3,"summary_index":0,"type":"response.reasoning_summary_part.added"}'
        ),
        (
            'data: {"delta":"List.","item_id":"rs_N","output_index":0,'
            '"sequence_number":4,"summary_index":0,"type":"response.reasoning_summary_text.delta"}'
        ),
        (
            'data: {"item_id":"rs_N","output_index":0,"sequence_number":5,"summary_index":0,"text":"List.",'
            '"type":"response.reasoning_summary_text.done"}'
        ),
        (
            'data: {"item_id":"rs_N","output_index":0,"part":{"text":"List.","type":"summary_text"},'
            '"sequence_number":6,"summary_index":0,"type":"response.reasoning_summary_part.done"}'
        ),
        (
            f'data: {{"item":{{"encrypted_content":"List.","id":"rs_N",{thought}}},'
            '"output_index":0,"sequence_number":7,"type":"response.output_item.done"}'
        ),
        (
            'data: {"item":{"content":[],"id":"msg_N","role":"assistant","status":"in_progress","type":"message"},'
            '"output_index":1,"sequence_number":8,"type":"response.output_item.added"}'
        ),
        (
            'data: {"content_index":0,"item_id":"msg_N","output_index":1,'
            '"part":{"annotations":[],"logprobs":[],"text":"","type":"output_text"},'
            '"sequence_number":9,"type":"response.content_part.added"}'
        ),
        (
            'data: {"content_index":0,"delta":"Looking.","item_id":"msg_N","logprobs":[],"output_index":1,'
            '"sequence_number":10,"type":"response.output_text.delta"}'
        ),
        (
            'data: {"content_index":0,"item_id":"msg_N","logprobs":[],"output_index":1,"sequence_number":11,'
            '"text":"Looking.","type":"response.output_text.done"}'
        ),
        (
            f'data: {{"content_index":0,"item_id":"msg_N","output_index":1,"part":{{{text}}},'
            '"sequence_number":12,"type":"response.content_part.done"}'
        ),
        (
            f'data: {{"item":{{"content":[{{{text}}}],"id":"msg_N","role":"assistant","status":"completed",'
            '"type":"message"},"output_index":1,"sequence_number":13,"type":"response.output_item.done"}'
        ),
        (
            'data: {"item":{"arguments":"","call_id":"call_fake","id":"fc_N","name":"shell","status":"in_progress",'
            '"type":"function_call"},"output_index":2,"sequence_number":14,"type":"response.output_item.added"}'
        ),
        (
            'data: {"delta":"{\\"city\\":\\"Oslo\\"}","item_id":"fc_N","output_index":2,"sequence_number":15,'
            '"type":"response.function_call_arguments.delta"}'
        ),
        (
            'data: {"arguments":"{\\"city\\":\\"Oslo\\"}","item_id":"fc_N","output_index":2,"sequence_number":16,'
            '"type":"response.function_call_arguments.done"}'
        ),
        (
            'data: {"item":{"arguments":"{\\"city\\":\\"Oslo\\"}","call_id":"call_fake","id":"fc_N","name":"shell",'
            '"status":"completed","type":"function_call"},"output_index":2,"sequence_number":17,'
            '"type":"response.output_item.done"}'
        ),
    ]
    found = events(answer.body)
    assert [name for name, _ in (*found[:2], found[-1])] == [
        "response.created",
        "response.in_progress",
        "response.completed",
    ]
    assert all(name == data["type"] for name, data in found)
    done = found[-1][1]["response"]
    assert [item["type"] for item in done["output"]] == ["reasoning", "message", "function_call"]
    assert done["usage"]["output_tokens_details"] == {"reasoning_tokens": 1}
    asked = last_asked(server)
    assert [(message["role"], message["content"]) for message in asked["messages"]] == [
        ("system", "You are Codex."),
        ("system", "Read-only."),
        ("user", said),
    ]
    assert asked["tools"][1]["function"]["parameters"]["properties"] == {"input": {"type": "string"}}
    assert [tool["function"]["name"] for tool in asked["tools"]] == ["shell", "apply_patch"]


def test_a_whole_response(server: RunningServer) -> None:
    answer = respond(server, "!say=Hi", text={"verbosity": "low"}, reasoning=None, temperature=0)
    assert filtered(answer.body) == (
        '{"id":"resp_N","object":"response","created_at":T,"completed_at":T,"status":"completed",'
        '"incomplete_details":null,"model":"tiny","previous_response_id":null,"instructions":null,'
        '"output":[{"id":"msg_N","type":"message","status":"completed","role":"assistant",'
        '"content":[{"type":"output_text","text":"Hi","annotations":[],"logprobs":[]}]}],"error":null,"tools":[],'
        '"tool_choice":"auto","truncation":"disabled","parallel_tool_calls":true,"text":{"format":{"type":"text"}},'
        '"top_p":1,"presence_penalty":0,"frequency_penalty":0,"top_logprobs":0,"temperature":0,"reasoning":null,'
        '"usage":{"input_tokens":1,"output_tokens":1,"total_tokens":2,"input_tokens_details":{"cached_tokens":0},'
        '"output_tokens_details":{"reasoning_tokens":0}},"max_output_tokens":null,"max_tool_calls":null,'
        '"store":false,"background":false,"service_tier":"default","metadata":{},"safety_identifier":null,'
        '"prompt_cache_key":null}'
    )


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_that_its_limit_cut_is_incomplete(server: RunningServer, stream: bool) -> None:
    answer = respond(server, "!tokens=9", max_output_tokens=2, stream=stream)
    response = events(answer.body)[-1][1]["response"] if stream else answer.json
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert response["output"][0]["status"] == "incomplete"


def test_the_turn_after_a_call_as_a_history(server: RunningServer) -> None:
    history = [
        {"role": "user", "content": "What is here?"},
        {"type": "item_reference", "id": "msg_forgotten"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": None, "encrypted_content": "List."},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Looking."}]},
        {"type": "function_call", "call_id": "call_1", "name": "shell", "arguments": '{"command":["ls"]}'},
        {"type": "custom_tool_call", "call_id": "call_2", "name": "apply_patch", "input": "+x"},
        {"type": "function_call_output", "call_id": "call_1", "output": [{"type": "input_text", "text": "a.txt"}]},
        {"type": "custom_tool_call_output", "call_id": "call_2", "output": "done"},
        {"role": "user", "content": [{"type": "input_text", "text": "Go on"}]},
    ]
    assert respond(server, history, tools=[]).status == 200
    messages = last_asked(server)["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "tool", "user"]
    assert (messages[1]["content"], messages[1]["reasoning_content"]) == ("Looking.", "List.")
    assert [call["function"] for call in messages[1]["tool_calls"]] == [
        {"name": "shell", "arguments": '{"command":["ls"]}'},
        {"name": "apply_patch", "arguments": '{"input":"+x"}'},
    ]
    assert [(message["content"], message["name"]) for message in messages[2:4]] == [
        ("a.txt", "shell"),
        ("done", "apply_patch"),
    ]


def test_a_tool_that_takes_a_text(server: RunningServer) -> None:
    """The fake engine's calls have other arguments, which come as they are."""
    answer = respond(server, "!say= !call=apply_patch", tools=[PATCH], stream=True)
    found = dict(events(answer.body))
    item = found["response.output_item.done"]["item"]
    assert (item["type"], item["name"], item["input"]) == ("custom_tool_call", "apply_patch", '{"city":"Oslo"}')
    assert item["id"].startswith("ctc_")
    assert found["response.custom_tool_call_input.done"]["input"] == item["input"]


def test_a_tool_in_a_namespace(server: RunningServer) -> None:
    """The model knows it by one name; to the client, its own name and the namespace's are two."""
    tools = [{"type": "namespace", "name": "files", "description": "Files", "tools": [SHELL, PATCH]}]
    kinds = {"shell": ("function_call", "arguments"), "apply_patch": ("custom_tool_call", "input")}
    for name, (kind, field) in kinds.items():
        answer = respond(server, f"!say= !call=files.{name}", tools=tools, stream=True)
        found = events(answer.body)
        assert [tool["function"]["name"] for tool in last_asked(server)["tools"]] == [
            "files.shell",
            "files.apply_patch",
        ]
        items = [data["item"] for event, data in found if event.startswith("response.output_item.")]
        assert [(item["type"], item["name"], item["namespace"]) for item in items] == [(kind, name, "files")] * 2
        assert items[-1][field] == '{"city":"Oslo"}'
        result = {"type": f"{kind}_output", "call_id": "call_fake", "output": "done"}
        respond(server, [{"role": "user", "content": "Go"}, items[-1], result], tools=tools)
        _, call, said = last_asked(server)["messages"]
        assert call["tool_calls"][0]["function"]["name"] == said["name"] == f"files.{name}"


def test_going_on_from_a_response(server: RunningServer) -> None:
    first = respond(server, "My name is Ada. !say=Hello", instructions="Be kind.").json
    second = respond(server, "Again? !say=Yes", previous_response_id=first["id"], stream=True)
    done = events(second.body)[-1][1]["response"]
    assert done["previous_response_id"] == first["id"]
    third = respond(server, "More", previous_response_id=done["id"])
    assert third.status == 200
    assert [(message["role"], message["content"]) for message in last_asked(server)["messages"]] == [
        ("user", "My name is Ada. !say=Hello"),
        ("assistant", "Hello"),
        ("user", "Again? !say=Yes"),
        ("assistant", "Yes"),
        ("user", "More"),
    ]


def test_items_can_be_referred_to(server: RunningServer) -> None:
    first = respond(server, "!say=Hello").json
    reference = {"type": "item_reference", "id": first["output"][0]["id"]}
    respond(server, [{"role": "user", "content": "Hi"}, reference, {"role": "user", "content": "More"}])
    assert [message["content"] for message in last_asked(server)["messages"]] == ["Hi", "Hello", "More"]


def test_a_kept_response_is_shown_and_deleted(server: RunningServer) -> None:
    made = respond(server, "!say=Hello").json
    path = f"/v1/responses/{made['id']}"
    assert ask(server, "GET", path).json == made
    items = ask(server, "GET", f"{path}/input_items").json
    assert items["data"] == [{"type": "message", "role": "user", "content": "!say=Hello"}]
    assert ask(server, "DELETE", path).json == {"id": made["id"], "object": "response", "deleted": True}
    assert ask(server, "GET", path).status == 404
    gone = respond(server, "More", previous_response_id=made["id"])
    assert (gone.status, gone.json["error"]["code"]) == (400, "previous_response_not_found")


def test_what_is_not_to_be_stored_is_not(server: RunningServer) -> None:
    made = respond(server, "!say=Hello", store=False).json
    assert ask(server, "GET", f"/v1/responses/{made['id']}").status == 404


@pytest.mark.parametrize("response_id", ["x", "resp_..", "resp_" + "0" * 24, "resp_" + "g" * 24])
def test_ids_that_lead_nowhere(server: RunningServer, response_id: str) -> None:
    for method in ("GET", "DELETE"):
        assert ask(server, method, f"/v1/responses/{response_id}").status == 404
    assert respond(server, "x", previous_response_id=response_id).status == 400


def test_an_engine_that_dies_fails_the_response(server: RunningServer) -> None:
    found = events(respond(server, "!say=Looking.|more !crash-after=1", stream=True).body)
    assert [name for name, _ in found][-2:] == ["response.output_text.delta", "response.failed"]
    failed = found[-1][1]["response"]
    assert (failed["status"], failed["output"]) == ("failed", [])
    assert failed["error"].pop("message").startswith(DIED)
    assert failed["error"] == {"code": "server_error"}
    assert found[-1][1]["sequence_number"] == len(found) - 1
    early = respond(server, "!crash", stream=True)
    assert (early.status, early.json["error"]["type"]) == (500, "api_error")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "input is required"),
        (5, "input must be a string or array: it is a number"),
        ([5], "input[0]: an item must be an object, not a number"),
        ([{}], "input[0]: input item missing required 'type' field"),
        ([{"type": "banana"}], 'input[0]: unknown input item type: "banana"'),
        ([{"role": "user", "content": [{"type": "x"}]}], "input[0]: content[0]: unknown content type: x"),
        ([{"role": "user", "content": [{"type": "input_file"}]}], "file inputs are not currently supported"),
        ([{"role": "user", "content": 5}], "input[0]: content must be a string or array: it is a number"),
        ([{"type": "function_call", "arguments": "{"}], "invalid tool call arguments"),
        (
            [{"role": "user", "content": [{"type": "input_image", "image_url": "https://x/y.png"}]}],
            "image URLs are not currently supported, please use base64 encoded data instead",
        ),
    ],
)
def test_input_that_cannot_be_read(server: RunningServer, given: Any, message: str) -> None:
    answer = respond(server, given)
    assert answer.status == 400
    assert answer.json["error"] == {
        "message": message,
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }
