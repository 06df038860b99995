"""The native API's contract, request by request: a real server and real models, whole answers, byte for byte.

The data and what may differ in it are in `tests/transcripts`; an answer there was read beside the specification once.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import running_server
from tests.transcripts import FILES, FOLDER, VARIABLES, Answer, Case, Uploads, cases, send

CASES = [case for file in FILES for case in cases(file)]


@dataclass(frozen=True)
class Replay:
    """What a server answered to all cases, by their names, and what it wrote into its log meanwhile."""

    answers: dict[str, Answer]
    log: list[str]


@pytest.fixture(scope="module")
def replay(starter_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Replay:
    """The cases sent in their order to a server on an empty store."""
    uploads = Uploads(starter_gguf, tmp_path_factory.mktemp("uploads"))
    with running_server(tmp_path_factory.mktemp("transcripts"), **VARIABLES) as server:
        answers = {case.name: send(server.url, case, uploads, server.models) for case in CASES}
        while len(requests(log := server.log.read_text().splitlines())) <= len(CASES):
            assert server.process.poll() is None  # the last line comes a moment after the last answer
    return Replay(answers, log)


def requests(log: list[str]) -> list[str]:
    return [line for line in log if " source=telemetry.py:" in line]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_answer_is_the_recorded_one(case: Case, replay: Replay) -> None:
    assert replay.answers[case.name] == case.response


def test_nothing_failed_unexpectedly_in_the_server(replay: Replay) -> None:
    assert [line for line in replay.log if "Traceback" in line or "Exception" in line] == []


def test_every_request_was_logged_with_its_status(replay: Replay) -> None:
    statuses = [int(line.split('msg="')[1].split(" | ")[0]) for line in requests(replay.log)]
    assert statuses[-len(CASES) :] == [answer.status for answer in replay.answers.values()]


def test_cases_have_names_of_their_own_and_say_where_they_come_from() -> None:
    names = [case.name for case in CASES]
    assert sorted(set(names)) == sorted(names)
    assert [case.name for case in CASES if not case.spec.startswith(("api §", "cli §"))] == []
    assert sorted(path.stem for path in FOLDER.glob("*.jsonl")) == sorted(FILES)
