"""What kind of picture or sound a file is, by its first bytes; `media` says whether the rest of it can be read."""

from typing import Literal

Kind = Literal["png", "jpeg", "webp", "gif", "bmp", "wav", "mp3", "flac", ""]

PICTURES = ("png", "jpeg", "webp", "gif", "bmp")
SOUNDS = ("wav", "mp3", "flac")

_FIRST_BYTES: dict[bytes, Kind] = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
    b"GIF87a": "gif",
    b"GIF89a": "gif",
    b"BM": "bmp",
    b"ID3": "mp3",
    b"fLaC": "flac",
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


def other_sound(file: bytes) -> str:
    """What the kind of a sound that no engine reads is called, by its first 12 bytes; empty for what is none of these.

    Programs record MP4, WebM and Ogg, which may hold pictures as well.
    """
    if file[4:8] == b"ftyp":
        return "M4A" if file[8:11] == b"M4A" else "MP4"
    if file[:2] in (b"\xff\xf0", b"\xff\xf1", b"\xff\xf8", b"\xff\xf9"):
        return "AAC"
    if file.startswith(b"FORM") and file[8:12] in (b"AIFF", b"AIFC"):
        return "AIFF"
    return next((name for first, name in _OTHERS.items() if file.startswith(first)), "")


_OTHERS = {b"OggS": "Ogg", b"\x1aE\xdf\xa3": "WebM", b"#!AMR": "AMR", b"caff": "CAF", b"0&\xb2u": "WMA"}


def _is_mpeg_frame(file: bytes) -> bool:
    """Whether a file begins with an MPEG audio frame: eleven set bits, then the bits of a layer that exists."""
    return len(file) > 1 and file[0] == 0xFF and file[1] & 0xE0 == 0xE0 and file[1] & 0x06 != 0
