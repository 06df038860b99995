"""Sounds through the server, heard by real models: which, how many, where they stand; refused where nobody can hear."""

import base64
import math
from collections.abc import Iterator
from typing import Any

import pytest

from tests.asking import Answer, ask, post
from tests.conftest import RunningServer, add_model, running_server
from tests.dialects import events
from tests.forms import CONTENT_TYPE, form, part, tone
from tests.tiny_models import CHATML, tiny_llava, tiny_ultravox

JINJA = "{% for message in messages %}[{{ message.role }}] {{ message.content }}\n{% endfor %}[assistant] "
"""A template that only the engine can run."""

MODELS = ("hears", "hears-native")
LOW, HIGH = tone(440), tone(2500)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with models that hear, one rendered here and one by the engine, and one that only sees."""
    home = tmp_path_factory.mktemp("sounds")
    tiny_ultravox(home / "hears.gguf", home / "projector.gguf", chat_template=CHATML)
    tiny_ultravox(home / "native.gguf", home / "projector.gguf", chat_template=JINJA)
    tiny_llava(home / "sees.gguf", home / "sees-projector.gguf", chat_template=CHATML)
    with running_server(home, OLLAMA_MAX_LOADED_MODELS="4") as server:
        add_model(server.models, "hears", home / "hears.gguf", home / "projector.gguf")
        add_model(server.models, "hears-native", home / "native.gguf", home / "projector.gguf")
        add_model(server.models, "sees", home / "sees.gguf", home / "sees-projector.gguf")
        yield server


def chat(server: RunningServer, model: str, *sounds: bytes, **more: Any) -> Answer:
    """What a model says of sounds on OpenAI's route."""
    content: list[dict[str, Any]] = [{"type": "text", "text": "what is this"}]
    for sound in sounds:
        kind = "mp3" if sound.startswith(b"ID3") else "wav"
        given = {"data": base64.b64encode(sound).decode(), "format": kind}
        content.append({"type": "input_audio", "input_audio": given})
    body = {"model": model, "temperature": 0, "max_tokens": 2, "logprobs": True, "top_logprobs": 20, **more}
    return post(server, "/v1/chat/completions", {**body, "messages": [{"role": "user", "content": content}]})


