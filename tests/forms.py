"""Forms as clients send them, and sounds to send in them."""

import io
import wave
from collections.abc import Iterable

import numpy as np

BOUNDARY = "----a-boundary"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def part(name: str, data: bytes | str, filename: str | None = None, headers: str = "") -> bytes:
    """One part, from its boundary to the end of its data."""
    file = "" if filename is None else f'; filename="{filename}"'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n{headers}\r\n'
    return head.encode() + (data if isinstance(data, bytes) else data.encode()) + b"\r\n"


def form(parts: Iterable[bytes]) -> bytes:
    """A whole body."""
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def tone(frequency: float, *, seconds: float = 1.0, rate: int = 16000) -> bytes:
    """A WAV of one tone."""
    moments = np.arange(int(seconds * rate)) / rate
    samples = (np.sin(2 * np.pi * frequency * moments) * 20000).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(samples.tobytes())
    return file.getvalue()
