"""The worker process: its command line, start, end and explanation, with the fake program and with the real engine."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import psutil
import pytest

from corral.engine.base import LoadProgress, RunnerSpec
from corral.engine.llama.client import LlamaEngine
from corral.engine.llama.launch import launch
from corral.engine.llama.process import WorkerProcess
from corral.engine.llama.worker import WorkerConfig, arguments
from corral.errors import EngineDied, EngineError, OutOfMemory
from tests.conftest import FAKE_ENGINE
from tests.engines import engines, open_to, tell

SPEC = RunnerSpec(model="model.gguf", num_ctx=2048, slots=4, pool=8192)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of its own, which the worker gets too."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


async def start(home: Path, spec: RunnerSpec = SPEC, stall_timeout: float = 20) -> LlamaEngine:
    return await launch(
        spec,
        log=home / "logs" / "worker.log",
        stall_timeout=stall_timeout,
        program=str(FAKE_ENGINE),
        cage=open_to(home),
    )


async def started(home: Path) -> None:
    """Waits until an engine has written down that it exists."""
    while not engines(home):  # noqa: ASYNC110 - another process, which has no event of ours to set
        await asyncio.sleep(0.01)


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


async def test_a_worker_serves_until_it_is_closed_and_its_log_is_kept(home: Path) -> None:
    engine = await start(home)
    assert await engine.healthy()
    assert await engine.tokenize("hello  world") == [0, 1]
    assert await engine.detokenize([1, 0]) == "  worldhello"
    assert engine.memory() > 0
    await engine.close()
    assert gone(engine.pid)
    assert not await engine.healthy()
    assert engine.memory() == 0
    assert await engine.ended() == "stopped"
    assert "POST /tokenize" in engine.log.read_text()
    await engine.close()


ALL_OPTIONS = RunnerSpec(
    model="m.gguf",
    projectors=("p.gguf", "second.gguf"),
    adapters=("l1.gguf", "l2.gguf"),
    num_ctx=8192,
    slots=3,
    pool=24576,
    num_batch=64,
    num_gpu=5,
    main_gpu=1,
    use_mmap=False,
    num_thread=6,
    cache_type="q8_0",
    flash_attention="on",
)

COMMON = (
    "--host 127.0.0.1 --port 1234 --cache-ram 77 --no-webui --offline --no-warmup --no-prefill-assistant --kv-unified "
    "--model {} {}"
)
COMMAND_LINES: list[tuple[RunnerSpec, str]] = [
    (
        SPEC,
        COMMON.format("model.gguf", "--context-shift") + " --kv-unified-per-slot 2048 --parallel 4 --ctx-size 8192"
        " --batch-size 512 --ubatch-size 512 --cache-type-k f16 --cache-type-v f16 --flash-attn auto",
    ),
    (
        ALL_OPTIONS,
        COMMON.format("m.gguf", "--context-shift") + " --kv-unified-per-slot 8192 --parallel 3 --ctx-size 24576"
        " --batch-size 512 --ubatch-size 64 --gpu-layers 5 --fit off --main-gpu 1 --load-mode none"
        " --threads 6 --threads-batch 6 --mmproj p.gguf --lora l1.gguf --lora l2.gguf"
        " --cache-type-k q8_0 --cache-type-v q8_0 --flash-attn on",
    ),
    (
        msgspec.structs.replace(SPEC, mode="embed", pooling="mean", num_ctx=8192, use_mmap=True),
        COMMON.format("model.gguf", "--embeddings") + " --pooling mean --kv-unified-per-slot 8192 --parallel 4"
        " --ctx-size 8192 --batch-size 2048 --ubatch-size 2048 --load-mode mmap"
        " --cache-type-k f16 --cache-type-v f16 --flash-attn auto",
    ),
    (
        msgspec.structs.replace(SPEC, own_template=False),
        COMMON.format("model.gguf", "--context-shift") + " --kv-unified-per-slot 2048 --parallel 4 --ctx-size 8192"
        " --batch-size 512 --ubatch-size 512 --chat-template chatml --cache-type-k f16 --cache-type-v f16"
        " --flash-attn auto",
    ),
]


@pytest.mark.parametrize(("spec", "expected"), COMMAND_LINES)
def test_command_line_of_another_llama_server(spec: RunnerSpec, expected: str) -> None:
    assert " ".join(arguments(WorkerConfig(spec=spec, key="", parent=0, cache_ram_mib=77), 1234)) == expected


async def test_the_program_gets_what_was_asked_for_and_no_secrets(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("OLLAMA_API_KEY", "secret")
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setenv("LLAMA_ARG_FIT", "off")
    engine = await start(home, ALL_OPTIONS)
    (fake,) = engines(home)
    assert fake.pid == engine.pid
    got = [fake.options[name] for name in ("model", "ctx_size", "parallel", "lora")]
    assert got == ["m.gguf", 24576, 3, ["l1.gguf", "l2.gguf"]]
    environ = fake.started["environ"]
    assert environ["LLAMA_ARG_FIT"] == "off"
    assert len(environ["LLAMA_API_KEY"]) == 32
    assert "secret" not in environ.values()
    assert not {"AWS_SECRET_ACCESS_KEY", "OLLAMA_API_KEY", "HF_TOKEN", "PIP_INDEX_URL", "USER"} & set(environ)
    await engine.close()


async def test_a_program_that_cannot_be_run_is_named(home: Path) -> None:
    with pytest.raises(EngineDied, match=r'terminated: "/nowhere/llama-server" is no program that can be run$'):
        await launch(SPEC, log=home / "worker.log", stall_timeout=20, program="/nowhere/llama-server")


async def test_a_log_that_cannot_be_written_is_named(home: Path) -> None:
    (home / "logs").touch()
    with pytest.raises(EngineError) as raised:
        await start(home)
    assert str(raised.value) == f'cannot write the log "{home}/logs/worker.log": file exists'


async def test_a_crash_at_load_is_shown_with_its_first_error(home: Path) -> None:
    tell(home, fails="error: unknown model architecture")
    with pytest.raises(EngineDied) as caught:
        await start(home)
    sentence = "llama-server process has terminated: exit status 1: error: unknown model architecture"
    assert str(caught.value) == sentence
    assert all(not engine.alive for engine in engines(home))


async def test_a_missing_library_is_named_with_its_package(home: Path) -> None:
    """As on small images of containers, which have no OpenMP."""
    tell(home, fails="llama-server: error while loading shared libraries: libgomp.so.1: cannot open shared object file")
    with pytest.raises(EngineDied, match=r"does not start: libgomp\.so\.1 is missing .*: install libgomp1 on Debian"):
        await start(home)


@pytest.mark.parametrize(
    "words",
    [
        "ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 1099511627776",
        "ggml_aligned_malloc: insufficient memory (attempted to allocate 1048576.00 MB) - failed",
        "CUDA error: out of memory",
        "cudaMalloc failed: out of memory",
    ],
)
async def test_memory_that_does_not_suffice_is_an_error_of_its_own(home: Path, words: str) -> None:
    tell(home, fails=words)
    with pytest.raises(OutOfMemory, match=r"^not enough memory to load the model: "):
        await start(home)


async def test_a_load_without_progress_is_given_up(home: Path) -> None:
    tell(home, never_healthy=True)
    with pytest.raises(EngineError, match=r"^timed out waiting for llama-server to start - "):
        await start(home, stall_timeout=0.3)
    assert all(not engine.alive for engine in engines(home))


async def test_a_load_with_progress_may_take_longer_than_the_stall_timeout(home: Path) -> None:
    tell(home, loads_when="go", prints=True)
    loading = asyncio.ensure_future(start(home, stall_timeout=1.0))
    log = home / "logs" / "worker.log"
    while not (log.exists() and log.read_text().count("loading tensors") > 300):  # which takes three times as long
        assert not loading.done()
        await asyncio.sleep(0.02)
    (home / "go").touch()
    await (await loading).close()


async def test_cancelling_a_load_ends_the_worker(home: Path) -> None:
    tell(home, loads_when="never")
    loading = asyncio.ensure_future(start(home))
    await started(home)
    loading.cancel()
    await asyncio.wait({loading})
    assert loading.cancelled()
    assert [engine.alive for engine in engines(home)] == [False]


async def test_cancelling_at_any_moment_of_a_start_leaves_no_process(home: Path) -> None:
    tell(home, loads_when="never")
    before = set(psutil.Process().children(recursive=True))  # servers that other tests share
    for turns in range(0, 40, 3):
        loading = asyncio.ensure_future(start(home))
        for _ in range(turns):
            await asyncio.sleep(0.003)
        loading.cancel()
        await asyncio.wait({loading})
    now = set(psutil.Process().children(recursive=True))
    left = [child for child in now - before if not gone(child.pid)]
    assert [(child.status(), child.cmdline()) for child in left] == []


async def test_a_worker_that_refuses_sigterm_is_killed(home: Path) -> None:
    tell(home, ignores_sigterm=True)
    worker = await WorkerProcess.start(SPEC, log=home / "worker.log", program=str(FAKE_ENGINE), cage=open_to(home))
    assert await worker.ready(20) is False
    await started(home)
    await worker.stop(grace=0.2)
    assert gone(worker.pid)
    assert worker.exit_reason() == "stopped"


@pytest.mark.parametrize(
    ("number", "reason"), [(signal.SIGKILL, "signal: killed"), (signal.SIGSEGV, "signal: segmentation fault")]
)
async def test_the_end_of_a_worker_is_explained(home: Path, number: signal.Signals, reason: str) -> None:
    engine = await start(home)
    os.kill(engine.pid, number)
    assert await engine.ended() == reason
    assert not await engine.healthy()
    await engine.close()


ORPHAN = """
import asyncio, sys
from pathlib import Path
from corral.cage import Cage
from corral.engine.base import LoadProgress, RunnerSpec
from corral.engine.llama.launch import launch

