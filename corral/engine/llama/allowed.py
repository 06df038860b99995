"""What may be sent to llama-server: by path, every field by its name, and the bounds of every value.

The last gate before the engine, which trusts its clients: a field that it would read and nobody here meant to send, a
number without end or a list without bound does not pass. What the fields mean is said in `wire` and `client`; values
are bounded where they are made (`inference/plan.py`), so that nothing is refused here unless something is wrong there.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from corral.errors import EngineRefused

MAX_INT = (1 << 31) - 1
MAX_SEED = (1 << 32) - 1
MAX_TEMPERATURE = 1000.0
MAX_TOP_K = 1 << 20
MAX_PENALTY = 100.0
MAX_STOPS, MAX_STOP_CHARACTERS = 256, 1 << 16
MAX_BIASED = 1024
MAX_GRAMMAR = 16 << 20
MAX_LISTED = 1 << 16

Check: TypeAlias = Callable[[Any], bool]
"""Whether a value may pass."""


def _number(low: float, high: float) -> Check:
    def check(value: Any) -> bool:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and math.isfinite(value) and low <= value <= high

    return check


def _integer(low: int, high: int) -> Check:
    return lambda value: type(value) is int and low <= value <= high


def _text(most: int = 1 << 30) -> Check:
    return lambda value: isinstance(value, str) and len(value) <= most


def _one_of(*values: Any) -> Check:
    return lambda value: value in values


def _texts(most: int, characters: int = 1 << 30) -> Check:
    def check(value: Any) -> bool:
        if not isinstance(value, list | tuple) or len(value) > most:
            return False
        return all(isinstance(item, str) for item in value) and sum(map(len, value)) <= characters

    return check


def _members(fields: Mapping[str, Check]) -> Check:
    return lambda value: (
        isinstance(value, dict) and all(name in fields and fields[name](one) for name, one in value.items())
    )


def _tokens(value: Any) -> bool:
    if not isinstance(value, list) or not set(map(type, value)) <= {int}:
        return False
    return not value or (min(value) >= 0 and max(value) <= MAX_INT)


def _continued(value: Any) -> bool:
    """A text and the tokens that the model has written behind it."""
    return isinstance(value, list) and len(value) > 1 and isinstance(value[0], str) and _tokens(value[1:])


def _bias(value: Any) -> bool:
    token, added = _integer(0, MAX_INT), _number(-100.0, 100.0)
    pairs = isinstance(value, list | tuple) and len(value) <= MAX_BIASED
    return pairs and all(len(pair) == 2 and token(pair[0]) and added(pair[1]) for pair in value)


def _list(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= MAX_LISTED


def _object(value: Any) -> bool:
    return isinstance(value, dict | bool)  # `true` and `false` are schemas, too


_SWITCH = _one_of(True, False)

_SAMPLING: dict[str, Check] = {
    "temperature": _number(0.0, MAX_TEMPERATURE),
    "top_k": _integer(0, MAX_TOP_K),
    "top_p": _number(0.0, 1.0),
    "min_p": _number(0.0, 1.0),
    "typical_p": _number(0.0, 1.0),
    "repeat_last_n": _integer(0, MAX_INT),
    "repeat_penalty": _number(0.01, MAX_PENALTY),
    "presence_penalty": _number(-MAX_PENALTY, MAX_PENALTY),
    "frequency_penalty": _number(-MAX_PENALTY, MAX_PENALTY),
    "seed": _integer(0, MAX_SEED),
    "logit_bias": _bias,
    "cache_prompt": _SWITCH,
    "n_keep": _integer(-1, MAX_INT),
    "return_progress": _SWITCH,
    "stream": _SWITCH,
}
_MEDIA = _members({"prompt_string": _text(), "multimodal_data": _texts(MAX_LISTED)})

_CHAT: dict[str, Check] = {
    **_SAMPLING,
    "messages": _list,
    "stream_options": _members({"include_usage": _SWITCH}),
    "reasoning_format": _one_of("deepseek"),
    "max_tokens": _integer(1, MAX_INT),
    "timings_per_token": _SWITCH,
    "continue_final_message": _SWITCH,
    "add_generation_prompt": _SWITCH,
    "tools": _list,
    "parallel_tool_calls": _SWITCH,
    "chat_template_kwargs": _members({"tools": _list, "enable_thinking": _SWITCH}),
    "reasoning_effort": _text(100),
    "response_format": _members(
        {
            "type": _one_of("json_schema"),
            "json_schema": _members({"name": _one_of("schema"), "schema": _object}),
        }
    ),
    "logprobs": _SWITCH,
    "top_logprobs": _integer(1, 100),
}

FIELDS: dict[str, dict[str, Check]] = {
    "/completion": {
        **_SAMPLING,
        "prompt": lambda value: _text()(value) or _tokens(value) or _continued(value) or _MEDIA(value),
        "n_predict": _integer(0, MAX_INT),
        "stop": _texts(MAX_STOPS, MAX_STOP_CHARACTERS),
        "grammar": _text(MAX_GRAMMAR),
        "json_schema": _object,
        "preserved_tokens": _texts(MAX_LISTED),
        "n_probs": _integer(1, 100),
        "return_tokens": _SWITCH,
    },
    "/v1/chat/completions": _CHAT,
    "/apply-template": _CHAT,
    "/v1/embeddings": {"input": _texts(MAX_LISTED), "encoding_format": _one_of("float")},
    "/v1/rerank": {"query": _text(), "documents": _texts(MAX_LISTED)},
    "/tokenize": {"content": _text(), "add_special": _SWITCH, "parse_special": _SWITCH, "with_pieces": _SWITCH},
    "/detokenize": {"tokens": _tokens},
    "/slots": {"filename": lambda value: isinstance(value, str) and bool(re.fullmatch(r"[\w-]+\.state", value))},
}
"""Every request that has a body, by its path, and what may stand in it; the number of a slot is left out."""

_SLOT = re.compile(r"(/slots)/\d+\?action=(?:save|restore)")


def check(path: str, body: Mapping[str, Any]) -> None:
    """Returns for a body that may be sent; `EngineRefused` names the field that may not, and its value."""
    slot = _SLOT.fullmatch(path)
    fields = FIELDS[slot[1] if slot else path]
    for name, value in body.items():
        if name not in fields:
            raise EngineRefused(f'"{name}" is not sent to the engine', code=400)
        if not fields[name](value):
            raise EngineRefused(f'"{name}" is not sent to the engine with the value {_shown(value)}', code=400)


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, bool | int | float | str) else f"of {type(value).__name__}"
    return text if len(text) <= 100 else f"{text[:100]}…"
