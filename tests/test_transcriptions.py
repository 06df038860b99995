"""Transcriptions over the fake engine: what reaches it, the answers byte for byte, and refusals (spec api §19)."""

import base64
import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.asking import Answer, ask
from tests.conftest import RunningServer, add_model
from tests.dialects import dialect_server, events, last_asked
from tests.forms import CONTENT_TYPE, form, part, tone
from tests.tiny_models import CHATML, tiny_ultravox
from tests.tool_templates import JINJA

PATH = "/v1/audio/transcriptions"
WAV = tone(440, seconds=0.01)
UNKNOWN_TIMES = 'cannot be given: the model writes words, without times; use "json" or "text"'
MODELS = ("hears", "hears-plain")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """With `hears`, which the engine renders, and `hears-plain`, which is rendered here."""
    work = tmp_path_factory.mktemp("transcriptions")
    with dialect_server(work) as server:
        for name, template in zip(MODELS, (JINJA, CHATML), strict=True):
            tiny_ultravox(work / f"{name}.gguf", work / "projector.gguf", chat_template=template)
            add_model(server.models, name, work / f"{name}.gguf", work / "projector.gguf")
        yield server


def send(server: RunningServer, body: bytes, content_type: str = CONTENT_TYPE) -> Answer:
    return ask(server, "POST", PATH, body, {"content-type": content_type})


def transcribe(server: RunningServer, *fields: tuple[str, str], model: str = "hears", file: bytes = WAV) -> Answer:
    texts = [part(name, text) for name, text in (("model", model), *fields)]
    return send(server, form([*texts, part("file", file, "speech.wav", "Content-Type: audio/wav\r\n")]))


def refusal(answer: Answer, status: int = 400, kind: str = "invalid_request_error") -> str:
    """The sentence of an error in OpenAI's envelope."""
    error = answer.json["error"]
    assert (answer.status, {**error, "message": ""}) == (
        status,
        {"message": "", "type": kind, "param": None, "code": None},
    )
    return str(error["message"])


@pytest.mark.parametrize("model", MODELS)
def test_json(server: RunningServer, model: str) -> None:
    answer = transcribe(server, ("prompt", "!say=%20Good|%20day.|%0A"), model=model)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    used = answer.json["usage"]["input_tokens"]
    usage = f'"usage":{{"type":"tokens","input_tokens":{used},"output_tokens":3,"total_tokens":{used + 3}}}'
    assert answer.body.decode() == f'{{"text":"Good day.",{usage}}}'
    assert used > 0


@pytest.mark.parametrize("model", MODELS)
def test_text(server: RunningServer, model: str) -> None:
    answer = transcribe(server, ("prompt", "!say=%20Grüß|%20Gott%0A"), ("response_format", "text"), model=model)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
    assert answer.body.decode() == "Grüß Gott"


@pytest.mark.parametrize("model", MODELS)
def test_a_stream(server: RunningServer, model: str) -> None:
    fields = (("prompt", "!say=%20|Good|%0A|%20day.|%20"), ("stream", "true"))
    answer = transcribe(server, *fields, model=model)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
    *deltas, (_, done) = events(answer.body)
    assert deltas == [
        ("", {"type": "transcript.text.delta", "delta": "Good"}),
        ("", {"type": "transcript.text.delta", "delta": "\n day."}),
    ]
    usage = done.pop("usage")
    assert done == {"type": "transcript.text.done", "text": "Good\n day."}
    assert (usage["type"], usage["output_tokens"]) == ("tokens", 5)


@pytest.mark.parametrize("stream", ["true", "false"])
def test_log_probabilities(server: RunningServer, stream: str) -> None:
    fields = (("prompt", "!say=Good|%20day"), ("include[]", "logprobs"), ("stream", stream))
    answer = transcribe(server, *fields)
    if stream == "true":
        *deltas, (_, done) = events(answer.body)
        assert [delta["logprobs"] for _, delta in deltas] == [[one] for one in done["logprobs"]]
    else:
        done = answer.json
    assert [(one["token"], bytes(one["bytes"])) for one in done["logprobs"]] == [("Good", b"Good"), (" day", b" day")]
    assert all(one["logprob"] <= 0 for one in done["logprobs"])


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("de", '\nThe language has the ISO 639 code "de".'),
        ("German", "\nThe language is German."),
        ("pt-BR", "\nThe language is pt-BR."),
        ("", ""),
    ],
)
def test_what_the_model_is_asked(server: RunningServer, language: str, said: str) -> None:
    transcribe(server, ("language", language), ("prompt", "!tokens=1 Corral"))
    asked = last_asked(server)
    system, user = asked["messages"]
    assert system == {
        "role": "system",
        "content": "Transcribe the speech in the recording, word for word and in the language that is spoken. "
        "Answer with the transcription alone: add no comment, no title and no translation."
        f"{said}\nNames and spelling may be as in this text, which may have come before: !tokens=1 Corral",
    }
    sound = {"data": base64.b64encode(WAV).decode(), "format": "wav"}
    assert user == {
        "role": "user",
        "content": [
            {"type": "text", "text": "Transcribe this recording."},
            {"type": "input_audio", "input_audio": sound},
        ],
    }
    assert asked["temperature"] == 0


