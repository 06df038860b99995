"""Server-sent events as any server may write them, found in bytes as they come. Source: WHATWG HTML, §9.2."""

from corral.errors import UpstreamError

MAX_LINE = 1 << 20
"""Bytes of a line. A token with twenty alternatives has some kilobytes, a call of a tool hardly more."""

MAX_ANSWER = 64 << 20
"""Bytes of an answer: of a million tokens at least."""

DONE = b"[DONE]"
"""The data of the event that says that an answer is over."""


class EventReader:
    """Keeps what has not ended yet. `name` is that of the server, for errors."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._line: list[bytes] = []
        """Parts of the line that has not ended, and how many bytes they have."""
        self._line_size = 0
        self._data: list[bytes] = []
        """Lines of the event that has not ended, and how many bytes they have."""
        self._data_size = 0
        self._size = 0

    def feed(self, received: bytes) -> list[bytes]:
        """The data of each event that has ended. `UpstreamError` for a line, an event or an answer without end."""
        self._size += len(received)
        if self._size > MAX_ANSWER:
            raise UpstreamError(self._name, f"does not end its answer: it has more than {MAX_ANSWER} bytes")
        if received[:6] == b"data: " and received[-2:] == b"\n\n" and not self._line and not self._data:
            whole = received[6:-2]
            if b"\n" not in whole and b"\r" not in whole:  # one token, as it comes
                return [whole]
        found: list[bytes] = []
        if b"\n" in received:
            *lines, received = b"".join((*self._line, received)).split(b"\n")
            self._line, self._line_size = [], 0
            for line in lines:
                self._read(line.removesuffix(b"\r"), found)
        if received:
            self._line.append(received)
            self._line_size += len(received)
            if self._line_size > MAX_LINE:
                raise UpstreamError(self._name, f"sends a line of more than {MAX_LINE} bytes")
        return found

    def _read(self, line: bytes, found: list[bytes]) -> None:
        if not line:
            if self._data:
                found.append(b"\n".join(self._data))
                self._data, self._data_size = [], 0
        elif line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
            self._data_size += len(line)
            if self._data_size > MAX_LINE:
                raise UpstreamError(self._name, f"sends an event of more than {MAX_LINE} bytes")
