"""What goes wrong around a running server: clients that leave, engines that die, signals, full queues."""

import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.asking import InBackground, ask, generate, metric, post, streaming, until
from tests.conftest import FAKE_ENGINE, RunningServer, StartServer, add_model, running_server
from tests.engines import Event, FakeEngine, engines, tell
from tests.tiny_models import tiny_llama

MODELS = ("fake", "second", "third")

GONE = (
    "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error, "
    "check corral server logs for details"
)


def asked(prompt: str, model: str = "fake") -> dict[str, object]:
    return {"model": model, "prompt": prompt}


def fill(home: Path, work: Path) -> Path:
    """A home folder with three models of different weights."""
    models = home / ".ollama" / "models"
    for seed, name in enumerate(MODELS):
        add_model(models, name, tiny_llama(work / f"{name}.gguf", seed=seed))
    return home


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    work = tmp_path_factory.mktemp("faults")
    with running_server(fill(work / "home", work), CORRAL_ENGINE=str(FAKE_ENGINE)) as server:
        yield server


@pytest.fixture
def server(shared: RunningServer) -> RunningServer:
    """A server over the fake engine with nothing loaded, as if nothing had ever been."""
    tell(shared.home)
    for name in MODELS:
        post(shared, "/api/generate", {"model": name, "keep_alive": 0})
    for engine in engines(shared.home):
        engine.wait_for_end()
    for left in ("engines", "state/workers"):
        shutil.rmtree(shared.home / left, ignore_errors=True)
    (shared.home / "go").unlink(missing_ok=True)
    return shared


@pytest.fixture
def start(tmp_path: Path, start_server: StartServer) -> StartServer:
    """Starts a server of one's own, which may be ended."""

    def start(**variables: str) -> RunningServer:
        return start_server(fill(tmp_path / "home", tmp_path), CORRAL_ENGINE=str(FAKE_ENGINE), **variables)

    return start


def loaded(server: RunningServer, model: str = "fake") -> FakeEngine:
    """The engine of a model, which is loaded for it."""
    assert post(server, "/api/generate", {"model": model}).json["done_reason"] == "load"
    return engines(server.home)[-1]


def how_ended(engine: FakeEngine) -> list[str]:
    """How the completions asked of an engine ended, as soon as all that was asked of it has."""

    def completions(event: str) -> list[Event]:
        return [one for one in engine.events if one["event"] == event and one["path"] == "/completion"]

    until(lambda: len(completions("ended")) == len(completions("request")) > 0)
    return [event["how"] for event in completions("ended")]


def test_a_client_that_leaves_in_the_middle_frees_its_slot_at_once(server: RunningServer) -> None:
    with streaming(server, "/api/generate", asked("!tokens=9 !hold=1")) as stream:
        assert stream.line()["response"] == "w1 "
    (engine,) = engines(server.home)
    assert how_ended(engine) == ["closed"]
    until(lambda: metric(server, "corral_num_requests_running") == 0)
    assert generate(server, "hello").json["response"] == "w1 w2 w3 "
    assert len(engines(server.home)) == 1


def test_a_client_that_leaves_before_the_first_token_frees_its_slot(server: RunningServer) -> None:
    engine = loaded(server)
    with streaming(server, "/api/chat", {"model": "fake", "messages": [{"role": "user", "content": "!hang"}]}):
        engine.wait("hanging")
    assert how_ended(engine) == ["closed"]


def test_a_client_that_leaves_a_whole_answer_frees_its_slot_too(server: RunningServer) -> None:
    engine = loaded(server)
    with streaming(server, "/api/generate", {**asked("!tokens=5 !hang-after=2"), "stream": False}):
        engine.wait("hanging")
    assert how_ended(engine) == ["closed"]


def test_a_client_that_leaves_while_its_model_loads_ends_the_load(server: RunningServer) -> None:
    tell(server.home, loads_when="never")
    with streaming(server, "/api/generate", asked("hello")):
        until(lambda: bool(engines(server.home)))
        (engine,) = engines(server.home)
        assert engine.alive
    engine.wait_for_end()
    tell(server.home)
    assert generate(server, "hello").status == 200


