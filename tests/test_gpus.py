"""GPUs through the server, with an engine that only pretends to have them: many devices, failures of all kinds."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.asking import Answer, ask, generate
from tests.conftest import RunningServer, StartServer, add_model
from tests.engines import engines
from tests.tiny_models import tiny_llama

ENGINE = Path(__file__).with_name("fake_gpu_engine.py")
MIB = 1 << 20


class Gpus:
    """A server with such an engine; `said` is what it lists of the loaded models and devices."""

    def __init__(self, start_server: StartServer, tmp_path: Path, **variables: str) -> None:
        self.home = tmp_path / "home"
        self.home.mkdir()
        for name in ("one", "two"):
            file = tiny_llama(tmp_path / f"{name}.gguf", seed=len(name) + ord(name[0]), name=name)
            add_model(self.home / ".ollama" / "models", name, file)
        self.order(devices=[["CUDA0", 8192, 8000], ["CUDA1", 8192, 4000]])
        self.server: RunningServer = start_server(self.home, CORRAL_ENGINE=str(ENGINE), **variables)

    def order(self, **orders: Any) -> None:
        fresh = self.home / "gpus.fresh"
        before = json.loads((self.home / "gpus.json").read_text()) if (self.home / "gpus.json").exists() else {}
        fresh.write_text(json.dumps(before | orders))
        fresh.replace(self.home / "gpus.json")

    def ask(self, model: str, prompt: str = "hello", **options: Any) -> Answer:
        return generate(self.server, prompt, model, options=options)

    def ps(self) -> dict[str, Any]:
        return dict(ask(self.server, "GET", "/api/ps?live=true").json)

    def log(self) -> str:
        return self.server.log.read_text()


@pytest.fixture
def gpus(start_server: StartServer, tmp_path: Path) -> Gpus:
    return Gpus(start_server, tmp_path)


def test_a_model_is_put_where_most_is_free_and_shown_there(gpus: Gpus) -> None:
    assert gpus.ask("one").status == 200
    seen = gpus.ps()
    assert [(gpu["name"], gpu["workers"]) for gpu in seen["devices"]] == [("CUDA0", 10 * MIB), ("CUDA1", 0)]
    (model,) = seen["models"]
    assert (model["size"], model["size_vram"]) == (10 * MIB, 10 * MIB), "as the engine said: weights, cache, computing"
    assert model["placement"]["devices"] == [{"name": "CUDA0", "layers": 3, "size": 10 * MIB}]
    assert model["placement"]["reason"] == "all 3 layers on CUDA0"
    assert "GPU CUDA1: A device of a test (rev 1), 4.2 GB of 8.6 GB free" in gpus.log()
    assert "model one:latest: all 3 layers on CUDA0" in gpus.log()
    explained = ask(gpus.server, "GET", "/api/requests").json["requests"][0]
    assert explained["placement"] == "all 3 layers on CUDA0"
    assert gpus.ask("two", main_gpu=1, num_gpu=2).status == 200
    two = next(model for model in gpus.ps()["models"] if model["name"] == "two:latest")
    assert [(one["name"], one["layers"]) for one in two["placement"]["devices"]] == [("CUDA1", 2)]
    assert 0 < two["size_vram"] < two["size"]


def test_a_model_is_spread_where_that_is_wanted(start_server: StartServer, tmp_path: Path) -> None:
    gpus = Gpus(start_server, tmp_path, OLLAMA_SCHED_SPREAD="1")
    assert gpus.ask("one").status == 200
    devices = gpus.ps()["models"][0]["placement"]["devices"]
    assert [(one["name"], one["layers"]) for one in devices] == [("CUDA0", 2), ("CUDA1", 1)]


def test_out_of_device_memory_less_is_tried_step_by_step_each_said(start_server: StartServer, tmp_path: Path) -> None:
    gpus = Gpus(start_server, tmp_path, OLLAMA_NUM_PARALLEL="4")
    gpus.order(most={"pool": 2048})
    assert gpus.ask("one").status == 200
    assert "cudaMalloc failed: out of memory; trying a pool of 2048 tokens" in gpus.log()
    assert gpus.ps()["models"][0]["placement"]["layers"] == 3
    gpus.order(most={"pool": 64, "layers": 1})
    assert gpus.ask("two").status == 200
    tried = [line.rpartition("; trying ")[2] for line in gpus.log().splitlines() if "model two:latest: not eno" in line]
    assert [text.strip('"') for text in tried] == ["a pool of 2048 tokens", "main memory only"]
    two = next(model for model in gpus.ps()["models"] if model["name"] == "two:latest")
    assert (two["size_vram"], two["placement"]["layers"]) == (0, 0)
    assert two["placement"]["reason"].startswith("in main memory: the GPUs' memory did not suffice")


def test_a_device_that_is_lost_in_an_answer_fails_it_and_the_next_is_served_in_main_memory(gpus: Gpus) -> None:
    gpus.order(lost="ggml_vulkan: vk::Queue::submit: ErrorDeviceLost")
    broken = gpus.ask("one", "!tokens=9 !crash-after=3")
    assert broken.status == 500
    gpus.order(lost="")
    assert gpus.ask("one").status == 200
    placement = gpus.ps()["models"][0]["placement"]
    assert placement["devices"] == []
    assert "a GPU failed: " in placement["reason"]
    assert "ErrorDeviceLost" in placement["reason"]
    assert "does without GPUs for 600 s" in gpus.log()


def test_a_driver_that_fails_at_load_or_vanishes_leaves_main_memory(gpus: Gpus) -> None:
    gpus.order(lost="CUDA error: unspecified launch failure", lost_at="load")
    assert gpus.ask("one").status == 200
    assert "trying main memory only" in gpus.log()
    gpus.order(lost="", devices=[["CUDA1", 8192, 4000]])
    assert gpus.ask("two").status == 200
    assert "GPU CUDA0 is not listed any more; models are loaded without it" in gpus.log()
    assert {one["name"] for model in gpus.ps()["models"] for one in model["placement"]["devices"]} == {"CUDA1"}
    assert len(engines(gpus.home)) == 2, "the engine that failed did not come up"


def test_what_other_programs_hold_is_asked_anew_before_a_load(gpus: Gpus) -> None:
    assert gpus.ask("one").status == 200
    gpus.order(devices=[["CUDA0", 8192, 1], ["CUDA1", 8192, 1]])
    assert gpus.ask("two").status == 200
    two = next(model for model in gpus.ps()["models"] if model["name"] == "two:latest")
    assert two["placement"]["devices"] == []
    assert two["placement"]["reason"].startswith("in main memory: not one layer fits: 1.0 MB free of 8.6 GB on CUDA0; ")


def test_a_device_that_is_lost_in_a_stream_ends_it_with_one_line_of_error(gpus: Gpus) -> None:
    gpus.order(lost="CUDA error: the device fell off the bus")
    body = {"model": "one", "prompt": "!tokens=9 !crash-after=3"}
    *pieces, last = ask(gpus.server, "POST", "/api/generate", body).lines
    assert all("response" in piece and not piece["done"] for piece in pieces)
    assert last.keys() == {"error"}
    gpus.order(lost="")
    assert gpus.ask("one").status == 200


def test_a_driver_that_says_all_is_free_is_not_believed_about_our_own_models(gpus: Gpus) -> None:
    """It has room for one of them beside the overhead, and says so whatever lies there."""
    gpus.order(devices=[["CUDA0", 139, 139]])
    assert gpus.ask("one").status == 200
    assert gpus.ask("two").status == 200
    (left,) = gpus.ps()["models"]
    assert left["name"] == "two:latest"
    assert left["placement"]["reason"] == "all 3 layers on CUDA0"
    assert "model one:latest is evicted: CUDA0 has no room for another model beside it" in gpus.log()


def test_a_device_that_another_program_fills_during_the_load_leaves_main_memory(gpus: Gpus) -> None:
    """The driver has said that there is room, and refuses whatever is asked for."""
    gpus.order(most={"pool": 0, "layers": 0})
    assert gpus.ask("one").status == 200
    (model,) = gpus.ps()["models"]
    assert (model["size_vram"], model["placement"]["devices"]) == (0, [])
    assert "; trying main memory only" in gpus.log()
    gpus.order(most={})
    assert gpus.ask("two").status == 200
    two = next(model for model in gpus.ps()["models"] if model["name"] == "two:latest")
    assert two["placement"]["reason"] == "all 3 layers on CUDA0", "the next model is tried there again"
