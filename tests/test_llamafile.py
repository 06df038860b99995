"""Llamafiles: read with distrust, taken over with the right digest, and answering."""

import hashlib
import io
import os
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral import llamafile
from corral.cli.create.files import Files, Part
from corral.cli.display.progress import shown
from corral.client import Client
from corral.config.address import parse_address
from corral.errors import ModelFileError
from corral.llamafile.arguments import Arguments, parse
from tests.asking import ask
from tests.commands import Shell
from tests.conftest import RunningServer, StartServer
from tests.llamafiles import PAGE, PROGRAM, make_llamafile
from tests.tiny_models import tiny_llama

GGUF = b"GGUF" + bytes(100)
ARGUMENTS = """-m
model.gguf
--temp
0.5
-c
512
--seed
-1
-sys
You answer in one word.
-r
User:
--chat-template
chatml
-ngl
9999
...
"""


def test_its_parts_are_found_where_their_own_headers_say(tmp_path: Path) -> None:
    members = {".args": ARGUMENTS.encode(), "model.gguf": GGUF, "model-mmproj-f16.gguf": GGUF + b"2"}
    path = make_llamafile(tmp_path / "x.llamafile", members)
    found = llamafile.read(path)
    assert found.projector is not None
    for stretch, data in ((found.weights, GGUF), (found.projector, GGUF + b"2")):
        assert path.read_bytes()[stretch.offset :][: stretch.size] == data
        assert stretch.offset % PAGE == 0
    assert found.arguments == Arguments(
        model="model.gguf",
        system="You answer in one word.",
        parameters={"temperature": 0.5, "num_ctx": 512, "stop": ["User:"]},
        ignored=("--chat-template",),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Arguments()),
        ("--temp\nhot\n-c\n0\n--top-p=0.25\n--top-k", Arguments(parameters={"top_p": 0.25})),
        ("--min-p\nnan\n--temp\ninf\n-n\n99999999999", Arguments()),
        ("-m\n...\n--temp\n1", Arguments()),
    ],
)
def test_arguments_that_make_no_sense_are_passed_over(text: str, expected: Arguments) -> None:
    assert parse(text) == expected


def damaged(path: Path, old: bytes, new: bytes, *, last: bool = True) -> Path:
    """With bytes replaced where they stand last, which is in the directory, or first, in a local header."""
    data = path.read_bytes()
    at = data.rindex(old) if last else data.index(old)
    path.write_bytes(data[:at] + new + data[at + len(old) :])
    return path


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"a.txt": b"x"}, "it holds no GGUF file"),
        ({"a.gguf": GGUF, "b.gguf": GGUF}, r'it holds 2 models \("a.gguf", "b.gguf"\) and its arguments name none'),
        ({"a.gguf": GGUF, ".args": b"-m\nb.gguf\n"}, 'its arguments have --model "b.gguf", which it does not hold'),
        ({"a.gguf": b"PK" + bytes(50)}, '"a.gguf" in it is no GGUF file'),
        ({"../a.gguf": GGUF}, r'a member "\.\./a\.gguf", whose name leads out of it'),
        ({"a.gguf": GGUF, ".args": bytes(70_000)}, "its arguments have 70000 bytes"),
    ],
)
def test_one_that_is_no_model_says_why(members: dict[str, bytes], reason: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=reason):
        llamafile.read(make_llamafile(tmp_path / "x.llamafile", members))


def test_a_pipe_is_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.llamafile")
    assert llamafile.container(tmp_path / "pipe.llamafile") is None


def test_compressed_weights_are_refused(tmp_path: Path) -> None:
    path = make_llamafile(tmp_path / "x.llamafile", {"a.gguf": GGUF}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ModelFileError, match=r'"a\.gguf" in its archive is compressed or encrypted'):
        llamafile.read(path)


def test_a_directory_that_lies_is_refused(tmp_path: Path) -> None:
    def fresh() -> Path:
        return make_llamafile(tmp_path / "x.llamafile", {"a.gguf": GGUF, "b.txt": b"b" * 40})

    size = struct.pack("<II", len(GGUF), len(GGUF))
    longer = struct.pack("<II", len(GGUF) + 9999, len(GGUF) + 9999)
    with pytest.raises(ModelFileError, match=r'"a\.gguf" in its archive is cut off'):
        llamafile.read(damaged(fresh(), size, longer))
    over = struct.pack("<II", len(GGUF) + 50, len(GGUF) + 50)
    with pytest.raises(ModelFileError, match=r'"b\.txt" in its archive lies over another member'):
        llamafile.read(damaged(fresh(), size, over))
    with pytest.raises(ModelFileError, match=r'no member "c\.gguf" where it says so'):
        llamafile.read(damaged(fresh(), b"a.gguf", b"c.gguf"))
    with pytest.raises(ModelFileError, match=r"two members"):
        llamafile.read(make_twins(tmp_path / "twins.llamafile"))
    cut = fresh()
    cut.write_bytes(cut.read_bytes()[:-30])
    with pytest.raises(ModelFileError, match="its archive cannot be read"):
        llamafile.read(cut)


