"""What becomes of hostile model files: a sentence when a model is made of one, or no harm when it is asked something.

Everything goes through the requests a client makes, to a real server with the real engine.
"""

import base64
import hashlib
import io
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from tests.asking import Answer, ask, post
from tests.conftest import RunningServer, running_server
from tests.hostile_gguf import CASES, Case, Files

CRASHED = ("signal", "exit status", "unexpectedly stopped", "timed out")
"""What Corral says of a worker that ended by itself, or hung."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("hostile"), OLLAMA_KEEP_ALIVE="0") as server:
        yield server


def create(server: RunningServer, files: Files) -> Answer:
    """Uploads files and makes a model of them."""
    digests = {name: f"sha256:{hashlib.sha256(content).hexdigest()}" for name, content in files.items()}
    for name, digest in digests.items():
        assert ask(server, "POST", f"/api/blobs/{digest}", files[name]).status in (200, 201)
    adapters = {name: digest for name, digest in digests.items() if name.startswith("adapter")}
    others = {name: digest for name, digest in digests.items() if name not in adapters}
    return post(server, "/api/create", {"model": "hostile", "files": others | adapters, "stream": False})


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_file_is_refused_or_harmless(server: RunningServer, name: str) -> None:
    case = CASES[name]
    answer = create(server, case.files())
    if case.refusal:
        assert answer.status >= 400, answer.body
        assert case.refusal in answer.error
        assert not any(word in answer.error for word in CRASHED)
        return
    assert answer.status == 200, answer.body
    assert answer.json == {"status": "success"}
    harmless(server, case)


def harmless(server: RunningServer, case: Case) -> None:
    """The model answers, or a sentence says why not; what it is can be shown and it can be deleted."""
    shown = post(server, "/api/show", {"model": "hostile", "verbose": True})
    assert shown.status == 200, shown.body
    answer = asked(server, case)
    if answer.status == 200:
        assert answer.json["embeddings"] if case.ask == "embed" else answer.json["done"]
    else:
        assert answer.error
        assert not any(word in answer.error.split(": ", 1)[-1] for word in CRASHED), answer.error
    assert ask(server, "DELETE", "/api/delete", {"model": "hostile"}).status == 200


def asked(server: RunningServer, case: Case) -> Answer:
    if case.ask == "embed":
        return post(server, "/api/embed", {"model": "hostile", "input": "hello world"})
    body: dict[str, Any] = {
        "model": "hostile",
        "prompt": "hello <tool_call> world",
        "raw": case.ask == "generate",
        "stream": False,
        "options": {"num_predict": 4, "num_ctx": 256},
    }
    if case.ask == "picture":
        body["images"] = [picture()]
    return post(server, "/api/generate", body)


def picture() -> str:
    content = io.BytesIO()
    Image.new("RGB", (32, 32), (200, 100, 50)).save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()


def test_the_server_goes_on_and_keeps_nothing_of_what_it_refused(server: RunningServer) -> None:
    refused = next(case for case in CASES.values() if case.refusal)
    assert create(server, refused.files()).status >= 400
    assert ask(server, "GET", "/api/version").status == 200
    assert ask(server, "GET", "/api/tags").json == {"models": []}
