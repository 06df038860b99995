"""What a shell is answered when Tab is pressed, and that nothing of it harms or holds up the shell."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from corral.cli import program
from corral.cli.commands.create import KINDS
from corral.cli.completion import models
from corral.quantize.kinds import kind_named
from tests.commands import Outcome, Shell
from tests.fake_server import Answer, FakeServer, lines, raw, reply


def listed(*names: str) -> Answer:
    rows = [{"name": name, "size": 98_000_000, "expires_at": "2026-01-01T00:00:00Z"} for name in names]
    return reply({"models": [{**row, "modified_at": "2026-01-01T00:00:00Z"} for row in rows]})


STORE: Mapping[str, Answer] = {
    "GET /api/tags": listed("smollm2:135m", "brief:latest", "me/other:1b"),
    "GET /api/ps": listed("brief:latest"),
}
MODELS = ["smollm2:135m", "brief", "me/other:1b"]
THINK = ["--think=true", "--think=false", "--think=high", "--think=medium", "--think=low", "--think=max"]

CASES: list[tuple[list[str], list[str]]] = [
    ([""], ["words", *program.COMMANDS]),
    (["s"], ["words", "serve", "show", "stop", "search", "service"]),
    (["-"], ["words", "--help", "--nowordwrap", "--verbose", "--version"]),
    (["--verbose", "sh"], ["words", "show"]),
    (["nonsense", ""], ["words"]),
    (["run", ""], ["words", *MODELS]),
    (["run", "me"], ["words", "me/other:1b"]),
    (["run", "brief", ""], ["words"]),
    (["run", "--th"], ["words", "--think", "--think="]),
    (["run", "--think="], ["words", *THINK]),
    (["run", "--verbose="], ["words", "--verbose=true", "--verbose=false"]),
    (["run", "--format", ""], ["files", "json"]),
    (["run", "--think", "--hid"], ["words", "--hidethinking"]),
    (["run", "brief", "--nonsense", ""], ["words"]),
    (["run", "--help", ""], ["words"]),
    (["run", "--", "--th"], ["words"]),
    (["ls", "sm"], ["words", "smollm2:135m"]),
    (["ps", ""], ["words", "brief"]),
    (["stop", ""], ["words", "brief"]),
    (["stop", "brief", ""], ["words"]),
    (["rm", "brief", ""], ["words", "smollm2:135m", "me/other:1b"]),
    (["cp", "brief", ""], ["words"]),
    (["pull", "x"], ["files"]),
    (["export", "brief", ""], ["files", "smollm2:135m", "me/other:1b"]),
    (["import", ""], ["files"]),
    (["adopt", "--yes", ""], ["files"]),
    (["bundle", "sm"], ["words", "smollm2:135m"]),
    (["bundle", "brief", "-o", ""], ["files"]),
    (["bundle", "brief", "--l"], ["words", "--light", "--llamafile"]),
    (["adopt", "one", "two", "--d"], ["words", "--dry-run"]),
    (["create", "-f", ""], ["files"]),
    (["create", "x", "--file="], ["files"]),
    (["create", "x", "-q", "q4"], ["words", "q4_K_M", "q4_K_S"]),
    (["show", "brief", ""], ["words"]),
    (["show", "brief", "--prompt", ""], ["files"]),
    (["help", "l"], ["words", "list"]),
    (["engine", ""], ["words", "list", "build", "install", "use", "remove"]),
    (["engine", "use", "w"], ["words", "wheel"]),
    (["engine", "build", "--k"], ["words", "--keep"]),
    (["completion", ""], ["words", "bash", "zsh", "fish"]),
    (["serve", ""], ["words"]),
]


@pytest.fixture(scope="module")
def store() -> Any:
    with FakeServer(STORE) as server:
        yield server


def complete(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """The first line of the answer, and the words of the others."""
    status = program.run(["/usr/local/bin/ollama", "__complete", "--", *words])
    answered = Outcome(status, *capsys.readouterr())
    assert (answered.status, answered.stderr) == (0, "")
    return [line.partition("\t")[0] for line in answered.stdout.splitlines()]


@pytest.mark.parametrize(("words", "expected"), CASES, ids=[" ".join(words) for words, _ in CASES])
def test_a_word_is_completed_with_what_fits_its_place(
    store: FakeServer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    expected: list[str],
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", store.host)
    assert complete(capsys, *words) == expected


def test_candidates_say_what_they_are(store: FakeServer, tmp_path: Path) -> None:
    shell = Shell(tmp_path, store.host)
    assert shell.run("__complete", "--", "show", "b") == Outcome(0, "words\nbrief\t98 MB\n", "")
    assert shell.run("__complete", "--", "rm") == Outcome(0, "words\nrm\tRemove a model\n", "")


@pytest.mark.parametrize(
    "answer",
    [
        raw("SSH-2.0-OpenSSH_9.9\r\n"),
        raw(""),
        reply("<html>"),
        reply({"models": 7}),
        reply({"error": "no"}, 500),
        lines({"models": []}, end="cut"),
    ],
)
def test_a_server_that_answers_nonsense_has_no_models(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    with FakeServer({"GET /api/tags": answer}) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.host)
        assert complete(capsys, "show", "") == ["words"]


@pytest.mark.parametrize("host", ["127.0.0.1:1", "http://user:secret@elsewhere", "tcp://127.0.0.1:1"])
def test_without_a_server_there_are_no_models_and_none_is_started(tmp_path: Path, host: str) -> None:
    assert Shell(tmp_path, host).run("__complete", "--", "show", "") == Outcome(0, "words\n", "")
    assert not (tmp_path / "state").exists()


def test_a_server_that_hangs_is_not_waited_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "SECONDS", 0.2)
    with FakeServer({"GET /api/tags": lines({}, end="held")}) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.host)
        assert complete(capsys, "show", "") == ["words"]
        assert server.wait_for("request")


def test_names_that_a_shell_would_run_are_left_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("good", "$(touch x)", "a;b", "two words", "tab\tbed", "line\nbreak", "`x`", "\x1b[2J", "ümlaut")
    with FakeServer({"GET /api/tags": listed(*names)}) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.host)
        assert complete(capsys, "show", "") == ["words", "good"]


def test_scripts_are_for_the_program_that_prints_them(tmp_path: Path) -> None:
    for name, other in (("corral", "ollama"), ("ollama", "corral")):
        for shell in ("bash", "zsh", "fish"):
            script = Shell(tmp_path, program=name).run("completion", shell)
            assert (script.status, script.stderr) == (0, "")
            assert name in script.stdout
            assert other not in script.stdout
            assert "@PROGRAM@" not in script.stdout
    expected = 'Error: no completion for "tcsh": the shells are bash, zsh, fish\n'
    assert Shell(tmp_path).run("completion", "tcsh") == Outcome(1, "", expected)


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_that_are_offered_can_be_made(kind: str) -> None:
    assert kind_named(kind)