def heard(answer: Answer) -> tuple[dict[str, float], int]:
    """Log probabilities of what may be said first, and the prompt's length."""
    assert answer.status == 200, answer.body
    first = answer.json["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    return {entry["token"]: entry["logprob"] for entry in first}, answer.json["usage"]["prompt_tokens"]


def apart(one: tuple[dict[str, float], int], other: tuple[dict[str, float], int]) -> float:
    """How far two answers' probabilities are from each other, at most 1."""
    tokens = one[0].keys() | other[0].keys()
    return max(abs(math.exp(one[0].get(token, -99)) - math.exp(other[0].get(token, -99))) for token in tokens)


def transcribe(server: RunningServer, model: str, sound: bytes, *fields: tuple[str, str]) -> Answer:
    texts = (("model", model), ("options", '{"num_predict": 4, "num_thread": 1}'), *fields)
    body = form([part("file", sound, "speech.wav"), *(part(*field) for field in texts)])
    return ask(server, "POST", "/v1/audio/transcriptions", body, {"content-type": CONTENT_TYPE})


@pytest.mark.parametrize("model", MODELS)
def test_what_a_model_says_depends_on_the_sound(server: RunningServer, model: str) -> None:
    low, again, high = (heard(chat(server, model, sound)) for sound in (LOW, LOW, HIGH))
    silent = heard(chat(server, model))
    assert apart(low, again) < 0.02
    assert apart(low, high) > 0.1
    assert low[1] == high[1] > silent[1] + 300


@pytest.mark.parametrize("model", MODELS)
def test_the_order_of_sounds_counts(server: RunningServer, model: str) -> None:
    one, other = heard(chat(server, model, LOW, HIGH)), heard(chat(server, model, HIGH, LOW))
    assert apart(one, other) > 0.1
    assert one[1] == other[1]


@pytest.mark.parametrize("model", MODELS)
def test_the_native_api_hears_the_same(server: RunningServer, model: str) -> None:
    images = [base64.b64encode(LOW).decode()]
    turns = [{"role": "user", "content": "what is this", "images": images}]
    options = {"temperature": 0, "num_predict": 2, "top_p": 1.0}
    body = {"model": model, "messages": turns, "stream": False, "logprobs": True, "top_logprobs": 20}
    answer = post(server, "/api/chat", {**body, "options": options})
    assert answer.status == 200, answer.body
    entries = answer.json["logprobs"][0]["top_logprobs"]
    native = {entry["token"]: entry["logprob"] for entry in entries}, answer.json["prompt_eval_count"]
    assert apart(native, heard(chat(server, model, LOW))) < 0.02


@pytest.mark.parametrize("model", MODELS)
def test_recordings_are_transcribed(server: RunningServer, model: str) -> None:
    low, again, high = (transcribe(server, model, sound) for sound in (LOW, LOW, HIGH))
    assert low.json == again.json
    assert low.json["text"] != high.json["text"]
    assert low.json["usage"]["input_tokens"] > 400
    assert low.json["usage"]["output_tokens"] == 4
    assert transcribe(server, model, LOW, ("response_format", "text")).body.decode() == low.json["text"]


@pytest.mark.parametrize("model", MODELS)
def test_a_stream_says_the_same(server: RunningServer, model: str) -> None:
    whole = transcribe(server, model, HIGH, ("include[]", "logprobs")).json
    streamed = transcribe(server, model, HIGH, ("include[]", "logprobs"), ("stream", "true"))
    *deltas, (_, done) = events(streamed.body)
    assert "".join(delta["delta"] for _, delta in deltas) == done["text"] == whole["text"]
    assert done["usage"] == whole["usage"]
    assert [one["token"] for one in done["logprobs"]] == [one["token"] for one in whole["logprobs"]]


@pytest.mark.parametrize("model", MODELS)
def test_hints_change_what_the_model_reads(server: RunningServer, model: str) -> None:
    plain = transcribe(server, model, LOW).json["usage"]["input_tokens"]
    with_language = transcribe(server, model, LOW, ("language", "de")).json["usage"]["input_tokens"]
    with_both = transcribe(server, model, LOW, ("language", "de"), ("prompt", "Corral")).json["usage"]["input_tokens"]
    assert plain < with_language < with_both


@pytest.mark.parametrize("model", MODELS)
def test_a_recording_that_does_not_fit_the_context_is_refused(server: RunningServer, model: str) -> None:
    answer = transcribe(server, model, tone(440, seconds=200))
    assert answer.status == 400
    assert answer.json["error"]["message"].endswith(
        "exceeds the available context size (2048 tokens), try increasing it"
    )
    assert transcribe(server, model, LOW).status == 200


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "sound",
    [
        b"ID3\x04" + bytes(40),
        b"\xff\xfb\x90\x64" + bytes(range(256)) * 9,
        b"fLaC\x80\0\0\x22" + b"\x10\0\x10\0" + bytes(6) + (16000 << 44 | 15 << 36 | 16000).to_bytes(8) + bytes(90),
        LOW[:46],
        tone(440, seconds=0.01),
    ],
    ids=["no MP3", "a broken MP3", "a broken FLAC", "a WAV of one sample", "a hundredth"],
)
def test_broken_sounds_do_no_harm(server: RunningServer, model: str, sound: bytes) -> None:
    assert transcribe(server, model, sound).status in (200, 400)
    assert chat(server, model, sound).status in (200, 400)
    assert transcribe(server, model, LOW).status == 200
    assert "stopped" not in server.log.read_text("utf-8", "replace")


@pytest.mark.parametrize("model", ["sees"])
def test_who_sees_need_not_hear(server: RunningServer, model: str) -> None:
    refused = transcribe(server, model, LOW)
    assert (refused.status, refused.json["error"]["message"]) == (400, '"sees" does not support audio')
    assert post(server, "/api/show", {"model": model}).json["capabilities"] == ["completion", "vision"]
    assert "audio" in post(server, "/api/show", {"model": "hears"}).json["capabilities"]