def test_a_client_that_leaves_the_line_gives_up_its_place(start: StartServer) -> None:
    server = start(OLLAMA_NUM_PARALLEL="1")
    with streaming(server, "/api/generate", asked("!tokens=2 !hold=1")) as first:
        first.line()
        with streaming(server, "/api/generate", asked("second")):
            until(lambda: metric(server, "corral_num_requests_waiting") == 1)
        until(lambda: metric(server, "corral_num_requests_waiting") == 0)
        third = InBackground(lambda: generate(server, "third"))
        until(lambda: metric(server, "corral_num_requests_waiting") == 1)
        (server.home / "go").touch()
        assert [line["done"] for line in first.rest()] == [False, True]
    assert third.result().status == 200
    (engine,) = engines(server.home)
    assert [body["prompt"] for body in engine.bodies()] == ["!tokens=2 !hold=1", "third"]
    assert engine.most_at_once() == 1


def test_an_engine_that_dies_fails_its_own_requests_and_the_next_one_works(server: RunningServer) -> None:
    with (
        streaming(server, "/api/generate", asked("!tokens=2 !hold=1")) as other,
        streaming(server, "/api/generate", asked("!tokens=5 !crash-after=2", "third")) as dying,
    ):
        other.line()
        lines = dying.rest()
        assert [line["response"] for line in lines[:-1]] == ["w1 ", "w2 "]
        assert lines[-1] == {"error": f"{GONE} (signal: aborted: error: the fake engine was told to crash)"}
        again = generate(server, "hello", "third")
        assert (again.status, again.json["response"]) == (200, "w1 w2 w3 ")
        (server.home / "go").touch()
        assert other.rest()[-1]["done"] is True


def test_an_engine_that_dies_before_the_first_token_is_an_error_of_500(server: RunningServer) -> None:
    answer = post(server, "/api/generate", asked("!crash"))
    assert (answer.status, answer.headers["content-type"]) == (500, "application/json; charset=utf-8")
    assert answer.error.startswith(GONE)
    assert generate(server, "hello").status == 200


def test_an_engine_killed_while_idle_is_not_noticed_by_the_next_request(server: RunningServer) -> None:
    assert generate(server, "hello").status == 200
    (engine,) = engines(server.home)
    os.kill(engine.pid, signal.SIGKILL)
    until(lambda: ask(server, "GET", "/api/ps").json == {"models": []})
    assert generate(server, "hello").status == 200
    assert len(engines(server.home)) == 2


def test_an_engine_that_cannot_load_says_why_and_is_tried_again(server: RunningServer) -> None:
    tell(server.home, fails="error: unknown model architecture: 'nonsense'")
    answer = generate(server, "hello")
    assert answer.status == 500
    assert answer.error == (
        "llama-server process has terminated: exit status 1: error: unknown model architecture: 'nonsense'"
    )
    tell(server.home)
    assert generate(server, "hello").status == 200


def test_all_who_wait_for_a_load_that_fails_are_told(server: RunningServer) -> None:
    tell(server.home, fails="error: no", loads_when="go")
    waiting = [InBackground(lambda: generate(server, "hello")) for _ in range(3)]
    until(lambda: metric(server, "corral_num_requests_waiting") == 2)
    (server.home / "go").touch()
    assert [call.result().status for call in waiting] == [500, 500, 500]
    assert len(engines(server.home)) == 1


NO_MEMORY = "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 24159191040"


def test_too_little_memory_is_tried_again_with_a_smaller_pool(start: StartServer) -> None:
    server = start(OLLAMA_NUM_PARALLEL="4")
    tell(server.home, fails=NO_MEMORY, fails_above_context=4096)
    assert generate(server, "hello").status == 200
    assert [engine.options["ctx_size"] for engine in engines(server.home)] == [8192, 2048]


