"""Forms with files: read as browsers and vendors' clients send them, refused with a sentence where they are broken."""

import contextlib

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.errors import BadRequest
from corral.server.http.forms import MAX_HEADERS, MAX_PARTS, MAX_TEXT, File, Form, read_form
from tests.forms import BOUNDARY, CONTENT_TYPE, form, part


def refusal(content_type: str, data: bytes) -> str:
    with pytest.raises(BadRequest) as refused:
        read_form(content_type, data)
    sentence = str(refused.value)
    assert sentence.startswith("failed to parse multipart form: ")
    return sentence.removeprefix("failed to parse multipart form: ")


def test_texts_and_files() -> None:
    body = form(
        [
            part("model", "tiny"),
            part("file", b"\x00\r\n--\r\n\xff", "a ä.wav", "Content-Type: audio/wav\r\n"),
            part("include[]", "logprobs"),
            part("include[]", "more"),
            part("prompt", ""),
        ]
    )
    read = read_form(CONTENT_TYPE, body)
    texts = {"model": ("tiny",), "include[]": ("logprobs", "more"), "prompt": ("",)}
    assert read == Form(texts, {"file": File("a ä.wav", b"\x00\r\n--\r\n\xff")})
    assert (read.text("model"), read.text("prompt"), read.text("other")) == ("tiny", "", "")
    assert read.all_texts("include") == ("logprobs", "more")


@pytest.mark.parametrize(
    "content_type",
    [
        f'multipart/form-data; boundary="{BOUNDARY}"',
        f"Multipart/Form-Data;charset=utf-8;boundary={BOUNDARY}",
        f"multipart/form-data ; BOUNDARY={BOUNDARY}",
    ],
)
def test_media_types_are_spelt_in_many_ways(content_type: str) -> None:
    assert read_form(content_type, form([part("model", "tiny")])).text("model") == "tiny"


def test_what_stands_behind_the_last_boundary_is_nothing() -> None:
    assert read_form(CONTENT_TYPE, form([part("model", "tiny")]) + b"more").text("model") == "tiny"


def test_of_two_files_of_a_name_the_first_counts() -> None:
    body = form([part("file", "one", "1.wav"), part("file", "two", "2.wav")])
    assert read_form(CONTENT_TYPE, body).files["file"].data == b"one"


@pytest.mark.parametrize(
    "content_type", ["", "application/json", "multipart/mixed; boundary=x", "multipart/form-data-x; boundary=x"]
)
def test_what_is_no_form_is_refused(content_type: str) -> None:
    assert refusal(content_type, b"{}") == "request Content-Type isn't multipart/form-data"


@pytest.mark.parametrize("boundary", ["", "; boundary=", '; boundary=""', f"; boundary={'x' * 71}", "; charset=x"])
def test_a_form_needs_a_boundary(boundary: str) -> None:
    expected = "Content-Type names no boundary of 1 to 70 characters"
    assert refusal(f"multipart/form-data{boundary}", b"") == expected


WHOLE = form([part("model", "tiny"), part("file", b"\x01\x02", "a.wav")])


@pytest.mark.parametrize("end", range(len(WHOLE) - 2))
def test_a_body_that_was_cut_off_is_refused(end: int) -> None:
    assert refusal(CONTENT_TYPE, WHOLE[:end]) == "it ends before its last boundary"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"hello", "it is broken at byte 0"),
        (b"--another\r\n\r\n\r\n--another--\r\n", "it is broken at byte 2"),
        (form([b"--" + BOUNDARY.encode() + b"\r\nno header\r\n\r\n\r\n"]), "it is broken at byte 20"),
        (form([b"--" + BOUNDARY.encode() + b"\r\n\r\nno name\r\n"]), "a part has no name"),
        (form([part("", "x")]), "a part has no name"),
        (form([part("a", "x")]).replace(b"form-data;", b"attachment;"), "a part has no name"),
        (form([part("prompt", b"\xff")]), 'the field "prompt" is no UTF-8'),
        (
            form([part("file", "AAAA", "a.wav", "Content-Transfer-Encoding: base64\r\n")]),
            'the part "file" has a Content-Transfer-Encoding, which forms may not have',
        ),
        (
            form([part("prompt", "x" * (MAX_TEXT + 1))]),
            f'the field "prompt" has {MAX_TEXT + 1} bytes, at most {MAX_TEXT} are read',
        ),
        (form([part("a", "x")] * (MAX_PARTS + 1)), f"it has more than {MAX_PARTS} parts"),
        (form([part("file", f"\r\n--{BOUNDARY}".encode() * 100_000, "a.wav")]), f"it has more than {MAX_PARTS} parts"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_broken_forms_are_refused(body: bytes, sentence: str) -> None:
    assert refusal(CONTENT_TYPE, body) == sentence


@pytest.mark.parametrize("headers", ["X-Y: z\r\n" * MAX_HEADERS, f"X-Y: {'z' * 5000}\r\n", f"{'X' * 5000}: z\r\n"])
def test_headers_are_bounded(headers: str) -> None:
    assert refusal(CONTENT_TYPE, form([part("model", "x", headers=headers)])).startswith("it is broken at byte ")


def test_as_many_parts_as_may_be_are_read() -> None:
    body = form([part(f"field{number}", "x") for number in range(MAX_PARTS)])
    assert len(read_form(CONTENT_TYPE, body).texts) == MAX_PARTS


@given(st.binary(max_size=300))
def test_any_bytes_are_a_form_or_refused(data: bytes) -> None:
    for body in (data, part("file", data, "a.wav"), form([data]), b"--" + BOUNDARY.encode() + b"\r\n" + data):
        with contextlib.suppress(BadRequest):
            assert isinstance(read_form(CONTENT_TYPE, body), Form)


@given(st.text(st.characters(codec="utf-8"), max_size=200))
def test_any_media_type_is_read_or_refused(content_type: str) -> None:
    with contextlib.suppress(BadRequest):
        assert isinstance(read_form(f"multipart/form-data; {content_type}".encode().decode("latin-1"), WHOLE), Form)


class _Sink(aiohttp.abc.AbstractStreamWriter):
    """Keeps what a client would send."""

    def __init__(self) -> None:
        self.data = b""

    async def write(self, chunk: "bytes | bytearray | memoryview") -> None:
        self.data += chunk

    async def write_eof(self, chunk: bytes = b"") -> None: ...
    async def drain(self) -> None: ...
    def enable_compression(self, encoding: str = "deflate", strategy: int | None = None) -> None: ...
    def enable_chunking(self) -> None: ...
    async def write_headers(self, status_line: str, headers: object) -> None: ...


@given(
    st.dictionaries(st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1), st.text(), max_size=5),
    st.binary(),
)
async def test_what_a_client_sends_is_what_is_read(texts: dict[str, str], data: bytes) -> None:
    given = aiohttp.FormData(default_to_multipart=True)
    for name, text in texts.items():
        given.add_field(name, text)
    given.add_field("file", data, filename="a.wav", content_type="audio/wav")
    payload, sink = given(), _Sink()
    await payload.write(sink)
    read = read_form(payload.headers["Content-Type"], sink.data)
    assert read == Form({name: (text,) for name, text in texts.items()}, {"file": File("a.wav", data)})
