"""llama-server's server-sent events, found in bytes as they come. Knows no connection, and no field of an event."""

from collections.abc import Iterator

from corral.engine.llama import wire
from corral.errors import EngineError

MAX_EVENT = 16 << 20
"""Bytes of the largest event that is waited for. One token with all that can be asked of it has some kilobytes."""


class EventReader:
    """Keeps what has not ended yet."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, received: bytes) -> Iterator[bytes]:
        """The JSON of each event that has ended. `EngineError` for one that is an error, or never ends."""
        *events, self._rest = (self._rest + received).split(b"\n\n")
        for event in events:
            data = event.lstrip(b"\n")
            if data.startswith(b"data: {"):
                yield data[6:]
            elif data.startswith(b"error: {"):  # as older ones put it
                raise wire.refusal(wire.decoded(wire.decode_error, data[7:]))
        if len(self._rest) > MAX_EVENT:
            raise EngineError(f"the engine's answer has an event of more than {MAX_EVENT} bytes")
