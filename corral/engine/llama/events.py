"""llama-server's server-sent events, found in bytes as they come. Knows no connection, and no field of an event."""

from corral.errors import EngineError

MAX_EVENT = 16 << 20
"""Bytes of the largest event that is waited for. One token with all that can be asked of it has some kilobytes."""


class EventReader:
    """Keeps what has not ended yet."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, received: bytes) -> list[bytes]:
        """The JSON of each event that has ended. `EngineError` for one that never ends."""
        *events, self._rest = (self._rest + received).split(b"\n\n")
        if len(events) == 1 and events[0].startswith(b"data: {") and not self._rest:  # a token, as it comes
            return [events[0][6:]]
        found = []
        for event in events:
            data = event.lstrip(b"\n")
            if data.startswith(b"data: {"):
                found.append(data[6:])
            elif data.startswith(b"error: {"):  # as older ones put what newer ones have in an event's field
                found.append(b'{"error":' + data[7:] + b"}")
        if len(self._rest) > MAX_EVENT:
            raise EngineError(f"the engine's answer has an event of more than {MAX_EVENT} bytes")
        return found
