"""`/metrics` as Prometheus reads it: every series that is promised is there, and moves as it should."""

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.asking import streaming
from tests.conftest import FAKE_ENGINE, RunningServer, StartServer, add_model
from tests.tiny_models import tiny_bert

MODEL = "fake:latest"


class Scrape:
    """One reading of `/metrics`."""

    def __init__(self, server: RunningServer) -> None:
        with urllib.request.urlopen(f"{server.url}/metrics", timeout=30) as response:
            assert response.headers["Content-Type"].startswith("text/plain; version=")
            text = response.read().decode()
        self.families: list[Metric] = list(text_string_to_metric_families(text))
        self.samples = [sample for family in self.families for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The sample of a name and of at least these labels; 0 when there is none yet."""
        found = [
            sample.value
            for sample in self.samples
            if sample.name == f"corral_{name}" and labels.items() <= sample.labels.items()
        ]
        assert len(found) < 2, (name, labels, found)
        return found[0] if found else 0.0


def ask(server: RunningServer, path: str, **body: Any) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Status, answer and headers; the model is `fake` unless another is named, and nothing is streamed."""
    sent = json.dumps({"model": "fake", "stream": False, **body}).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(server.url + path, sent), timeout=60) as response:
            return response.status, json.load(response), dict(response.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error), dict(error.headers)


@contextmanager
def asking(server: RunningServer, **body: Any) -> Iterator[threading.Thread]:
    """A request under way in a thread of its own; the block's end waits for its answer."""
    thread = threading.Thread(target=ask, args=(server, "/api/generate"), kwargs=body)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(60)
        assert not thread.is_alive()


def until(server: RunningServer, name: str, value: float, **labels: str) -> Scrape:
    """Reads until a sample has the value, which is to happen without further doing."""
    while True:
        scrape = Scrape(server)
        if scrape.value(name, **labels) == value:
            return scrape


PROMISED = {
    "corral_num_requests_running": "gauge",
    "corral_num_requests_waiting": "gauge",
    "corral_request_queue_time_seconds": "histogram",
    "corral_time_to_first_token_seconds": "histogram",
    "corral_e2e_request_latency_seconds": "histogram",
    "corral_prompt_tokens": "counter",
    "corral_generation_tokens": "counter",
    "corral_prefix_cache_queries": "counter",
    "corral_prefix_cache_hits": "counter",
    "corral_drafted_tokens": "counter",
    "corral_accepted_tokens": "counter",
    "corral_prompt_truncations": "counter",
    "corral_prompt_truncated_tokens": "counter",
    "corral_answer_warnings": "counter",
    "corral_requests_with_loosened_tools": "counter",
    "corral_request_success": "counter",
    "corral_request_failures": "counter",
    "corral_replica_failures": "counter",
    "corral_replica_requests": "counter",
    "corral_replica_up": "gauge",
    "corral_model_loads": "counter",
    "corral_model_load_time_seconds": "histogram",
    "corral_model_evictions": "counter",
    "corral_model_memory_bytes": "gauge",
    "corral_model_context_tokens": "gauge",
    "corral_kv_cache_usage_perc": "gauge",
}


def test_every_promised_series_is_declared_with_its_kind_before_anything_happened(fake_server: RunningServer) -> None:
    families = Scrape(fake_server).families
    found = {family.name: family.type for family in families if not family.name.endswith("_created")}
    assert found == PROMISED
    assert [family.name for family in families if not family.documentation] == []


def test_an_answer_is_counted_with_its_tokens_and_times(fake_server: RunningServer) -> None:
    _, answer, _ = ask(fake_server, "/api/generate", prompt="!tokens=4 one two", raw=True)
    scrape = Scrape(fake_server)
    assert answer["eval_count"] == 4
    assert scrape.value("request_success_total", model_name=MODEL, finished_reason="stop") == 1
    assert scrape.value("generation_tokens_total", model_name=MODEL) == 4
    assert scrape.value("prompt_tokens_total", model_name=MODEL) == answer["prompt_eval_count"] == 3
    assert scrape.value("prefix_cache_queries_total", model_name=MODEL) == 3
    for histogram in ("request_queue_time_seconds", "time_to_first_token_seconds", "e2e_request_latency_seconds"):
        assert scrape.value(f"{histogram}_count", model_name=MODEL) == 1
    whole = scrape.value("e2e_request_latency_seconds_sum", model_name=MODEL)
    assert whole == pytest.approx(answer["total_duration"] / 1e9)
    assert 0 < scrape.value("time_to_first_token_seconds_sum", model_name=MODEL) <= whole
    assert scrape.value("num_requests_running", model_name=MODEL) == 0


