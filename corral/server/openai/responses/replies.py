"""The object of a response, as OpenAI's API writes it. Source: spec api §18.2."""

import time
from typing import Any

from msgspec import Struct

from corral.messages import Chunk, Metrics
from corral.server.openai.responses.items import Item
from corral.server.openai.responses.wire import CalledTool, WireResponseRequest


class Echo(Struct, frozen=True, kw_only=True):
    """What of a request stands in its response, and how its parts are named."""

    id: str
    """24 hexadecimal digits, which the ids of all its items have."""
    created: int
    asked: WireResponseRequest
    tools: dict[str, CalledTool]
    """How its calls are written, by the names under which the model knows them."""


def response(echo: Echo, status: str, output: list[Item], **changes: Any) -> dict[str, Any]:
    """The response, in its order of fields; `changes` are those that are not as at the beginning."""
    asked, raw = echo.asked, echo.asked.whole
    reasoning = raw.get("reasoning")
    shown_reasoning = (
        {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")}
        if isinstance(reasoning, dict)
        else None
    )
    text = raw.get("text")
    text_format = text.get("format") if isinstance(text, dict) else None
    return {
        "id": f"resp_{echo.id}",
        "object": "response",
        "created_at": echo.created,
        "completed_at": None,
        "status": status,
        "incomplete_details": None,
        "model": asked.model,
        "previous_response_id": asked.previous_response_id or None,
        "instructions": asked.instructions or None,
        "output": output,
        "error": None,
        "tools": raw.get("tools") or [],
        "tool_choice": raw.get("tool_choice") or "auto",
        "truncation": raw.get("truncation") or "disabled",
        "parallel_tool_calls": raw.get("parallel_tool_calls") is not False,
        "text": {"format": text_format or {"type": "text"}},
        "top_p": 1 if asked.top_p is None else raw.get("top_p", asked.top_p),
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "top_logprobs": 0,
        "temperature": 1 if asked.temperature is None else raw.get("temperature", asked.temperature),
        "reasoning": shown_reasoning,
        "usage": None,
        "max_output_tokens": asked.max_output_tokens,
        "max_tool_calls": None,
        "store": bool(asked.store),
        "background": bool(raw.get("background")),
        "service_tier": "default",
        "metadata": raw.get("metadata") or {},
        "safety_identifier": None,
        "prompt_cache_key": raw.get("prompt_cache_key"),
        **changes,
    }


def finished(echo: Echo, output: list[Item], last: Chunk) -> dict[str, Any]:
    """The response to an answer whose last chunk this is. It is incomplete where the request's own limit cut it."""
    is_cut = last.done_reason == "length" and echo.asked.max_output_tokens is not None
    return response(
        echo,
        "incomplete" if is_cut else "completed",
        output,
        completed_at=int(time.time()),
        incomplete_details={"reason": "max_output_tokens"} if is_cut else None,
        usage=_usage(last.metrics or Metrics()),
    )


def _usage(metrics: Metrics) -> dict[str, Any]:
    return {
        "input_tokens": metrics.prompt_eval_count,
        "output_tokens": metrics.eval_count,
        "total_tokens": metrics.prompt_eval_count + metrics.eval_count,
        "input_tokens_details": {"cached_tokens": metrics.cached_tokens},
        "output_tokens_details": {"reasoning_tokens": metrics.thinking_tokens},
    }
