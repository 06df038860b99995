"""What a stream says before its answer begins, to a client that asks for it: waiting, loading, reading the prompt."""

from typing import Any

import pytest

from corral.client import Client, answers
from corral.config.address import parse_address
from corral.messages import AnswerProgress, Message
from tests.asking import post, streaming, until
from tests.conftest import RunningServer
from tests.engines import engines, tell

LONG = "!tokens=2 " + " ".join(f"word{number}" for number in range(1899))
"""1900 tokens of the fake engine, which fit the models' context of 2048."""


def lines(server: RunningServer, path: str = "/api/generate", **fields: Any) -> list[Any]:
    """The lines of a streamed answer."""
    answer = post(server, path, {"model": "fake", "progress": True, **fields})
    assert answer.status == 200, answer.body
    return answer.lines


def messages(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def load(server: RunningServer, model: str = "fake") -> None:
    post(server, "/api/generate", {"model": model})


def test_nothing_is_said_unless_it_is_asked_for(fake_server: RunningServer) -> None:
    for path, fields in (("/api/generate", {"prompt": LONG}), ("/api/chat", {"messages": messages(LONG)})):
        answer = post(fake_server, path, {"model": "fake", **fields})
        assert len(answer.lines) == 3
        assert not any("progress" in line for line in answer.lines)
        whole = post(fake_server, path, {"model": "fake", "stream": False, "progress": True, **fields})
        assert "progress" not in whole.json, "an answer at once has no place for it"


def test_a_long_prompt_is_read_step_by_step(fake_server: RunningServer) -> None:
    load(fake_server)
    *said, first, second, last = lines(fake_server, prompt=LONG, raw=True)
    progress = [line["progress"] for line in said]
    assert [line["response"] for line in said] == [""] * len(said)
    assert [line["done"] for line in said] == [False] * len(said)
    assert progress[0] == {"stage": "reading", "completed": 0, "total": 1900, "cached": 0}
    assert progress[-1] == {"stage": "reading", "completed": 1900, "total": 1900, "cached": 0}
    assert [first["response"], second["response"]] == ["w1 ", "w2 "]
    assert "progress" not in first
    assert (last["done"], last["prompt_eval_count"]) == (True, 1900)


def test_what_was_found_in_the_cache_is_counted_apart(fake_server: RunningServer) -> None:
    lines(fake_server, prompt=LONG, raw=True)
    *_, last = [line["progress"] for line in lines(fake_server, prompt=LONG + " more", raw=True) if "progress" in line]
    assert last == {"stage": "reading", "completed": 1901, "total": 1901, "cached": 1900}


@pytest.mark.parametrize("model", ["fake", "native"])
def test_a_conversation_says_it_too_whoever_writes_its_prompt(fake_server: RunningServer, model: str) -> None:
    load(fake_server, model)
    found = lines(fake_server, "/api/chat", model=model, messages=messages(LONG))
    progress = [line["progress"] for line in found if "progress" in line]
    assert progress[0]["stage"] == progress[-1]["stage"] == "reading"
    assert progress[0]["completed"] == 0 < progress[-1]["completed"] == progress[-1]["total"]
    assert [line["message"]["content"] for line in found if "progress" not in line] == ["w1 ", "w2 ", ""]
    assert all(line["message"] == {"role": "assistant", "content": ""} for line in found if "progress" in line)


def test_nothing_is_said_of_a_second_pass_once_thoughts_have_come(fake_server: RunningServer) -> None:
    """An answer under a schema is written in two passes where the model thinks first; it is one answer all the same."""
    found = lines(fake_server, prompt="hello", format={"type": "object"})
    begun = [place for place, line in enumerate(found) if "progress" not in line]
    assert begun == list(range(begun[0], len(found)))


@pytest.mark.parametrize("prompt", ["", "hello"])
def test_a_load_is_said(fake_server: RunningServer, prompt: str) -> None:
    tell(fake_server.home, loads_when="loaded")
    with streaming(fake_server, "/api/generate", {"model": "fake", "prompt": prompt, "progress": True}) as stream:
        first = stream.line()
        assert first["progress"]["stage"] == "loading"
        assert 0 <= first["progress"]["completed"] <= first["progress"]["total"]
        assert (first["response"], first["done"]) == ("", False)
        (fake_server.home / "loaded").touch()
        rest = stream.rest()
    assert rest[-1]["done_reason"] == ("stop" if prompt else "load")


def test_a_model_that_is_there_is_answered_as_ever_when_it_is_loaded_again(fake_server: RunningServer) -> None:
    load(fake_server)
    answer = post(fake_server, "/api/generate", {"model": "fake", "progress": True})
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.json["done_reason"] == "load"


def test_a_request_that_waits_behind_others_says_behind_how_many(fake_server: RunningServer) -> None:
    tell(fake_server.home, loads_when="loaded")
    body = {"model": "fake", "prompt": "hello", "progress": True}
    with streaming(fake_server, "/api/generate", body) as loading:
        assert loading.line()["progress"]["stage"] == "loading"
        with streaming(fake_server, "/api/generate", {**body, "model": "native"}) as second:
            assert second.line()["progress"] == {"stage": "queued", "ahead": 0}
            (fake_server.home / "loaded").touch()
            assert second.rest()[-1]["done_reason"] == "stop"


def test_what_is_known_to_be_wrong_at_once_keeps_its_status(fake_server: RunningServer) -> None:
    assert post(fake_server, "/api/generate", {"model": "none", "prompt": "x", "progress": True}).status == 404
    assert (
        post(
            fake_server, "/api/chat", {"model": "fake", "messages": messages("x"), "tools": [{}], "progress": True}
        ).status
        == 400
    )
    assert post(fake_server, "/api/generate", {"model": "fake", "prompt": "x", "progress": "yes"}).status == 400


def test_a_load_that_fails_after_it_was_said_is_an_error_line(fake_server: RunningServer) -> None:
    tell(fake_server.home, loads_when="loaded", fails="error loading model: no such tensor")
    with streaming(fake_server, "/api/generate", {"model": "fake", "prompt": "x", "progress": True}) as stream:
        assert stream.line()["progress"]["stage"] == "loading"
        (fake_server.home / "loaded").touch()
        last = stream.rest()[-1]
    assert "no such tensor" in last["error"]


def test_a_client_that_leaves_during_a_load_ends_it(fake_server: RunningServer) -> None:
    tell(fake_server.home, loads_when="never")
    with streaming(fake_server, "/api/generate", {"model": "fake", "prompt": "x", "progress": True}) as stream:
        assert stream.line()["progress"]["stage"] == "loading"
        until(lambda: len(engines(fake_server.home)) == 1)
    (engine,) = engines(fake_server.home)
    engine.wait_for_end()


def test_what_headers_say_without_progress_is_said_in_the_first_line_of_the_answer(fake_server: RunningServer) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=x)"}}, "required": ["a"]}
    answer = post(fake_server, "/api/generate", {"model": "fake", "prompt": "x", "format": schema})
    said = answer.headers["x-corral-unenforced"]
    found = lines(fake_server, prompt="something new", format=schema)
    first = next(line for line in found if "progress" not in line)
    assert first["unenforced"]
    assert len(first["unenforced"]) == len(said.split(", "))