@pytest.mark.parametrize(("old", "new"), [(b"b.txt", b"\0.txt"), (b"b.txt", b"b\n\x1b[m")])
def test_a_member_without_a_name_is_refused(old: bytes, new: bytes, tmp_path: Path) -> None:
    """Python's zipfile fails with an IndexError on an empty name; it cuts names off at a NUL."""
    path = make_llamafile(tmp_path / "x.llamafile", {"a.gguf": GGUF, "b.txt": b"b"})
    damaged(damaged(path, old, new), old, new, last=False)
    with pytest.raises(ModelFileError, match="a member with no name that can be shown"):
        llamafile.read(path)
    assert llamafile.container(path) is None


def make_twins(path: Path) -> Path:
    stream = io.BytesIO(PROGRAM)
    stream.seek(0, io.SEEK_END)
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("a.gguf", GGUF)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.gguf", GGUF)
    path.write_bytes(stream.getvalue())
    return path


@given(data=st.data())
def test_whatever_is_changed_it_is_read_or_refused(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = make_llamafile(tmp_path_factory.mktemp("any") / "x", {"a.gguf": GGUF, ".args": ARGUMENTS.encode()})
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(len(PROGRAM), len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole[: data.draw(st.integers(len(PROGRAM), len(whole)))])
    try:
        found = llamafile.read(path)
    except ModelFileError:
        return
    assert found.weights.offset + found.weights.size <= path.stat().st_size


def test_one_is_pulled_with_the_digest_of_its_weights_and_answers(
    real_server: RunningServer, starter_gguf: Path, tmp_path: Path
) -> None:
    weights = starter_gguf.read_bytes()
    make_llamafile(tmp_path / "Starter.llamafile", {"model.gguf": weights, ".args": ARGUMENTS.encode()})
    shell = Shell(tmp_path, real_server.host)
    try:
        first = shell.run("run", "./Starter.llamafile", "Say hello.")
        assert (first.status, bool(first.stdout.strip())) == (0, True), first
        assert "without --chat-template of its arguments" in first.stderr
        said = ask(real_server, "POST", "/api/show", {"model": "starter"}).json
        assert said["system"] == "You answer in one word."
        digest = f"sha256-{hashlib.sha256(weights).hexdigest()}"
        assert digest in said["modelfile"]
        assert [line.split()[0] for line in said["parameters"].splitlines() if "User:" in line] == ["stop"]
        assert "'starter' is there already" in shell.run("run", "./Starter.llamafile", "Again.").stderr
        (tmp_path / "Modelfile").write_text("FROM ./Starter.llamafile\nPARAMETER temperature 0.75\n")
        assert shell.run("create", "changed").status == 0
        changed = ask(real_server, "POST", "/api/show", {"model": "changed"}).json
        assert (changed["system"], changed["template"]) == (said["system"], said["template"])
        assert changed["parameters"] == said["parameters"].replace("0.5", "0.75")
        assert digest in changed["modelfile"]
    finally:
        shell.run("rm", "starter", "changed")


def test_another_machine_is_sent_the_weights_alone(start_server: StartServer, tmp_path: Path) -> None:
    server, weights = start_server(), tiny_llama(tmp_path / "tiny.gguf").read_bytes()
    path = make_llamafile(tmp_path / "x.llamafile", {"model.gguf": weights})
    stretch = llamafile.read(path).weights
    with shown() as display:
        files = Files(Client(parse_address(server.host)), display)
        digest = files.add({"model.gguf": Part(path, stretch.offset, stretch.size)})["model.gguf"]
        files.upload(files.missing())
    assert digest == f"sha256:{hashlib.sha256(weights).hexdigest()}"
    assert (server.models / "blobs" / digest.replace(":", "-")).read_bytes() == weights


def test_a_broken_one_leaves_nothing(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server()
    path = make_llamafile(tmp_path / "x.llamafile", {"model.gguf": GGUF})
    refused = Shell(tmp_path, server.host).run("pull", str(path))
    assert refused.status == 1
    assert list((server.models / "blobs").glob("*")) == []
    assert ask(server, "GET", "/api/tags").json == {"models": []}
