"""Real servers behind a name: other Corrals with a real model, and llama-server itself."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from corral.convert import convert
from corral.engine.base import RunnerSpec
from corral.engine.llama.launch import launch
from tests.asking import InBackground, ask, post, streaming, until
from tests.conftest import RunningServer, add_model, running_server
from tests.fake_upstream import dead_url, fake_upstream
from tests.test_upstreams import front

CONVERSATIONS, TURNS = 8, 4
WORDS = [
    "amber",
    "birch",
    "cedar",
    "dune",
    "elm",
    "fern",
    "grove",
    "heath",
    "iris",
    "jade",
    "kelp",
    "larch",
    "moss",
    "nettle",
    "oak",
    "pine",
    "quartz",
    "reed",
    "sage",
]


def options(tokens: int) -> dict[str, Any]:
    return {"temperature": 0, "num_predict": tokens}


@contextmanager
def corrals(folder: Path, model: Path, count: int) -> Iterator[list[RunningServer]]:
    """So many Corrals that have the model as `smol`."""
    with ExitStack() as stack:
        servers = []
        for number in range(count):
            home = folder / f"node{number}"
            add_model(home / ".ollama" / "models", "smol", model)
            servers.append(stack.enter_context(running_server(home)))
        yield servers


@pytest.fixture(scope="module")
def two(starter_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RunningServer]]:
    with corrals(tmp_path_factory.mktemp("two"), starter_gguf, 2) as servers:
        yield servers


def name_of(server: RunningServer) -> str:
    return server.url.removeprefix("http://")


def test_another_corral_answers_in_every_dialect_as_it_does_itself(two: list[RunningServer], tmp_path: Path) -> None:
    node = two[0]
    body = {"messages": [{"role": "user", "content": "Name three colours."}], "stream": False, "options": options(12)}
    upstreams = [{"url": node.url, "model": "smol"}]
    with front(tmp_path / "front", {"m": upstreams}, CORRAL_UPSTREAM_TIMEOUT="60s") as server:
        direct, through = (
            post(node, "/api/chat", {"model": "smol", **body}),
            post(server, "/api/chat", {"model": "m", **body}),
        )
        assert through.json["message"] == direct.json["message"]
        for count in ("prompt_eval_count", "eval_count", "done_reason"):
            assert through.json[count] == direct.json[count], count
        with streaming(server, "/api/chat", {"model": "m", **body, "stream": True}) as lines:
            pieces = [line["message"]["content"] for line in lines.rest()]
        assert "".join(pieces) == direct.json["message"]["content"]
        assert len(pieces) > 5
        raw = {"prompt": "1, 2, 3,", "raw": True, "stream": False, "options": options(6)}
        answers = [post(one, "/api/generate", {"model": m, **raw}).json for one, m in ((node, "smol"), (server, "m"))]
        assert answers[0]["response"] == answers[1]["response"] != ""
        schema = {"type": "object", "properties": {"colour": {"enum": ["red", "green"]}}, "required": ["colour"]}
        formed = post(server, "/api/chat", {"model": "m", **body, "format": schema, "options": options(30)}).json
        assert formed["message"]["content"].replace(" ", "") in ('{"colour":"red"}', '{"colour":"green"}')
        claude = {"max_tokens": 5, "temperature": 0, "messages": [{"role": "user", "content": "Count to ten."}]}
        said = [post(one, "/v1/messages", {"model": m, **claude}).json for one, m in ((node, "smol"), (server, "m"))]
        assert said[0]["content"] == said[1]["content"]
        assert said[0]["usage"]["output_tokens"] == said[1]["usage"]["output_tokens"]
        likely = post(server, "/api/chat", {"model": "m", **body, "logprobs": True, "top_logprobs": 2})
        assert likely.status == 200, likely.body
        logprobs = likely.json["logprobs"]
        assert all(len(one["top_logprobs"]) == 2 for one in logprobs)
        assert len(logprobs) >= 10


def test_a_conversation_goes_where_its_beginning_is_cached(two: list[RunningServer], tmp_path: Path) -> None:
    """At least nine tenths of the prompts after the first turns are found in the caches of the two servers."""
    upstreams = [{"url": node.url, "model": "smol"} for node in two]
    prompts = cached = 0
    places: dict[int, set[str]] = {}
    with front(tmp_path / "front", {"m": upstreams}, CORRAL_UPSTREAM_TIMEOUT="60s") as server:
        talks: list[list[dict[str, str]]] = [
            [{"role": "system", "content": " ".join(f"{word}{number}" for word in WORDS * 4)}]
            for number in range(CONVERSATIONS)
        ]
        for turn in range(TURNS):
            for number, talk in enumerate(talks):
                talk.append({"role": "user", "content": f"Turn {turn}: go on."})
                body = {"model": "m", "messages": talk, "max_tokens": 8, "temperature": 0}
                answer = post(server, "/v1/chat/completions", body)
                places.setdefault(number, set()).add(answer.headers["x-corral-replica"])
                talk.append(answer.json["choices"][0]["message"])
                usage = answer.json["usage"]
                if turn:
                    prompts += usage["prompt_tokens"]
                    cached += usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)
    assert all(len(names) == 1 for names in places.values())
    assert set().union(*places.values()) == {name_of(node) for node in two}, "one of them got everything"
    print(f"{cached} of {prompts} tokens were cached: {cached / prompts:.1%}")
    assert cached >= 0.9 * prompts


def test_when_a_server_is_killed_the_next_request_is_served_elsewhere(starter_gguf: Path, tmp_path: Path) -> None:
    hello = [{"role": "user", "content": "Count to a thousand."}]
    with corrals(tmp_path, starter_gguf, 2) as nodes, ExitStack() as stack:
        upstreams = [{"url": node.url, "model": "smol"} for node in nodes]
        server = stack.enter_context(front(tmp_path / "front", {"m": upstreams}, CORRAL_UPSTREAM_TIMEOUT="60s"))
        with streaming(server, "/api/chat", {"model": "m", "messages": hello, "options": options(4000)}) as lines:
            assert "message" in lines.line()
            nodes[0].process.kill()
            nodes[0].process.wait()
            last = lines.rest()[-1]
        assert f'upstream "{name_of(nodes[0])}"' in last["error"], "amid an answer: one line"
        for _ in range(5):
            body = {"model": "m", "messages": hello, "stream": False, "options": options(4)}
            answer = post(server, "/api/chat", body)
            assert (answer.status, answer.headers["x-corral-replica"]) == (200, name_of(nodes[1]))


def test_a_busy_machine_spills_to_another(starter_gguf: Path, two: list[RunningServer], tmp_path: Path) -> None:
    """The model is here and on another server; here it has one slot."""
    home = tmp_path / "front"
    add_model(home / ".ollama" / "models", "smol", starter_gguf)
    models = {"smol": [{"url": two[0].url}]}
    hello = [{"role": "user", "content": "Count to a thousand."}]
    body = {"model": "smol", "messages": hello, "stream": False, "options": options(4)}
    with front(home, models, OLLAMA_NUM_PARALLEL="1", CORRAL_UPSTREAM_TIMEOUT="60s") as server:
        first = post(server, "/api/chat", body)
        assert (first.headers["x-corral-replica"], first.status) == ("local", 200)
        assert first.headers["x-corral-replica-reason"] == "it comes before the others"
        long = {**body, "stream": True, "options": options(4000)}
        with streaming(server, "/api/chat", long) as lines:
            lines.line()
            second = post(server, "/api/chat", body)
            assert second.headers["x-corral-replica"] == name_of(two[0])
            assert second.headers["x-corral-replica-reason"] == "those before it have no room"
            only_here = post(
                server, "/api/chat", {**body, "model": "smol:local", "stream": True, "options": options(1)}
            )
            assert "x-corral-replica" not in only_here.headers
        tokens = post(server, "/api/tokenize", {"model": "smol", "text": "hello"})
        assert tokens.json["count"] >= 1, "what only this machine can do"
        listed = ask(server, "GET", "/api/tags").json["models"]
        assert [("remote_host" in one, one["name"]) for one in listed] == [(False, "smol:latest")]


def test_a_machine_that_is_full_answers_later_where_nobody_else_does(starter_gguf: Path, tmp_path: Path) -> None:
    """One slot here, and a server elsewhere that is gone, or takes no more requests."""
    home = tmp_path / "front"
    add_model(home / ".ollama" / "models", "smol", starter_gguf)
    hello = [{"role": "user", "content": "Count to a thousand."}]
    body = {"model": "smol", "messages": hello, "stream": False, "options": options(4)}
    with fake_upstream() as busy:
        for spill, upstream in (("local-first", {"url": dead_url()}), ("remote-first", {"url": busy.url})):
            models = {"smol": [{**upstream, "model": "busy"}]}
            with front(home, models, spill=spill, OLLAMA_NUM_PARALLEL="1") as server:
                assert post(server, "/api/chat", body).headers["x-corral-replica"] == "local"
                long = {**body, "stream": True, "options": options(100)}
                with streaming(server, "/api/chat", long) as lines:
                    lines.line()
                    waiting = InBackground(lambda: post(server, "/api/chat", body))
                    assert lines.rest()[-1]["eval_count"] == 100
                    answer = waiting.result()
                assert (answer.status, answer.headers["x-corral-replica"]) == (200, "local")
                assert answer.json["eval_count"] == 4
        assert busy.asked(), "the server that comes first was asked"


def test_another_corral_says_what_its_models_can_do(starter_gguf: Path, minilm_folder: Path, tmp_path: Path) -> None:
    node_home = tmp_path / "node"
    store = node_home / ".ollama" / "models"
    add_model(store, "smol", starter_gguf)
    files = {file.relative_to(minilm_folder).as_posix(): file for file in minilm_folder.rglob("*") if file.is_file()}
    convert(files, tmp_path / "minilm.gguf", report=lambda step: None)
    add_model(store, "minilm", tmp_path / "minilm.gguf")
    with running_server(node_home) as node:
        models = {"m": [{"url": node.url, "model": "smol"}], "e": [{"url": node.url, "model": "minilm"}]}
        with front(tmp_path / "front", models, CORRAL_UPSTREAM_TIMEOUT="60s") as server:
            until(lambda: len(ask(server, "GET", "/api/ps").json["models"]) == 2)
            for name, model in (("m", "smol"), ("e", "minilm")):
                there = post(node, "/api/show", {"model": model}).json
                here = post(server, "/api/show", {"model": name}).json
                for field in ("family", "parameter_size", "quantization_level"):
                    assert here["details"][field] == there["details"][field] != ""
                assert here["capabilities"] == [one for one in there["capabilities"] if one != "insert"]
                listed = ask(server, "GET", f"/v1/models/{name}").json
                assert listed["capabilities"] == here["capabilities"]
                family = there["details"]["family"]
                length = there["model_info"][f"{family}.context_length"]
                assert listed["max_model_len"] == here["model_info"][f"{family}.context_length"] == length
            texts = ["a red fox", "a crow"]
            for path in ("/api/embed", "/v1/embeddings"):
                direct = post(node, path, {"model": "minilm", "input": texts}).json
                through = post(server, path, {"model": "e", "input": texts}).json
                vectors = [
                    one["embeddings"] if "embeddings" in one else [row["embedding"] for row in one["data"]]
                    for one in (direct, through)
                ]
                assert vectors[0][0] == pytest.approx(vectors[1][0], abs=1e-6)
                assert vectors[0][1] == pytest.approx(vectors[1][1], abs=1e-6)
            older = [
                post(one, "/api/embeddings", {"model": m, "prompt": "a crow"}).json["embedding"]
                for one, m in ((node, "minilm"), (server, "e"))
            ]
            assert older[0] == pytest.approx(older[1], abs=1e-5)
            refused = post(server, "/api/chat", {"model": "e", "messages": [{"role": "user", "content": "hello"}]})
            assert (refused.status, "does not support chat" in refused.error) == (400, True)


async def test_llama_server_itself_is_an_upstream(starter_gguf: Path, tmp_path: Path) -> None:
    import asyncio

    spec = RunnerSpec(model=str(starter_gguf), num_ctx=2048, slots=2, pool=4096)
    engine = await launch(spec, log=tmp_path / "worker.log", stall_timeout=60)
    try:
        key = tmp_path / "key"
        key.write_text(engine._worker.key)
        key.chmod(0o600)
        upstreams = [{"url": engine.url, "key_file": str(key), "model": "smollm2"}]
        await asyncio.to_thread(_ask_llama_server, tmp_path, upstreams)
    finally:
        await engine.close()


def _ask_llama_server(folder: Path, upstreams: list[dict[str, Any]]) -> None:
    with front(folder / "front", {"m": upstreams}, CORRAL_UPSTREAM_TIMEOUT="60s") as server:
        until(lambda: len(ask(server, "GET", "/api/ps").json["models"]) == 1)
        shown = post(server, "/api/show", {"model": "m"}).json
        assert shown["capabilities"] == ["completion"], "its template has no place for tools"
        assert (shown["details"]["quantization_level"], shown["details"]["parameter_size"]) == ("Q4_1", "134.52M")
        assert shown["details"]["context_length"] == 2048, "what a request gets, not what the model was trained with"
        assert shown["upstreams"][0]["capabilities"] == shown["capabilities"], "its properties are read"
        hello = [{"role": "user", "content": "Name three colours."}]
        body = {"model": "m", "messages": hello, "stream": False, "options": options(10)}
        first, again = post(server, "/api/chat", body).json, post(server, "/api/chat", body)
        assert (first["eval_count"], first["done_reason"]) == (10, "length")
        assert again.json["message"] == first["message"]
        (report,) = ask(server, "GET", f"/api/requests?id={again.headers['x-request-id']}").json["requests"]
        assert report["cached_tokens"] >= 0.9 * report["prompt_tokens"] - 5, "its timings are read"
        raw = {
            "model": "m",
            "prompt": "1, 2, 3,",
            "raw": True,
            "stream": False,
            "options": options(5),
            "logprobs": True,
        }
        generated = post(server, "/api/generate", raw).json
        assert (generated["eval_count"], len(generated["logprobs"])) == (5, 5)
