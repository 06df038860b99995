"""`corral doctor`: what each examination says of what it sees, as tables; and the command, where things are broken."""

import json
import math
import os
import socket
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from corral import __version__, names
from corral.client.answers import Version
from corral.config import Config
from corral.config.address import Address, parse_address
from corral.doctor import disk, engine, gpus, memory, network, processor, settings, terminal
from corral.doctor import store as examined_store
from corral.doctor.engine import Probe
from corral.doctor.findings import Finding
from corral.doctor.network import Answering
from corral.engine.choice import Engine
from corral.machine import makers
from corral.machine.gpus import Gpu
from corral.machine.memory import GIB, Memory
from corral.machine.processor import features
from corral.store import Store
from tests.commands import Outcome, Shell
from tests.conftest import StartServer, add_model
from tests.fake_server import FakeServer, reply
from tests.tiny_models import tiny_llama


def said(findings: Iterable[Finding]) -> list[tuple[str, str]]:
    return [(finding.level, finding.text) for finding in findings]


def test_an_engine_for_another_processor_is_named() -> None:
    x86 = frozenset({"AVX", "AVX2", "FMA", "OPENMP", "REPACK"})
    assert said(engine.judged_features(x86, frozenset({"avx", "fma", "sse2"}), can_build=True)) == [
        ("wrong", "the engine was built for AVX2, which this processor does not have: no model will run")
    ]
    assert said(engine.judged_features(x86, frozenset({"avx", "avx2", "fma", "avx512f", "pni"}), can_build=True)) == [
        ("ok", "built for AVX, AVX2, FMA, which this processor has"),
        ("note", "this processor also has AVX512, which the engine was not built for"),
    ]
    assert said(engine.judged_features(x86, frozenset(), can_build=True)) == []
    assert said(engine.judged_features(frozenset(), frozenset({"avx"}), can_build=True)) == []


def test_what_engines_say_of_themselves() -> None:
    about = {
        "version": "1.2",
        "build": {"build_number": 7, "build_target": "Linux x86_64", "commit": "unknown"},
        "system": "CPU : AVX2 = 1 | SVE = 0 | ",
    }
    own = engine.own_probe(["a driver's noise", f"ABOUT {json.dumps(about)}"])
    assert own == Probe("1.2", "b7, Linux x86_64", frozenset({"AVX2"}))
    assert engine.own_probe(["nothing"]).error == "it says nothing of itself"
    lines = ["version: 6789 (abcdef)", "built with GNU 14 for x86_64"]
    assert engine.other_probe(lines).version == "6789 (abcdef)"
    assert engine.other_probe(["cat (GNU coreutils) 9.1"]).error == "it prints no version: no llama-server?"


def test_the_engine_that_is_installed_says_what_it_was_built_for() -> None:
    found = engine.probe("")
    assert (found.error, bool(found.version), bool(found.features)) == ("", True, True)