def test_without_hints_nothing_is_said_of_them(server: RunningServer) -> None:
    transcribe(server, ("options", '{"num_predict": 1}'))
    system, _ = last_asked(server)["messages"]
    assert system["content"].endswith("add no comment, no title and no translation.")


def test_what_the_model_is_given(server: RunningServer) -> None:
    fields = (("prompt", "!tokens=1"), ("temperature", "0.5"), ("options", '{"num_predict": 7, "temperature": 1}'))
    assert transcribe(server, *fields, ("keep_alive", "1h")).status == 200
    asked = last_asked(server)
    assert (asked["temperature"], asked["max_tokens"]) == (0.5, 7)


@pytest.mark.parametrize("keep_alive", ["3600", "60m", "1h0m0s"])
def test_how_long_the_model_stays(server: RunningServer, keep_alive: str) -> None:
    transcribe(server, ("prompt", "!tokens=1"), ("keep_alive", keep_alive))
    loaded = {model["name"]: model["expires_at"] for model in ask(server, "GET", "/api/ps").json["models"]}
    assert "hears:latest" in loaded
    transcribe(server, ("prompt", "!tokens=1"), ("keep_alive", "-1"))
    forever = {model["name"]: model["expires_at"] for model in ask(server, "GET", "/api/ps").json["models"]}
    assert forever["hears:latest"] > loaded["hears:latest"]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"response_format": "verbose_json"},
            f'response_format "verbose_json" {UNKNOWN_TIMES}',
        ),
        (
            {"response_format": "srt"},
            f'response_format "srt" {UNKNOWN_TIMES}',
        ),
        (
            {"response_format": "vtt", "stream": "true"},
            f'response_format "vtt" {UNKNOWN_TIMES}',
        ),
        (
            {"response_format": "diarized_json"},
            f'response_format "diarized_json" {UNKNOWN_TIMES.replace("without", "without speakers and")}',
        ),
        ({"response_format": "xml"}, 'response_format is "xml", neither "json" nor "text"'),
        (
            {"timestamp_granularities[]": "word"},
            "timestamp_granularities cannot be given: the model writes words, without times",
        ),
        ({"temperature": "warm"}, 'temperature is "warm", no number between 0 and 2'),
        ({"temperature": "nan"}, 'temperature is "nan", no number between 0 and 2'),
        ({"temperature": "-1"}, 'temperature is "-1", no number between 0 and 2'),
        ({"stream": "maybe"}, 'stream is "maybe", neither true nor false'),
        ({"options": "[]"}, "options must be a JSON object"),
        ({"keep_alive": "soon"}, 'time: invalid duration "soon"'),
        ({"keep_alive": "nan"}, 'time: invalid duration "nan"'),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_done_as_asked(server: RunningServer, fields: dict[str, str], sentence: str) -> None:
    assert refusal(transcribe(server, *fields.items())) == sentence


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        (b"", "audio file is empty"),
        (
            b"\0\0\0\x20ftypM4A \0\0\0\0",
            'the file "speech.wav" is of the kind M4A, which is not read: send WAV, MP3 or FLAC',
        ),
        (
            b"OggS\0\x02" + bytes(50),
            'the file "speech.wav" is of the kind Ogg, which is not read: send WAV, MP3 or FLAC',
        ),
        (
            b"\x1aE\xdf\xa3" + bytes(50),
            'the file "speech.wav" is of the kind WebM, which is not read: send WAV, MP3 or FLAC',
        ),
        (b"hello", 'the file "speech.wav" is of a kind that is not read: send WAV, MP3 or FLAC'),
        (
            b"\x89PNG\r\n\x1a\n" + bytes(50),
            'the file "speech.wav" is of a kind that is not read: send WAV, MP3 or FLAC',
        ),
        (WAV[:40], "sound 1 cannot be used: a broken WAV"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_sound_to_read(server: RunningServer, file: bytes, sentence: str) -> None:
    assert refusal(transcribe(server, file=file)) == sentence


def test_what_has_to_be_there(server: RunningServer) -> None:
    file = part("file", WAV, "a.wav")
    assert refusal(send(server, form([file]))) == "model is required"
    assert refusal(send(server, form([file, part("model", " ")]))) == "model is required"
    assert refusal(send(server, form([part("model", "hears")]))) == "file is required: http: no such file"
    text = form([part("model", "hears"), part("file", "a.wav")])
    assert refusal(send(server, text)) == "file is required: http: no such file"


@pytest.mark.parametrize("stream", ["true", "false"])
@pytest.mark.parametrize("model", ["tiny", "plain", "bert"])
def test_a_model_that_does_not_hear_is_named(server: RunningServer, model: str, stream: str) -> None:
    assert refusal(transcribe(server, ("stream", stream), model=model)) == f'"{model}" does not support audio'


def test_a_model_that_is_not_there(server: RunningServer) -> None:
    assert refusal(transcribe(server, model="nope"), 404, "not_found_error") == "model 'nope' not found"


@pytest.mark.parametrize(
    ("body", "content_type", "sentence"),
    [
        (b"{}", "application/json", "request Content-Type isn't multipart/form-data"),
        (b"x", "multipart/form-data", "Content-Type names no boundary of 1 to 70 characters"),
        (b"x", CONTENT_TYPE, "it is broken at byte 0"),
        (b"", CONTENT_TYPE, "it ends before its last boundary"),
        (part("model", "hears"), CONTENT_TYPE, "it ends before its last boundary"),
    ],
)
def test_a_broken_form(server: RunningServer, body: bytes, content_type: str, sentence: str) -> None:
    assert refusal(send(server, body, content_type)) == f"failed to parse multipart form: {sentence}"


@pytest.mark.parametrize("length", [str((26 << 20) + 1), str(1 << 50)])
def test_a_form_that_is_too_large_is_refused_before_it_is_sent(server: RunningServer, length: str) -> None:
    connection = http.client.HTTPConnection(server.host, timeout=60)
    connection.putrequest("POST", PATH)
    connection.putheader("content-type", CONTENT_TYPE)
    connection.putheader("content-length", length)
    connection.endheaders(b"--")
    response = connection.getresponse()
    body: Any = json.load(response)
    connection.close()
    assert (response.status, body["error"]["message"]) == (413, f"request body is larger than {26 << 20} bytes")


def test_a_form_without_a_length_is_refused_once_it_is_too_large(server: RunningServer) -> None:
    connection = http.client.HTTPConnection(server.host, timeout=60)
    piece = bytes(1 << 20)

    def pieces() -> Iterator[bytes]:
        yield form([part("model", "hears")])[:-10]
        for _ in range(26):
            yield piece

    connection.request("POST", PATH, pieces(), {"content-type": CONTENT_TYPE}, encode_chunked=True)
    response = connection.getresponse()
    connection.close()
    assert response.status == 413


@pytest.mark.parametrize("model", MODELS)
def test_a_sound_of_25_mib_holds_up_nothing(server: RunningServer, model: str) -> None:
    """The loop is watched meanwhile, as in every test."""
    sound = tone(440, seconds=(25 << 20) / 32000 - 1)
    answer = transcribe(server, ("prompt", "!say=long"), file=sound, model=model)
    assert (answer.status, answer.json["text"]) == (200, "long")


def test_a_stream_that_fails_says_so(server: RunningServer) -> None:
    answer = transcribe(server, ("prompt", "!tokens=9 !error-after=2"), ("stream", "true"))
    *deltas, (_, last) = events(answer.body)
    assert answer.status == 200
    assert {delta["type"] for _, delta in deltas} == {"transcript.text.delta"}
    assert set(last) == {"error"}


def test_an_engine_that_dies_is_an_error_and_the_next_request_works(server: RunningServer) -> None:
    assert transcribe(server, ("prompt", "!crash")).status == 500
    assert transcribe(server, ("prompt", "!say=back")).json["text"] == "back"


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD"])
def test_only_posted_forms_are_read(server: RunningServer, method: str) -> None:
    assert ask(server, method, PATH).status == 405