def test_our_client_reads_it(fake_server: RunningServer) -> None:
    client = Client(parse_address(fake_server.host))
    load(fake_server, "native")
    chatted = list(client.chat("native", [Message.of("user", LONG)], progress=True))
    generated = list(client.generate("fake", "!tokens=2 and more", progress=True))
    for chunks in (chatted, generated):
        progress = [chunk.progress for chunk in chunks if chunk.progress is not None]
        assert progress[-1].stage == "reading"
        assert 0 < progress[-1].completed == progress[-1].total
        assert [chunk.content for chunk in chunks if chunk.progress is None] == ["w1 ", "w2 ", ""]
    assert all(chunk.progress is None for chunk in client.generate("fake", "!tokens=2 and more"))


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ({"stage": "queued", "ahead": 3}, AnswerProgress("queued", ahead=3)),
        ({"stage": "loading", "completed": 5, "total": 9}, AnswerProgress("loading", 5, 9)),
        ({"stage": "reading", "completed": 50, "total": 9, "cached": 70}, AnswerProgress("reading", 9, 9, 9)),
        ({"stage": "reading", "completed": -1, "total": -1}, AnswerProgress("reading")),
        ({"stage": "dreaming"}, None),
        ({}, None),
    ],
)
def test_our_client_takes_from_any_server_what_makes_sense(said: dict[str, Any], read: AnswerProgress | None) -> None:
    assert answers.generated({"response": "", "done": False, "progress": said}).progress == read