def test_too_little_memory_at_all_is_told(server: RunningServer) -> None:
    tell(server.home, fails=NO_MEMORY)
    answer = generate(server, "hello")
    assert (answer.status, answer.error) == (
        500,
        "not enough memory to load the model: failed to allocate buffer of size 24159191040",
    )


def test_a_load_that_hangs_is_given_up(start: StartServer) -> None:
    server = start(OLLAMA_LOAD_TIMEOUT="1s")
    tell(server.home, never_healthy=True)
    answer = generate(server, "hello")
    assert (answer.status, answer.error) == (500, "timed out waiting for llama-server to start - ")
    assert all(not engine.alive for engine in engines(server.home))


@pytest.mark.parametrize("status", [400, 404, 500, 501, 503])
def test_an_engine_that_refuses_is_quoted(server: RunningServer, status: int) -> None:
    for stream in (True, False):
        answer = post(server, "/api/generate", {**asked(f"!error={status}"), "stream": stream})
        assert (answer.status, answer.error) == (status, f"refused with {status}")


@pytest.mark.parametrize("word", ["error-after", "old-error-after"])
def test_an_error_after_the_first_line_is_a_line(server: RunningServer, word: str) -> None:
    answer = post(server, "/api/generate", asked(f"!tokens=5 !{word}=2"))
    assert answer.status == 200
    assert [line.get("response") for line in answer.lines] == ["w1 ", "w2 ", None]
    assert answer.body.endswith(b'\n{"error":"the fake engine failed"}\n')
    whole = generate(server, f"!tokens=5 !{word}=2")
    assert (whole.status, whole.error) == (500, "the fake engine failed")


@pytest.mark.parametrize("model", MODELS[:2])
def test_a_broken_connection_is_an_error_and_no_end(server: RunningServer, model: str) -> None:
    answer = post(server, "/api/generate", asked("!tokens=5 !cut-after=2", model))
    assert [line.get("response") for line in answer.lines] == ["w1 ", "w2 ", None]
    assert answer.lines[-1]["error"].startswith("an error was encountered while running the model: ")
    assert generate(server, "hello", model).status == 200


def test_a_full_queue_refuses_and_names_a_time(start: StartServer) -> None:
    server = start(OLLAMA_NUM_PARALLEL="1", OLLAMA_MAX_QUEUE="1")
    with streaming(server, "/api/generate", asked("!tokens=2 !hold=1")) as first:
        first.line()
        waiting = InBackground(lambda: generate(server, "second"))
        until(lambda: metric(server, "corral_num_requests_waiting") == 1)
        refused = generate(server, "third")
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert refused.error == "server busy, please try again.  maximum pending requests exceeded"
        (server.home / "go").touch()
        first.rest()
    assert waiting.result().status == 200


@pytest.mark.parametrize("room", [1, 2])
def test_twenty_clients_of_three_models_are_all_answered_with_room_for_fewer(start: StartServer, room: int) -> None:
    """Each asks three models in turn, beginning with another one than its neighbours: nobody is lost or mistaken."""
    server = start(OLLAMA_MAX_LOADED_MODELS=str(room))

    def turns(client: int) -> list[tuple[int, str]]:
        names = [MODELS[(client + turn) % 3] for turn in range(3)]
        answers = [generate(server, f"!say={name}-{client}", name) for name in names]
        return [(answer.status, answer.json.get("response", answer.body)) for answer in answers]

    with ThreadPoolExecutor(20) as pool:
        answered = list(pool.map(turns, range(20)))
    assert answered == [[(200, f"{MODELS[(client + turn) % 3]}-{client}") for turn in range(3)] for client in range(20)]
    assert sum(engine.alive for engine in engines(server.home)) == room
    assert all(engine.overflows() == [] for engine in engines(server.home))


def held_at_once(server: RunningServer, clients: int, **more: object) -> FakeEngine:
    """The engine after so many clients have asked at once and nobody more was let in."""
    engine = loaded(server)
    body = {**asked("!tokens=2 !hold=1"), "stream": False, **more}
    with ThreadPoolExecutor(clients) as pool:
        calls = [pool.submit(post, server, "/api/generate", body) for _ in range(clients)]
        until(lambda: metric(server, "corral_num_requests_waiting") + engine.most_at_once() == clients)
        (server.home / "go").touch()
        assert [call.result().status for call in calls] == [200] * clients
    assert engine.overflows() == []
    return engine


