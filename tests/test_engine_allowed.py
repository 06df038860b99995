"""What reaches llama-server: known fields only, every number finite and within its bounds."""

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.engine.llama import allowed
from corral.errors import EngineRefused
from tests.asking import ask
from tests.conftest import RunningServer
from tests.engines import engines

SAMPLING = (
    "cache_prompt frequency_penalty logit_bias min_p n_keep presence_penalty repeat_last_n repeat_penalty"
    " return_progress seed stream temperature top_k top_p typical_p"
)
CHAT = (
    "add_generation_prompt chat_template_kwargs continue_final_message logprobs max_tokens messages"
    " parallel_tool_calls reasoning_effort reasoning_format response_format stream_options timings_per_token"
    " tools top_logprobs"
)
PINNED = {
    "/completion": f"{SAMPLING} grammar json_schema n_predict n_probs preserved_tokens prompt return_tokens stop",
    "/v1/chat/completions": f"{SAMPLING} {CHAT}",
    "/apply-template": f"{SAMPLING} {CHAT}",
    "/v1/embeddings": "input encoding_format",
    "/v1/rerank": "query documents",
    "/tokenize": "content add_special parse_special with_pieces",
    "/detokenize": "tokens",
    "/slots": "filename",
}


def test_these_fields_are_sent_and_no_others() -> None:
    assert {path: set(fields) for path, fields in allowed.FIELDS.items()} == {
        path: set(names.split()) for path, names in PINNED.items()
    }


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        ("/completion", "n_discard", -1),  # CVE-2026-21869
        ("/completion", "temperature", math.nan),  # CVE-2026-54235
        ("/completion", "temperature", math.inf),
        ("/completion", "temperature", True),
        ("/completion", "top_k", -1),
        ("/completion", "n_predict", -1),
        ("/completion", "n_predict", 1 << 31),
        ("/completion", "repeat_penalty", 0),
        ("/completion", "repeat_last_n", -1),
        ("/completion", "presence_penalty", -1e30),
        ("/completion", "seed", 1 << 32),
        ("/completion", "n", 4),
        ("/completion", "logit_bias", [[0, math.nan]]),
        ("/completion", "logit_bias", [[-1, 1.0]]),
        ("/completion", "logit_bias", [[0, 1.0]] * 1025),
        ("/completion", "stop", ["x"] * 257),
        ("/completion", "stop", ["x" * 70000]),
        ("/completion", "prompt", [0, -1]),
        ("/completion", "prompt", [True]),
        ("/completion", "prompt", {"prompt_string": "a", "file": "/etc/passwd"}),
        ("/completion", "samplers", ["x"]),
        ("/completion", "lora", [{"id": 0, "scale": 1}]),
        ("/v1/chat/completions", "max_tokens", 0),
        ("/v1/chat/completions", "chat_template", "{{ x }}"),
        ("/v1/chat/completions", "chat_template_kwargs", {"documents": []}),
        ("/detokenize", "tokens", [1 << 31]),
        ("/slots/0?action=restore", "filename", "../kept.state"),
    ],
)
def test_what_the_engine_must_not_get_is_refused_by_name(path: str, name: str, value: Any) -> None:
    with pytest.raises(EngineRefused, match=rf'^"{name}" is not sent to the engine'):
        allowed.check(path, {name: value})


NUMBERS = st.one_of(
    st.integers(-(1 << 70), 1 << 70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([-1, 0, 1, -0.0, 1e-320, 3.4e38, (1 << 31) - 1, 1 << 31, 1 << 32, 1 << 63]),
)
ANYTHING = st.one_of(NUMBERS, st.none(), st.booleans(), st.text(max_size=5), st.lists(NUMBERS, max_size=3))
OPTION_NAMES = (
    "temperature top_k top_p min_p typical_p repeat_last_n repeat_penalty presence_penalty"
    " frequency_penalty seed num_predict num_keep stop n_discard n_probs grammar mirostat"
)
OPTIONS = st.dictionaries(
    st.sampled_from(OPTION_NAMES.split()),
    st.one_of(NUMBERS, ANYTHING),
    max_size=6,
)
FIELD_NAMES = (
    "temperature top_k top_p min_p seed stop n n_discard n_predict max_tokens presence_penalty"
    " frequency_penalty repeat_penalty logit_bias logprobs top_logprobs grammar json_schema cache_prompt"
    " id_slot"
)
FIELDS = st.dictionaries(
    st.sampled_from(FIELD_NAMES.split()),
    st.one_of(NUMBERS, ANYTHING, st.just({"0": 50}), st.just({"0": 1e300})),
    max_size=5,
)
MESSAGES = [{"role": "user", "content": "a"}]
PATHS: dict[str, dict[str, Any]] = {
    "/api/generate": {"prompt": "a", "stream": False},
    "/api/chat": {"messages": MESSAGES, "stream": False},
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/completions": {"prompt": "a"},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 5},
}


def test_whatever_a_client_sends_stays_within_bounds(fake_server: RunningServer) -> None:
    @given(st.sampled_from(sorted(PATHS)), st.sampled_from(["fake", "native"]), OPTIONS, FIELDS)
    @settings(max_examples=120)
    def ask_for(path: str, model: str, options: dict[str, Any], fields: dict[str, Any]) -> None:
        body = {"max_tokens": 5, **fields, **PATHS[path], "model": model, "options": options}
        answer = ask(fake_server, "POST", path, json.dumps(body).encode())
        assert answer.status in (200, 400, 500), answer.body
        assert b"is not sent to the engine" not in answer.body, answer.body
        assert b"internal server error" not in answer.body, answer.body

    ask_for()
    sent = [event for engine in engines(fake_server.home) for event in engine.events if event["event"] == "request"]
    assert len([event for event in sent if event["path"] in ("/completion", "/v1/chat/completions")]) > 20
    for event in sent:
        allowed.check(event["path"], event["body"])
