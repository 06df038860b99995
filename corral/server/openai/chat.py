"""Chat completions as OpenAI's API writes them, whole and streamed. Source: spec api §17.3, §17.4."""

import secrets
import time
from collections.abc import Sequence

from msgspec import UNSET, Struct, UnsetType

from corral.errors import CorralError
from corral.golang import gojson
from corral.messages import Chunk, Metrics, TokenLogprob, ToolCall
from corral.server.http.events import event
from corral.server.openai import errors

FINGERPRINT = "fp_ollama"


class Function(Struct):
    name: str
    arguments: str


class Call(Struct):
    id: str
    index: int
    type: str
    function: Function


class Answer(Struct, omit_defaults=True):
    """A message, or what a chunk adds to it. The order of fields is the contract."""

    role: str = ""
    content: str | UnsetType = UNSET
    reasoning: str = ""
    tool_calls: Sequence[Call] = ()


class Details(Struct, omit_defaults=True):
    cached_tokens: int = 0
    reasoning_tokens: int = 0


class Usage(Struct, omit_defaults=True):
    prompt_tokens: int | UnsetType
    completion_tokens: int | UnsetType
    total_tokens: int | UnsetType
    prompt_tokens_details: Details | UnsetType = UNSET
    completion_tokens_details: Details | UnsetType = UNSET


def usage(metrics: Sequence[Metrics]) -> Usage:
    """The tokens of all answers together; details only where there are any."""
    read = sum(one.prompt_eval_count for one in metrics)
    written = sum(one.eval_count for one in metrics)
    cached = sum(one.cached_tokens for one in metrics)
    thinking = sum(one.thinking_tokens for one in metrics)
    return Usage(
        read,
        written,
        read + written,
        Details(cached_tokens=cached) if cached else UNSET,
        Details(reasoning_tokens=thinking) if thinking else UNSET,
    )


def finish_reason(chunk: Chunk, has_calls: bool) -> str | None:
    """Why an answer ended; `tool_calls` instead of `stop` where tools were called."""
    if chunk.done_reason == "stop" and has_calls:
        return "tool_calls"
    return chunk.done_reason or None


def logprobs(items: Sequence[TokenLogprob]) -> dict[str, object]:
    """The log probabilities of a choice (spec api §5.9)."""
    return {"content": [_logprob(item) for item in items]}


def completion(model: str, wholes: Sequence[Chunk]) -> dict[str, object]:
    """The whole reply; `wholes` are the answers, one a choice."""
    choices = [_choice(number, whole) for number, whole in enumerate(wholes)]
    return reply(head("chatcmpl-", "chat.completion", model), choices, wholes)


def head(prefix: str, kind: str, model: str) -> dict[str, object]:
    """What replies and chunks of this kind begin with, under a new id."""
    return {
        "id": new_id(prefix),
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": FINGERPRINT,
    }


def reply(head: dict[str, object], choices: Sequence[object], wholes: Sequence[Chunk]) -> dict[str, object]:
    """A whole reply with its choices, and the usage of the answers they were made of."""
    return {**head, "choices": choices, "usage": usage([whole.metrics or Metrics() for whole in wholes])}


def new_id(prefix: str) -> str:
    return prefix + secrets.token_hex(12)


class ChatWriter:
    """The events of a streamed chat completion with `choices` answers."""

    def __init__(self, model: str, choices: int, *, include_usage: bool) -> None:
        self._head = head("chatcmpl-", "chat.completion.chunk", model)
        # What all chunks begin with, encoded once: `{"id":…,"choices":[{"index":`
        self._prefix = b"data: " + gojson.encode(self._head)[:-1] + b',"choices":['
        self._choices = [_Choice(number) for number in range(choices)]
        self._include_usage = include_usage

    def opening(self) -> bytes:
        return b""

    def waiting(self) -> bytes:
        return b": waiting\n\n"

    def chunk(self, number: int, chunk: Chunk) -> bytes:
        choice = self._choices[number]
        data = b"".join([self._prefix + step + b"]}\n\n" for step in choice.steps(chunk)])
        if all(one.metrics is not None for one in self._choices):
            data += self._ending()
        return data

    def failure(self, error: CorralError) -> bytes:
        return errors.line(error)

    def _ending(self) -> bytes:
        if not self._include_usage:
            return DONE
        total = usage([one.metrics or Metrics() for one in self._choices])
        return event({**self._head, "choices": [], "usage": total}) + DONE


DONE = b"data: [DONE]\n\n"
"""How a stream ends that went well."""


class _Step(Struct, omit_defaults=True):
    """A choice within a chunk."""

    index: int | UnsetType
    delta: Answer | UnsetType
    finish_reason: str | UnsetType | None
    logprobs: dict[str, object] | UnsetType = UNSET


class _Choice:
    """One answer of a stream."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._role = "assistant"
        self._calls = 0
        self.metrics: Metrics | None = None
        """There when the answer is complete."""

    def steps(self, chunk: Chunk) -> list[bytes]:
        """The choices that a chunk of the answer amounts to, each for a chunk of the stream.

        None has more than one call: the vendor writes them so, and some clients read only the first.
        """
        found = []
        calls = self._take(chunk.tool_calls)
        if chunk.thinking and (chunk.content or calls):
            found.append(self._step(Answer(self._take_role(), UNSET, chunk.thinking), None))
            found.append(self._step(Answer(content=chunk.content, tool_calls=calls[:1]), None))
        elif chunk.content or chunk.thinking or calls or chunk.logprobs or self._role:
            answer = Answer(self._take_role(), chunk.content, chunk.thinking, calls[:1])
            found.append(self._step(answer, chunk))
        found += [self._step(Answer(content="", tool_calls=(call,)), None) for call in calls[1:]]
        if chunk.done_reason:
            self.metrics = chunk.metrics or Metrics()
            reason = finish_reason(chunk, self._calls > 0)
            found.append(gojson.encode(_Step(self._number, Answer(), reason)))
        return found

    def _step(self, answer: Answer, chunk: Chunk | None) -> bytes:
        given = logprobs(chunk.logprobs) if chunk is not None and chunk.logprobs else UNSET
        return gojson.encode(_Step(self._number, answer, None, given))

    def _take_role(self) -> str:
        role, self._role = self._role, ""
        return role

    def _take(self, calls: Sequence[ToolCall]) -> tuple[Call, ...]:
        self._calls += len(calls)
        return tuple(_call(call) for call in calls)


def _choice(number: int, whole: Chunk) -> dict[str, object]:
    message = Answer("assistant", whole.content, whole.thinking, tuple(_call(call) for call in whole.tool_calls))
    choice = {
        "index": number,
        "message": message,
        "finish_reason": finish_reason(whole, bool(whole.tool_calls)),
    }
    return {**choice, "logprobs": logprobs(whole.logprobs)} if whole.logprobs else choice


def _call(call: ToolCall) -> Call:
    return Call(call.id, call.index, "function", Function(call.name, gojson.encode(call.arguments).decode()))


def _logprob(item: TokenLogprob) -> dict[str, object]:
    found: dict[str, object] = {"token": item.token, "logprob": item.logprob, "bytes": item.bytes}
    return {**found, "top_logprobs": [_logprob(other) for other in item.top]} if item.top else found
