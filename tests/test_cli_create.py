"""`corral create` as its users type it: Modelfiles, folders, uploads to any server, and what is said when it fails."""

import hashlib
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from corral.names import Digest
from tests.asking import ask, post
from tests.commands import CORRAL, Outcome, Shell
from tests.conftest import FAKE_ENGINE, RunningServer, add_model, running_server
from tests.fake_server import Answer, FakeServer, lines, raw, reply
from tests.reference.models import CASES
from tests.test_assemble import write_split
from tests.tiny_models import CHATML, tiny_llama, tiny_llava, tiny_lora

LLAMA = next(case for case in CASES if case.name == "llama")
DONE = lines({"status": "writing manifest"}, {"status": "success"})


@pytest.fixture(scope="module")
def server(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server with the model `fake`; each test gives the model that it makes a name of its own."""
    home = tmp_path_factory.mktemp("server")
    add_model(home / ".ollama" / "models", "fake", tiny_gguf)
    with running_server(home, CORRAL_ENGINE=str(FAKE_ENGINE)) as server:
        yield server


@pytest.fixture
def shell(server: RunningServer, tmp_path: Path) -> Shell:
    home = tmp_path / "typed"
    home.mkdir()
    return Shell(home, server.host)


def statuses(outcome: Outcome) -> list[str]:
    """Lines of progress, without those that count bytes and with digests left out."""
    assert (outcome.status, outcome.stdout) == (0, ""), outcome
    text = re.sub(r"sha256:[0-9a-f]{64}", "<digest>", outcome.stderr)
    return [line for line in text.splitlines() if "%" not in line]


def test_a_model_is_made_of_the_modelfile_of_the_folder(shell: Shell, server: RunningServer) -> None:
    tiny_llama(shell.home / "model.gguf", seed=7, chat_template=CHATML)
    (shell.home / "Modelfile").write_text(
        'FROM ./model.gguf\nSYSTEM """\nBe brief.\n"""\nPARAMETER temperature 0\nPARAMETER low_vram true\n'
        'LICENSE MIT\nMESSAGE user hi\nMESSAGE assistant "one\ntwo"\n'
    )
    outcome = shell.run("create", "mine")
    assert statuses(outcome) == [
        "gathering model components",
        "warning: parameter low_vram is deprecated",
        "parsing GGUF",
        "verifying conversion",
        "creating new layer <digest>",
        "using autodetected template chatml",
        *["creating new layer <digest>"] * 4,
        "writing manifest",
        "success",
    ]
    shown = post(server, "/api/show", {"model": "mine"}).json
    assert (shown["system"], shown["license"]) == ("\nBe brief.\n", "MIT")
    assert shown["messages"] == [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "one\ntwo"}]
    blob = server.models / "blobs" / re.findall(r"sha256-[0-9a-f]{64}", shown["modelfile"])[0]
    assert blob.samefile(shell.home / "model.gguf")  # nothing was copied


def test_what_is_shown_of_a_model_makes_it_again(shell: Shell, server: RunningServer) -> None:
    tiny_llama(shell.home / "model.gguf", seed=8)
    text = 'FROM model.gguf\nTEMPLATE "{{ .Prompt }}\n"\nSYSTEM " a "\nREQUIRES 0.1.0\nPARAMETER seed 1000000\n'
    assert shell.run("create", "one", "-f", "-", stdin=text).status == 0
    shown = shell.run("show", "one", "--modelfile").stdout
    outcome = shell.run("create", "two", "--file", "-", stdin=shown)
    assert "reading" not in outcome.stderr  # the blob's name says its digest
    assert "creating" not in outcome.stderr
    listed = {model["name"]: model["digest"] for model in ask(server, "GET", "/api/tags").json["models"]}
    assert listed["two:latest"] == listed["one:latest"]


def test_a_model_is_made_of_another_one_by_name(shell: Shell) -> None:
    outcome = shell.run("create", "derived", "-f", "-", stdin="FROM fake\r\nSYSTEM Be brief.\r\n")
    assert statuses(outcome)[-4:] == [
        "using existing layer <digest>",
        "creating new layer <digest>",
        "writing manifest",
        "success",
    ]
    assert shell.run("show", "derived", "--system").stdout == "Be brief."


def test_without_a_modelfile_the_folder_is_the_model(shell: Shell) -> None:
    LLAMA.write(shell.home)
    outcome = shell.run("create", "checkpoint", "-q", "q8_0")
    found = statuses(outcome)
    saved = next(line for line in found if line.startswith("Q8_0: "))
    assert re.fullmatch(r"Q8_0: \d+ KB instead of \d+ KB", saved)
    assert found == [
        "gathering model components",
        "converting model",
        "verifying conversion",
        saved,
        "creating new layer <digest>",
        "writing manifest",
        "success",
    ]
    assert "quantizing F16 model to Q8_0 100%" in outcome.stderr
    assert re.search(r"quantization +Q8_0", shell.run("show", "checkpoint").stdout)


def test_a_folder_elsewhere_a_split_set_a_projector_and_an_adapter(shell: Shell) -> None:
    folder = shell.home / "deep" / "er"
    folder.mkdir(parents=True)
    first = next(iter(write_split(folder)))
    tiny_lora(folder / "lora.gguf")
    (folder / "Split").write_text(f"FROM {first}\n")
    (folder / "Adapted").write_text("FROM fake\nADAPTER ./lora.gguf\n")
    assert statuses(shell.run("create", "split", "-f", "deep/er/Split"))[-1] == "success"
    tiny_llava(folder / "a.gguf", folder / "b.gguf")
    (folder / "Vision").write_text(f"FROM {folder}/a.gguf\nFROM ./b.gguf\n")
    assert statuses(shell.run("create", "vision", "-f", "deep/er/Vision"))[-1] == "success"
    shown = shell.run("show", "vision", "--modelfile").stdout
    assert len(re.findall(r"^FROM /", shown, re.MULTILINE)) == 2
    assert statuses(shell.run("create", "adapted", "-f", "deep/er/Adapted", "--adapter-scale", "0.5"))[-1] == "success"
    assert re.search(r"^ADAPTER /", shell.run("show", "adapted", "--modelfile").stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "no FROM line"),
        ("FROM fake\nBAD x\n", '(line 2): command must be one of "from", "license", "template", "system", "adapter", '),
        ("FROM fake\nPARAMETER nonsense 1", "unknown parameter 'nonsense'\nline 2: PARAMETER nonsense 1"),
        ("FROM fake\nPARAMETER num_ctx big", "invalid int value [big]\nline 2: PARAMETER num_ctx big"),
        ('FROM fake\nSYSTEM """x', 'unexpected EOF\na quote is not closed\nline 2: SYSTEM """x'),
        ("FROM ./nosuch.gguf", 'no such file: "./nosuch.gguf"'),
        ("FROM fake\nADAPTER ./nosuch.gguf", 'no such file: "{home}/nosuch.gguf"'),
        ("FROM fake\nTEMPLATE {{ .Prompt", "400 Bad Request: template error: template: :1: unclosed action"),
        ("FROM ./folder", "no Modelfile or safetensors files found"),
        ("FROM ./linked", "insecure path: model.safetensors\n"),
        (
            "FROM ./pointers",
            "invalid content type: expected application/octet-stream for {home}/pointers/model.safetensor",
        ),
        ("FROM ./text.gguf", "supplied file was not in GGUF format"),
        ("FROM ./short.gguf", "exceeds file size"),
        ("FROM ./strange", 'unsupported architecture "StrangeForCausalLM"'),
        (
            "FROM fake\nDRAFT ./text.gguf",
            "400 Bad Request: a draft model cannot be used: drafts are made from repeated text only",
        ),
        ("FROM ./text.gguf\nDRAFT text.gguf", "DRAFT must not reference the same local path as FROM: text.gguf"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_left(
    text: str, sentence: str, shell: Shell, server: RunningServer
) -> None:
    _write_broken_things(shell.home)
    before = sorted(path.name for path in (server.models / "blobs").iterdir())
    outcome = shell.run("create", "broken", "-f", "-", stdin=text)
    assert outcome.status == 1
    assert sentence.format(home=shell.home) in outcome.stderr.split("Error: ", 1)[1]
    assert sorted(path.name for path in (server.models / "blobs").iterdir()) == before
    assert post(server, "/api/show", {"model": "broken"}).status == 404


def _write_broken_things(home: Path) -> None:
    for folder in ("folder", "linked", "pointers", "strange", ".cache"):
        (home / folder).mkdir()
    (home / "folder" / "notes.txt").write_text("no model")
    (home / ".cache" / "secret").write_text("key")
    (home / "linked" / "model.safetensors").symlink_to(home / ".cache" / "secret")
    (home / "pointers" / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\nsize 1\n")
    (home / "text.gguf").write_text("no model")
    (home / "short.gguf").write_bytes(tiny_llama(home / "whole.gguf").read_bytes()[:-1000])
    files = LLAMA.write(home / "strange")
    files["config.json"].write_text('{"architectures": ["StrangeForCausalLM"]}')


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["create"], "accepts 1 arg(s), received 0"),
        (["create", "bad name!"], "invalid model name: bad name!"),
        (["create", "x", "-f", "nosuch"], 'specified Modelfile wasn\'t found\nno such file: "{home}/nosuch"'),
        (["create", "x"], "no Modelfile or safetensors files found"),
        (["create", "x", "--imatrix", "y"], "--imatrix is for --quantize"),
        (["create", "x", "-f", "Plain", "--draft-quantize", "q4_0"], "--draft-quantize requires a DRAFT model"),
        (["create", "x", "-f", "Plain", "--adapter-scale", "2"], "--adapter-scale requires an ADAPTER"),
        (["create", "x", "-f", "Adapted", "--adapter-scale", "two"], '--adapter-scale must be a number, got "two"'),
        (["create", "x", "-f", "."], 'cannot read "{home}": is a directory'),
    ],
)
def test_wrong_commands_are_refused(arguments: list[str], sentence: str, shell: Shell) -> None:
    (shell.home / "Plain").write_text("FROM fake\n")
    (shell.home / "Adapted").write_text("FROM fake\nADAPTER Plain\n")
    outcome = shell.run(*arguments)
    assert (outcome.status, outcome.stdout) == (1, "")
    assert outcome.stderr.endswith(f"Error: {sentence.format(home=shell.home)}\n")


# Servers that cannot read files of this machine


@pytest.fixture
def small(tmp_path: Path) -> tuple[Path, Digest]:
    """A file that a fake server's log can show, and its digest."""
    (tmp_path / "small.gguf").write_bytes(b'"GGUF"')
    return tmp_path / "small.gguf", Digest(hashlib.sha256(b'"GGUF"').hexdigest())


def test_another_server_gets_what_it_lacks(tmp_path: Path, small: tuple[Path, Digest]) -> None:
    file, digest = small
    routes = {
        "GET /api/version": reply({"version": "0.33.0"}),
        f"HEAD /api/blobs/{digest}": raw("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
        f"POST /api/blobs/{digest}": reply("", 201),
        "POST /api/create": DONE,
    }
    with FakeServer(routes) as server:
        outcome = Shell(tmp_path, server.host).run("create", "m", "-f", "-", "-q", "q4_0", stdin=f"FROM {file}\n")
        assert outcome.status == 0, outcome
        asked = server.requests()
    assert asked[-2:] == [
        (f"POST /api/blobs/{digest}", "GGUF"),
        ("POST /api/create", {"files": {"small.gguf": str(digest)}, "quantize": "q4_0", "model": "m"}),
    ]


@pytest.mark.parametrize("flags", [["-q", "q4_0", "--imatrix", "small.gguf"], ["--adapter-scale", "2"]])
def test_what_only_our_server_knows_is_asked_of_no_other(
    flags: list[str], tmp_path: Path, small: tuple[Path, Digest]
) -> None:
    with FakeServer({"GET /api/version": reply({"version": "0.33.0"})}) as server:
        outcome = Shell(tmp_path, server.host).run("create", "m", "-f", "-", *flags, stdin="FROM x\n")
        assert outcome.stderr == f'Error: the server at "http://{server.host}" knows no {flags[-2]}\n'


def test_a_server_that_has_the_file_gets_its_digest_only(tmp_path: Path, small: tuple[Path, Digest]) -> None:
    file, digest = small
    routes = {
        "GET /api/version": reply({"version": "0.33.0"}),
        f"HEAD /api/blobs/{digest}": raw("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        "POST /api/create": DONE,
    }
    with FakeServer(routes) as server:
        assert Shell(tmp_path, server.host).run("create", "m", "-f", "-", stdin=f"FROM {file}\n").status == 0
        asked = server.requests()
    assert asked[-1] == ("POST /api/create", {"files": {"small.gguf": str(digest)}, "model": "m"})
    assert not [route for route, _ in asked if route.startswith("POST /api/blobs")]


@pytest.mark.parametrize(
    "refusal",
    [
        reply({"error": 'file "small.gguf" was not uploaded: there is no blob sha256:0'}, 400),
        reply({"error": "files of the server's machine can only be named from there"}, 403),
    ],
)
def test_a_server_of_ours_that_cannot_read_the_file_gets_its_bytes(
    tmp_path: Path, small: tuple[Path, Digest], refusal: Answer
) -> None:
    """As behind a tunnel, or in a container."""
    file, digest = small
    version = raw('HTTP/1.1 200 OK\r\nx-corral-version: 9.9.9\r\nContent-Length: 20\r\n\r\n{"version":"0.33.0"}')
    routes: dict[str, Answer | Sequence[Answer]] = {
        "GET /api/version": version,
        f"HEAD /api/blobs/{digest}": raw("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
        f"POST /api/blobs/{digest}": reply("", 201),
        "POST /api/create": [refusal, DONE],
    }
    with FakeServer(routes) as server:
        outcome = Shell(tmp_path, server.host).run("create", "m", "-f", "-", stdin=f"FROM {file}\n")
        assert outcome.status == 0, outcome
        asked = server.requests()
    body = {"files": {"small.gguf": str(digest)}, "model": "m"}
    assert asked[-3:] == [
        ("POST /api/create", {**body, "paths": {str(digest): str(file)}}),
        (f"POST /api/blobs/{digest}", "GGUF"),
        ("POST /api/create", body),
    ]


@pytest.mark.parametrize("header", ["Origin", "Sec-Fetch-Site", "X-Forwarded-For", "Forwarded", "Via"])
def test_no_page_of_a_browser_and_no_proxy_may_name_files(header: str, server: RunningServer, tmp_path: Path) -> None:
    value = f"http://{server.host}" if header == "Origin" else "same-origin"
    digest = f"sha256:{'0' * 64}"
    for path in (str(tmp_path), str(tmp_path / "nothing")):
        body = {"model": "x", "files": {"m.gguf": digest}, "paths": {digest: path}}
        answer = ask(server, "POST", "/api/create", body, {header: value})
        assert (answer.status, answer.error) == (403, "files of the server's machine can only be named from there")
        pulled = ask(server, "POST", "/api/pull", {"model": "x", "source": f"file://{path}"}, {header: value})
        assert (pulled.status, pulled.error) == (403, "files of the server's machine can only be named from there")


def test_a_path_must_be_absolute_and_a_digest_a_digest(server: RunningServer) -> None:
    digest = f"sha256:{'0' * 64}"
    for paths, sentence in (
        ({digest: "m.gguf"}, 'path must be absolute, got "m.gguf"'),
        ({digest: "/m\0"}, 'path must be absolute, got "/m\0"'),
        ({"sha256:../..": "/m"}, "invalid digest format"),
    ):
        answer = post(server, "/api/create", {"model": "x", "files": {"m": digest}, "paths": paths})
        assert (answer.status, answer.error) == (400, sentence)


def test_an_importance_matrix_must_be_one(shell: Shell) -> None:
    tiny_llama(shell.home / "model.gguf", seed=7)
    (shell.home / "matrix").write_bytes(b"no matrix")
    (shell.home / "Modelfile").write_text("FROM model.gguf\n")
    outcome = shell.run("create", "mine", "-q", "q4_k_m", "--imatrix", "matrix")
    assert outcome.status == 1
    assert "importance matrix" in outcome.stderr
    missing = shell.run("create", "mine", "-q", "q4_k_m", "--imatrix", "nosuch")
    assert missing.stderr.endswith(f'Error: no such file: "{shell.home}/nosuch"\n')


def test_bars_are_drawn_in_place(shell: Shell) -> None:
    LLAMA.write(shell.home)
    modelfile = shell.home / "Modelfile"
    modelfile.write_text("FROM .\n")
    master, slave = os.openpty()
    command = [str(CORRAL), "create", "bars", "-q", "q8_0", "-f", str(modelfile)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=slave, env=shell.environment()) as process:
        os.close(slave)
        drawn = ""
        with suppress(OSError):  # Linux says so when the other side has gone
            while data := os.read(master, 65536):
                drawn += data.decode("utf-8", "replace")
    os.close(master)
    assert process.returncode == 0
    last = drawn.rsplit("\x1b[1G", 1)[1].replace("\x1b[K", "").split("\r\n")
    assert last[:2] == ["gathering model components ", "converting model "]
    assert re.fullmatch(r"converting model 100% ▕█+▏ +\d+ KB *", last[2])
    assert re.fullmatch(r"quantizing F16 model to Q8_0 100% ▕█+▏ +\d+ KB *", last[3])
    assert re.fullmatch(r"Q8_0: \d+ KB instead of \d+ KB ", last[5])
