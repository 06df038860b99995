"""A hostile chat template in a model's file ends in an error: for requests that need it, and for the one it fools.

The engine runs it, so it is bounded from outside: by what the engine's process uses meanwhile.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from corral import names
from corral.models import assemble
from corral.store import MediaType, Store
from tests.asking import Answer, ask, post
from tests.conftest import RunningServer, running_server
from tests.tiny_models import tiny_llama

SAY = "{{ messages[-1].content }}"
STRAINS = "the model's chat template takes too long or too much memory"
FAILED = "the model's chat template cannot be run: "
SHOUT = "{% set all = namespace(text='aaaaaaaa') %}{% for i in range(60) %}{% set all.text = all.text + all.text %}"

HOSTILE = {
    "an endless loop": ("{% for i in range(9999) %}{% for j in range(9999999) %}{% endfor %}{% endfor %}", STRAINS),
    "a list without end": ("{% for i in range(10000000000) %}{% endfor %}", STRAINS),
    "text without end": ("{{ 'a' * 10000000000 }}", STRAINS),
    "doubling text": (SHOUT + "{% endfor %}", STRAINS),
    "a wide margin": ("{{ messages | tojson(indent=1000000000) }}", STRAINS),
    "a macro that calls itself": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", FAILED + "signal: "),
    "no syntax": ("{% for %}", FAILED + "Unexpected token: %}"),
    "a refusal": ("{{ raise_exception('not with me') }}", FAILED + "not with me"),
}

QUARANTINED = {
    "branches without end": (
        "{% if true %}" * 20_000 + "{% endif %}" * 20_000,
        "has 480026 characters, more than 262144",
    ),
    "parentheses without end": (
        "{{ " + "(" * 100_000 + "1" + ")" * 100_000 + " }}",
        "has brackets nested deeper than 500",
    ),
}
"""Found before the engine runs them."""

FOOLING = {
    "endless text": "{% if 'now' in messages[-1].content %}{{ 'a' * 100000000000 }}{% endif %}",
    "a macro": "{% macro f() %}{{ f() }}{% endmacro %}{% if 'now' in messages[-1].content %}{{ f() }}{% endif %}",
    "a refusal": "{% if 'now' in messages[-1].content %}{{ raise_exception('not now') }}{% endif %}",
}
"""Harmless while the model loads."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("hostile"), OLLAMA_MAX_LOADED_MODELS="3") as server:
        yield server


def add(server: RunningServer, name: str, jinja: str) -> Path:
    """A model as a pull brings it: what is looked at only when a model is made of a file is not looked at."""
    file = tiny_llama(server.home / f"{name}.gguf", chat_template=jinja + SAY)
    harmless = tiny_llama(server.home / f"{name}-harmless.gguf")
    store = Store(server.models)
    digest = store.adopt(file, link=False).digest
    made = assemble.assemble({"harmless.gguf": harmless}, store)
    layers = tuple(
        replace(layer, digest=digest, size=file.stat().st_size) if layer.media_type is MediaType.MODEL else layer
        for layer in made.layers
    )
    assemble.write_model(names.parse(name), replace(made, layers=layers), store)
    return file


def chat(server: RunningServer, model: str, content: str = "hello") -> Answer:
    messages = [{"role": "user", "content": content}]
    options = {"num_predict": 2, "num_thread": 1}
    return post(server, "/api/chat", {"model": model, "messages": messages, "stream": False, "options": options})


def loaded(server: RunningServer) -> list[str]:
    return [model["name"] for model in ask(server, "GET", "/api/ps").json["models"]]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_fails_the_requests_that_need_it(server: RunningServer, name: str) -> None:
    jinja, reason = HOSTILE[name]
    add(server, "hostile", jinja)
    answer = chat(server, "hostile")
    assert answer.status == 500
    assert answer.error.startswith(reason)
    raw = {"model": "hostile", "prompt": "hello", "raw": True, "stream": False, "options": {"num_predict": 2}}
    assert post(server, "/api/generate", raw).status == 200
    assert "hostile:latest" in loaded(server)


@pytest.mark.parametrize("name", QUARANTINED)
def test_a_template_without_end_is_in_quarantine_until_the_user_says_otherwise(
    server: RunningServer, name: str
) -> None:
    jinja, reason = QUARANTINED[name]
    add(server, "hostile", jinja)
    assert (
        f'model "hostile:latest" is in quarantine: key "tokenizer.chat_template" {reason}'
        in chat(server, "hostile").error
    )
    assert post(server, "/api/quarantine/release", {"model": "hostile"}).status == 200
    assert chat(server, "hostile").error.startswith(FAILED + "signal: ")
    raw = {"model": "hostile", "prompt": "hello", "raw": True, "stream": False, "options": {"num_predict": 2}}
    assert post(server, "/api/generate", raw).status == 200


def test_another_template_in_its_place_is_all_that_is_run(server: RunningServer) -> None:
    add(server, "hostile", HOSTILE["a macro that calls itself"][0])
    made = {"model": "tamed", "from": "hostile", "template": "{{ .Prompt }}", "stream": False}
    assert post(server, "/api/create", made).json == {"status": "success"}
    assert chat(server, "tamed").status == 200
    assert chat(server, "hostile").error.startswith(FAILED)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("endless text", STRAINS),
        ("a macro", "model runner has unexpectedly stopped"),
        ("a refusal", "not now"),
    ],
)
def test_a_template_that_fools_the_engine_fails_its_own_request(server: RunningServer, name: str, reason: str) -> None:
    add(server, "fooling", FOOLING[name])
    assert chat(server, "fooling").status == 200
    answer = chat(server, "fooling", "now")
    assert answer.status >= 400
    assert reason in answer.error
    assert chat(server, "fooling").status == 200
