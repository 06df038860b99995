"""Sounds written down, as OpenAI's API has it: a form turned into a conversation, its answer, and the answer's events.

A model that hears gets an instruction and the sound, so what is asked for has to be what such a model can say: words,
and neither times nor who speaks. Source: spec api §19, OpenAI's API reference.
"""

import math
import re
from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct

from corral.errors import BadRequest, CorralError, ModelRequired
from corral.golang import gojson
from corral.golang.text import quote
from corral.media_kinds import SOUNDS, kind_of, other_sound
from corral.messages import ChatRequest, Chunk, Json, Message, Metrics, Sound, Text, TokenLogprob
from corral.server.http.events import event
from corral.server.http.forms import File, Form
from corral.server.http.keep_alive import read_keep_alive
from corral.server.openai import errors

MAX_FORM = 26 << 20
"""Bytes of a request: a sound of 25 MiB, as OpenAI takes it, and what is said of it."""

MAX_TEMPERATURE = 2.0


class Transcription(Struct, frozen=True):
    """What a form asks for. `format`: how the whole answer is written; a stream is written one way."""

    request: ChatRequest
    format: Literal["json", "text"]
    stream: bool


def transcription(form: Form) -> Transcription:
    """What a form asks for; `BadRequest` for what cannot be read, or not be answered truthfully."""
    model = form.text("model").strip()
    if not model:
        raise ModelRequired
    sound = _sound(form.files.get("file"))
    format = _format(form)
    request = ChatRequest(
        model=model,
        messages=(
            Message.of("system", _instruction(form.text("language").strip(), form.text("prompt").strip())),
            Message(role="user", content=(Text("Transcribe this recording."), sound)),
        ),
        options={**_options(form.text("options")), "temperature": _temperature(form.text("temperature"))},
        think=False,
        must_think=False,
        keep_alive=_keep_alive(form.text("keep_alive").strip()),
        logprobs="logprobs" in form.all_texts("include"),
    )
    return Transcription(request, format, _flag("stream", form.text("stream")))


def _sound(file: File | None) -> Sound:
    if file is None:
        raise BadRequest("file is required: http: no such file")
    if not file.data:
        raise BadRequest("audio file is empty")
    if kind_of(file.data) not in SOUNDS:
        kind = other_sound(file.data)
        what = f"is of the kind {kind}, which" if kind else "is of a kind that"
        raise BadRequest(f"the file {quote(file.name[:100])} {what} is not read: send WAV, MP3 or FLAC")
    return Sound(file.data)


def _format(form: Form) -> Literal["json", "text"]:
    """How the answer is to be written. A model that hears says words; whatever times were written would be made up."""
    if any(form.all_texts("timestamp_granularities")):
        raise BadRequest("timestamp_granularities cannot be given: the model writes words, without times")
    match form.text("response_format").strip().lower():
        case "" | "json":
            return "json"
        case "text":
            return "text"
        case "verbose_json" | "srt" | "vtt" | "diarized_json" as other:
            without = "speakers and times" if other == "diarized_json" else "times"
            why = f'the model writes words, without {without}; use "json" or "text"'
            raise BadRequest(f'response_format "{other}" cannot be given: {why}')
        case other:
            raise BadRequest(f'response_format is {quote(other[:100])}, neither "json" nor "text"')


def _instruction(language: str, prompt: str) -> str:
    """What the model is to do, in words that models know it by: their makers' examples begin with "transcribe"."""
    parts = [_VERBATIM]
    if language:
        is_code = len(language) <= 3 and language.isalpha()
        parts.append(f'The language has the ISO 639 code "{language}".' if is_code else f"The language is {language}.")
    if prompt:
        parts.append(f"Names and spelling may be as in this text, which may have come before: {prompt}")
    return "\n".join(parts)


_VERBATIM = (
    "Transcribe the speech in the recording, word for word and in the language that is spoken. Answer with the "
    "transcription alone: add no comment, no title and no translation."
)


def _temperature(text: str) -> float:
    try:
        value = float(text or "0")
    except ValueError:
        value = math.nan
    if not 0 <= value <= MAX_TEMPERATURE:
        raise BadRequest(f"temperature is {quote(text[:100])}, no number between 0 and {MAX_TEMPERATURE:g}")
    return value


def _options(text: str) -> dict[str, Json]:
    """Ollama's options, as JSON."""
    found = gojson.parse(text.encode()) if text.strip() else {}
    if not isinstance(found, dict):
        raise BadRequest("options must be a JSON object")
    return found


def _keep_alive(text: str) -> float | None:
    """Seconds, as a number or a duration."""
    return read_keep_alive(float(text) if _NUMBER.fullmatch(text) else text or None)


_NUMBER = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?")


def _flag(name: str, text: str) -> bool:
    match text.strip().lower():
        case "true" | "1":
            return True
        case "" | "false" | "0":
            return False
        case _:
            raise BadRequest(f"{name} is {quote(text[:100])}, neither true nor false")


def answer(whole: Chunk) -> dict[str, Any]:
    """The whole answer as JSON."""
    return {"text": whole.content.strip(), **_more(whole.logprobs), "usage": _usage(whole.metrics or Metrics())}


class TranscriptionWriter:
    """The events of a streamed answer: words as they come, without blanks around all of them, then the whole."""

    def __init__(self) -> None:
        self._text = ""
        self._blanks = ""  # held back, since nothing may follow them
        self._logprobs: list[TokenLogprob] = []

    def opening(self) -> bytes:
        return b""

    def waiting(self) -> bytes:
        return b": waiting\n\n"

    def chunk(self, number: int, chunk: Chunk) -> bytes:
        self._logprobs += chunk.logprobs
        delta = self._delta(chunk.content)
        data = b""
        if delta or chunk.logprobs:
            data = event({"type": "transcript.text.delta", "delta": delta, **_more(chunk.logprobs)})
        if chunk.done_reason:
            used = _usage(chunk.metrics or Metrics())
            data += event({"type": "transcript.text.done", "text": self._text, **_more(self._logprobs), "usage": used})
        return data

    def failure(self, error: CorralError) -> bytes:
        return errors.line(error)

    def _delta(self, content: str) -> str:
        come = self._blanks + content if self._text else content.lstrip()
        delta = come.rstrip()
        self._blanks = come[len(delta) :]
        self._text += delta
        return delta


def _more(logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
    """Log probabilities, where they were asked for."""
    found = [{"token": one.token, "logprob": one.logprob, "bytes": one.bytes} for one in logprobs]
    return {"logprobs": found} if found else {}


def _usage(metrics: Metrics) -> dict[str, Any]:
    read, written = metrics.prompt_eval_count, metrics.eval_count
    return {"type": "tokens", "input_tokens": read, "output_tokens": written, "total_tokens": read + written}
