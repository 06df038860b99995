"""Published models behind the real server: pulled, prepared, loaded, shown and deleted, with pictures."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from corral.golang.units import byte_text
from tests.asking import ask, post
from tests.conftest import RunningServer, add_model, environment, running_server
from tests.published_models import FAMILIES, Twins
from tests.test_tiny_models import picture


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Twins:
    return FAMILIES["gemma3"](tmp_path_factory.mktemp("gemma3"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, twins: Twins) -> Iterator[RunningServer]:
    """With the twin, and a published LLaVA whose projector is a file of its own."""
    work = tmp_path_factory.mktemp("server")
    models = work / "home" / ".ollama" / "models"
    assert twins.projector is not None
    add_model(models, "twin", twins.model, twins.projector)
    (work / "llava").mkdir()
    llava = FAMILIES["llava"](work / "llava")
    assert llava.published_projector is not None
    assert llava.projector is not None
    add_model(models, "llava", llava.published, llava.published_projector)
    add_model(models, "llava-twin", llava.model, llava.projector)
    with running_server(work / "home", OLLAMA_MAX_LOADED_MODELS="9") as running:
        yield running


def said(server: RunningServer, model: str, image: str) -> Any:
    request = {"model": model, "stream": False, "logprobs": True, "options": {"temperature": 0, "num_predict": 8}}
    message = {"role": "user", "content": "What is it?", "images": [image]}
    answer = post(server, "/api/chat", request | {"messages": [message]})
    assert answer.status == 200, answer.body
    return answer.json["message"], [token["logprob"] for token in answer.json["logprobs"]]


def printed(server: RunningServer, *command: str) -> str:
    """What a command says."""
    run = [sys.executable, "-m", "corral", *command]
    variables = environment(server.home, server.host, {})
    return subprocess.run(run, env=variables, capture_output=True, text=True, check=True, timeout=60).stdout


def derived(server: RunningServer) -> list[str]:
    return sorted(path.name for path in (server.models / "derived").glob("*/*"))


def published_store(server: RunningServer) -> dict[str, bytes]:
    """What another program that uses the folder sees: manifests and blobs, byte for byte."""
    folders = (server.models / "manifests", server.models / "blobs")
    return {str(path): path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}


def test_a_pulled_model_is_prepared_with_progress_and_sees_what_its_twin_sees(
    server: RunningServer, twins: Twins
) -> None:
    pulled = post(server, "/api/pull", {"model": "m", "source": f"file://{twins.published}"})
    lines = [json.loads(line) for line in pulled.body.splitlines()]
    preparing = [line for line in lines if line["status"] == "preparing the model for the engine"]
    assert preparing[-1]["completed"] == preparing[-1]["total"] > 0
    assert lines[-1] == {"status": "success"}
    assert len(derived(server)) == 1
    red, blue = picture("red", "green"), picture("blue", "white")
    answers = {model: [said(server, model, image) for image in (red, blue)] for model in ("m", "twin")}
    assert answers["m"] == answers["twin"]
    assert answers["m"][0] != answers["m"][1]
    entry = next(one for one in ask(server, "GET", "/api/ps").json["models"] if one["name"] == "m:latest")
    shown = post(server, "/api/show", {"model": "m"}).json
    assert shown["derived"] == {**entry["derived"], "made": True}
    assert shown["capabilities"] == ["completion", "vision"]
    assert shown["model_info"]["gemma3.mm.tokens_per_image"] == 4
    assert "projector_info" not in shown
    assert {"v.patch_embedding.weight", "blk.0.attn_q.weight"} < {tensor["name"] for tensor in shown["tensors"]}
    tagged = next(one for one in ask(server, "GET", "/api/tags").json["models"] if one["name"] == "m:latest")
    assert (tagged["size"] > twins.published.stat().st_size, tagged["capabilities"]) == (True, shown["capabilities"])
    assert ask(server, "DELETE", "/api/delete", {"model": "m"}).status == 200
    assert derived(server) == []


def test_a_model_that_was_not_prepared_is_when_it_is_loaded(server: RunningServer) -> None:
    untouched = published_store(server)
    before = post(server, "/api/show", {"model": "llava"}).json
    assert before["derived"]["made"] is False
    assert "when the model is loaded first" in printed(server, "show", "llava")
    request = {"model": "llava", "prompt": "Hello", "progress": True, "options": {"num_predict": 1}}
    lines = [json.loads(line) for line in post(server, "/api/generate", request).body.splitlines()]
    said_before = [line["progress"] for line in lines if "progress" in line]
    preparing = [one for one in said_before if one["stage"] == "preparing"]
    assert preparing[-1]["total"] == before["derived"]["size"]
    assert not any(one.get("completed") for one in said_before[: said_before.index(preparing[0])])
    image = picture("red", "green")
    answer = said(server, "llava", image)
    columns, *rows = printed(server, "ps").splitlines()
    assert answer == said(server, "llava-twin", image)
    after = post(server, "/api/show", {"model": "llava"}).json
    assert after["derived"] == {**before["derived"], "made": True}
    size = byte_text(after["derived"]["size"])
    shown = printed(server, "show", "llava")
    assert "DERIVED" in columns
    assert any(row.startswith("llava:latest") and size in row for row in rows)
    assert re.search(rf"Derived file\n.*size +{size}", shown)
    assert "clip.projector_type" not in after["projector_info"]
    assert "derived" not in post(server, "/api/show", {"model": "llava-twin"}).json
    assert published_store(server) == untouched
