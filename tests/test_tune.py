"""`corral tune` over fake engines that are faster with some settings, and what a server makes of it."""

import json
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from corral import names
from corral.builds.tuning import candidates, described
from corral.config import Config
from corral.engine import tuned
from corral.engine.base import RunnerSpec, TunedSettings
from corral.engine.llama.build import build
from corral.engine.tuned import Tuned, Tunings
from corral.errors import StoreError
from corral.machine import processor
from corral.machine.memory import GIB, Memory
from corral.models.model import Models
from corral.options import Options
from corral.serving.spec import runner_spec
from corral.store import Store
from tests.asking import ask, post
from tests.commands import CORRAL
from tests.conftest import FAKE_ENGINE, StartServer, add_model, environment
from tests.engines import engines
from tests.processes import wait_for_end
from tests.tiny_models import tiny_llama

SPEC = RunnerSpec(model="m.gguf", num_ctx=2048, pool=2048, num_thread=2)
DIGEST = "sha256-" + "5" * 64


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    add_model(home / ".ollama" / "models", "tiny", tiny_llama(tmp_path / "tiny.gguf"))
    return home


def faster_with(home: Path, *cases: tuple[str, float]) -> Path:
    """A fake engine whose speed depends on its command line."""
    lines = [f'case " $* " in *" {words} "*) export FAKE_ENGINE_SPEED={speed};; esac' for words, speed in cases]
    program = home / "llama-server"
    program.write_text("\n".join(["#!/bin/sh", *lines, f'exec "{sys.executable}" "{FAKE_ENGINE}" "$@"', ""]))
    program.chmod(0o755)
    return program


def tune(home: Path, program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    given = environment(home, "127.0.0.1:1", {"CORRAL_ENGINE": str(program)})
    return subprocess.run([CORRAL, "tune", *arguments], env=given, capture_output=True, text=True, timeout=100)


def kept(home: Path) -> list[Path]:
    return sorted((home / "state" / "tuned").glob("*"))


def test_what_is_faster_is_kept_and_a_server_loads_with_it(home: Path, start_server: StartServer) -> None:
    program = faster_with(home, ("--ubatch-size 256", 2.0))
    dry = tune(home, program, "tiny", "--pairs", "3", "--dry-run")
    assert (dry.returncode, kept(home)) == (0, []), dry.stderr
    assert "it would be: micro-batch 256, no speculation" in dry.stdout

    done = tune(home, program, "tiny", "--pairs", "3")
    assert done.returncode == 0, done.stderr
    rows = [tuple(re.split(" {2,}", line.strip())) for line in done.stdout.splitlines()]
    assert ("micro-batch", "256", "x2.00 (2.00-2.00)", "x2.00 (2.00-2.00)", "yes") in rows
    assert ("micro-batch", "1024", "x0.50 (0.50-0.50)", "x0.50 (0.50-0.50)", "no") in rows
    assert ("together", "all of these", *["x2.00 (2.00-2.00)"] * 2, "yes") in rows
    assert ("weights", "plain", *["x1.00 (1.00-1.00)"] * 2, "no") in rows
    (file,) = kept(home)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    listed = tune(home, program, "--list")
    assert (listed.returncode, listed.stdout.split()) == (
        0,
        ["NAME", "USED", "SETTINGS", "tiny:latest", "yes", "micro-batch", "256,", "no", "speculation"],
    )

    server = start_server(home, CORRAL_ENGINE=str(program))
    before = len(engines(home))
    assert post(server, "/api/generate", {"model": "tiny", "prompt": "Hi", "stream": False}).status == 200
    assert engines(home)[before].options["ubatch_size"] == 256
    assert ask(server, "GET", "/api/ps").json["models"][0]["tuned"] is True
    assert ask(server, "GET", "/api/requests").json["requests"][0]["tuned"] is True
    asked = {"model": "tiny", "prompt": "Hi", "stream": False, "options": {"num_batch": 128}}
    assert post(server, "/api/generate", asked).status == 200
    assert engines(home)[before + 1].options["ubatch_size"] == 128

    assert tune(home, program, "tiny", "--forget").returncode == 0
    assert kept(home) == []
    again = tune(home, program, "tiny", "--forget")
    assert (again.returncode, again.stderr.strip()) == (1, 'Error: nothing was measured for "tiny"')


def test_an_interrupted_tuning_keeps_nothing_and_leaves_nobody(home: Path) -> None:
    program = faster_with(home)
    given = environment(home, "127.0.0.1:1", {"CORRAL_ENGINE": str(program)})
    process = subprocess.Popen([CORRAL, "tune", "tiny"], env=given, stderr=subprocess.PIPE)
    while len(engines(home)) < 2:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert kept(home) == []
    for engine in engines(home):
        wait_for_end(engine.pid)


WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "nothing": ((), "requires the name of a model"),
    "a model that is not there": (("nope",), "nope"),
    "too few pairs": (("tiny", "--pairs", "1"), "--pairs is a number from 3 to 100, not 1"),
    "both": (("tiny", "--list"), "--list takes no model"),
    "forget in vain": (("tiny", "--forget"), "nothing was measured"),
}