def test_an_engine_that_hangs_fails_or_is_missing(tmp_path: Path) -> None:
    for name, text in (("hangs", "exec sleep 60"), ("fails", "echo no GPU; exit 3"), ("dies", "kill -ILL $$")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    errors = [
        engine.probe(str(tmp_path / name), 0.5 if name == "hangs" else 60).error for name in ("hangs", "fails", "dies")
    ]
    assert errors == [
        "it did not answer within 0.5 seconds",
        "it ended with exit status 3: no GPU",
        "it ended with signal 4",
    ]
    assert engine.probe(str(tmp_path / "none")).error == "it cannot be started: no such file or directory"
    (finding,) = engine.examine(
        Engine("CORRAL_ENGINE", "/opt/x"), Probe(error="it cannot be started"), frozenset(), can_build=True
    )
    assert (finding.level, finding.remedy[:25]) == ("wrong", 'CORRAL_ENGINE is "/opt/x"')


def test_a_library_that_the_engine_misses_is_named() -> None:
    error = "it ended with exit status 1: ImportError: libgomp.so.1: cannot open shared object file: No such file"
    (finding,) = engine.examine(Engine("wheel"), Probe(error=error), frozenset(), can_build=True)
    assert finding.remedy.startswith("libgomp.so.1 is missing on this machine: install libgomp1 on Debian and Ubuntu,")


def test_cores_and_what_keeps_us_from_them() -> None:
    assert said(processor.judged(8, 4, 8, math.inf)) == [("ok", "4 cores; a model computes with 4 threads")]
    assert said(processor.judged(8, 4, 2, 1.5)) == [
        ("ok", "4 cores; a model computes with 2 threads"),
        ("note", "this process may use 2 of 8 logical cores (affinity)"),
        ("note", "the control group gives the time of 1.5 of 8 logical cores"),
    ]


def test_features_are_read_where_linux_lists_them(tmp_path: Path) -> None:
    assert features(tmp_path) == frozenset()
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(
        "processor\t: 0\nflags\t\t: fpu avx2 fma\n\nprocessor\t: 1\nflags\t\t: other\n"
    )
    assert features(tmp_path) == {"fpu", "avx2", "fma"}


def test_memory_and_the_context_that_follows() -> None:
    plenty, little = Memory(64 * GIB, 60 * GIB), Memory(4 * GIB, GIB)
    context = "a model of eight billion parameters gets a context of"
    assert said(memory.judged(Config(), plenty, math.inf)) == [
        ("ok", "64 GB of 68 GB are free"),
        ("ok", f"{context} 32768 tokens, by the memory there is"),
    ]
    assert said(memory.judged(Config(context_length=9000), little, 4 * GIB)) == [
        ("note", "1.1 GB of 4.3 GB are free: enough for small models only"),
        ("note", "the control group gives 4.3 GB"),
        ("ok", f"{context} 9000 tokens, OLLAMA_CONTEXT_LENGTH says so"),
    ]


def test_gpus_of_the_system_and_of_the_engine(tmp_path: Path) -> None:
    for card, vendor in (("card0", "0x8086"), ("card1", "0x10de"), ("card1-DP-1", "0x10de"), ("card2", "0xffff")):
        (tmp_path / "sys/class/drm" / card / "device").mkdir(parents=True)
        (tmp_path / "sys/class/drm" / card / "device/vendor").write_text(f"{vendor}\n")
    assert makers.vendors(tmp_path) == ["Intel", "NVIDIA"]
    assert makers.vendors(tmp_path / "none") == []
    usable = Probe(gpus=(Gpu("CUDA0", "A GPU", 8 * 10**9, 6 * 10**9),))
    assert said(gpus.judged(usable, ["NVIDIA"])) == [("ok", "CUDA0, A GPU: 6 GB of 8 GB are free")]
    assert said(gpus.judged(Probe(), ["Intel", "NVIDIA"])) == [
        ("note", "the system has a GPU (Intel, NVIDIA), but the engine computes on the processor only")
    ]
    assert [level for level, _ in said(gpus.judged(Probe(), ["Intel"]))] == ["ok"]


@pytest.mark.parametrize(
    ("found", "configured", "kind"),
    [
        (["Intel", "NVIDIA"], {}, "vulkan"),
        (["NVIDIA"], {"rocm": ("https://host/rocm",)}, "vulkan"),
        (["NVIDIA"], {"cuda": ("https://host/cuda",)}, "cuda"),
        (["AMD"], {"cuda": ("https://host/cuda",), "rocm": ("https://host/rocm",)}, "rocm"),
    ],
)
def test_the_engine_for_a_gpu_is_the_makers_own_where_one_is_configured(
    found: list[str], configured: dict[str, tuple[str, ...]], kind: str
) -> None:
    (finding,) = gpus.judged(Probe(), found, configured)
    assert finding.remedy.startswith(f"`corral engine install {kind}` fetches")


HERE = parse_address("127.0.0.1:11434")
ELSEWHERE = parse_address("http://gpu:11434")
OLLAMAS = "at 127.0.0.1:11434, held by ollama (process 9): commands go to it, not to Corral"
OWN = Version("0.33.0", __version__)


@pytest.mark.parametrize(
    ("address", "found", "expected"),
    [
        (HERE, Answering(False), [("ok", "none runs at 127.0.0.1:11434; the next command starts one")]),
        (
            HERE,
            Answering(True, OWN, holder="corral (process 7)"),
            [("ok", f"Corral {__version__} (as Ollama 0.33.0) answers at 127.0.0.1:11434, held by corral (process 7)")],
        ),
        (
            HERE,
            Answering(True, Version("0.33.0", "0.0.1")),
            [("wrong", f"a server of Corral 0.0.1 answers at 127.0.0.1:11434; this command is {__version__}")],
        ),
        (
            HERE,
            Answering(True, Version("0.31.0", ""), holder="ollama (process 9)"),
            [
                ("note", f"Ollama 0.31.0 answers {OLLAMAS}"),
            ],
        ),
        (
            HERE,
            Answering(True, error="no JSON", holder="nginx (process 2)"),
            [("wrong", "something else than Corral answers at 127.0.0.1:11434, held by nginx (process 2): no JSON")],
        ),
        (
            ELSEWHERE,
            Answering(False, error="no route to host"),
            [("wrong", "no server answers at http://gpu:11434: no route to host")],
        ),
        (
            HERE,
            Answering(True, error="the server wants an API key", wants_key=True),
            [("wrong", "the server wants an API key")],
        ),
    ],
)
def test_who_answers_at_the_address(address: Address, found: Answering, expected: list[tuple[str, str]]) -> None:
    assert said(network.judged(address, found)) == expected


def test_an_open_address_is_noted() -> None:
    settings = Config(host=parse_address("0.0.0.0:11434"))
    text = "other machines can reach a server at 0.0.0.0:11434"
    assert said(network.reachable(settings)) == [("ok", f"{text}, with a key (`corral keys`)")]
    is_open = replace(settings, insecure_no_auth=True)
    assert said(network.reachable(is_open)) == [("wrong", f"{text}, and do everything without a key")]
    assert said(network.reachable(Config())) == []


def test_proxies_are_named_without_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "https_proxy", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.swapcase(), raising=False)
    monkeypatch.setenv("https_proxy", "http://ann:secret@127.0.0.1:1")
    assert said(network.proxies("https://huggingface.co")) == [
        ("wrong", "Ollama's registry and Hugging Face: the proxy http://127.0.0.1:1 does not answer")
    ]
    monkeypatch.setenv("https_proxy", "socks4://127.0.0.1:1")
    assert {level for level, _ in said(network.proxies("https://huggingface.co"))} == {"wrong"}
    monkeypatch.setenv("no_proxy", "*")
    assert said(network.proxies("https://huggingface.co")) == [
        ("ok", "Ollama's registry and Hugging Face: asked directly, no proxy is set")
    ]


