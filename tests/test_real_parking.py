"""Answers in segments and parked ones, by the real engine: what is said is what would have been said in one."""

from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from corral.engine.base import CompletionRequest, Piece, RunnerSpec, Sampling
from corral.engine.llama.launch import launch
from corral.inference.segments import SegmentedEngine
from corral.serving.admission import Pool
from tests.asking import ask as get
from tests.asking import post
from tests.conftest import RunningServer, add_model, running_server
from tests.test_real_speculation import FREE, REPEATED
from tests.test_segments import FixedLength, whole

MODEL = "smollm2:135m"
SPEC = RunnerSpec(model="", num_ctx=512, pool=512, slots=4)


async def test_twenty_greedy_answers_in_segments_are_those_in_one(starter_gguf: Path, tmp_path: Path) -> None:
    """The prompt is in the cache each time: read in one batch, it gives logits that differ in the last digits."""
    spec = msgspec.structs.replace(SPEC, model=str(starter_gguf))
    engine = await launch(spec, log=tmp_path / "worker.log", stall_timeout=60)
    try:
        for number, prompt in enumerate((*REPEATED, *FREE)):
            stop = ("the ", "\n\n") if number % 2 else ()
            request = CompletionRequest(prompt=prompt, sampling=Sampling(temperature=0, stop=stop), max_tokens=24)
            await whole(engine.complete(msgspec.structs.replace(request, max_tokens=1)))
            expected = await whole(engine.complete(request))
            found = await whole(in_segments(engine, request, size=7))
            assert found[:2] == expected[:2], prompt
            assert (found[2].reason, found[2].stop_text) == (expected[2].reason, expected[2].stop_text)
    finally:
        await engine.close()


async def in_segments(engine: Any, request: CompletionRequest, size: int) -> AsyncGenerator[Piece, None]:
    pool = Pool(SPEC.pool, SPEC.slots)
    pool.usual = FixedLength(size)
    bound = len(request.prompt) + 1
    async with (
        pool.admit(SPEC.pool // 2 - bound),
        pool.admit(bound + size) as room,
        aclosing(SegmentedEngine(engine, pool, room, bound, SPEC.num_ctx).complete(request)) as pieces,
    ):
        async for piece in pieces:
            yield piece


def test_parked_answers_lose_nothing_and_repeat_nothing(starter_gguf: Path, tmp_path: Path) -> None:
    """Six answers of 170 tokens in a pool of 512: most are parked more than once."""
    add_model(tmp_path / ".ollama" / "models", MODEL, starter_gguf)
    with running_server(tmp_path, OLLAMA_CONTEXT_LENGTH="512", CORRAL_POOL_CONTEXTS="1") as server:

        def ask(number: int) -> Any:
            body = {
                "model": MODEL,
                "prompt": f"Chapter {number}. In the",
                "raw": True,
                "stream": False,
                "options": {"num_predict": 170, "temperature": 0.7, "stop": []},
            }
            answer = post(server, "/api/generate", body)
            assert answer.status == 200, answer.body
            return answer.json

        with ThreadPoolExecutor(6) as threads:
            answers = list(threads.map(ask, range(6)))
        requests = get(server, "GET", "/api/requests").json["requests"]
        assert [one for one in requests if one["parked_duration"] > 0], "the pool was too small for all of them"
        for answer in answers:
            assert answer["eval_count"] == 170 or answer["done_reason"] == "stop", answer
            assert counted(server, answer["response"]) == pytest.approx(answer["eval_count"], abs=12)


def counted(server: RunningServer, text: str) -> int:
    """Tokens of a text."""
    body = {"model": MODEL, "prompt": text, "raw": True, "stream": False, "options": {"num_predict": 1}}
    return int(post(server, "/api/generate", body).json["prompt_eval_count"])
