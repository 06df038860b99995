"""Converted checkpoints in the real engine, against what the reference implementation computes for the same weights.

`tests/reference/record.py` made the goldens. Weights that were not 16-bit floats are rounded to them, and the engine
computes with 16-bit floats in places: hence the tolerance.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from corral.convert import convert
from tests.asking import generate, post
from tests.conftest import RunningServer, add_model, running_server
from tests.reference import goldens
from tests.reference.folders import vocabulary
from tests.reference.models import CASES, VOCABULARY, Case

TOLERANCE = 0.06
"""In log probability, of tokens that are among the likeliest."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    work = tmp_path_factory.mktemp("converted")
    for case in CASES:
        converted = work / f"{case.name}.gguf"
        convert(case.write(work / case.name), converted, report=lambda step: None)
        add_model(work / "home" / ".ollama" / "models", case.name, converted)
    with running_server(work / "home", OLLAMA_MAX_LOADED_MODELS="2", OLLAMA_NUM_PARALLEL="1") as running:
        yield running


@pytest.mark.parametrize("case", [case for case in CASES if not case.pooling], ids=lambda case: case.name)
def test_the_engine_computes_what_the_reference_does(server: RunningServer, case: Case) -> None:
    for golden in goldens.load(case):
        answer = asked(server, case, golden["prompt"])
        assert answer["prompt_eval_count"] == len(golden["ids"])
        (logprobs,) = answer["logprobs"]
        given = {one["token"]: one["logprob"] for one in logprobs["top_logprobs"]}
        expected = {text(token): value for token, value in golden["top"] if 3 <= token < VOCABULARY}
        off = {token: (given.get(token), value) for token, value in expected.items() if not near(given, token, value)}
        assert not off, golden["prompt"]


@pytest.mark.parametrize("case", [case for case in CASES if case.pooling], ids=lambda case: case.name)
def test_the_engine_embeds_as_the_reference_does(server: RunningServer, case: Case) -> None:
    recorded = goldens.load(case)
    answer = post(server, "/api/embed", {"model": case.name, "input": [golden["prompt"] for golden in recorded]}).json
    assert answer["prompt_eval_count"] == sum(len(golden["ids"]) for golden in recorded)
    for golden, vector in zip(recorded, answer["embeddings"], strict=True):
        assert np.dot(golden["vector"], vector) > 0.9999, golden["prompt"]


def asked(server: RunningServer, case: Case, prompt: str) -> Any:
    """The answer of one token to a prompt as it stands."""
    options = {"num_predict": 1, "temperature": 0, "repeat_penalty": 1, **case.options}
    answer = generate(server, prompt, case.name, raw=True, logprobs=True, top_logprobs=20, options=options)
    assert answer.status == 200, answer.body
    return answer.json


def near(given: dict[str, float], token: str, value: float) -> bool:
    return token in given and abs(given[token] - value) <= TOLERANCE


def text(token: int) -> str:
    """What a token says."""
    return vocabulary()[0][token].replace("Ġ", " ").replace("Ċ", "\n")
