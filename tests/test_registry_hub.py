"""Models named after Hugging Face's hub (`hf.co/owner/repository:QUANTISATION`), pulled by a running server."""

import threading
from collections.abc import Iterator
from pathlib import Path

import ollama
import pytest

from corral import names
from corral.store import Store
from tests.commands import Outcome, Shell
from tests.conftest import StartServer
from tests.hub import SIGNATURE, STORAGE, Hub, running_hub, running_tunnel
from tests.registry import CONFIG_BYTES, digest_of

TEMPLATE = b"{{ .Prompt }}"


@pytest.fixture
def hub(tmp_path: Path, tiny_gguf: Path) -> Iterator[Hub]:
    with running_hub(tmp_path / "hub") as hub:
        hub.put_model("Some-Owner/Tiny-GGUF", ("Q4_K_M", "latest"), model=tiny_gguf.read_bytes(), template=TEMPLATE)
        yield hub


def test_a_quantisation_of_a_repository_is_pulled_shown_and_run(
    start_server: StartServer, hub: Hub, tiny_gguf: Path
) -> None:
    server = start_server(**hub.environment)
    client = ollama.Client(server.url)
    name = "hf.co/Some-Owner/Tiny-GGUF:Q4_K_M"
    assert client.pull(name).status == "success"
    assert set(hub.tunnels) == {"hf.co:443", f"{STORAGE}:443"}
    assert all(path.endswith(f"?{SIGNATURE}") for host, path, _ in hub.asked if host == STORAGE)
    assert not any(is_known for _, _, is_known in hub.asked)
    manifest = server.models / "manifests/hf.co/Some-Owner/Tiny-GGUF/Q4_K_M"
    assert manifest.read_bytes() == hub.manifests["/v2/Some-Owner/Tiny-GGUF/manifests/Q4_K_M"]
    blob = Store(server.models).blob_path(names.parse_digest(digest_of(tiny_gguf.read_bytes())))
    assert blob.read_bytes() == tiny_gguf.read_bytes()
    assert [model.model for model in client.list().models] == [name]
    assert client.show("HF.co/some-owner/tiny-gguf:q4_k_m").template == TEMPLATE.decode()
    assert client.generate(name, "hi", options={"num_predict": 2}).done_reason == "length"


def test_the_small_layers_of_a_model_are_asked_for_together(start_server: StartServer, hub: Hub) -> None:
    """Five layers and the config: the hub sends none of the six before all have been asked for."""
    layers = {f"part{number}": bytes([number]) * 1000 for number in range(5)}
    hub.put_model("Some-Owner/Many", ("latest",), **layers)
    hub.gate = threading.Barrier(len(layers) + 1, timeout=60)
    server = start_server(**hub.environment)
    steps = list(ollama.Client(server.url).pull("hf.co/Some-Owner/Many", stream=True))
    digests = [step.digest for step in steps if step.digest]
    assert list(dict.fromkeys(digests)) == [digest_of(data) for data in (*layers.values(), CONFIG_BYTES)]
    assert digests == sorted(digests, key=list(dict.fromkeys(digests)).index), "the lines of one layer stand together"
    assert steps[-1].status == "success"
    store = Store(server.models)
    assert all(store.has_blob(names.parse_digest(digest_of(data))) for data in layers.values())


def test_the_hub_chooses_when_no_quantisation_is_named(start_server: StartServer, hub: Hub) -> None:
    server = start_server(**hub.environment)
    shell = Shell(server.home, server.host)
    assert shell.run("pull", "huggingface.co/Some-Owner/Tiny-GGUF").stderr.endswith("success\n")
    assert shell.run("list").stdout.splitlines()[1].split()[0] == "huggingface.co/Some-Owner/Tiny-GGUF:latest"
    gone = "pulling manifest\nError: pull model manifest: file does not exist\n"
    assert shell.run("pull", "hf.co/Some-Owner/Tiny-GGUF:Q9_9") == Outcome(1, "", gone)


def test_a_hub_that_the_proxy_does_not_connect_to_is_unreachable(
    start_server: StartServer, tiny_gguf: Path, tmp_path: Path
) -> None:
    with running_tunnel() as (proxy, asked):
        server = start_server(HTTPS_PROXY=proxy, NO_PROXY="127.0.0.1")
        refused = Shell(tmp_path, server.host).run("pull", "hf.co/Some-Owner/Tiny-GGUF")
    url = "https://hf.co/v2/Some-Owner/Tiny-GGUF/manifests/latest"
    sentence = f'pull model manifest: Get "{url}": the proxy does not connect us: 403 Not from here'
    assert refused == Outcome(1, "", f"pulling manifest\nError: {sentence}\n")
    assert asked == ["hf.co:443"]
