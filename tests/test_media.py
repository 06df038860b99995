"""Pictures and sounds from outside: recognised by their bytes, refused when broken or too large, made plain."""

import io
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from corral import media
from corral.errors import BadRequest

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")


def written(picture: Image.Image, kind: str = "PNG", **how: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **how)
    return file.getvalue()


def prepared(file: bytes) -> Image.Image:
    """What the engine gets for a picture, which is always a PNG."""
    (png,) = media.prepare([file])
    assert media.kind_of(png) == "png"
    return Image.open(io.BytesIO(png), formats=["PNG"])


def pixel(picture: Image.Image, at: tuple[int, int]) -> tuple[int, ...]:
    colours = picture.getpixel(at)
    assert isinstance(colours, tuple)
    return colours


def refusal(*files: bytes) -> str:
    with pytest.raises(BadRequest) as refused:
        media.prepare(files)
    return str(refused.value)


def wav(samples: bytes = b"\0\0" * 200, rate: int = 16000, channels: int = 1, code: int = 1) -> bytes:
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, code, channels, rate, rate * 2 * channels, 2 * channels, 16)
    body = (
        b"WAVE" + form + b"LIST" + struct.pack("<I", 3) + b"abc\0" + b"data" + struct.pack("<I", len(samples)) + samples
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    ("beginning", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n", "png"),
        (b"\x89PNG\n\x1a\n", ""),
        *[(b"\xff\xd8\xff" + bytes([marker]), "jpeg") for marker in (0xDB, 0xE0, 0xE1, 0xEE)],
        (b"\xff\xd8\x00", ""),
        (b"GIF87a", "gif"),
        (b"GIF89a", "gif"),
        (b"GIF88a", ""),
        (b"BM", "bmp"),
        (b"RIFF\x04\0\0\0WEBPVP8 ", "webp"),
        (b"RIFF\x04\0\0\0WAVEfmt ", "wav"),
        (b"RIFF\x04\0\0\0AVI LIST", ""),
        (b"RIFF", ""),
        (b"ID3\x04", "mp3"),
        *[(bytes([0xFF, second]), "mp3") for second in (0xFB, 0xFA, 0xF3, 0xF2, 0xE3, 0xE2, 0xFD, 0xFF)],
        *[(bytes([0xFF, second]), "") for second in (0xF1, 0xF9, 0xF0, 0xE0, 0xD9, 0x00)],
        (b"\xff", ""),
        (b"\x00\x00\x00\x18ftypheic", ""),
        (b"OggS", ""),
        (b"fLaC", "flac"),
        (b"II*\0", ""),
        (b"<svg", ""),
        (b"", ""),
    ],
)
def test_a_file_is_recognised_by_its_header(beginning: bytes, kind: str) -> None:
    assert media.kind_of(beginning + b"\0" * 32 if kind else beginning) == kind


@pytest.mark.parametrize("kind", FORMATS)
def test_every_kind_of_picture_becomes_a_plain_png(kind: str) -> None:
    file = written(Image.new("RGB", (64, 48), (200, 100, 50)), kind)
    picture = prepared(file)
    assert (media.kind_of(file), picture.mode, picture.size) == (kind.lower(), "RGB", (64, 48))
    red, green, blue = pixel(picture, (20, 20))
    assert max(abs(red - 200), abs(green - 100), abs(blue - 50)) <= 8


def test_the_same_picture_gives_the_same_bytes() -> None:
    file = written(Image.effect_noise((50, 50), 80), "JPEG")
    assert media.prepare([file, file]) == media.prepare([file]) * 2


def test_a_photo_stands_upright() -> None:
    picture = Image.new("RGB", (40, 20), "white")
    picture.paste("red", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the picture has to be turned to the right
    upright = prepared(written(picture, "PNG", exif=exif))
    assert (upright.size, upright.getpixel((10, 5)), upright.getpixel((10, 35))) == (
        (20, 40),
        (255, 0, 0),
        (255, 255, 255),
    )


def test_what_is_transparent_is_white() -> None:
    picture = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    picture.putpixel((1, 0), (0, 0, 255, 255))
    plain = prepared(written(picture))
    assert [plain.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 0, 255)]


def test_sixteen_bits_are_scaled() -> None:
    picture = Image.new("I;16", (2, 1))
    picture.putpixel((0, 0), 65535)
    picture.putpixel((1, 0), 32768)
    plain = prepared(written(picture))
    assert [plain.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (128, 128, 128)]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_a_moving_picture_the_first_frame_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    moving = written(frames[0], kind, save_all=True, append_images=frames[1:])
    red, _, blue = pixel(prepared(moving), (4, 4))
    assert red > 240
    assert blue < 15


def flac(samples: int = 16000, rate: int = 16000, bits: int = 16) -> bytes:
    """A FLAC's beginning, with the format of its samples, and the first bytes of a frame."""
    packed = (rate << 44 | bits - 1 << 36 | samples).to_bytes(8)
    return b"fLaC\x80\0\0\x22" + b"\x10\0\x10\0" + bytes(6) + packed + bytes(16) + b"\xff\xf8"


@pytest.mark.parametrize("sound", [wav(), flac(), b"ID3\x04" + bytes(50), b"\xff\xfb\x90\x64" + bytes(50)])
def test_sounds_pass_through(sound: bytes) -> None:
    assert media.prepare([sound]) == (sound,)