def test_an_answer_that_reached_its_limit_is_counted_as_that(fake_server: RunningServer) -> None:
    ask(fake_server, "/api/generate", prompt="!tokens=9", raw=True, options={"num_predict": 2})
    scrape = Scrape(fake_server)
    assert scrape.value("request_success_total", model_name=MODEL, finished_reason="length") == 1
    assert scrape.value("generation_tokens_total", model_name=MODEL) == 2


def test_a_load_is_counted_once_and_what_is_loaded_shows_its_memory_and_context(fake_server: RunningServer) -> None:
    for _ in range(2):
        ask(fake_server, "/api/generate", options={"num_ctx": 512})
    scrape = Scrape(fake_server)
    assert scrape.value("model_loads_total", model_name=MODEL) == 1
    assert scrape.value("model_load_time_seconds_count", model_name=MODEL) == 1
    assert scrape.value("model_memory_bytes", model_name=MODEL) > 1 << 20
    assert scrape.value("model_context_tokens", model_name=MODEL) == 512
    assert scrape.value("kv_cache_usage_perc", model_name=MODEL) == 0


def test_an_unloaded_model_shows_no_memory(fake_server: RunningServer) -> None:
    ask(fake_server, "/api/generate")
    ask(fake_server, "/api/generate", keep_alive=0)
    until(fake_server, "model_memory_bytes", 0, model_name=MODEL)


def test_what_runs_and_what_waits_is_shown_while_it_does(
    start_server: StartServer, tmp_path: Path, tiny_gguf: Path
) -> None:
    home = tmp_path / "home"
    add_model(home / ".ollama" / "models", "fake", tiny_gguf)
    server = start_server(home, CORRAL_ENGINE=str(FAKE_ENGINE), OLLAMA_NUM_PARALLEL="1")
    with asking(server, prompt="!hold=1", raw=True):
        scrape = until(server, "num_requests_running", 1, model_name=MODEL)
        assert 0 < scrape.value("kv_cache_usage_perc", model_name=MODEL) <= 1
        assert scrape.value("num_requests_waiting") == 0
        with asking(server, prompt="!tokens=1", raw=True):
            until(server, "num_requests_waiting", 1)
            (server.home / "go").touch()
    scrape = Scrape(server)
    assert scrape.value("num_requests_running", model_name=MODEL) == scrape.value("num_requests_waiting") == 0
    assert scrape.value("request_queue_time_seconds_count", model_name=MODEL) == 2


def test_a_cut_prompt_is_counted_with_the_tokens_its_header_tells(fake_server: RunningServer) -> None:
    prompt = " ".join(["word"] * 60)
    _, _, headers = ask(fake_server, "/api/generate", prompt=prompt, raw=True, options={"num_ctx": 16})
    scrape = Scrape(fake_server)
    assert scrape.value("prompt_truncations_total", model_name=MODEL) == 1
    assert scrape.value("prompt_truncated_tokens_total", model_name=MODEL) == int(headers["x-corral-truncated-tokens"])


def test_a_model_that_is_loaded_anew_for_a_larger_context_counts_as_evicted(fake_server: RunningServer) -> None:
    for context in (64, 128):
        ask(fake_server, "/api/generate", options={"num_ctx": context})
    scrape = Scrape(fake_server)
    assert scrape.value("model_evictions_total", model_name=MODEL) == 1
    assert scrape.value("model_loads_total", model_name=MODEL) == 2