async def main():
    spec = RunnerSpec(model=sys.argv[1], num_ctx=512, slots=1, pool=512)
    log = Path(sys.argv[2])
    cage = Cage(folders=(str(log.parent),))
    engine = await launch(spec, log=log, stall_timeout=60, program=sys.argv[3], cage=cage)
    print(engine.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize("program", [str(FAKE_ENGINE), ""], ids=["fake", "real"])
def test_a_worker_does_not_outlive_a_killed_parent(home: Path, tiny_gguf: Path, program: str) -> None:
    command = [sys.executable, "-c", ORPHAN, str(tiny_gguf), str(home / "worker.log"), program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    psutil.wait_procs([worker], timeout=20)
    assert gone(worker.pid)


async def test_the_real_engine_says_why_a_file_cannot_be_loaded(home: Path) -> None:
    broken = home / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(EngineDied, match=r"^llama-server process has terminated: "):
        await launch(msgspec.structs.replace(SPEC, model=str(broken)), log=home / "worker.log", stall_timeout=60)
    with pytest.raises(EngineDied):
        await launch(msgspec.structs.replace(SPEC, model=str(home / "none")), log=home / "worker.log", stall_timeout=60)


async def test_an_older_llama_server_is_started_without_the_flags_that_it_lacks(home: Path) -> None:
    def older(name: str, *lacks: str) -> str:
        program = home / name
        program.write_text(
            f'#!/bin/sh\nfor word in "$@"; do case $word in {"|".join(lacks)})\n'
            '  echo "error: invalid argument: $word" >&2; exit 1;; esac; done\n'
            f'exec {sys.executable} {FAKE_ENGINE} "$@"\n'
        )
        program.chmod(0o755)
        return str(program)

    program = older("older", "--cache-ram", "--load-mode", "--no-prefill-assistant")
    spec = msgspec.structs.replace(SPEC, use_mmap=True)
    for _ in range(2):
        engine = await launch(spec, log=home / "worker.log", stall_timeout=20, program=program, cage=open_to(home))
        await engine.close()
    started = engines(home)
    assert [one.options["cache_ram"] for one in started] == [None, None], "the second load asks for it no more"
    assert started[0].options["ctx_size"] == spec.pool
    several = msgspec.structs.replace(spec, pool=4 * spec.num_ctx)
    unshared, progress = older("unshared", "--kv-unified-per-slot"), LoadProgress()
    engine = await launch(
        several, log=home / "worker.log", stall_timeout=20, program=unshared, progress=progress, cage=open_to(home)
    )
    await engine.close()
    assert engines(home)[-1].options["ctx_size"] == progress.pool == spec.num_ctx, "each slot could fill the whole pool"
    oldest = older("oldest", "--cache-type-k")
    with pytest.raises(EngineDied, match="invalid argument: --cache-type-k"):
        await launch(spec, log=home / "worker.log", stall_timeout=20, program=oldest, cage=open_to(home))
