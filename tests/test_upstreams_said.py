"""What other servers say of their models, and what lists and commands show of that."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.asking import ask, post, until
from tests.conftest import RunningServer
from tests.fake_upstream import USUAL_MODEL, Behaviour, FakeUpstream, dead_url, fake_upstream, listing, whole
from tests.test_upstreams import front

USUAL = ["completion", "tools"]


def entry(name: str, owner: str = "somebody", **more: Any) -> dict[str, Any]:
    """An entry of `/v1/models`."""
    return {"id": name, "object": "model", "created": 1700000000, "owned_by": owner, **more}


def shown(capabilities: Any, **more: Any) -> dict[str, Any]:
    """A reply of `/api/show`."""
    details = {"family": "qwen3", "parameter_size": "8.2B", "quantization_level": "Q4_K_M", "format": "gguf"}
    info = {"general.architecture": "qwen3", "qwen3.context_length": 40960}
    return {"details": details, "model_info": info, "capabilities": capabilities, **more}


LISTED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "says-nothing": ({}, USUAL),
    "words": ({"capabilities": ["embed"]}, ["embedding"]),
    "switches": (
        {"capabilities": {"completion_chat": True, "function_calling": False, "vision": True}},
        ["completion", "vision"],
    ),
    "type": ({"type": "embedding"}, ["embedding"]),
    "other-type": ({"type": "chat"}, USUAL),
    "number": ({"capabilities": 5}, USUAL),
    "numbers": ({"capabilities": [5, None, ["vision"]]}, USUAL),
    "unknown": ({"capabilities": ["levitation"]}, USUAL),
}
"""What a list says of a model, and what it can do by that."""

SHOWN: dict[str, tuple[Behaviour, list[str]]] = {
    "shown": (
        whole(shown(["thinking", "vision", "completion", "insert", "levitation"])),
        ["completion", "vision", "thinking"],
    ),
    "shown-embedding": (whole(shown(["embedding"])), ["embedding"]),
    "shown-nothing": (whole(shown(None)), USUAL),
    "shown-html": (whole("<html></html>", kind="text/html"), USUAL),
    "shown-wrong": (whole({"details": 5}), USUAL),
    "shown-deep": (whole("[" * 100_000), USUAL),
    "shown-500": (whole({"error": "out of order"}, 500), USUAL),
    "shown-redirect": (whole("", 307, location="http://127.0.0.1:1/"), USUAL),
    "shown-endless": (whole(shown(["vision"], template="x" * (5 << 20))), USUAL),
}
"""How a server answers `/api/show`, and what its model can do by that."""


@pytest.fixture(scope="module")
def upstream() -> Iterator[FakeUpstream]:
    with fake_upstream() as server:
        listed = [entry(name, **more) for name, (more, _) in LISTED.items()]
        server.lists = listing(*listed, *map(entry, SHOWN), entry("chosen"), entry("good"))
        server.shows = {name: behaviour for name, (behaviour, _) in SHOWN.items()}
        server.shows["chosen"] = whole(shown(["completion", "vision"]))
        yield server


@pytest.fixture(scope="module")
def server(upstream: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    names = [*LISTED, *SHOWN, "chosen", "good"]
    models = {name: [{"url": upstream.url}] for name in names} | {"unlisted": [{"url": upstream.url}]}
    with front(tmp_path_factory.mktemp("front"), models, capabilities={"chosen": ["embedding"]}) as running:
        until(lambda: len(ask(running, "GET", "/api/ps").json["models"]) == len(names))
        yield running


def said(server: RunningServer, name: str) -> list[Any]:
    """What each list says that a model can do."""
    full = f"{name}:latest"
    lists = [ask(server, "GET", path).json["models"] for path in ("/api/tags", "/api/ps")]
    found = [one["capabilities"] for models in lists for one in models if one["name"] == full]
    found += [one["capabilities"] for one in ask(server, "GET", "/v1/models").json["data"] if one["id"] == full]
    found.append(post(server, "/api/show", {"model": name}).json["capabilities"])
    found.append(ask(server, "GET", f"/v1/models/{name}").json["capabilities"])
    return found


@pytest.mark.parametrize("name", [*LISTED, *SHOWN])
def test_lists_say_what_a_model_can_do_as_its_server_says_it(server: RunningServer, name: str) -> None:
    _, expected = LISTED[name] if name in LISTED else SHOWN[name]
    assert said(server, name) == [expected] * 5


def test_what_the_configuration_says_goes_before(server: RunningServer, upstream: FakeUpstream) -> None:
    assert said(server, "chosen") == [["embedding"]] * 5
    (one,) = post(server, "/api/show", {"model": "chosen"}).json["upstreams"]
    assert one["capabilities"] == ["completion", "vision"]


def test_lists_describe_a_model_as_its_server_does(server: RunningServer) -> None:
    reply = post(server, "/api/show", {"model": "shown"}).json
    details = {"family": "qwen3", "families": ["qwen3"], "parameter_size": "8.2B", "quantization_level": "Q4_K_M"}
    assert reply["details"] == {"parent_model": "", "format": "", **details, "context_length": 40960}
    info = {"general.architecture": "qwen3", "general.basename": "shown", "qwen3.context_length": 40960}
    assert reply["model_info"] == info
    (tag,) = [one for one in ask(server, "GET", "/api/tags").json["models"] if one["name"] == "shown:latest"]
    assert tag["details"] == reply["details"]


def test_a_server_that_does_not_list_its_model_is_said_to(server: RunningServer, upstream: FakeUpstream) -> None:
    (one,) = post(server, "/api/show", {"model": "unlisted"}).json["upstreams"]
    assert one["error"] == f'upstream "{upstream.name}" does not list a model "unlisted"'


def test_llama_server_is_asked_for_its_properties(tmp_path: Path) -> None:
    with fake_upstream() as upstream, fake_upstream() as older:
        upstream.lists = older.lists = listing(entry("m", owner="llamacpp", meta={"n_ctx_train": 131072}))
        caps = {"supports_tools": False, "supports_tool_calls": False, "supports_system_role": True}
        upstream.shows[""] = whole(
            {
                "default_generation_settings": {"n_ctx": 8192, "params": {}},
                "modalities": {"vision": True, "audio": False},
                "chat_template_caps": caps,
            }
        )
        older.shows[""] = whole({"default_generation_settings": {"n_ctx": 4096}})
        models = {"new": [{"url": upstream.url, "model": "m"}], "old": [{"url": older.url, "model": "m"}]}
        with front(tmp_path, models) as server:
            until(lambda: len(ask(server, "GET", "/api/ps").json["models"]) == 2)
            assert said(server, "new") == [["completion", "vision"]] * 5
            assert said(server, "old") == [USUAL] * 5
            lengths = {one["name"]: one["context_length"] for one in ask(server, "GET", "/api/ps").json["models"]}
            assert lengths == {"new:latest": 8192, "old:latest": 4096}
        assert upstream.asked("/api/show") == [], "llama-server says the same of every model there"


def test_llama_server_takes_a_model_by_any_of_its_names_or_the_only_one_by_any(tmp_path: Path) -> None:
    first = entry("/models/a.gguf", owner="llamacpp", aliases=["/models/a.gguf", "a"])
    first["meta"] = {"n_ctx": 2048, "n_ctx_train": 8192, "n_params": 134515008, "ftype": "Q4_1"}
    with fake_upstream() as alone, fake_upstream() as both:
        alone.lists = listing(first)
        both.lists = listing(first, entry("/models/b.gguf", owner="llamacpp"))
        models = {
            "only": [{"url": alone.url}],
            "alias": [{"url": both.url, "model": "a"}],
            "other": [{"url": both.url, "model": "c"}],
        }
        with front(tmp_path, models) as server:
            until(lambda: len(ask(server, "GET", "/api/ps").json["models"]) == 2)
            tags = {one["name"]: one["details"] for one in ask(server, "GET", "/api/tags").json["models"]}
            known = {"context_length": 2048, "parameter_size": "134.52M", "quantization_level": "Q4_1"}
            for name in ("only:latest", "alias:latest"):
                assert {key: tags[name][key] for key in known} == known
            (one,) = post(server, "/api/show", {"model": "other"}).json["upstreams"]
            assert 'does not list a model "c"' in one["error"]


def test_several_servers_can_do_what_all_of_them_can(tmp_path: Path) -> None:
    with fake_upstream() as one, fake_upstream() as other, fake_upstream() as silent:
        for upstream in (one, other, silent):
            upstream.lists = listing(entry("m"))
        one.shows["m"] = whole(shown(["completion", "tools", "vision"]))
        other.shows["m"] = whole(shown(["completion", "vision", "thinking"]))
        models = {"m": [{"url": upstream.url} for upstream in (one, other, silent)]}
        with front(tmp_path, models) as server:

            def known() -> list[Any]:
                return [one["capabilities"] for one in post(server, "/api/show", {"model": "m"}).json["upstreams"]]

            until(lambda: sum(map(bool, known())) == 2)
            assert said(server, "m") == [["completion", "vision"]] * 5


LISTS: dict[str, tuple[Behaviour, str]] = {
    "html": (whole("<html></html>", kind="text/html"), "answers what cannot be read"),
    "wrong-json": (whole("{'data': []}"), "answers what cannot be read"),
    "wrong-types": (whole({"data": [{"id": 5}]}), "answers what cannot be read"),
    "text-for-a-length": (listing(USUAL_MODEL | {"max_model_len": "long"}), "answers what cannot be read"),
    "deep": (whole("[" * 100_000), "answers what cannot be read"),
    "endless": (whole({"data": [], "more": "x" * (5 << 20)}), "does not end its answer: it has more than"),
    "error": (whole({"error": "out of order"}, 500), "answers with status 500: out of order"),
    "no-list": (whole({"detail": "Not Found"}, 404), 'has no model "good", or no /v1/models: Not Found'),
    "empty": (listing(), 'does not list a model "good"'),
    "negative-length": (listing(USUAL_MODEL | {"max_model_len": -5, "created": -1}), ""),
    "huge-length": (listing(USUAL_MODEL | {"max_model_len": 1 << 60, "created": 1 << 60}), ""),
}
"""Lists of models that are none or lie, and what is said of the server."""


def test_lists_that_lie_neither_hang_nor_end_anything(tmp_path: Path) -> None:
    with ExitStack() as stack:
        upstreams = {name: stack.enter_context(fake_upstream()) for name in LISTS}
        for name, (behaviour, _) in LISTS.items():
            upstreams[name].lists = behaviour
        models = {name: [{"url": one.url, "model": "good"}] for name, one in upstreams.items()}
        models["dead"] = [{"url": dead_url()}]
        server = stack.enter_context(front(tmp_path, models))
        for name, (_, sentence) in {**LISTS, "dead": (None, "cannot be reached: connection refused")}.items():

            def first(name: str = name) -> dict[str, Any]:
                (one,) = post(server, "/api/show", {"model": name}).json["upstreams"]
                return dict(one)

            until(lambda: bool(first()["error"] or first()["owned_by"]))
            assert sentence in first()["error"], name
            assert first()["error"].startswith("upstream " if sentence else ""), name
            assert first()["context_length"] == 0
            assert said(server, name)[0] == USUAL
        loaded = {one["name"] for one in ask(server, "GET", "/api/ps").json["models"]}
        assert loaded == {"negative-length:latest", "huge-length:latest"}, "those that are known to work"
        for name in LISTS:
            body = {"model": name, "messages": [{"role": "user", "content": "hello"}], "stream": False}
            assert post(server, "/api/chat", body).status == 200, "a list that cannot be read keeps nobody from asking"


def run(server: RunningServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "corral", *arguments]
    variables = {**os.environ, "OLLAMA_HOST": server.host, "HOME": str(server.home)}
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)


def test_show_says_what_is_known_of_a_model(server: RunningServer, upstream: FakeUpstream) -> None:
    url = upstream.url.removesuffix("/v1")
    text = re.sub(r" {2,}", "  ", run(server, "show", "shown").stdout)
    for row in (
        "Remote model  shown",
        f"Remote URL  {url}",
        "architecture  qwen3",
        "parameters  8.2B",
        "context length  40960",
        "quantization  Q4_K_M",
        "thinking",
        "Other servers",
        f"{url}  shown",
    ):
        assert f"  {row}" in text, text
    bare = run(server, "show", "unlisted").stdout
    assert "architecture" not in bare
    assert "parameters" not in bare
    assert 'unlisted    does not list a model "unlisted"' in bare


def test_commands_that_change_models_say_that_this_one_is_elsewhere(server: RunningServer) -> None:
    sentence = 'model "good" is not in the store: other servers answer for it, as corral.toml says'
    for arguments in (("rm", "good"), ("cp", "good", "other")):
        done = run(server, *arguments)
        assert (done.returncode, done.stdout, sentence in done.stderr) == (1, "", True), done.stderr
    missing = run(server, "rm", "nothing")
    assert "model 'nothing' not found" in missing.stderr
    stopped = run(server, "stop", "good")
    assert (stopped.returncode, stopped.stdout) == (0, "")
    assert stopped.stderr == "'good' is answered by other servers: there is nothing to stop here\n"


def test_explain_says_where_requests_were_sent(server: RunningServer, upstream: FakeUpstream) -> None:
    body = {"model": "good", "messages": [{"role": "user", "content": "hello"}], "stream": False}
    sent = post(server, "/api/chat", body).headers["x-request-id"]
    unsent = post(server, "/api/chat", {**body, "messages": []}).headers["x-request-id"]
    head, *rows = run(server, "explain").stdout.splitlines()
    assert head.split()[-3:] == ["WHEN", "SENT", "TO"]
    places = {row.split()[0]: row.split()[-1] for row in rows}
    assert (places[sent[:12]], places[unsent[:12]]) == (upstream.name, "-")


def test_a_model_that_embeds_is_run_as_one(server: RunningServer) -> None:
    done = run(server, "run", "shown-embedding", "hello")
    assert (done.returncode, done.stdout.strip()) == (0, "[0.6,0.8]"), done.stderr
