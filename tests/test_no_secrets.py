"""What no answer may tell: paths of this machine, traces of the program, and how its workers are reached.

Every route is asked for wrong things in many ways, also while models are broken and engines fail. A client on this
machine may be told paths, and so may whoever asks `show` for a Modelfile, since that names its files by them.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from corral import names
from corral.server.http.discretion import without_folders
from corral.server.serve import ROUTES
from corral.store import Store
from tests.asking import ask, generate, post
from tests.conftest import FAKE_ENGINE, RunningServer, add_model, running_server
from tests.engines import engines, tell
from tests.tiny_models import CHATML, tiny_llama

NOBODY = "127.0.0.1:9"
DEEP = b"[" * 100_000
ABSENT = "sha256:" + "0" * 64

BODIES: list[Any] = [
    b"",
    b"{",
    b"null",
    b"[]",
    b'"\\ud800"',
    b"\xff\xfe{}",
    DEEP,
    b'{"model":' + DEEP,
    b'{"model":1e400,"input":1e400,"prompt":-0}',
    b'{"model":"fake","options":{"num_ctx":NaN,"seed":2e999}}',
    {"model": 7, "name": [], "source": {}, "digest": None},
    {"model": "../../../../etc/passwd", "source": "/etc/passwd", "destination": "../x", "name": "..\\..\\x"},
    {"model": "fake\0", "prompt": "\0"},
    {"model": "no-such-model", "input": "x", "query": "x", "documents": ["x"], "messages": [{"role": "user"}]},
    {"model": f"{NOBODY}/library/x", "source": f"{NOBODY}/x", "stream": False, "insecure": True},
    {"model": "made", "from": "/etc/passwd", "files": {"../x": ABSENT}, "stream": False},
    {"model": "made", "files": {"x.gguf": ABSENT}, "adapters": {"x": "sha256-" + "../" * 20}, "stream": False},
    {"model": "made", "from": "fake", "template": "{{ range", "parameters": {"stop": [7]}, "stream": False},
    {"model": "fake", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "file:///etc"}]}]},
    {"model": "fake", "messages": 1, "input": {"a": 1}, "prompt": {"a": [1]}, "tools": "x", "format": "xml"},
    {"model": "fake", "format": {"$ref": "#/x"}, "prompt": "x", "messages": [{"role": "user", "content": "x"}]},
    {"model": "fake", "images": ["AAAA", "!"], "prompt": "x", "context": [1e30], "keep_alive": "5 parsecs"},
    {"model": "fake", "prompt": "x", "messages": [], "input": [["a"]], "previous_response_id": "../../etc/passwd"},
]
"""What any route may be sent."""

PARAMETERS = ["..%2f..%2f..%2fetc%2fpasswd", "%00", "sha256:" + "f" * 64, "sha256-" + "%2e%2e%2f" * 9, "x" * 5000]
"""For the variable part of a path."""

FAULTS = ["!crash", "!error=500", "!error-after=1", "!cut-after=1"]
"""What the fake engine is told to do."""

STRANGER = {"X-Forwarded-For": "203.0.113.7"}
"""A client on another machine, by way of a proxy on this one."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    work = tmp_path_factory.mktemp("secrets")
    models = work / "home" / ".ollama" / "models"
    for seed, name in enumerate(("fake", "native", "cut", "lacking", "folder")):
        add_model(models, name, tiny_llama(work / f"{name}.gguf", seed=seed, chat_template=CHATML))
    proxies = {"HTTPS_PROXY": f"http://{NOBODY}", "HTTP_PROXY": f"http://{NOBODY}"}
    with running_server(work / "home", CORRAL_ENGINE=str(FAKE_ENGINE), **proxies) as running:
        yield running


def secrets(server: RunningServer) -> list[str]:
    """What answers are searched for."""
    workers = [engine.started for engine in engines(server.home)]
    return [
        *("Traceback", 'File \\"', 'File "', ".py", "site-packages", "/home/", "/tmp/", "/root/", "blobs/sha256"),
        *(str(server.home), str(FAKE_ENGINE.parent)),
        *(str(worker["key"]) for worker in workers),
        *(f":{worker['port']}" for worker in workers),
    ]