def test_variables_that_mean_nothing() -> None:
    environ = {
        "OLLAMA_KEEPALIVE": "1",
        "OLLAMA_VULKAN": "1",
        "CORRAL_CONFIG": "x",
        "OLLAMA_HOST": "x",
        "CORRAL_XYZZY": "1",
    }
    assert said(settings.variables(environ)) == [
        ("note", "CORRAL_XYZZY means nothing to Corral"),
        ("wrong", "OLLAMA_KEEPALIVE means nothing to Corral"),
        ("note", "OLLAMA_VULKAN has no effect: the engine's build decides that"),
    ]


def test_every_variable_without_effect_stands_in_the_documentation() -> None:
    page = (Path(__file__).parent.parent / "docs" / "compatibility.md").read_text("utf-8")
    assert [name for name in settings.WITHOUT_EFFECT if f"`{name}`" not in page] == []


def test_encodings() -> None:
    assert [level for level, _ in said(terminal.judged("utf-8", "UTF-8"))] == ["ok"]
    assert said(terminal.judged("ascii", "UTF-8")) == [
        ("note", "the encoding is ascii: letters that it does not have are shown as ?")
    ]


def test_the_disk_of_the_models(tmp_path: Path) -> None:
    (first, *_) = said(disk.examine(tmp_path / "models"))
    assert first == ("ok", f'"{tmp_path}/models" is not there yet; it is made when the first model comes')
    found = said(disk.examine(tmp_path))
    assert any("are taken over without copying" in text or "are copied" in text for _, text in found)
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"
    (tmp_path / "file").write_text("")
    assert said(disk.examine(tmp_path / "file")) == [("wrong", f'"{tmp_path}/file" is no folder')]


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A store in which one model lacks a file, one has changed bytes, one a broken manifest, and one is well."""
    models = tmp_path / ".ollama" / "models"
    for number, name in enumerate(("whole", "lacking", "changed")):
        add_model(models, name, tiny_llama(tmp_path / f"{name}.gguf", seed=number))
    store = Store(models)
    lacking, changed = (store.manifest(names.parse(name)).manifest.layers[0].digest for name in ("lacking", "changed"))
    store.blob_path(lacking).unlink()
    path = store.blob_path(changed)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.unlink()  # it may be a link to the file
    path.write_bytes(data)
    manifest = models / "manifests/registry.ollama.ai/library/bad/latest"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{nonsense")
    (models / "blobs" / f"sha256-{'a' * 64}").write_bytes(b"x" * 5000)
    (models / "blobs" / f"sha256-{'b' * 64}-partial").write_bytes(b"x" * 8192)
    (models / "blobs" / f"sha256-{'b' * 64}-partial-0").write_bytes(b"")
    store.close()
    return models


def test_what_is_wrong_with_a_store(broken: Path) -> None:
    found = said(examined_store.examine(broken))
    assert [level for level, _ in found] == ["wrong", "wrong", "ok", "note", "note"]
    assert found[0][1].startswith(
        'the manifest "registry.ollama.ai/library/bad/latest" cannot be read: invalid manifest'
    )
    assert found[1][1].startswith("lacking:latest: 1 file of ")
    assert found[2][1].startswith("2 models with all files, ")
    assert found[3][1] == "1 file of 5 KB that no model needs"
    assert found[4][1] == "1 download that stopped halfway, 8.2 KB have come"


def test_verifying_finds_changed_bytes_and_tells_how_far_it_is(broken: Path) -> None:
    steps: list[tuple[int, int]] = []
    found = said(examined_store.examine(broken, lambda label, total, done: steps.append((total, done))))
    assert found[-1][0] == "wrong"
    assert found[-1][1].startswith("changed:latest: the bytes of ")
    assert steps[-1][0] == steps[-1][1] > 0
    assert [done for _, done in steps] == sorted(done for _, done in steps)


def test_a_file_of_another_size_and_one_that_cannot_be_read(broken: Path) -> None:
    store = Store(broken)
    digest = store.manifest(names.parse("changed")).manifest.layers[0].digest
    store.blob_path(digest).write_bytes(b"short")
    texts = [text for _, text in said(examined_store.examine(broken))]
    assert any(f"{digest.short} has 5 bytes instead of " in text for text in texts)
    if os.geteuid() != 0:
        store.blob_path(digest).chmod(0)
        assert any("permission denied" in text for _, text in said(examined_store.examine(broken)))


def test_what_is_being_fetched_is_not_called_useless(broken: Path) -> None:
    store = Store(broken)
    manifest = store.manifest(names.parse("whole")).manifest
    store.keep_for(manifest)
    store.delete(names.parse("whole"), prune=False)
    found = said(examined_store.examine(broken))
    assert ("note", "1 file of 5 KB that no model needs") in found


def test_an_empty_store_is_well(tmp_path: Path) -> None:
    assert said(examined_store.examine(tmp_path)) == [
        ("ok", "none yet: `corral search` finds some, `corral pull` fetches one")
    ]
    assert said(examined_store.examine(tmp_path / "none")) == []


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_the_command_without_a_server(tmp_path: Path) -> None:
    outcome = Shell(tmp_path, f"127.0.0.1:{free_port()}").run("doctor")
    assert (outcome.status, outcome.stderr) == (0, "")
    subjects = [line for line in outcome.stdout.splitlines() if line and not line.startswith(" ")]
    assert subjects[:10] == [
        "Settings",
        "Engine",
        "Cage",
        "Processor",
        "Memory",
        "GPU",
        "Disk",
        "Server",
        "Proxies",
        "Terminal",
    ]
    assert subjects[-1].startswith("nothing is wrong")


def test_the_command_says_what_is_wrong_and_its_status_tells(broken: Path, tmp_path: Path) -> None:
    shell = Shell(tmp_path, f"127.0.0.1:{free_port()}")
    outcome = shell.run("doctor", "--verify", OLLAMA_NUM_PARALLEL="lots")
    assert outcome.status == 1
    assert "  WRONG  lacking:latest: 1 file of " in outcome.stdout
    assert "         -> `corral pull lacking:latest` fetches what is missing" in outcome.stdout
    assert outcome.stdout.splitlines()[-1].startswith("4 things are wrong")
    assert outcome.stderr.splitlines()[-1].startswith("verifying 100%")
    as_json = shell.run("doctor", "--json", OLLAMA_NUM_PARALLEL="lots")
    report = json.loads(as_json.stdout)
    assert (as_json.status, report["healthy"]) == (1, False)
    assert [one["level"] for one in report["findings"]].count("wrong") == 3
    assert report["findings"][0] == {
        "subject": "Settings",
        "level": "wrong",
        "text": 'OLLAMA_NUM_PARALLEL is ignored: invalid value "lots"',
        "remedy": "`corral config` shows what num_parallel is now",
    }


def test_settings_that_stop_every_command_are_said_and_the_rest_too(tmp_path: Path) -> None:
    outcome = Shell(tmp_path, "gpu:1:2").run("doctor")
    assert outcome.status == 1
    assert outcome.stdout.startswith('Settings\n  WRONG  OLLAMA_HOST: "gpu:1:2" is no address')
    assert "\nTerminal\n" in outcome.stdout


def test_a_port_that_another_program_has(tmp_path: Path) -> None:
    with FakeServer({"GET /api/version": reply("<html>", status=404)}) as server:
        outcome = Shell(tmp_path, server.host).run("doctor")
    assert outcome.status == 1
    assert f"something else than Corral answers at {server.host}" in " ".join(outcome.stdout.split())


def test_the_command_beside_a_server(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server()
    outcome = Shell(tmp_path, server.host).run("doctor")
    assert outcome == Outcome(0, outcome.stdout, "")
    assert f"answers at {server.host}" in outcome.stdout
