"""Pictures and sounds are recognised by their first bytes, the same in the command line and in the server."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.cli.chat.attachments import KINDS, attach
from corral.errors import BadRequest
from corral.media_kinds import PICTURES, SOUNDS, kind_of, other_sound

HEADERS = [
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"BM", "bmp"),
    (b"RIFF\0\0\0\0WEBP", "webp"),
    (b"RIFF\0\0\0\0WAVE", "wav"),
    (b"ID3", "mp3"),
    (b"fLaC", "flac"),
    (b"\xff\xfb", "mp3"),  # MPEG 1, layer 3
    (b"\xff\xfa", "mp3"),  # the same with a checksum
    (b"\xff\xf3", "mp3"),  # MPEG 2
    (b"\xff\xe3", "mp3"),  # MPEG 2.5
    (b"\xff\xfd", "mp3"),  # layer 2
    (b"\xff\xff", "mp3"),  # layer 1
]
OTHERS = [
    b"",
    b"\xff",
    b"\xff\xd8",
    b"\xff\xf1",  # AAC: its layer is the reserved one
    b"\xff\xe0",
    b"\x89PNG\n\x1a\n",
    b"GIF88a",
    b"RIFF\0\0\0\0AVI ",
    b"RIFF",
    b"RIFX\0\0\0\0WAVE",
    b"OggS",
    b"<svg",
]


@pytest.mark.parametrize(("header", "kind"), HEADERS)
def test_a_kind_is_recognised_by_its_header(header: bytes, kind: str) -> None:
    assert kind_of(header) == kind_of(header + b"the rest") == kind
    assert (kind in PICTURES) != (kind in SOUNDS)


@pytest.mark.parametrize("header", OTHERS)
def test_other_headers_have_no_kind(header: bytes) -> None:
    assert kind_of(header) == ""


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (b"\0\0\0\x20ftypM4A \0\0", "M4A"),
        (b"\0\0\0\x18ftypmp42\0\0", "MP4"),
        (b"OggS\0\x02", "Ogg"),
        (b"\x1aE\xdf\xa3\x01", "WebM"),
        (b"\xff\xf1P\x80", "AAC"),
        (b"FORM\0\0\0\0AIFF", "AIFF"),
        (b"#!AMR\n", "AMR"),
    ],
)
def test_sounds_that_no_engine_reads_have_a_name(header: bytes, name: str) -> None:
    assert (kind_of(header), other_sound(header)) == ("", name)


@given(st.binary(max_size=40))
def test_twelve_bytes_are_enough(file: bytes) -> None:
    assert kind_of(file) == kind_of(file[:12])
    assert other_sound(file) == other_sound(file[:12])


@pytest.mark.parametrize(("header", "kind"), HEADERS)
def test_the_command_line_attaches_the_kinds_it_says(tmp_path: Path, header: bytes, kind: str) -> None:
    file = tmp_path / "file.png"
    file.write_bytes(header)
    if kind in KINDS:
        added = "audio" if kind == "wav" else "image"
        assert attach(str(file), media=True).notes == (f"Added {added} '{file}'",)
        return
    with pytest.raises(BadRequest) as refused:
        attach(str(file), media=True)
    assert str(refused.value) == f'invalid file type: "{file}" is no JPEG, PNG, WebP or WAV file'