def test_failures_are_counted_by_kind_for_models_that_exist(fake_server: RunningServer) -> None:
    assert ask(fake_server, "/api/generate", prompt="!error=400", raw=True)[0] == 400
    assert ask(fake_server, "/api/generate", prompt="x", think=True)[0] == 400
    assert ask(fake_server, "/api/generate", prompt="x", options={"num_ctx": "big"})[0] == 500
    assert ask(fake_server, "/api/generate", model="nobody", prompt="x")[0] == 404
    scrape = Scrape(fake_server)
    counted = {
        (sample.labels["model_name"], sample.labels["reason"]): sample.value
        for sample in scrape.samples
        if sample.name == "corral_request_failures_total"
    }
    assert counted == {(MODEL, "engine_refused"): 1, (MODEL, "unsupported"): 1, (MODEL, "invalid_option"): 1}
    assert scrape.value("request_success_total", model_name=MODEL, finished_reason="stop") == 0


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_left_is_counted_as_a_cancelled_request(fake_server: RunningServer, stream: bool) -> None:
    body = {"model": "fake", "prompt": "!hold=1", "raw": True, "stream": stream}
    with streaming(fake_server, "/api/generate", body):
        until(fake_server, "num_requests_running", 1, model_name=MODEL)
    scrape = until(fake_server, "request_failures_total", 1, model_name=MODEL, reason="cancelled")
    assert scrape.value("request_success_total", model_name=MODEL, finished_reason="stop") == 0


def test_embeddings_are_counted_too(start_server: StartServer, tmp_path: Path) -> None:
    home = tmp_path / "home"
    add_model(home / ".ollama" / "models", "fake", tiny_bert(tmp_path / "bert.gguf"))
    server = start_server(home, CORRAL_ENGINE=str(FAKE_ENGINE))
    ask(server, "/api/embed")
    _, answer, _ = ask(server, "/api/embed", input=["one two", "three"])
    scrape = Scrape(server)
    assert scrape.value("prompt_tokens_total", model_name=MODEL) == answer["prompt_eval_count"] == 3
    assert scrape.value("request_success_total", model_name=MODEL, finished_reason="stop") == 1
    assert scrape.value("generation_tokens_total", model_name=MODEL) == 0
    assert scrape.value("request_queue_time_seconds_count", model_name=MODEL) == 1
    assert scrape.value("num_requests_running", model_name=MODEL) == 0


def test_a_model_that_is_loaded_twice_under_one_name_is_one_series(fake_server: RunningServer) -> None:
    ask(fake_server, "/api/generate")
    alone = Scrape(fake_server).value("model_memory_bytes", model_name=MODEL)
    ask(fake_server, "/api/embed", input="x")
    scrape = Scrape(fake_server)
    assert scrape.value("model_loads_total", model_name=MODEL) == 2
    assert scrape.value("model_memory_bytes", model_name=MODEL) > 1.5 * alone


def test_the_series_of_a_model_go_with_it(fake_server: RunningServer) -> None:
    for prompt in ("hello", "!error=400"):
        ask(fake_server, "/api/generate", prompt=prompt)
        ask(fake_server, "/api/generate", prompt=prompt, model="native")
    assert Scrape(fake_server).value("model_loads_total", model_name=MODEL) == 1
    request = urllib.request.Request(f"{fake_server.url}/api/delete", b'{"model": "Fake"}', method="DELETE")
    urllib.request.urlopen(request, timeout=30).close()
    scrape = Scrape(fake_server)
    left = {sample.name for sample in scrape.samples if sample.labels.get("model_name") == MODEL}
    of_its_runner = {"corral_model_memory_bytes", "corral_model_context_tokens", "corral_kv_cache_usage_perc"}
    assert left <= of_its_runner, "it is still loaded, but nothing else is known of it"
    assert scrape.value("model_loads_total", model_name="native:latest") == 1


def test_prompt_tokens_found_in_the_cache_are_counted(real_server: RunningServer) -> None:
    before = Scrape(real_server)
    name = "smollm2:135m"
    prompt = "The quick brown fox jumps over the lazy dog and then it sleeps under a tree all day."
    for _ in range(2):
        ask(real_server, "/api/generate", model=name, prompt=prompt, raw=True, options={"num_predict": 1})
    after = Scrape(real_server)

    def grown(series: str) -> float:
        return after.value(series, model_name=name) - before.value(series, model_name=name)

    assert grown("prefix_cache_queries_total") == grown("prompt_tokens_total")
    assert 0.3 < grown("prefix_cache_hits_total") / grown("prefix_cache_queries_total") < 1
