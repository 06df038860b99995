"""Pictures and sounds of a request: recognised (`media_kinds`), checked, and handed on in kinds an engine reads.

Every picture is decoded here within bounds and written anew as a plain PNG, so that the engine's own decoder never
sees bytes from outside, a photo stands upright, and what is transparent is white as on paper. Sounds pass through,
as long as the engine can hold them. Knows no message and no model.
"""

import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from corral.errors import BadRequest
from corral.media_kinds import PICTURES, SOUNDS, Kind, kind_of

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["MAX_FILES", "PICTURES", "SOUNDS", "kind_of", "prepare"]

MAX_FILES = 256
"""Pictures and sounds of one request."""
MAX_SIDE = 16_384
"""Pixels of a picture's longer side."""
MAX_PIXELS, MAX_PIXELS_IN_ALL = 64_000_000, 256_000_000
"""Pixels of a picture, and of all pictures of a request: decoded, each takes 3 or 4 bytes."""
MAX_SOUND = 128 << 20
"""Bytes of a sound."""
MIN_SOUND_SECONDS, MAX_SOUND_SECONDS = 0.01, 2 * 60 * 60
"""How long a sound may take. An engine holds all of it as numbers, 16,000 a second, and ends over less than two."""


def prepare(files: Sequence[bytes]) -> tuple[bytes, ...]:
    """The files as an engine gets them; `BadRequest` says which one cannot be read, and why.

    Takes a tenth of a second for each ten million pixels, so it belongs in a thread.
    """
    if len(files) > MAX_FILES:
        raise BadRequest(f"{len(files)} images are too many, at most {MAX_FILES} can be sent at once")
    return tuple(_prepared(files))


def _prepared(files: Sequence[bytes]) -> Iterator[bytes]:
    left = MAX_PIXELS_IN_ALL
    for number, file in enumerate(files, 1):
        kind = kind_of(file)
        try:
            if kind in SOUNDS:
                yield _checked_sound(file, kind)
            elif kind:
                png, pixels = _as_png(file, kind, left)
                left -= pixels
                yield png
            else:
                raise BadRequest("neither a picture (PNG, JPEG, WebP, GIF, BMP) nor a sound (WAV, MP3, FLAC)")
        except BadRequest as error:
            raise BadRequest(f"{'sound' if kind in SOUNDS else 'image'} {number} cannot be used: {error}") from error


_BROKEN = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, AttributeError, EOFError),
    *(ArithmeticError, MemoryError, RuntimeError, struct.error, zlib.error),
)
"""What decoders raise over hostile bytes."""


def _as_png(file: bytes, kind: Kind, left: int) -> tuple[bytes, int]:
    """The first frame as a PNG of red, green and blue, and how many pixels it has."""
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(file), formats=(kind.upper(),)) as image:
            width, height = image.size
            _check_size(width, height, left)
            upright = ImageOps.exif_transpose(image)
            plain = _on_white(upright)
            written = io.BytesIO()
            plain.save(written, "PNG", compress_level=1)
            return written.getvalue(), width * height
    except Image.DecompressionBombError as error:
        raise BadRequest("a picture of far too many pixels") from error
    except _BROKEN as error:
        raise BadRequest(f"a broken {_name(kind)}") from error


def _check_size(width: int, height: int, left: int) -> None:
    if min(width, height) < 1:
        raise BadRequest("a picture without pixels")
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise BadRequest(f"a picture of {width}x{height} pixels is too large")
    if width * height > left:
        raise BadRequest(f"all pictures together have more than {MAX_PIXELS_IN_ALL // 1_000_000} million pixels")


def _on_white(image: "Image") -> "Image":
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        # 16 bits a pixel: Pillow would cut values off instead of scaling them.
        image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    if not image.has_transparency_data:
        return image.convert("RGB")
    clear = image.convert("RGBA")
    paper = Image.new("RGB", clear.size, "white")
    paper.paste(clear, mask=clear.getchannel("A"))
    return paper


def _checked_sound(file: bytes, kind: Kind) -> bytes:
    if len(file) > MAX_SOUND:
        raise BadRequest(f"a sound of {len(file)} bytes is too large, at most {MAX_SOUND} are read")
    # An MP3 says nowhere how long it is, and no byte of it holds more than a thousandth of a second.
    seconds = {"wav": _wave_seconds, "flac": _flac_seconds}.get(kind, lambda _: MIN_SOUND_SECONDS)(file)
    if seconds is None:
        raise BadRequest(f"a broken {_name(kind)}")
    if seconds < MIN_SOUND_SECONDS:
        raise BadRequest(f"a sound of less than {MIN_SOUND_SECONDS:g} seconds")
    if seconds > MAX_SOUND_SECONDS:
        raise BadRequest(f"a sound of {seconds:.0f} seconds is too long, at most {MAX_SOUND_SECONDS} are read")
    return file


def _wave_seconds(file: bytes) -> float | None:
    """How long a WAV is; None for one without one format that makes sense and, after it, samples.

    Its last chunk may be cut short.
    """
    at, bits_a_second = 12, 0
    while at + 8 <= len(file):
        name, size = struct.unpack_from("<4sI", file, at)
        if name == b"fmt ":
            if bits_a_second or size < 16 or at + 24 > len(file):
                return None
            bits_a_second = _wave_rate(file[at + 8 : at + 8 + size])
        elif name == b"data":
            left = len(file) - at - 8
            return min(size, left) * 8 / bits_a_second if bits_a_second and left > 0 else None
        at += 8 + size + size % 2
    return None


def _wave_rate(form: bytes) -> int:
    """Bits a second of a WAV with this format; 0 for one that makes no sense. `BadRequest` for compressed samples.

    How many of these there are, other chunks say, which an engine believes.
    """
    code, channels, rate, _, alignment, bits = struct.unpack_from("<HHIIHH", form)
    if code == _EXTENDED and len(form) >= 26:
        (code,) = struct.unpack_from("<H", form, 24)
    if code not in _UNCOMPRESSED:
        raise BadRequest(f"a WAV of compressed samples (format {code})")
    is_sensible = 0 < channels <= 8 and 0 < rate <= 768_000 and 0 < bits <= 64 and alignment > 0
    return rate * channels * bits if is_sensible else 0


_UNCOMPRESSED = (1, 3, 6, 7)
"""Formats of a WAV: whole numbers, fractions, A-law and µ-law."""
_EXTENDED = 0xFFFE
"""The format of a WAV that says further on which it is."""


def _flac_seconds(file: bytes) -> float | None:
    """How long a FLAC says it is; None for one that does not say it, or not first what its samples are."""
    kind_and_size, packed = file[4:8], int.from_bytes(file[18:26])
    rate, bits, samples = packed >> 44, (packed >> 36 & 31) + 1, packed & (1 << 36) - 1
    if bits > _FLAC_BITS:
        raise BadRequest(f"a FLAC of {bits} bits a sample, at most {_FLAC_BITS} are read")
    is_sensible = kind_and_size[:1] in (b"\x00", b"\x80") and kind_and_size[1:] == b"\x00\x00\x22" and len(file) > 42
    return samples / rate if is_sensible and rate and samples else None


_FLAC_BITS = 24
"""Bits of a sample that the engine's decoder takes."""


def _name(kind: Kind) -> str:
    return {"webp": "WebP"}.get(kind, kind.upper())
