"""Requests that go from server to server: by which they have come, so that none goes in circles."""

import secrets
from contextvars import ContextVar

from corral.errors import RequestLoop

HEADER = "x-corral-via"
"""The ids of the servers by which a request has come, the first one first, with commas between them."""

MAX_HOPS = 8
"""Servers that a request may pass before it comes here."""

_MAX_LETTERS = 512

passed: ContextVar[str] = ContextVar("passed", default="")
"""The header of the request that is being answered; empty outside of one, and where it comes from a client."""


class ServerId:
    """The id of this server, a new one at each start."""

    def __init__(self) -> None:
        self.text = secrets.token_hex(8)

    def check(self) -> None:
        """`RequestLoop` for a request that has been here before, or that comes by too many servers."""
        before = [one.strip() for one in passed.get().split(",")] if passed.get() else []
        if self.text in before:
            raise RequestLoop("the request has come back to this server: it is among its own upstreams")
        if len(before) > MAX_HOPS or len(passed.get()) > _MAX_LETTERS:
            raise RequestLoop(
                f"the request has come by more than {MAX_HOPS} servers; they may be each other's upstreams"
            )

    def header(self) -> str:
        """The header for a request that is passed on."""
        return f"{passed.get()}, {self.text}" if passed.get() else self.text
