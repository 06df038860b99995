"""Forms with files, as browsers and vendors' clients send them (`multipart/form-data`): read with distrust.

Knows no route and no field. A body lies in memory and is small enough when it is read here; how much work it makes is
bounded here. Source: RFC 7578.
"""

import asyncio
import logging
from collections.abc import Mapping

from msgspec import Struct
from python_multipart.exceptions import FormParserError, ParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from corral.errors import BadRequest
from corral.server.http.reading import release_body

MAX_PARTS = 64
MAX_HEADERS = 16
"""Headers of a part."""
MAX_TEXT = 64 << 10
"""Bytes of a field that is no file."""

_MAX_BOUNDARY = 70
_PLAIN_ENCODINGS = ("", "binary", "8bit", "7bit")

logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # what it warns of is the client's error, and answered


class File(Struct, frozen=True):
    """A file of a form. `name`: as the client calls it, a word for people and no path."""

    name: str
    data: bytes


class Form(Struct, frozen=True):
    """The fields of a form by their names: texts, of which there may be several of a name, and files."""

    texts: Mapping[str, tuple[str, ...]]
    files: Mapping[str, File]

    def text(self, name: str) -> str:
        """The first text of that name; empty where there is none."""
        return self.texts.get(name, ("",))[0]

    def all_texts(self, name: str) -> tuple[str, ...]:
        """Every text of that name, also as lists are written: `name[]`."""
        return (*self.texts.get(name, ()), *self.texts.get(f"{name}[]", ()))


async def form_of(request: Request) -> Form:
    """The request's body as a form; it is let go of. `BadRequest` says what is wrong with it.

    Reading 25 MiB takes some hundredths of a second, so it is done in a thread.
    """
    data = await request.body()
    form = await asyncio.to_thread(read_form, request.headers.get("content-type", ""), data)
    release_body(request)
    return form


def read_form(content_type: str, data: bytes) -> Form:
    """A form from a body and its media type; of several files of a name, the first. `BadRequest` as `form_of`."""
    parts = _Parts(_boundary(content_type))
    parts.read(data)
    texts: dict[str, tuple[str, ...]] = {}
    files: dict[str, File] = {}
    for part in parts.found:
        name, filename = part.names()
        if filename is None:
            texts[name] = (*texts.get(name, ()), _text(name, part.data))
        else:
            files.setdefault(name, File(filename, part.data))
    return Form(texts, files)


def _boundary(content_type: str) -> bytes:
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        raise _refusal("request Content-Type isn't multipart/form-data")
    boundary = options.get(b"boundary", b"")
    if not 0 < len(boundary) <= _MAX_BOUNDARY:
        raise _refusal(f"Content-Type names no boundary of 1 to {_MAX_BOUNDARY} characters")
    return boundary


class _Part:
    """A part of a form as it is read."""

    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.data = b""

    def names(self) -> tuple[str, str | None]:
        """The field's name, and the file's, where it is one."""
        kind, options = parse_options_header(self.headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if kind != b"form-data" or not name:
            raise _refusal("a part has no name")
        if self.headers.get(b"content-transfer-encoding", b"").decode("latin-1").lower() not in _PLAIN_ENCODINGS:
            raise _refusal(f'the part "{name[:100]}" has a Content-Transfer-Encoding, which forms may not have')
        filename = options.get(b"filename")
        return name, None if filename is None else filename.decode("utf-8", "replace")


class _Parts:
    """Collects the parts of a body."""

    def __init__(self, boundary: bytes) -> None:
        self.found: list[_Part] = []
        self._delimiter = b"\r\n--" + boundary
        self._header = b""
        self._value = b""
        self._is_complete = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": lambda: self.found.append(_Part()),
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_part_data": self._on_data,
                "on_end": self._on_end,
            },
            max_header_count=MAX_HEADERS,
        )

    def read(self, data: bytes) -> None:
        """Reads a whole body. Boundaries are counted first: the parser takes a while for what only begins like one."""
        if data.count(self._delimiter) > MAX_PARTS:
            raise _refusal(f"it has more than {MAX_PARTS} parts")
        try:
            self._parser.write(data)
        except ParseError as error:
            raise _refusal(f"it is broken at byte {error.offset}") from error
        except FormParserError as error:
            raise _refusal("it is broken") from error
        if not self._is_complete:
            raise _refusal("it ends before its last boundary")

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self.found[-1].headers[self._header.lower()] = self._value.strip()
        self._header = self._value = b""

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self.found[-1].data += data[start:end]

    def _on_end(self) -> None:
        self._is_complete = True


def _text(name: str, data: bytes) -> str:
    if len(data) > MAX_TEXT:
        raise _refusal(f'the field "{name[:100]}" has {len(data)} bytes, at most {MAX_TEXT} are read')
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _refusal(f'the field "{name[:100]}" is no UTF-8') from error


def _refusal(why: str) -> BadRequest:
    return BadRequest(f"failed to parse multipart form: {why}")
