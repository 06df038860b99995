"""Every setting that is a number, at its ends: a server with all of them answers with the real engine."""

from pathlib import Path

import pytest

from corral.config.values import MAX_PARALLEL
from tests.asking import generate
from tests.conftest import StartServer, add_model

HUGE = "9" * 20
LONGEST = "2562047h"
"""As long as a duration may be, 292 years."""

ENDS = {
    "lowest": {
        "OLLAMA_NUM_PARALLEL": "1",
        "OLLAMA_CONTEXT_LENGTH": "1",
        "OLLAMA_MAX_LOADED_MODELS": "1",
        "OLLAMA_MAX_QUEUE": "1",
        "OLLAMA_KEEP_ALIVE": "1ns",
        "OLLAMA_GPU_OVERHEAD": "0",
        "CORRAL_POOL_CONTEXTS": "0",
    },
    "highest": {
        "OLLAMA_NUM_PARALLEL": str(MAX_PARALLEL),
        "OLLAMA_CONTEXT_LENGTH": HUGE,
        "OLLAMA_MAX_LOADED_MODELS": HUGE,
        "OLLAMA_MAX_QUEUE": HUGE,
        "OLLAMA_KEEP_ALIVE": LONGEST,
        "OLLAMA_LOAD_TIMEOUT": LONGEST,
        "OLLAMA_GPU_OVERHEAD": HUGE,
        "CORRAL_IDLE_EXIT": LONGEST,
        "CORRAL_POOL_CONTEXTS": HUGE,
    },
    "too many": {"OLLAMA_NUM_PARALLEL": HUGE, "OLLAMA_CONTEXT_LENGTH": "16"},
    "no queue": {"OLLAMA_MAX_QUEUE": "0"},
    "below zero": {
        "OLLAMA_NUM_PARALLEL": "-1",
        "OLLAMA_CONTEXT_LENGTH": "-1",
        "OLLAMA_MAX_LOADED_MODELS": "-1",
        "OLLAMA_MAX_QUEUE": "-1",
        "OLLAMA_KEEP_ALIVE": "-1",
        "OLLAMA_LOAD_TIMEOUT": "-1",
        "CORRAL_IDLE_EXIT": "-1",
        "CORRAL_POOL_CONTEXTS": "-1",
    },
}


@pytest.mark.parametrize("case", ENDS)
def test_a_model_loads_and_answers(case: str, start_server: StartServer, tmp_path: Path, tiny_gguf: Path) -> None:
    home = tmp_path / "home"
    add_model(home / ".ollama" / "models", "tiny", tiny_gguf)
    server = start_server(home, **ENDS[case])
    for _ in range(2):
        answer = generate(server, "a", model="tiny", raw=True, options={"num_predict": 2})
        assert (answer.status, answer.json.get("eval_count")) == (200, 2), answer.body


def test_more_requests_at_once_than_the_engine_serves_are_warned_of_in_the_log(
    start_server: StartServer, tmp_path: Path
) -> None:
    log = start_server(tmp_path / "home", OLLAMA_NUM_PARALLEL="300").log.read_text()
    assert "OLLAMA_NUM_PARALLEL: 300 is too many, using 256" in log
