"""What kind of picture or sound a file is, by its first bytes; `media` says whether the rest of it can be read."""

from typing import Literal

Kind = Literal["png", "jpeg", "webp", "gif", "bmp", "wav", "mp3", ""]

PICTURES = ("png", "jpeg", "webp", "gif", "bmp")
SOUNDS = ("wav", "mp3")

_FIRST_BYTES: dict[bytes, Kind] = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
    b"GIF87a": "gif",
    b"GIF89a": "gif",
    b"BM": "bmp",
    b"ID3": "mp3",
}
_RIFF_FORMS: dict[bytes, Kind] = {b"WAVE": "wav", b"WEBP": "webp"}


def kind_of(file: bytes) -> Kind:
    """The kind of a file, of which 12 bytes are enough; empty for any other kind (spec cli §15.4)."""
    if file.startswith(b"RIFF"):
        return _RIFF_FORMS.get(file[8:12], "")
    for first, kind in _FIRST_BYTES.items():
        if file.startswith(first):
            return kind
    return "mp3" if _is_mpeg_frame(file) else ""


def _is_mpeg_frame(file: bytes) -> bool:
    """Whether a file begins with an MPEG audio frame: eleven set bits, then the bits of a layer that exists."""
    return len(file) > 1 and file[0] == 0xFF and file[1] & 0xE0 == 0xE0 and file[1] & 0x06 != 0