def check(server: RunningServer, method: str, path: str, body: Any) -> None:
    """Asks as a stranger does, and looks at the whole answer."""
    answer = ask(server, method, path, body, STRANGER)
    text = f"{answer.headers} {answer.body.decode(errors='replace')}"
    told = [secret for secret in secrets(server) if secret in text]
    assert not told, (method, path, str(body)[:300], answer.status, text)


def test_whatever_a_route_is_asked_it_does_not_say_how_it_works(server: RunningServer) -> None:
    assert generate(server, "hello").status == 200
    for route in ROUTES:
        for method in sorted((route.methods or set()) - {"HEAD"}):
            for place in PARAMETERS if "{" in route.path else [""]:
                path = route.path.split("{")[0] + place
                for body in [b""] if method == "GET" else BODIES:
                    if path != "/api/show" or not isinstance(body, dict) or body["model"] != "fake":
                        check(server, method, path, body)


def test_nor_what_is_wrong_with_a_model(server: RunningServer) -> None:
    store = Store(server.models)
    for name in ("cut", "lacking", "folder"):
        blob = store.blob_path(store.manifest(names.parse(name)).manifest.layers[0].digest)
        data = blob.read_bytes()
        blob.unlink()
        if name == "cut":
            blob.write_bytes(data[: len(data) // 2])
        if name == "folder":
            blob.mkdir()
    garbage = server.models / "manifests/registry.ollama.ai/library/garbage/latest"
    garbage.parent.mkdir()
    garbage.write_bytes(b"{")
    messages = [{"role": "user", "content": "x"}]
    for model in ("cut", "lacking", "folder", "garbage", "absent"):
        for path in ("/api/generate", "/api/show", "/api/push", "/v1/chat/completions", "/v1/messages", "/api/embed"):
            check(server, "POST", path, {"model": model, "prompt": "x", "input": "x", "messages": messages})
        check(server, "POST", "/api/create", {"from": model, "model": "made"})
        check(server, "POST", "/api/copy", {"source": model, "destination": "other"})
        check(server, "DELETE", "/api/delete", {"model": model})
    check(server, "POST", "/api/export", {"models": ["cut", "lacking"], "path": "/proc/x/y"})
    check(server, "POST", "/api/import", {"path": "/etc/passwd"})


def test_nor_how_an_engine_failed(server: RunningServer) -> None:
    for fault in FAULTS:
        messages = [{"role": "user", "content": fault}]
        for path in ("/api/generate", "/v1/chat/completions", "/v1/messages", "/v1/responses"):
            body = {"model": "fake", "prompt": fault, "messages": messages, "max_tokens": 9, "input": fault}
            check(server, "POST", path, {**body, "stream": path != "/v1/messages"})
    post(server, "/api/generate", {"model": "fake", "keep_alive": 0})
    blob = next((server.models / "blobs").glob("sha256-*"))
    for fails in (f"error: cannot open '{blob}'", f"{blob}: out of memory", "error: at /home/me/x.py:7"):
        tell(server.home, fails=fails)
        check(server, "POST", "/api/generate", {"model": "fake", "prompt": "x"})
    tell(server.home)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('no space left while writing "/var/my models/blobs/x"', 'no space left while writing "…/x"'),
        ("open /root/m/registry:5000/x/latest: no such file", "open …/latest: no such file"),
        (r'"C:\Users\me\x.gguf" was changed', '"…/x.gguf" was changed'),
        (r"open C:\Users\me\x.gguf: denied", "open …/x.gguf: denied"),
        ("cannot open '/a/b'", "cannot open '…/b'"),
        *((text, text) for text in ('use /v1/chat/completions or "/api/chat"', '"hf.co/a/b"', "http://a/b/c", "1/2 /")),
    ],
)
def test_of_a_path_a_stranger_reads_the_last_part(text: str, shown: str) -> None:
    assert without_folders(text) == shown
