"""Messages as Anthropic's API writes them, whole and streamed. Source: spec api §20.3, §20.4."""

import secrets
from typing import Literal, TypeAlias

from msgspec import Struct

from corral.errors import CorralError
from corral.golang import gojson
from corral.messages import Chunk, Metrics, ToolCall
from corral.server.anthropic import errors
from corral.server.http.events import event

Kind: TypeAlias = Literal["thinking", "text"]


def message(model: str, whole: Chunk, *, with_cache: bool) -> dict[str, object]:
    """The whole reply. `with_cache`: the usage says what was found in the prompt cache."""
    content: list[dict[str, object]] = []
    if whole.thinking:
        content.append({"type": "thinking", "thinking": whole.thinking, "signature": ""})
    if whole.content:
        content.append({"type": "text", "text": whole.content})
    content += [{**_call_head(call), "input": call.arguments} for call in whole.tool_calls]
    return {
        **_head(model),
        "content": content,
        **_stop(whole, bool(whole.tool_calls)),
        "usage": _usage(whole.metrics or Metrics(), with_cache=with_cache),
    }


def _head(model: str) -> dict[str, object]:
    return {"id": f"msg_{secrets.token_hex(12)}", "type": "message", "role": "assistant", "model": model}


def _call_head(call: ToolCall) -> dict[str, object]:
    return {"type": "tool_use", "id": call.id, "name": call.name}


def _stop(last: Chunk, has_calls: bool) -> dict[str, object]:
    """Why the answer ended, and at which of the stop sequences."""
    if has_calls:
        return {"stop_reason": "tool_use", "stop_sequence": None}
    if last.stop_text:
        return {"stop_reason": "stop_sequence", "stop_sequence": last.stop_text}
    reason = {"stop": "end_turn", "length": "max_tokens"}.get(last.done_reason, last.done_reason or None)
    return {"stop_reason": reason, "stop_sequence": None}


def _usage(metrics: Metrics, *, with_cache: bool) -> dict[str, int]:
    """Tokens read and written. Those found in the cache are not among the input's, where they are shown."""
    cached = metrics.cached_tokens if with_cache else 0
    usage = {"input_tokens": metrics.prompt_eval_count - cached, "output_tokens": metrics.eval_count}
    return {**usage, "cache_creation_input_tokens": 0, "cache_read_input_tokens": cached} if cached else usage


class MessageWriter:
    """The events of a streamed message. `estimate`: tokens of the prompt, until they are known."""

    def __init__(self, model: str, estimate: int, *, with_cache: bool) -> None:
        self._model = model
        self._estimate = estimate
        self._with_cache = with_cache
        self._has_begun = False
        self._index = 0
        """Of the block that is open, or of the next one."""
        self._open: Kind | None = None
        self._has_calls = False

    def opening(self) -> bytes:
        return b""

    def waiting(self) -> bytes:
        return self._begin(self._estimate) + event({"type": "ping"}, "ping")

    def chunk(self, number: int, chunk: Chunk) -> bytes:
        data = self._begin(chunk.prompt_tokens or self._estimate)
        if chunk.thinking:
            data += self._text("thinking", chunk.thinking)
        if chunk.content:
            data += self._text("text", chunk.content)
        for call in chunk.tool_calls:
            data += self._call(call)
        return data + self._end(chunk) if chunk.done_reason else data

    def failure(self, error: CorralError) -> bytes:
        return errors.line(error)

    def _begin(self, input_tokens: int) -> bytes:
        if self._has_begun:
            return b""
        self._has_begun = True
        started = {
            **_head(self._model),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": input_tokens, "output_tokens": 0},
        }
        return event({"type": "message_start", "message": started}, "message_start")

    def _text(self, kind: Kind, text: str) -> bytes:
        if self._open == kind:
            return self._delta(kind, text)
        block: dict[str, object] = {"type": kind, kind: "", **({"signature": ""} if kind == "thinking" else {})}
        data = self._close() + self._start(block)
        self._open = kind
        return data + self._delta(kind, text)

    def _call(self, call: ToolCall) -> bytes:
        self._has_calls = True
        data = self._close() + self._start({**_call_head(call), "input": {}})
        arguments = gojson.encode(call.arguments).decode()
        delta = {"type": "input_json_delta", "partial_json": arguments}
        data += event({"type": "content_block_delta", "index": self._index, "delta": delta}, "content_block_delta")
        return data + self._stop_block()

    def _start(self, block: dict[str, object]) -> bytes:
        started = {"type": "content_block_start", "index": self._index, "content_block": block}
        return event(started, "content_block_start")

    def _delta(self, kind: Kind, text: str) -> bytes:
        return event(_Delta("content_block_delta", self._index, {"type": f"{kind}_delta", kind: text}), _DELTA)

    def _close(self) -> bytes:
        """Ends the block that is open, if one is."""
        return b"" if self._open is None else self._stop_block()

    def _stop_block(self) -> bytes:
        data = event({"type": "content_block_stop", "index": self._index}, "content_block_stop")
        self._index += 1
        self._open = None
        return data

    def _end(self, last: Chunk) -> bytes:
        usage = _usage(last.metrics or Metrics(), with_cache=self._with_cache)
        ended = {"type": "message_delta", "delta": _stop(last, self._has_calls), "usage": usage}
        return self._close() + event(ended, "message_delta") + event({"type": "message_stop"}, "message_stop")


class _Delta(Struct):
    type: str
    index: int
    delta: dict[str, str]


_DELTA = "content_block_delta"
