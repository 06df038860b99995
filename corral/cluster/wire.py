"""What a server and its workers on nodes say to each other, beside the requests to the worker itself: values as JSON.

What is sent at first is read even by another version of Corral; everything else only between equal versions.
"""

from collections.abc import Callable
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec
from msgspec import Meta, Struct

from corral import errors
from corral.engine.base import RunnerSpec
from corral.errors import CorralError, EngineCrashed, EngineError
from corral.golang.durations import FOREVER_SECONDS

T = TypeVar("T")

Count: TypeAlias = Annotated[int, Meta(ge=0, lt=1 << 62)]

WATCH = "corral-watch"
"""The ALPN protocol of a connection on which the node says how the worker is; all others go to the worker."""

REQUESTS = "http/1.1"

SIGNS_SECONDS = 1.0
"""How often a node says how its worker is."""


class Hello(Struct, frozen=True):
    """What a node says first. `certificate`: by which it will serve; `address`: its own, where it will listen."""

    version: str
    address: str
    certificate: str


class WantedFile(Struct, frozen=True):
    """A file of a model: by what digest (`sha256:…`) it is known, and how many bytes it has."""

    digest: str
    size: int


class Order(Struct, frozen=True, kw_only=True):
    """A model that a node is to load. `files` stand for the paths that `spec` names, by these."""

    spec: RunnerSpec
    label: str
    files: dict[str, WantedFile]
    certificate: str
    """By which the server will ask; it is also that of its file route."""
    file_route: str
    """`https://…`, where the server hands out the files."""
    shared_folder: str = ""
    """Where nodes find a store that is shared by all; empty: nowhere."""
    stall_timeout: float | None
    """Seconds that the load may stand still; None: for ever, for which JSON has no number."""
    template_error: str = ""

    @property
    def stall_seconds(self) -> float:
        return FOREVER_SECONDS if self.stall_timeout is None else self.stall_timeout


class Started(Struct, frozen=True, kw_only=True, tag=True):
    """A worker that serves: on which port of the node's address, its key, and what `launch` found."""

    port: Annotated[int, Meta(ge=1, lt=1 << 16)]
    key: str
    pid: Count
    log: str
    pool: Annotated[int, Meta(ge=1, lt=1 << 40)] | None
    template_error: str
    has_llguidance: bool


class Failed(Struct, frozen=True, tag=True):
    """A load that failed: the kind of the error by the name of its class, and its sentence."""

    kind: str
    sentence: str
    how: str = ""


class LoadState(Struct, frozen=True):
    """How far a load is: bytes that have been fetched of all that are wanted, then bytes in the worker's memory.

    The others change while neither does: pieces of files that were checked, here or by another worker of the node that
    fetches the same; processor seconds of the worker, and bytes that it has printed.
    """

    fetched: Count = 0
    wanted: Count = 0
    loaded: Count = 0
    checked: Count = 0
    seconds: Annotated[float, Meta(ge=0)] = 0.0
    printed: Count = 0


class Signs(Struct, frozen=True, tag=True):
    """What a worker holds of main memory, and what grows while it computes or prints."""

    memory: Count
    seconds: float
    printed: Count


class Ended(Struct, frozen=True, tag=True):
    """How a worker ended, and what it said last, in general and of a device."""

    reason: str
    last_error: str = ""
    device_error: str = ""


Reply: TypeAlias = Started | Failed

Remark: TypeAlias = Signs | Ended

KINDS = ("OutOfMemory", "EngineDied", "StoreError", "DiskFull", "Unreachable", "EngineError")
"""Errors that keep their kind on the way; others become an `EngineError`."""

decode_hello = msgspec.json.Decoder(Hello).decode
decode_order = msgspec.json.Decoder(Order).decode
decode_reply: Callable[[bytes], Reply] = msgspec.json.Decoder(Reply).decode
decode_state = msgspec.json.Decoder(LoadState).decode
decode_remark: Callable[[bytes], Remark] = msgspec.json.Decoder(Remark).decode
encode = msgspec.json.encode


def said(decode: Callable[[bytes], T], data: Any, node: str) -> T:
    """What an actor said, decoded; `EngineError` for what none of this version says. `node`: its address or name."""
    try:
        return decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError) as error:
        raise EngineError(f"node {node} says what cannot be read: {str(error)[:200]}") from error


def failed(error: CorralError) -> Failed:
    """An error on its way."""
    return Failed(type(error).__name__, str(error), getattr(error, "how", ""))


def raised(failure: Failed, node: str) -> CorralError:
    """The same error, which says where it came from."""
    sentence = f"node {node}: {failure.sentence}"
    if failure.kind == "EngineCrashed":
        return EngineCrashed(sentence, how=failure.how)
    if failure.kind in KINDS:
        found = getattr(errors, failure.kind)(sentence)
        assert isinstance(found, CorralError)
        return found
    return EngineError(sentence)