def test_no_more_requests_run_than_the_pool_can_hold(server: RunningServer) -> None:
    """With a seed each keeps 2048 tokens to itself, and the pool has no more: whatever the sixteen slots would take."""
    assert held_at_once(server, 3, options={"seed": 1}).most_at_once() == 1


def test_answers_of_open_length_share_the_pool(server: RunningServer) -> None:
    """Each may grow to 2048 tokens as well, but is let in with a slot's share of them."""
    assert held_at_once(server, 12).most_at_once() == 12


def test_a_long_answer_is_asked_for_in_segments_and_comes_whole(server: RunningServer) -> None:
    given = generate(server, "!tokens=300")
    assert given.status == 200, given.body
    answer = given.json
    assert answer["response"] == "".join(f"w{number} " for number in range(1, 301))
    assert (answer["eval_count"], answer["done_reason"]) == (300, "stop")
    asked = [event["body"] for event in loaded(server).events if event.get("path") == "/completion" and "body" in event]
    segments = [body for body in asked if body["n_predict"]]
    assert len(segments) > 1
    assert [len(body["prompt"]) - 1 for body in segments[1:]] == [
        sum(body["n_predict"] for body in segments[:place]) for place in range(1, len(segments))
    ]


def test_short_answers_run_in_as_many_slots_as_there_are(server: RunningServer) -> None:
    assert held_at_once(server, 20, options={"num_predict": 64}).most_at_once() == 16


def test_a_long_prompt_is_read_in_parts_so_that_others_get_their_turn(server: RunningServer) -> None:
    engine = loaded(server)
    words = " ".join(f"word{number}" for number in range(1900))
    assert generate(server, words, raw=True, options={"num_predict": 2}).status == 200
    part, whole = engine.bodies()
    assert (part["n_predict"], whole["n_predict"]) == (0, 2)
    assert (part["prompt"], whole["prompt"]) == (list(range(512)), words)


@pytest.mark.parametrize("more", [{}, {"seed": 1}])
def test_a_long_prompt_that_may_be_in_the_cache_or_not_be_taken_from_it_is_read_whole(
    server: RunningServer, more: dict[str, int]
) -> None:
    engine = loaded(server)
    words = " ".join(f"word{number}" for number in range(1900))
    if not more:
        assert generate(server, "word0", raw=True).status == 200
    assert generate(server, words, raw=True, options={"num_predict": 2, **more}).status == 200
    assert [body["prompt"] for body in engine.bodies()][-1:] == [words]
    assert all(body["n_predict"] > 0 for body in engine.bodies())


def test_a_client_that_leaves_while_its_long_prompt_is_read_ends_that(server: RunningServer) -> None:
    engine = loaded(server)
    words = " ".join(f"word{number}" for number in range(1900))
    with streaming(server, "/api/generate", asked(f"!hang {words}")):
        engine.wait("hanging")
    assert how_ended(engine) == ["closed"]
    assert [len(body["prompt"]) for body in engine.bodies()] == [512]


def test_clients_with_different_contexts_share_a_model(server: RunningServer) -> None:
    for num_ctx in (1024, 512, 2048, None):
        assert generate(server, "hello", options={"num_ctx": num_ctx}).status == 200
    assert [engine.options["kv_unified_per_slot"] for engine in engines(server.home)] == [1024, 2048]


def test_a_model_whose_name_is_gone_is_still_shown_as_loaded(start: StartServer) -> None:
    """By another name of the same weights, which can be stopped, and else by the one it had."""
    server = start()
    assert generate(server, "hello").status == 200

    def shown() -> list[tuple[str, str]]:
        return [(row["name"], row["details"]["family"]) for row in ask(server, "GET", "/api/ps").json["models"]]

    assert shown() == [("fake:latest", "llama")]
    assert post(server, "/api/copy", {"source": "fake", "destination": "twin"}).status == 200
    assert ask(server, "DELETE", "/api/delete", {"model": "fake"}).status == 200
    assert shown() == [("twin:latest", "llama")]
    assert ask(server, "DELETE", "/api/delete", {"model": "twin"}).status == 200
    assert shown() == [("fake:latest", "")]


