"""Commands of Ollama's own program, recorded without a terminal, and the same commands of ours under its name.

One server and one real model; the commands run in their order. Exit status, tables, sentences and the streams that they
go to are the recorded ones after the filters below. Each difference is listed here with its reason.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from corral import EMULATES
from tests.commands import Outcome, Shell
from tests.conftest import running_server

RECORDED = Path(__file__).with_name("goldens") / "recorded" / "commands.jsonl"

MODELFILE = """\
FROM {gguf}
PARAMETER temperature 0
PARAMETER num_predict 8
PARAMETER seed 1
SYSTEM "You are brief."
LICENSE MIT
"""
FILES = {
    "Bad": "FROM brief\nBADWORD x\n",
    "NoFrom": "PARAMETER temperature 0\n",
    "BadParam": "FROM brief\nPARAMETER nonsense 1\n",
    "BadType": "FROM brief\nPARAMETER num_ctx big\n",
    "Missing": "FROM ./missing.gguf\n",
}

OFFLINE = {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
"""The server's environment: what goes to Ollama's registry ends on this machine."""


@dataclass(frozen=True)
class Case:
    """A recorded command; `number` is its line in the file."""

    number: int
    arguments: tuple[str, ...]
    stdin: str
    outcome: Outcome

    @property
    def command(self) -> str:
        return " ".join(self.arguments)


def read() -> Iterator[Case]:
    for number, line in enumerate(RECORDED.read_text("utf-8").splitlines(), 1):
        row = json.loads(line)
        stderr = row["stderr"] and row["stderr"] + "\n"
        yield Case(number, tuple(row["args"]), row.get("stdin", ""), Outcome(row["exit"], row["stdout"], stderr))


CASES = list(read())


@dataclass(frozen=True)
class Difference:
    """What ours answers instead, after the filters; `None`: as recorded. And why."""

    reason: str
    stdout: str | None = None
    stderr: str | None = None


HASHED = "the server takes the file over where it lies instead of getting a copy; hashing it is what takes time"
LINE = "the line that is wrong is shown, so that it can be found"
DIFFERENCES = {
    "create brief": Difference(
        HASHED,
        stderr="gathering model components\nHASHING\nparsing GGUF\nverifying conversion\ncreating new layer DIGEST\n"
        "using autodetected template chatml\n" + "creating new layer DIGEST\n" * 3 + "writing manifest\nsuccess\n",
    ),
    "push brief": Difference(
        "recorded on a machine without the account that Ollama's registry wants to see first; Corral asks the registry",
        stderr='retrieving manifest\nError: Head "https://registry.ollama.ai/v2/library/brief/blobs/DIGEST": '
        "proxyconnect tcp: dial tcp 127.0.0.1:9: connect: connection refused\n",
    ),
    "create x -f Bad": Difference(
        LINE,
        stderr='Error: (line 2): command must be one of "from", "license", "template", "system", "adapter", "draft", '
        '"renderer", "parser", "parameter", "message", or "requires"\n  BADWORD x\n',
    ),
    "create x -f BadParam": Difference(
        LINE,
        stderr="gathering model components\nError: unknown parameter 'nonsense'\nline 2: PARAMETER nonsense 1\n",
    ),
    "create x -f BadType": Difference(
        LINE, stderr="gathering model components\nError: invalid int value [big]\nline 2: PARAMETER num_ctx big\n"
    ),
    "create x -f Missing": Difference(
        "what looks like a path and leads nowhere is named",
        stderr='gathering model components\nError: no such file: "./missing.gguf"\n',
    ),
    "--version": Difference("recorded from a build without a release", stdout=f"ollama version is {EMULATES}\n"),
    "run brief --verbose Hi": Difference(
        "how much of the prompt was known from the one before is shown, too",
        stderr="total duration:       DURATION\nload duration:        DURATION\nprompt eval count:    19 token(s)\n"
        "prompt cached count:  12 token(s)\nprompt eval duration: DURATION\nprompt eval rate:     RATE\n"
        "eval count:           8 token(s)\neval duration:        DURATION\neval rate:            RATE\n",
    ),
    "run brief --format xml hi": Difference(
        "recorded is the error of an encoder; ours says what may be given",
        stderr='Error: invalid format "xml": '
        "it must be json, a JSON Schema, an object, or the path of a file with one\n",
    ),
}

UNORDERED = ("show brief", "show brief --parameters")
"""The original lists parameters in another order each time; ours by their names."""

FILTERS = [
    (r"sha256[:-][0-9a-f]{64}", "DIGEST"),
    (r"\b[0-9a-f]{12}\b", "ID"),
    (r"(Less than a second|1 second|\d+ seconds|About a minute|\d+ minutes) (ago|from now) *", "TIME"),
    (r"(MODIFIED|UNTIL) *\n", r"\1\n"),  # as wide as the time
    (r"ID    \d\d\d MB    100% CPU", "ID    MEMORY    100% CPU"),
    (r"[\d.]+(ns|µs|ms|s)\b", "DURATION"),
    (r"[\d.]+ tokens/s", "RATE"),
    (r"FROM /.*/blobs/", "FROM BLOBS/"),
    (r"open /.*/manifests/", "open MANIFESTS/"),
    (r"((reading|hashing|adding) .*\n)+", "HASHING\n"),
]


def filtered(command: str, outcome: Outcome) -> Outcome:
    stdout, stderr = outcome.stdout, outcome.stderr
    for pattern, name in FILTERS:
        stdout, stderr = re.sub(pattern, name, stdout), re.sub(pattern, name, stderr)
    if command.startswith("run ") and outcome.status == 0:
        stdout = re.sub(r".*\S.*\n\n\Z", "WORDS\n\n", stdout, flags=re.DOTALL)
    if command in UNORDERED:
        stdout = "".join(sorted(stdout.splitlines(keepends=True)))
    return Outcome(outcome.status, stdout, stderr)


@pytest.fixture(scope="module")
def outcomes(starter_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    """What became of all commands, in their order."""
    home = tmp_path_factory.mktemp("recorded")
    (home / "Modelfile").write_text(MODELFILE.format(gguf=starter_gguf))
    for name, text in FILES.items():
        (home / name).write_text(text)
    with running_server(home / "server", **OFFLINE, OLLAMA_CONTEXT_LENGTH="4096") as server:
        shell = Shell(home, server.host, "ollama")
        return [shell.run(*case.arguments, stdin=case.stdin) for case in CASES]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.number}: {case.command}")
def test_a_command_does_what_was_recorded(case: Case, outcomes: list[Outcome]) -> None:
    expected = filtered(case.command, case.outcome)
    if difference := DIFFERENCES.get(case.command):
        expected = Outcome(
            expected.status,
            expected.stdout if difference.stdout is None else difference.stdout,
            expected.stderr if difference.stderr is None else difference.stderr,
        )
    assert filtered(case.command, outcomes[case.number - 1]) == expected


def test_each_difference_is_of_a_recorded_command_and_is_one() -> None:
    recorded = {case.command: filtered(case.command, case.outcome) for case in CASES}
    for command, difference in DIFFERENCES.items():
        assert (difference.stdout, difference.stderr) != (None, None)
        assert recorded[command].stdout != difference.stdout
        assert recorded[command].stderr != difference.stderr
