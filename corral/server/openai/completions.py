"""Completions of a prompt as OpenAI's API writes them, whole and streamed. Source: spec api §17.5."""

import time
from collections.abc import Sequence

from corral.errors import CorralError
from corral.messages import Chunk, Metrics, TokenLogprob
from corral.server.http.events import event
from corral.server.openai import errors
from corral.server.openai.chat import DONE, FINGERPRINT, Usage, head, new_id, reply, usage


def completion(model: str, wholes: Sequence[Chunk]) -> dict[str, object]:
    """The whole reply; `wholes` are the answers, one a choice."""
    choices = [_choice(number, whole) for number, whole in enumerate(wholes)]
    return reply(head("cmpl-", "text_completion", model), choices, wholes)


class CompletionWriter:
    """The events of a streamed completion with `choices` answers."""

    def __init__(self, model: str, choices: int, *, include_usage: bool) -> None:
        self._id = new_id("cmpl-")
        self._model = model
        self._metrics: list[Metrics | None] = [None] * choices
        self._lengths = [0] * choices  # of the texts so far, for `text_offset`
        self._include_usage = include_usage

    def opening(self) -> bytes:
        return b""

    def waiting(self) -> bytes:
        return b": waiting\n\n"

    def chunk(self, number: int, chunk: Chunk) -> bytes:
        if chunk.done_reason:
            self._metrics[number] = chunk.metrics or Metrics()
        data = self._event([_choice(number, chunk, self._lengths[number])], Usage(0, 0, 0))
        self._lengths[number] += len(chunk.content)
        if all(one is not None for one in self._metrics):
            if self._include_usage:
                data += self._event([], usage([one for one in self._metrics if one is not None]))
            data += DONE
        return data

    def failure(self, error: CorralError) -> bytes:
        return errors.line(error)

    def _event(self, choices: Sequence[object], used: Usage) -> bytes:
        chunk: dict[str, object] = {
            "id": self._id,
            "object": "text_completion",
            "created": int(time.time()),
            "choices": choices,
            "model": self._model,
            "system_fingerprint": FINGERPRINT,
        }
        return event({**chunk, "usage": used} if self._include_usage else chunk)


def _choice(number: int, chunk: Chunk, offset: int = 0) -> dict[str, object]:
    choice: dict[str, object] = {"text": chunk.content, "index": number, "finish_reason": chunk.done_reason or None}
    return {**choice, "logprobs": _logprobs(chunk.logprobs, offset)} if chunk.logprobs else choice


def _logprobs(items: Sequence[TokenLogprob], offset: int) -> dict[str, object]:
    """The older form of log probabilities; `offset`: characters of the text before them."""
    offsets = []
    for item in items:
        offsets.append(offset)
        offset += len(item.token)
    return {
        "tokens": [item.token for item in items],
        "token_logprobs": [item.logprob for item in items],
        "top_logprobs": [{other.token: other.logprob for other in item.top} for item in items],
        "text_offset": offsets,
    }