@pytest.mark.parametrize(
    "broken",
    [wav(b""), wav(rate=0), wav(channels=0), wav()[:30], b"RIFF\x04\0\0\0WAVE", wav().replace(b"fmt ", b"foo ")],
)
def test_a_broken_sound_is_refused(broken: bytes) -> None:
    assert refusal(broken) == "sound 1 cannot be used: a broken WAV"


@pytest.mark.parametrize("broken", [flac(rate=0), flac(samples=0), flac()[:30], flac().replace(b"\x22", b"\x21")])
def test_a_broken_flac_is_refused(broken: bytes) -> None:
    assert refusal(broken) == "sound 1 cannot be used: a broken FLAC"


def test_a_flac_of_wide_samples_is_refused() -> None:
    expected = "sound 1 cannot be used: a FLAC of 32 bits a sample, at most 24 are read"
    assert refusal(flac(bits=32)) == expected
    media.prepare([flac(bits=24)])


@pytest.mark.parametrize(
    ("sound", "seconds"),
    [
        (flac(samples=1 << 35), 2147484),
        (flac(samples=7201 * 16000), 7201),
        (wav(bytes(20_000), rate=1), 10000),
    ],
    ids=["a length that only the header has", "a second too many", "a sample a second"],
)
def test_a_sound_may_not_take_too_long(sound: bytes, seconds: int) -> None:
    expected = f"sound 1 cannot be used: a sound of {seconds} seconds is too long, at most 7200 are read"
    assert refusal(sound) == expected


def test_a_sound_may_take_two_hours() -> None:
    media.prepare([flac(samples=7200 * 16000)])


@pytest.mark.parametrize("sound", [wav(bytes(2)), wav(bytes(318)), flac(samples=1), wav(bytes(2000), rate=768_000)])
def test_a_sound_may_not_be_nearly_nothing(sound: bytes) -> None:
    """llama-server ends over a sound of one sample."""
    assert refusal(sound) == "sound 1 cannot be used: a sound of less than 0.01 seconds"


@pytest.mark.parametrize("code", [2, 0x11, 0x55])
def test_a_wav_of_compressed_samples_is_refused(code: int) -> None:
    assert refusal(wav(code=code)) == f"sound 1 cannot be used: a WAV of compressed samples (format {code})"
    extended = wav(code=0xFFFE).replace(b"\x10\0\0\0\xfe\xff", b"\x28\0\0\0\xfe\xff")
    at = extended.index(b"LIST")
    extended = extended[:at] + b"\x16\0" + bytes(6) + code.to_bytes(2, "little") + bytes(14) + extended[at:]
    assert refusal(extended) == f"sound 1 cannot be used: a WAV of compressed samples (format {code})"
    plain = extended[: at + 8] + b"\x01\0" + extended[at + 10 :]
    assert media.prepare([plain]) == (plain,)


def test_a_wav_has_one_format() -> None:
    form = wav()[12:36]
    assert refusal(wav().replace(b"LIST", form + b"LIST")) == "sound 1 cannot be used: a broken WAV"


@pytest.mark.parametrize(
    "other", [b"", b"\xff\xd8", b"%PDF-1.7", b"<svg/>", b"RIFF\0\0\0\0AVI ", b"II*\0", b"\0" * 100]
)
def test_what_is_neither_picture_nor_sound_is_refused(other: bytes) -> None:
    good = written(Image.new("RGB", (4, 4)))
    expected = "image 2 cannot be used: neither a picture (PNG, JPEG, WebP, GIF, BMP) nor a sound (WAV, MP3, FLAC)"
    assert refusal(good, other) == expected


@pytest.mark.parametrize("kind", FORMATS)
def test_half_a_picture_is_refused(kind: str) -> None:
    file = written(Image.effect_noise((60, 60), 80).convert("RGB"), kind)
    name = {"WEBP": "WebP"}.get(kind, kind)
    assert refusal(file[: len(file) // 2]) == f"image 1 cannot be used: a broken {name}"


def png_of(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels to show for it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ((20_000, 10), "a picture of 20000x10 pixels is too large"),
        ((9000, 9000), "a picture of 9000x9000 pixels is too large"),
        ((16_000, 16_000), "a picture of far too many pixels"),
        ((2**31 - 1, 2**31 - 1), "a picture of far too many pixels"),
        ((0, 5), "a broken PNG"),
        ((100, 100), "a broken PNG"),
    ],
)
def test_a_picture_is_measured_before_it_is_unpacked(size: tuple[int, int], reason: str) -> None:
    assert refusal(png_of(*size)) == f"image 1 cannot be used: {reason}"


def test_many_large_pictures_are_too_much_together() -> None:
    large = written(Image.new("1", (8000, 8000)))
    assert refusal(*[large] * 5) == "image 5 cannot be used: all pictures together have more than 256 million pixels"


def test_there_are_only_so_many_files() -> None:
    assert refusal(*[b"ID3"] * 257) == "257 images are too many, at most 256 can be sent at once"


SOURCES = [written(Image.effect_noise((24, 16), 90).convert("RGB"), kind) for kind in FORMATS] + [wav()]


@given(
    st.sampled_from(SOURCES), st.lists(st.tuples(st.integers(0, 10_000), st.binary(min_size=1, max_size=3)), max_size=5)
)
def test_hostile_bytes_end_in_a_picture_or_a_refusal(source: bytes, changes: list[tuple[int, bytes]]) -> None:
    file = bytearray(source)
    for place, put in changes:
        file[place % len(file) : place % len(file) + len(put)] = put
    try:
        (kept,) = media.prepare([bytes(file)])
    except BadRequest:
        return
    assert media.kind_of(kept) in ("png", "wav", "mp3", "flac")
