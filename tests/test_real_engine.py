"""The real engine behind the real server: sampling, limits, concurrency, embeddings, faults, hostile requests."""

import math
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests.asking import Answer, InBackground, ask, metric, post, streaming, until
from tests.conftest import RunningServer, add_model, running_server
from tests.tiny_models import tiny_bert, tiny_bert_forward, tiny_bert_tokens, tiny_llama

MODEL = "smollm2:135m"


@pytest.fixture(scope="module")
def tiny_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server over the real engine with models that load in no time."""
    work = tmp_path_factory.mktemp("tiny")
    models = work / "home" / ".ollama" / "models"
    add_model(models, "tiny", tiny_llama(work / "tiny.gguf"))
    add_model(models, "native", tiny_llama(work / "native.gguf", seed=1, chat_template="[{{ messages[0].content }}]"))
    add_model(models, "bert", tiny_bert(work / "bert.gguf"))
    with running_server(work / "home", OLLAMA_MAX_LOADED_MODELS="9") as server:
        yield server


def generate(server: RunningServer, prompt: str, model: str = MODEL, **options: Any) -> Any:
    answer = post(
        server, "/api/generate", {"model": model, "prompt": prompt, "stream": False, "raw": True, "options": options}
    )
    assert answer.status == 200, answer.body
    return answer.json


def workers(server: RunningServer) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process(server.process.pid).children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE and "corral.engine.llama.worker" in " ".join(child.cmdline())
    ]


def test_a_seed_makes_the_same_text_again(real_server: RunningServer) -> None:
    """Also when the prompt is in the cache the second time, and when others are in flight."""
    texts = [generate(real_server, "Once upon a time", seed=42, num_predict=24)["response"] for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        other = pool.submit(generate, real_server, "Far away", num_predict=24)
        texts.append(generate(real_server, "Once upon a time", seed=42, num_predict=24)["response"])
        other.result()
    assert texts == texts[:1] * 3
    assert generate(real_server, "Once upon a time", seed=43, num_predict=24)["response"] != texts[0]


def test_without_a_seed_the_text_differs(real_server: RunningServer) -> None:
    texts = {generate(real_server, "Once upon a time", num_predict=24)["response"] for _ in range(3)}
    assert len(texts) > 1


def test_greedy_is_always_the_same(real_server: RunningServer) -> None:
    first, second = (generate(real_server, "The capital of France is", temperature=0, num_predict=6) for _ in "ab")
    assert first["response"] == second["response"]
    assert first["response"].startswith(" Paris")


def test_it_stops_at_the_limit(real_server: RunningServer) -> None:
    answer = generate(real_server, "Count: 1, 2, 3,", temperature=0, num_predict=50)
    assert (answer["done_reason"], answer["eval_count"]) == ("length", 50)


def test_it_stops_at_a_stop_word_which_is_not_said(real_server: RunningServer) -> None:
    answer = generate(real_server, "Count: 1, 2, 3,", temperature=0, stop=["6"], num_predict=50)
    assert (answer["done_reason"], answer["response"]) == ("stop", " 4, 5, ")


def test_it_ends_by_itself(real_server: RunningServer) -> None:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "stream": False,
    }
    answer = post(real_server, "/api/chat", {**body, "options": {"temperature": 0, "num_predict": 40}}).json
    assert answer["done_reason"] == "stop"
    assert answer["message"]["content"].strip()


def test_streamed_and_whole_are_the_same_text(real_server: RunningServer) -> None:
    body = {"model": MODEL, "prompt": "A poem about snow", "options": {"seed": 7, "num_predict": 24}}
    streamed = post(real_server, "/api/generate", body).lines
    whole = post(real_server, "/api/generate", {**body, "stream": False}).json
    assert "".join(line["response"] for line in streamed) == whole["response"]
    assert streamed[-1]["context"] == whole["context"]
    assert streamed[-1]["eval_count"] == whole["eval_count"] > 1
    assert len(streamed) > whole["eval_count"] // 2


def test_the_context_is_shifted_and_the_answer_goes_on(tiny_server: RunningServer) -> None:
    answer = generate(tiny_server, "hello world", model="tiny", num_ctx=64, num_predict=300, temperature=0)
    assert (answer["eval_count"], answer["done_reason"]) == (300, "length")


def test_open_answers_end_after_ten_contexts(tiny_server: RunningServer) -> None:
    answer = generate(tiny_server, "hello world", model="tiny", num_ctx=16, temperature=0)
    assert (answer["eval_count"], answer["done_reason"]) == (160, "length")


def test_without_shifting_the_answer_ends_with_the_context(tiny_server: RunningServer) -> None:
    body = {"model": "tiny", "prompt": "hello", "raw": True, "shift": False, "stream": False}
    answer = post(tiny_server, "/api/generate", {**body, "options": {"num_ctx": 64, "num_predict": 300}}).json
    assert answer["done_reason"] == "length"
    assert answer["prompt_eval_count"] + answer["eval_count"] == 64


@pytest.mark.parametrize("clients", [4, 16])
def test_all_who_ask_at_once_are_answered(real_server: RunningServer, clients: int) -> None:
    with ThreadPoolExecutor(clients) as pool:
        answers = list(
            pool.map(
                lambda number: generate(real_server, f"{number} is a number and", num_predict=16, seed=number),
                range(clients),
            )
        )
    assert all(answer["done"] and 0 < answer["eval_count"] <= 16 for answer in answers)
    assert len(workers(real_server)) == 1


def test_open_answers_at_once_never_exhaust_the_pool(tiny_server: RunningServer) -> None:
    """Each fills its whole context and shifts it, eight of them over a pool of four contexts."""
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda n: generate(tiny_server, f"hello {n} ", "tiny", num_ctx=128, num_predict=200), range(8))
        )
    assert [answer["eval_count"] for answer in answers] == [200] * 8


def test_many_old_conversations_leave_room_for_new_ones(tiny_server: RunningServer) -> None:
    """Prompts kept in the cache of idle slots give way when the pool is needed."""
    for number in range(12):
        generate(tiny_server, f"{number} " * 400, "tiny", num_predict=4, num_ctx=2048)
    with ThreadPoolExecutor(16) as pool:
        prompts = [f"{number} other " * 100 for number in range(16)]
        answers = list(pool.map(lambda prompt: generate(tiny_server, prompt, "tiny", num_predict=32), prompts))
    assert [answer["eval_count"] for answer in answers] == [32] * 16


def test_clients_with_different_contexts_do_not_reload(tiny_server: RunningServer) -> None:
    generate(tiny_server, "hello", "tiny", num_ctx=2048, num_predict=1)
    before = {worker.pid for worker in workers(tiny_server)}
    for num_ctx in (512, 2048, 1024, 4):
        generate(tiny_server, "hello", "tiny", num_ctx=num_ctx, num_predict=1)
    assert {worker.pid for worker in workers(tiny_server)} == before


def test_a_client_that_leaves_stops_the_work(tiny_server: RunningServer) -> None:
    body = {"model": "tiny", "prompt": "hello", "options": {"num_predict": 20000}}
    with streaming(tiny_server, "/api/generate", body) as stream:
        stream.line()
        assert metric(tiny_server, "corral_num_requests_running") == 1
    until(lambda: metric(tiny_server, "corral_num_requests_running") == 0)
    assert generate(tiny_server, "hello", "tiny", num_predict=1)["eval_count"] == 1


def test_a_worker_killed_in_a_stream_ends_it_with_a_line_and_the_next_request_works(tiny_server: RunningServer) -> None:
    generate(tiny_server, "hello", "native", num_predict=1)
    before = {worker.pid for worker in workers(tiny_server)}
    post(tiny_server, "/api/generate", {"model": "tiny", "keep_alive": 0})
    until(lambda: len(workers(tiny_server)) < len(before) or len(before) == 1)
    others = {worker.pid for worker in workers(tiny_server)}
    with streaming(
        tiny_server, "/api/generate", {"model": "tiny", "prompt": "hello", "options": {"num_predict": 20000}}
    ) as stream:
        stream.line()
        (victim,) = [worker for worker in workers(tiny_server) if worker.pid not in others]
        os.kill(victim.pid, signal.SIGKILL)
        lines = stream.rest()
    assert "done_reason" not in lines[-1]
    assert lines[-1]["error"].startswith("model runner has unexpectedly stopped")
    assert "signal: killed" in lines[-1]["error"]
    assert generate(tiny_server, "hello", "tiny", num_predict=2)["eval_count"] == 2


def embed(server: RunningServer, **body: Any) -> Answer:
    return post(server, "/api/embed", body)


def test_embeddings_are_those_of_the_weights(tiny_server: RunningServer, tmp_path: Path) -> None:
    path = tiny_bert(tmp_path / "bert.gguf")
    texts = ["why is the sky blue", "the cat", "", "Hello, World!", "a" * 60]
    answer = embed(tiny_server, model="bert", input=texts)
    assert answer.status == 200
    for text, found in zip(texts, answer.json["embeddings"], strict=True):
        expected = tiny_bert_forward(path, tiny_bert_tokens(text))
        np.testing.assert_allclose(found, expected, atol=2e-3)
        assert math.isclose(math.hypot(*found), 1, abs_tol=1e-5)
    assert answer.json["prompt_eval_count"] == sum(len(tiny_bert_tokens(text)) for text in texts)


def test_an_embedding_does_not_depend_on_its_neighbours(tiny_server: RunningServer) -> None:
    texts = [f"word {number} and the sky" for number in range(40)]
    together = embed(tiny_server, model="bert", input=texts).json["embeddings"]
    alone = [embed(tiny_server, model="bert", input=text).json["embeddings"][0] for text in texts[:3]]
    np.testing.assert_allclose(together[:3], alone, atol=2e-3)


def test_too_long_inputs_are_cut_or_refused(tiny_server: RunningServer) -> None:
    long = "the sky is blue and " * 200
    cut = embed(tiny_server, model="bert", input=[long, "the sky"])
    assert (cut.status, len(cut.json["embeddings"])) == (200, 2)
    assert cut.json["prompt_eval_count"] == 512 + 4
    refused = embed(tiny_server, model="bert", input=long, truncate=False)
    assert (refused.status, refused.error) == (400, "the input length exceeds the context length")
    for num_ctx in (1, 2):
        error = embed(tiny_server, model="bert", input="the sky", options={"num_ctx": num_ctx})
        assert (error.status, error.error) == (400, "input after truncation exceeds maximum context length")
    one = embed(tiny_server, model="bert", input="the sky", options={"num_ctx": 3})
    assert one.json["embeddings"] == embed(tiny_server, model="bert", input="the").json["embeddings"]


def test_an_input_is_cut_to_what_the_engine_takes_at_once_and_that_is_reported(tiny_server: RunningServer) -> None:
    """No text is longer than a batch, and the answer to a longer one says how much was left out."""
    long, options = "the sky is blue and " * 20, {"num_batch": 32}
    counted = [f"corral_prompt_{name}_total" for name in ("truncations", "truncated_tokens")]
    before = [metric(tiny_server, name) for name in counted]
    cut = embed(tiny_server, model="bert", input=[long, "the sky", long], options=options)
    assert (cut.status, cut.json["prompt_eval_count"]) == (200, 32 + 4 + 32)
    left_out = 2 * (len(tiny_bert_tokens(long)) - 32)
    assert cut.headers["x-corral-truncated-tokens"] == str(left_out)
    assert [metric(tiny_server, name) for name in counted] == [before[0] + 1, before[1] + left_out]
    refused = embed(tiny_server, model="bert", input=long, truncate=False, options=options)
    sentence = (
        f"input 1 has {len(tiny_bert_tokens(long))} tokens, which fit the context but not the batch of 32, and a text "
        'is embedded in one batch; the option "num_batch" set its size'
    )
    assert (refused.status, refused.error) == (400, sentence)
    assert "x-corral-truncated-tokens" not in embed(tiny_server, model="bert", input="the sky").headers


def test_a_model_that_is_not_for_embedding_embeds_by_the_mean(tiny_server: RunningServer) -> None:
    answer = embed(tiny_server, model="tiny", input=["hello world", "the sky", "hello world"])
    assert answer.status == 200
    first, other, same = answer.json["embeddings"]
    assert len(first) == 64
    assert first != other
    np.testing.assert_allclose(first, same, atol=2e-3)
    assert generate(tiny_server, "hello", "tiny", num_predict=1)["eval_count"] == 1


HOSTILE: list[tuple[str, dict[str, Any]]] = [
    ("/api/generate", {"prompt": "a b " * 100_000, "options": {"num_predict": 1}}),
    ("/api/generate", {"prompt": "\x00\x01\ud83d\ude00\ufffe", "options": {"num_predict": 1}}),
    ("/api/generate", {"prompt": "<|im_end|><|endoftext|>" * 50, "options": {"num_predict": 1}}),
    ("/api/generate", {"prompt": "x", "context": [10**18]}),
    ("/api/generate", {"prompt": "x", "context": [-1]}),
    ("/api/generate", {"prompt": "x", "context": [50] * 5_000, "options": {"num_predict": 1}}),
    ("/api/generate", {"prompt": "x", "raw": True, "options": {"stop": ["e"] * 20_000, "num_predict": 2}}),
    ("/api/generate", {"prompt": "x", "raw": True, "options": {"stop": ["e" * 1_000_000], "num_predict": 2}}),
    ("/api/generate", {"prompt": "x", "raw": True, "options": {"repeat_penalty": 0, "num_predict": 2}}),
    ("/api/generate", {"prompt": "x", "raw": True, "options": {"temperature": 1e-45, "num_predict": 2}}),
    ("/api/generate", {"prompt": "x", "raw": True, "options": {"temperature": 3e38, "num_predict": 2}}),
    ("/api/generate", {"prompt": "x", "raw": True, "options": {"frequency_penalty": -3e38, "num_predict": 2}}),
    ("/api/generate", {"prompt": "x", "raw": True, "options": {"top_k": -(2**63), "num_predict": 2}}),
    ("/api/generate", {"prompt": "x", "raw": True, "options": {"num_keep": 2**63 - 1, "num_predict": 2}}),
    ("/api/generate", {"prompt": "x", "raw": True, "options": {"repeat_last_n": 2**40, "num_predict": 2}}),
    ("/api/generate", {"prompt": "x", "raw": True, "options": {"seed": 2**63 - 1, "num_predict": 2}}),
    ("/api/generate", {"prompt": "x", "images": ["AAAA"]}),
    ("/api/generate", {"prompt": "x", "logprobs": True, "top_logprobs": 20, "options": {"num_predict": 2}}),
    ("/api/chat", {"messages": [{"role": "", "content": ""}], "options": {"num_predict": 1}}),
    ("/api/chat", {"messages": [{"role": "x" * 100_000, "content": "\x00"}], "options": {"num_predict": 1}}),
    ("/api/chat", {"messages": [{"role": "user", "content": "{{ x }}{% for %}"}] * 300, "options": {"num_predict": 1}}),
    ("/api/embed", {"input": ["x"] * 500}),
    ("/api/embed", {"input": "x " * 500_000}),
    ("/api/embed", {"input": ["\x00", "\ud83d\ude00", " "]}),
]


@pytest.mark.parametrize("model", ["tiny", "native"])
def test_no_request_ends_the_worker(tiny_server: RunningServer, model: str) -> None:
    embed(tiny_server, model=model, input="warm")
    # the first one that wants log probabilities has the model loaded anew, without speculation
    warm = {"model": model, "prompt": "warm", "stream": False, "logprobs": True, "options": {"num_predict": 1}}
    assert post(tiny_server, "/api/generate", warm).status == 200
    before = {worker.pid for worker in workers(tiny_server)}
    statuses = []
    for path, body in HOSTILE:
        answer = post(tiny_server, path, {"model": model, "stream": False, **body})
        assert answer.status in (200, 400), (path, str(body)[:80], answer.body[:200])
        assert answer.status == 200 or answer.error
        statuses.append(answer.status)
    assert statuses.count(200) > len(statuses) // 2
    assert {worker.pid for worker in workers(tiny_server)} == before


def test_a_prompt_of_ten_megabytes_is_cut_like_any_other(tiny_server: RunningServer) -> None:
    answer = generate(tiny_server, "a b " * 2_500_000, "tiny", num_predict=1)
    assert answer["prompt_eval_count"] < 2048


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("num_batch", (-1, 1, 2**62)),
        ("num_thread", (1, 2**62)),
        ("num_gpu", (-(2**62), 0, 2**62)),
        ("main_gpu", (-1, 2**62)),
        ("num_ctx", (-(2**62), 0, 2**62)),
        ("use_mmap", (True, False)),
        ("draft_num_predict", (-1, 2**62)),
    ],
)
def test_a_model_loads_with_any_load_time_option(tiny_server: RunningServer, name: str, values: tuple[int]) -> None:
    for value in values:
        assert generate(tiny_server, "hello", "tiny", num_predict=1, **{name: value})["eval_count"] == 1


def test_twenty_clients_of_three_models_with_room_for_two_get_the_right_answers(tmp_path: Path) -> None:
    """Right is what each model says when it is asked alone; one slot, since rows computed together differ in digits."""
    names = ["one", "two", "three"]
    for seed, name in enumerate(names):
        add_model(tmp_path / "home" / ".ollama" / "models", name, tiny_llama(tmp_path / f"{name}.gguf", seed=seed))

    def said(server: RunningServer, client: int) -> str:
        prompt = f"client {client // 3} says"
        answer = generate(server, prompt, names[client % 3], temperature=0, seed=1, num_predict=8)
        return str(answer["response"])

    with running_server(tmp_path / "home", OLLAMA_NUM_PARALLEL="1") as roomy:
        alone = [said(roomy, client) for client in range(20)]
    assert len(set(alone[:3])) == 3
    with running_server(tmp_path / "home", OLLAMA_NUM_PARALLEL="1", OLLAMA_MAX_LOADED_MODELS="2") as server:
        with ThreadPoolExecutor(20) as pool:
            assert list(pool.map(lambda client: said(server, client), range(20))) == alone
        assert len(workers(server)) == 2
        assert metric(server, "corral_model_evictions_total") >= 1
        assert metric(server, "corral_request_failures_total") == 0


def test_a_full_server_still_answers_the_small_routes(tiny_server: RunningServer) -> None:
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(generate, tiny_server, f"{n}", "tiny", num_predict=500) for n in range(4)]
        until(lambda: metric(tiny_server, "corral_num_requests_running") == 4)
        assert ask(tiny_server, "GET", "/api/version").status == 200
        assert len(ask(tiny_server, "GET", "/api/tags").json["models"]) == 3
        assert all(call.result()["eval_count"] == 500 for call in calls)


@pytest.mark.parametrize("model", ["tiny", "native"])
def test_a_long_prompt_that_is_read_in_parts_counts_once(tiny_server: RunningServer, model: str) -> None:
    """Its parts are no hits of the prompt cache; asked again it is found there whole, by either way to the engine."""
    body = {"model": model, "messages": [{"role": "user", "content": f"{model} says " + "hello " * 1500}]}
    hits = []
    for _ in range(2):
        counted = [f"corral_{name}_total" for name in ("prompt_tokens", "prefix_cache_hits")]
        before = [metric(tiny_server, name) for name in counted]
        options = {"num_predict": 1, "temperature": 0, "num_ctx": 2048}
        answer = post(tiny_server, "/api/chat", {**body, "stream": False, "options": options}).json
        read, found = (metric(tiny_server, name) - was for name, was in zip(counted, before, strict=True))
        assert read == answer["prompt_eval_count"] > 1000
        hits.append(found)
    assert hits[0] < 10
    assert hits[1] > 1000


def test_a_prompt_is_read_once(real_server: RunningServer) -> None:
    """The second request with the same beginning finds it in the prompt cache, and counts it all the same."""
    prompt = "The quick brown fox jumps over the lazy dog. " * 20
    first = generate(real_server, prompt + "One", num_predict=1)
    hits = metric(real_server, "corral_prefix_cache_hits_total")
    second = generate(real_server, prompt + "Two", num_predict=1)
    assert abs(second["prompt_eval_count"] - first["prompt_eval_count"]) <= 1
    assert metric(real_server, "corral_prefix_cache_hits_total") - hits > 150


def test_a_load_in_the_background_serves_all_who_waited(tiny_server: RunningServer) -> None:
    for model in ("tiny", "native"):
        post(tiny_server, "/api/generate", {"model": model, "keep_alive": 0})
    calls = [InBackground(lambda: generate(tiny_server, "hello", "tiny", num_predict=2)) for _ in range(6)]
    assert [call.result()["eval_count"] for call in calls] == [2] * 6