def test_sigterm_ends_the_server_its_streams_and_its_workers(start: StartServer) -> None:
    server = start()
    with streaming(server, "/api/generate", asked("!tokens=5 !hang-after=1")) as stream:
        stream.line()
        generate(server, "hello", "third")
        assert len(engines(server.home)) == 2
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
        assert stream.rest() == [{"error": "the server is stopping"}]
    assert [engine.alive for engine in engines(server.home)] == [False, False]
    written = server.log.read_text()
    assert "model fake:latest unloaded" in written
    assert "Traceback" not in written


def test_sigterm_during_a_load_ends_it(start: StartServer) -> None:
    server = start()
    tell(server.home, loads_when="never")
    waiting = InBackground(lambda: generate(server, "hello"))
    until(lambda: bool(engines(server.home)))
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 0
    assert (waiting.result().status, waiting.result().error) == (503, "the server is stopping")
    assert [engine.alive for engine in engines(server.home)] == [False]
    assert "Traceback" not in server.log.read_text()


def test_a_worker_that_refuses_to_end_is_killed(start: StartServer) -> None:
    server = start()
    tell(server.home, ignores_sigterm=True)
    assert generate(server, "hello").status == 200
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 0
    assert [engine.alive for engine in engines(server.home)] == [False]


def test_a_killed_server_leaves_no_worker(start: StartServer) -> None:
    server = start()
    assert generate(server, "hello").status == 200
    tell(server.home, ignores_sigterm=True)
    assert generate(server, "hello", "third").status == 200
    workers = [psutil.Process(engine.pid) for engine in engines(server.home)]
    server.process.kill()
    server.process.wait(30)
    psutil.wait_procs(workers, timeout=20)
    assert [engine.alive for engine in engines(server.home)] == [False, False]


def test_the_workers_logs_are_kept(server: RunningServer) -> None:
    post(server, "/api/generate", asked("!crash"))
    (log,) = (server.home / "state" / "workers").iterdir()
    assert "the fake engine was told to crash" in log.read_text()
    for number in range(40):
        (log.parent / f"1-{number}.log").write_text("old")
    assert generate(server, "hello").status == 200
    assert len(list(log.parent.iterdir())) == 32


def test_keep_alive_0_unloads_after_the_answer(server: RunningServer) -> None:
    assert generate(server, "hello", keep_alive=0).status == 200
    (engine,) = engines(server.home)
    engine.wait_for_end()
    assert ask(server, "GET", "/api/ps").json == {"models": []}


def test_an_empty_prompt_with_keep_alive_0_unloads_even_in_use(server: RunningServer) -> None:
    with streaming(server, "/api/generate", asked("!tokens=2 !hold=1")) as stream:
        stream.line()
        assert post(server, "/api/generate", {"model": "fake", "keep_alive": 0}).json["done_reason"] == "unload"
        (engine,) = engines(server.home)
        assert engine.alive
        (server.home / "go").touch()
        assert stream.rest()[-1]["done"] is True
    engine.wait_for_end()


def test_a_short_keep_alive_runs_out(start: StartServer) -> None:
    server = start(OLLAMA_KEEP_ALIVE="100ms")
    assert generate(server, "hello").status == 200
    (engine,) = engines(server.home)
    engine.wait_for_end()


def test_an_idle_server_that_was_told_so_ends_itself(start: StartServer) -> None:
    server = start(CORRAL_IDLE_EXIT="1s", OLLAMA_KEEP_ALIVE="0")
    assert generate(server, "hello").status == 200
    assert server.process.wait(30) == 0
    assert "idle for 1 s, ending" in server.log.read_text()
    assert [engine.alive for engine in engines(server.home)] == [False]
