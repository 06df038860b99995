"""Bundles of models with a projector or an adapter: both travel along, and the model answers through them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

from corral import bundle, names
from corral.bundle import Runtime
from corral.bundle.tail import PAGE
from corral.llamafile import bundles
from corral.models import assemble
from corral.store import MediaType, Store
from tests.asking import post, until
from tests.commands import Shell
from tests.conftest import RunningServer, StartServer
from tests.tiny_models import tiny_llama, tiny_llava, tiny_lora

PARAMETERS = {"temperature": 0, "num_predict": 6, "num_ctx": 512, "num_thread": 1}


def bundled(folder: Path, *files: Path) -> Path:
    """A bundle, without what runs it, of a model that was made of these files."""
    name, store = names.parse("tiny"), Store(folder / "made")
    made = assemble.assemble({file.name: file for file in files}, store, parameters=PARAMETERS)
    assemble.write_model(name, made, store)
    path = folder / "tiny-bundle.gguf"
    bundle.write(name, store, Runtime({}, {"code": "", "targets": [], "sha256": {}}), path, lambda _: None)
    store.close()
    return path


def answer(path: Path, cache: Path, question: str) -> str:
    """What `python3 model.gguf "a question"` says, once what runs it is unpacked."""
    command = [sys.executable, "-P", "-m", "corral.cli.bundled", str(cache), str(path), question]
    shell = Shell(path.parent)
    done = subprocess.run(command, env=shell.environment(), cwd=path.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def generated(server: RunningServer, model: str) -> Any:
    reply = post(server, "/api/generate", {"model": model, "prompt": "Hello", "stream": False})
    assert reply.status == 200, reply.body
    return reply.json["response"]


def test_a_bundle_with_a_projector_sees_pictures(tmp_path: Path, start_server: StartServer) -> None:
    tiny_llava(tmp_path / "model.gguf", tmp_path / "projector.gguf")
    path = bundled(tmp_path, tmp_path / "model.gguf", tmp_path / "projector.gguf")
    found = bundles.read(path)
    (projector,) = found.of("projector")
    assert found.files[projector].offset % PAGE == 0
    for colour in ("red", "blue"):
        Image.new("RGB", (40, 40), colour).save(tmp_path / f"{colour}.png")
    cache = tmp_path / "cache"
    red, again, blue = (answer(path, cache, f"what is this {tmp_path}/{name}.png") for name in ("red", "red", "blue"))
    assert red == again != blue
    server = start_server()
    taken = Shell(tmp_path, server.host).run("pull", str(path), "--name", "taken")
    assert taken.status == 0, taken
    shown = post(server, "/api/show", {"model": "taken"}).json
    assert "vision" in shown["capabilities"]


def test_a_bundle_that_is_killed_leaves_no_log_and_no_server(tmp_path: Path) -> None:
    path, cache = bundled(tmp_path, tiny_llama(tmp_path / "model.gguf")), tmp_path / "cache"
    command = [sys.executable, "-P", "-m", "corral.cli.bundled", str(cache), str(path)]
    pipe = subprocess.PIPE
    running = subprocess.Popen(command, env=Shell(tmp_path).environment(), stdin=pipe, stdout=pipe, stderr=pipe)
    watched = psutil.Process(running.pid)
    until(lambda: len(watched.children()) == 2)  # the server, and the command, which waits for its question
    children = watched.children(recursive=True)
    running.kill()
    running.communicate()
    assert psutil.wait_procs(children, timeout=60)[1] == []
    assert list((cache / "state").glob("**/*.log")) == []
    assert [file for file in (cache / "state").iterdir() if file.name.startswith(("bundle", "tmp"))] == []


def test_a_bundle_with_an_adapter_speaks_as_the_adapter_has_it(tmp_path: Path, start_server: StartServer) -> None:
    model, adapter = tiny_llama(tmp_path / "model.gguf"), tiny_lora(tmp_path / "adapter.gguf", alpha=64.0)
    path = bundled(tmp_path, model, adapter)
    found = bundles.read(path)
    (layer,) = found.of("adapter")
    assert found.files[layer].offset % PAGE == 0
    (tmp_path / "plain").mkdir()
    plain = bundled(tmp_path / "plain", tiny_llama(tmp_path / "plain" / "model.gguf"))
    adapted = answer(path, tmp_path / "cache", "Hello")
    assert adapted.strip()
    assert adapted != answer(plain, tmp_path / "cache", "Hello")
    server = start_server()
    shell = Shell(tmp_path, server.host)
    for name, source in (("taken", path), ("plain", plain)):
        assert shell.run("pull", str(source), "--name", name).status == 0
    assert generated(server, "taken") != generated(server, "plain")
    layers = Store(server.models).manifest(names.parse("taken")).manifest.layers
    assert [one.digest for one in layers if one.media_type == MediaType.ADAPTER] == [layer]


def test_an_adapter_with_other_bytes_answers_nothing(tmp_path: Path) -> None:
    path = bundled(tmp_path, tiny_llama(tmp_path / "model.gguf"), tiny_lora(tmp_path / "adapter.gguf"))
    found = bundles.read(path)
    (layer,) = found.of("adapter")
    with path.open("r+b") as file:
        file.seek(found.files[layer].offset + found.files[layer].size - 1)
        file.write(b"\xff")
    command = [sys.executable, "-P", "-m", "corral.cli.bundled", str(tmp_path / "cache"), str(path), "Hello"]
    said = subprocess.run(command, env=Shell(tmp_path).environment(), capture_output=True, text=True)
    assert (said.returncode, said.stdout) == (1, "")
    assert "the bundle is damaged" in said.stderr
