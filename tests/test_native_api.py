"""Bad input over all native routes: whatever a body holds, the answer is one the specification knows, and all live on.

Also what recorded answers cannot show, because it is numbers and moments: see the tests at the end.
"""

import json
import os
import re
import struct
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corral import names
from corral.store import Store
from tests.asking import Answer, ask, post
from tests.conftest import RANDOM_CASES, RunningServer, StartServer, add_model, running_server
from tests.tiny_models import tiny_bert, tiny_llama

NOBODY = "127.0.0.1:9"
"""An address without a server: what would go to a registry ends here at once."""

TEMPLATE = (
    "{{ range .Messages }}<|{{ .Role }}|>{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ .Content }}"
    "{{ range .ToolCalls }}{{ .Function.Name }}{{ .Function.Arguments }}{{ end }}{{ end }}"
    "{{ range .Tools }}{{ .Function }}{{ end }}{{ .Suffix }}{{ .Response }}"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server over the real engine: `able` takes every field, `native` is rendered by the engine, `bert` embeds."""
    work = tmp_path_factory.mktemp("native")
    models = work / "home" / ".ollama" / "models"
    jinja = "{% for message in messages %}({{ message.role }}) {{ message.content }}{% endfor %}"
    add_model(models, "native", tiny_llama(work / "native.gguf", chat_template=jinja))
    add_model(models, "bert", tiny_bert(work / "bert.gguf"))
    proxies = {"HTTPS_PROXY": f"http://{NOBODY}", "HTTP_PROXY": f"http://{NOBODY}"}
    with running_server(
        work / "home", OLLAMA_CONTEXT_LENGTH="64", OLLAMA_MAX_LOADED_MODELS="9", TZ="Asia/Kolkata", **proxies
    ) as running:
        made = {"model": "able", "from": "native", "template": TEMPLATE, "parameters": {"num_predict": 3}}
        assert post(running, "/api/create", {**made, "stream": False}).status == 200
        yield running


numbers = st.one_of(
    st.integers(-3, 70),
    st.integers(),
    st.sampled_from([2**31, -(2**31), 2**32, 2**53, 2**63 - 1, 2**63, -(2**63), 2**64, 10**30, 10**400]),
    st.floats(allow_nan=False),
)
texts = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        (
            *("", "able", "native", "bert", "nope", "a b", "x:cloud", "json", "high", "5m", "-1", "0", "<think>"),
            *("{{ .Prompt", "{{ range .Messages }}", "user", "tool", "../x", "aGk=", "\ud800", "\x00", "[img-0]"),
        )
    ),
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=8,
)

OPTIONS = (
    *("num_keep", "seed", "num_predict", "top_k", "top_p", "min_p", "typical_p", "repeat_last_n", "temperature"),
    *("repeat_penalty", "presence_penalty", "frequency_penalty", "stop", "num_ctx", "mirostat"),
)
"""Those of a request. What a model is loaded with is left out: a load for each of many values takes its time."""

options = st.dictionaries(
    st.sampled_from(OPTIONS), st.one_of(numbers, st.lists(texts, max_size=3), values), max_size=4
).map(lambda given: {**given, "num_predict": min(given["num_predict"], 70)} if _is_number(given) else given)

messages = st.lists(
    st.one_of(
        st.fixed_dictionaries({"role": texts, "content": texts}),
        st.dictionaries(
            st.sampled_from(["role", "content", "thinking", "images", "tool_calls", "tool_name", "tool_call_id"]),
            values,
        ),
        values,
    ),
    max_size=4,
)
schemas = st.recursive(
    st.fixed_dictionaries({"type": st.sampled_from(["string", "integer", "boolean", "null", "object", "array", "x"])}),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"type": st.just("object"), "properties": st.dictionaries(texts, inner, max_size=3)}),
        st.fixed_dictionaries({"type": st.just("array"), "items": inner, "maxItems": numbers}),
        st.fixed_dictionaries({"anyOf": st.lists(inner, max_size=3), "enum": st.lists(values, max_size=3)}),
        st.fixed_dictionaries({"$ref": texts, "pattern": texts}),
    ),
    max_leaves=5,
)
tools = st.lists(
    st.one_of(
        st.fixed_dictionaries({"function": st.fixed_dictionaries({"name": texts, "parameters": schemas})}), values
    ),
    max_size=3,
)


def _is_number(given: dict[str, Any]) -> bool:
    return isinstance(given.get("num_predict"), int | float)


LIKELY: dict[str, st.SearchStrategy[Any]] = {
    "model": st.sampled_from(["able", "native", "bert", "nope"]),
    "name": st.sampled_from(["able", "nope", ""]),
    "source": st.sampled_from(["able", "nope"]),
    "destination": st.sampled_from(["copy", "user/copy", "a b"]),
    "prompt": texts,
    "input": st.one_of(texts, st.lists(texts, max_size=4)),
    "messages": messages,
    "tools": tools,
    "options": options,
    "parameters": options,
    "format": st.one_of(st.just("json"), schemas),
    "context": st.lists(st.integers(-1, 400), max_size=5),
    "keep_alive": st.sampled_from(["5m", -1, 300, "1h"]),
    "think": st.sampled_from([True, False, "low"]),
    "stream": st.booleans(),
    "images": st.lists(st.sampled_from(["", "aGk=", "***"]), max_size=2),
    "files": st.dictionaries(texts, st.sampled_from(["", "sha256:x", "sha256:" + "0" * 64]), max_size=2),
    "from": st.sampled_from(["native", "able", f"{NOBODY}/library/x", "a b"]),
    "top_logprobs": st.integers(-1, 21),
    "insecure": st.booleans(),
}

FIELDS = {
    "/api/generate": "model prompt suffix system template context stream raw format keep_alive images options think "
    "truncate shift logprobs top_logprobs _debug_render_only",
    "/api/chat": "model messages stream format keep_alive tools tool_choice options think truncate shift logprobs "
    "top_logprobs _debug_render_only",
    "/api/embed": "model input truncate dimensions keep_alive options",
    "/api/embeddings": "model prompt keep_alive options",
    "/api/show": "model name system template verbose options",
    "/api/copy": "source destination",
    "/api/pull": "model name insecure stream source username",
    "/api/push": "model name insecure stream",
    "/api/create": "model name stream from files adapters draft_files draft_quantize quantize template system license "
    "parameters messages renderer parser requires info",
}
NEEDED = {
    "/api/generate": ("model", "prompt", "options"),
    "/api/chat": ("model", "messages", "options"),
    "/api/embed": ("model", "input"),
    "/api/embeddings": ("model", "prompt"),
    "/api/copy": ("source", "destination"),
    "/api/create": ("from",),
}


@st.composite
def bodies(draw: st.DrawFn, path: str) -> dict[str, Any]:
    """A request that is nearly right: likely fields with likely values, some of them replaced by anything at all."""
    names = FIELDS[path].split()
    chosen = set(draw(st.lists(st.sampled_from(names), max_size=4, unique=True))) | set(NEEDED.get(path, ("model",)))
    spoiled = set(draw(st.lists(st.sampled_from(names), max_size=2, unique=True)))
    body = {name: draw(LIKELY.get(name, values)) for name in sorted(chosen)}
    body |= {name: draw(values) for name in sorted(spoiled)}
    if path == "/api/create":
        body |= {"model": "made", "name": "made"}  # not to lose the models that the other requests are for
    return {name.upper() if draw(st.booleans()) else name: value for name, value in body.items()}


def encoded(body: Any) -> bytes:
    """The body as JSON, in which infinity is a number beyond what a float can be."""
    return json.dumps(body).replace("Infinity", "1e999").encode()


ALLOWED_500 = re.compile(
    r'option "\w+" must be of |license must be |invalid format: |template: |unsupported quantization type '
    r"|quantization is only supported |pull model manifest: |Head \"http|open /.*: no such file or directory"
)
"""Sentences that the specification has with status 500, though it is the request that is wrong (api §5.3, §6, §11)."""


def check(answer: Answer) -> None:
    """The answer is JSON, by lines when streamed, and an error has a status and a sentence that fit."""
    *_, last = answer.lines if answer.body else [{}]
    sentence = last.get("error", "")
    if answer.status == 200:
        assert "error" not in last or sentence
        return
    assert answer.status in (400, 403, 404, 500), answer
    assert sentence, answer
    assert answer.status != 500 or ALLOWED_500.match(sentence), answer


@pytest.fixture(scope="module")
def loaded(server: RunningServer) -> None:
    """All models, so that no request of many has to wait for a load."""
    for path, model in (("/api/generate", "native"), ("/api/embed", "native"), ("/api/embed", "bert")):
        assert post(server, path, {"model": model, "keep_alive": -1}).status == 200


thorough = settings(
    max_examples=RANDOM_CASES or 60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)


@pytest.mark.parametrize("path", FIELDS)
def test_no_body_breaks_a_route(server: RunningServer, loaded: None, path: str) -> None:
    @thorough
    @given(bodies(path))
    def ask_it(body: dict[str, Any]) -> None:
        check(post(server, path, encoded(body)))

    ask_it()
    written = server.log.read_text()
    assert "is given up" not in written, "a worker died"
    assert "Traceback" not in written


@thorough
@given(st.sampled_from(["able", "nope", "", "a b", "user/copy"]), values)
def test_no_body_breaks_delete(server: RunningServer, model: str, spoil: Any) -> None:
    for body in ({"model": f"gone-{model}"}, {"model": spoil}, {"name": spoil}, spoil):
        if body not in ({"model": name} for name in ("able", "native", "bert")):
            check(ask(server, "DELETE", "/api/delete", encoded(body)))
    assert ask(server, "GET", "/api/tags").status == 200


@thorough
@given(st.sampled_from(sorted(FIELDS)), st.one_of(st.binary(max_size=40), values.map(encoded)))
def test_no_bytes_break_a_route(server: RunningServer, path: str, body: bytes) -> None:
    answer = post(server, path, body)
    check(answer)
    assert answer.status != 500


@thorough
@given(st.text(max_size=80), st.binary(max_size=40))
def test_no_digest_breaks_an_upload(server: RunningServer, digest: str, body: bytes) -> None:
    path = "/api/blobs/" + "".join(f"%{byte:02x}" for byte in digest.encode("utf-8", "replace"))
    assert ask(server, "POST", path, body).status in (301, 307, 400, 404, 405)
    assert ask(server, "HEAD", path).status in (301, 307, 400, 404, 405)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/generate", '{"model":"nope","keep_alive":1%s}' % ("0" * 308), 404),
        ("/api/generate", '{"model":"nope","keep_alive":1%s}' % ("0" * 309), 400),
        ("/api/embed", '{"model":"nope","input":"%s","keep_alive":-1}' % ("0" * 309), 404),
        ("/api/show", '{"model":"native","options":{"num_keep":[-1%s]}}' % ("0" * 309), 400),
        ("/api/generate", '{"model":"nope","keep_alive":1e999}', 400),
        ("/api/create", '{"model":"made","from":"native","info":{"context_length":-1e999}}', 400),
        ("/api/create", '{"model":"made","from":"native","info":{"context_length":9223372036854775808}}', 400),
    ],
)
def test_a_number_beyond_all_bounds_is_no_mistake_of_the_servers(
    server: RunningServer, path: str, body: str, status: int
) -> None:
    answer = post(server, path, body.encode())
    check(answer)
    assert answer.status == status


MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")


def test_answers_are_dated_in_utc_and_models_in_the_servers_zone(server: RunningServer) -> None:
    """Spec api §1.2."""
    created = post(server, "/api/generate", {"model": "native"}).json["created_at"]
    modified = ask(server, "GET", "/api/tags").json["models"][0]["modified_at"]
    expires = ask(server, "GET", "/api/ps").json["models"][0]["expires_at"]
    assert all(MOMENT.fullmatch(moment) for moment in (created, modified, expires))
    assert created.endswith("Z")
    assert [datetime.fromisoformat(_micro(moment)).utcoffset() for moment in (modified, expires)] == [
        timedelta(hours=5, minutes=30)
    ] * 2


def _micro(moment: str) -> str:
    """With six digits of a second, which is what Python's parser takes."""
    return re.sub(r"\.(\d+)", lambda match: f".{match[1]:0<6.6}", moment)


def test_durations_add_up(server: RunningServer) -> None:
    """Spec api §5.7: all are there, and the whole is no less than its parts."""
    body = {"model": "native", "prompt": "hello", "stream": False, "options": {"num_predict": 3}}
    answer = post(server, "/api/generate", body).json
    parts = [answer[f"{part}_duration"] for part in ("load", "prompt_eval", "eval")]
    assert all(isinstance(part, int) and part > 0 for part in parts)
    assert sum(parts) <= answer["total_duration"]


def test_vectors_are_single_precision_in_the_form_of_each_route(server: RunningServer) -> None:
    """Spec api §10: the shortest decimals of a float32 from one route, widened to a double from the other."""
    short = ask(server, "POST", "/api/embed", {"model": "bert", "input": "hello"}).body
    wide = post(server, "/api/embeddings", {"model": "bert", "prompt": "hello"}).json["embedding"]
    vector = json.loads(short)["embeddings"][0]
    assert sum(value * value for value in vector) == pytest.approx(1, abs=1e-6)
    assert [_single(value) for value in vector] == pytest.approx(wide, abs=1e-7)
    assert [_single(value) for value in wide] == wide
    written = re.findall(rb"\[\[(.*)\]\]", short)[0].decode().split(",")
    digits = [text.partition("e")[0].lstrip("-0.").replace(".", "") for text in written]
    assert max(map(len, digits)) <= 9


def _single(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def test_a_model_whose_file_is_broken_or_gone_is_listed_and_can_be_removed(
    start_server: StartServer, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    folder = home / ".ollama" / "models"
    for seed, name in enumerate(("whole", "gone", "broken")):
        add_model(folder, name, tiny_llama(tmp_path / f"{name}.gguf", seed=seed))
    store = Store(folder)
    gone, broken = (store.manifest(names.parse(name)).manifest.layers[0].digest for name in ("gone", "broken"))
    store.blob_path(gone).unlink()
    store.blob_path(broken).write_bytes(b"written over")
    server = start_server(home)
    listed = {entry.pop("name"): entry for entry in ask(server, "GET", "/api/tags").json["models"]}
    assert list(listed) == ["broken:latest", "gone:latest", "whole:latest"]
    assert "capabilities" in listed["whole:latest"]
    assert [listed[f"{name}:latest"]["details"]["family"] for name in ("gone", "broken")] == ["llama", "llama"]
    for name in ("gone", "broken"):
        assert ask(server, "POST", "/api/show", {"model": name}).status >= 400
        assert ask(server, "DELETE", "/api/delete", {"model": name}).status == 200
    assert [entry["name"] for entry in ask(server, "GET", "/api/tags").json["models"]] == ["whole:latest"]


def test_models_are_listed_newest_first_and_broken_ones_left_out(start_server: StartServer, tmp_path: Path) -> None:
    """Spec api §14."""
    home = tmp_path / "home"
    folder = home / ".ollama" / "models"
    file = tiny_bert(tmp_path / "bert.gguf")
    for age, name in enumerate(("new", "middle", "old", "broken")):
        add_model(folder, name, file)
        manifest = folder / "manifests" / "registry.ollama.ai" / "library" / name / "latest"
        os.utime(manifest, (1_700_000_000 - age, 1_700_000_000 - age))
    manifest.write_text("{")
    listed = ask(start_server(home), "GET", "/api/tags").json["models"]
    assert [entry["name"] for entry in listed] == ["new:latest", "middle:latest", "old:latest"]
    assert [entry["modified_at"][:19] for entry in listed] == sorted(
        (e["modified_at"][:19] for e in listed), reverse=True
    )