@pytest.mark.parametrize(("arguments", "sentence"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_done_is_said(home: Path, arguments: tuple[str, ...], sentence: str) -> None:
    done = tune(home, faster_with(home), *arguments)
    assert done.returncode == 1
    assert sentence in done.stderr


CANDIDATES: dict[str, tuple[str, TunedSettings, dict[str, Any], list[str]]] = {
    # name: setting, best until then, configuration → values
    "micro-batch": ("micro-batch", TunedSettings(), {}, ["256", "1024"]),
    "flash attention": ("flash attention", TunedSettings(), {}, ["on", "off"]),
    "flash attention, which is set": ("flash attention", TunedSettings(), {"flash_attention": "on"}, []),
    "KV type": ("KV type", TunedSettings(), {}, ["q8_0"]),
    "KV type, which is set": ("KV type", TunedSettings(), {"kv_cache_type": "q4_0"}, []),
    "KV type without flash attention": ("KV type", TunedSettings(flash_attention="off"), {}, []),
    "weights": ("weights", TunedSettings(), {}, ["plain"]),
}


@pytest.mark.parametrize(("setting", "best", "settings", "expected"), CANDIDATES.values(), ids=CANDIDATES)
def test_what_is_tried(setting: str, best: TunedSettings, settings: dict[str, Any], expected: list[str]) -> None:
    assert [value for _, value, _ in candidates(setting, best, SPEC, Config(**settings))] == expected


def test_settings_are_described() -> None:
    assert described(TunedSettings()) == "as without tuning"
    full = TunedSettings(
        num_thread=2, num_batch=256, flash_attention="on", cache_type="q8_0", repack=False, ngram_draft=12
    )
    assert described(full) == "2 threads, micro-batch 256, flash attention on, KV q8_0, plain weights, drafts of 12"


def record(**changes: Any) -> Tuned:
    given = Tuned(
        name="m:latest", digest=DIGEST, machine="fast, 2 cores", engine="e-1", settings=TunedSettings(num_thread=3)
    )
    return msgspec.structs.replace(given, **changes)


async def of(state: Path, machine: str = "fast, 2 cores", engine: str = "e-1", *, on: bool = True) -> Any:
    return await Tunings(state, machine, lambda: engine, on=on).of(Path("/store/blobs", DIGEST))


async def test_it_holds_for_one_processor_and_one_engine(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert await of(tmp_path) is None
    tuned.write(tmp_path, record())
    assert await of(tmp_path) == TunedSettings(num_thread=3)
    assert await of(tmp_path, on=False) is None
    assert caplog.messages == []
    assert await of(tmp_path, engine="e-2") is None
    assert await of(tmp_path, machine="slow, 2 cores") is None
    begins, ends = 'what was measured for "m:latest" is not used: the ', "; `corral tune m:latest` measures again"
    assert caplog.messages == [
        f"{begins}engine was e-1 then, and is e-2 now{ends}",
        f"{begins}processor was fast, 2 cores then, and is slow, 2 cores now{ends}",
    ]


def written(change: Callable[[dict[str, Any]], None]) -> bytes:
    value = json.loads(msgspec.json.encode(record()))
    change(value)
    return json.dumps(value).encode()


BROKEN = {
    "empty": b"",
    "cut": msgspec.json.encode(record())[:-5],
    "too many threads": written(lambda value: value["settings"].update(num_thread=1 << 20)),
    "a negative draft": written(lambda value: value["settings"].update(ngram_draft=-1)),
    "no KV type": written(lambda value: value["settings"].update(cache_type="q9")),
    "no switch": written(lambda value: value["settings"].update(flash_attention="perhaps")),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
async def test_a_broken_file_is_not_used(tmp_path: Path, data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    tuned.write(tmp_path, record())
    (tmp_path / "tuned" / f"{DIGEST}.json").write_bytes(data)
    with pytest.raises(StoreError):
        tuned.read(tmp_path, DIGEST)
    assert await of(tmp_path) is None
    assert len(caplog.messages) == 1
    assert tuned.everything(tmp_path) == []


async def test_what_is_said_counts_more_than_what_is_measured(tmp_path: Path) -> None:
    add_model(tmp_path / "models", "tiny", tiny_llama(tmp_path / "tiny.gguf"))
    model = await Models(Store(tmp_path / "models")).load(names.parse("tiny"))
    memory = Memory(total=16 * GIB, available=12 * GIB)
    found = TunedSettings(cache_type="q8_0", flash_attention="on", ngram_draft=0)

    spec = runner_spec(model, Options(), Config(), memory, tuned=found)
    plain = runner_spec(model, Options(), Config(), memory)
    assert (spec.cache_type, spec.flash_attention, spec.ngram_draft, spec.tuned) == ("q8_0", "on", 0, found)
    assert spec.cache_bytes_per_token < plain.cache_bytes_per_token
    set_by_hand = Config(kv_cache_type="q4_0", flash_attention="off")
    spec = runner_spec(model, Options(draft_num_predict=4), set_by_hand, memory, tuned=found)
    assert (spec.cache_type, spec.flash_attention, spec.ngram_draft) == ("q4_0", "off", 4)
    assert runner_spec(model, Options(), Config(), memory, tuned=found, embed=True).tuned is None


def test_this_machine_has_a_name(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU\n")
    assert processor.name(tmp_path).startswith("Some CPU, ")
    assert build("") != ""
