"""Text files named in a prompt, and what is said of files that cannot be used; the pictures are in `test_cli`."""

import json
from pathlib import Path

import pytest

from corral.cli.chat.attachments import MAX_TEXT_BYTES, attach, begins_with_file
from corral.cli.chat.options import parse_format
from corral.errors import BadRequest
from tests.commands import Outcome, Shell
from tests.fake_server import FakeServer, lines, reply

SHOWN = reply({"capabilities": ["completion"], "details": {"family": "llama"}})
PNG = b"\x89PNG\r\n\x1a\nrest"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("a.py", "Explain ./a.py"),
        ("a.py", "Explain ./a.py."),
        ("a.py", "Explain (./a.py), please"),
        ("a b.md", r"Explain ./a\ b.md"),
        ("a b.md", "Explain './a b.md'"),
        ("a b.md", 'Explain "./a b.md"'),
        ("a b.md", 'Explain "~/a b.md"'),
        ("说明 一.txt", "请总结'./说明 一.txt'的内容"),
        ("说明.txt", "请总结./说明.txt的内容"),
        ("A.JSON", "~/A.JSON"),
        ("(1) it's.csv", r"see ./\(1\)\ it\'s.csv"),
    ],
)
def test_a_text_file_is_put_behind_the_prompt_that_names_it(folder: Path, name: str, prompt: str) -> None:
    (folder / name).write_text("one\n```\ntwo\n", encoding="utf-8")
    attached = attach(prompt, media=False)
    added = attached.notes[0].removeprefix("Added text '").removesuffix("'")
    assert Path(added) == Path(folder / name) or Path(added) == Path(name)
    assert attached.prompt == f"{prompt}\n\n{added}:\n````\none\n```\ntwo\n````"
    assert (attached.files, len(attached.notes)) == ((), 1)


def test_a_file_that_is_named_twice_is_read_once(folder: Path) -> None:
    (folder / "a.py").write_text("pass")
    assert attach("./a.py and ./a.py", media=False).prompt == "./a.py and ./a.py\n\na.py:\n```\npass\n```"


@pytest.mark.parametrize("prompt", ["a.py", "see https://example.com/a.py", "read/a.py", "x./a.py", "git@host:/a.py"])
def test_what_is_part_of_another_word_is_no_file(folder: Path, prompt: str) -> None:
    (folder / "a.py").write_text("pass")
    attached = attach(prompt, media=False)
    assert (attached.prompt, attached.notes) == (prompt, ())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff\xfe\x00", "it is no UTF-8 text"),
        (b"a\0b", "it is no text"),
        (b"a" * (MAX_TEXT_BYTES + 1), "it is larger than 1 MB"),
    ],
)
def test_a_text_file_that_cannot_be_used_is_a_note(folder: Path, data: bytes, reason: str) -> None:
    (folder / "a.log").write_bytes(data)
    attached = attach("Why ./a.log?", media=False)
    assert (attached.prompt, attached.notes) == ("Why ./a.log?", (f"'a.log' is not added: {reason}",))


def test_a_missing_file_is_a_note(folder: Path) -> None:
    (folder / "b.txt").mkdir()
    attached = attach("Why ./a.log and ./b.txt?", media=False)
    assert attached.prompt == "Why ./a.log and ./b.txt?"
    assert attached.notes == tuple(
        f"no such file: './{name}'; the model reads the name only" for name in ("a.log", "b.txt")
    )


def test_a_picture_for_a_model_that_does_not_see_is_a_note(folder: Path) -> None:
    (folder / "a.png").write_bytes(PNG)
    attached = attach("See ./a.png", media=False)
    assert (attached.prompt, attached.files) == ("See ./a.png", ())
    assert attached.notes == ("'a.png' is not added: the model takes no pictures or sounds",)


def test_a_picture_and_a_text_go_together(folder: Path) -> None:
    (folder / "a b.png").write_bytes(PNG)
    (folder / "c.txt").write_text("C")
    attached = attach("Compare './a b.png' with ./c.txt", media=True)
    assert (attached.prompt, attached.files) == ("Compare  with ./c.txt\n\nc.txt:\n```\nC\n```", (PNG,))
    assert attached.notes == ("Added image 'a b.png'", "Added text 'c.txt'")


def test_a_message_may_begin_with_a_text_file(folder: Path) -> None:
    (folder / "a.txt").write_text("A")
    (folder / "a.png").write_bytes(PNG)
    assert begins_with_file(f"{folder}/a.txt what is it?", media=False)
    assert begins_with_file(f"{folder}/a.png what is it?", media=True)
    assert not begins_with_file(f"{folder}/a.png what is it?", media=False)
    assert not begins_with_file(f"{folder}/b.txt what is it?", media=True)


def test_what_was_piped_in_names_no_files(folder: Path) -> None:
    (folder / "secret.txt").write_text("S")
    (folder / "ours.txt").write_text("O")
    answer = lines({"response": "Aye", "done": False}, {"response": "", "done": True})
    with FakeServer({"POST /api/show": SHOWN, "POST /api/generate": answer}) as server:
        told = Shell(folder, server.host).run("run", "m", "See ./ours.txt", stdin="in ./secret.txt it failed")
        assert told == Outcome(0, "Aye\n\n", "Added text 'ours.txt'\n")
        body = server.requests()[1][1]
    assert body["prompt"] == "in ./secret.txt it failed See ./ours.txt\n\nours.txt:\n```\nO\n```"


def test_a_format_may_lie_in_a_file(folder: Path) -> None:
    (folder / "s.json").write_text(json.dumps({"type": "object"}))
    (folder / "list.json").write_text("[1]")
    (folder / "json").write_text("{}")
    assert parse_format("s.json") == parse_format("~/s.json") == {"type": "object"}
    assert parse_format("json") == "json"
    with pytest.raises(BadRequest, match=r'invalid format: ".*list.json" holds no JSON Schema, an object'):
        parse_format("list.json")
    with pytest.raises(BadRequest, match=r'invalid format "none.json": it must be json, a JSON Schema'):
        parse_format("none.json")
