"""One long computation in a child process, with the interface of `background.Work`. Knows nothing of what it is.

The parent writes one message to the child's standard input, a `_Call`, and keeps it open: its end means that the
parent is gone. The child answers on standard output with `_Step`s and then one `_Done` or `_Failed`. A message is its
length in four bytes and MessagePack. What the child and its libraries print goes to our standard error.
"""

import asyncio
import contextlib
import importlib
import logging
import os
import signal
import struct
import sys
import threading
import traceback
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Generic, NoReturn, TypeAlias, TypeVar, get_type_hints

import msgspec

from corral import errors
from corral.cage import Cage, Needs, enter
from corral.children import end_with_parent, environment, take_standard_output
from corral.errors import CorralError, InternalError, JobDied, OutOfMemory, reason_of
from corral.messages import Progress
from corral.system.processes import GROUPS, KILLED

Result = TypeVar("Result")

GRACE = 2.0
"""Seconds a child has to end after it was asked to; then it is killed."""

_NICE = 10
"""By which a child steps back behind the answers of models on the same cores."""

_OOM_SCORE = 500
"""Added to the child's share of memory (of 1000) when Linux chooses which process to kill: not the server."""

_LENGTH = struct.Struct("<I")

logger = logging.getLogger(__name__)


class _Call(msgspec.Struct, frozen=True):
    function: str
    arguments: dict[str, Any]
    parent: int
    """The id of the process that the child ends with."""
    cage: Cage | None = None
    """None: the child is not shut in."""


class _Step(msgspec.Struct, frozen=True, tag="step"):
    progress: Progress


class _Done(msgspec.Struct, frozen=True, tag="done"):
    result: Any


class _Failed(msgspec.Struct, frozen=True, tag="failed"):
    """`kinds`: names of the error's class and those above it; empty: an unexpected exception."""

    kinds: tuple[str, ...]
    arguments: tuple[Any, ...] = ()
    data: dict[str, Any] = {}
    traceback: str = ""


_Answer: TypeAlias = _Step | _Done | _Failed

_decoder: msgspec.msgpack.Decoder[_Answer] = msgspec.msgpack.Decoder(_Answer)


class Job(Generic[Result]):
    """One run of a function in a child process: iterate `steps` to its end, then `result` is there.

    Closing the iterator early ends the child, and waits for that. What the function left half-made stays.

        job = Job("corral.quantize:quantize", Written, "quantizing the model", source=path, target=other, threads=2)
    """

    result: Result

    def __init__(
        self,
        function: str,
        result: type[Result],
        doing: str,
        *,
        cage: Cage | None = Cage(),  # noqa: B008 - frozen
        **arguments: object,
    ) -> None:
        """`function`: `module:name`; it gets `arguments` by their names, and `report` (a `background.Report`).

        Arguments and result are values of msgspec or paths; they arrive as the function's annotations and `result` say.
        `doing` begins the sentence of an error: `quantizing the model`. In its cage the child may read the paths among
        the arguments, and write the one that is called `target`, which must be there; it has no network. `cage` None:
        it is not shut in.
        """
        self._call = _Call(function, arguments, os.getpid(), cage)
        self._type = result
        self._doing = doing

    async def steps(self) -> AsyncGenerator[Progress, None]:
        """What the function reports; raises errors of `corral.errors` that it raises.

        `InternalError` for any other exception, which is logged; `OutOfMemory`, `JobDied` when the child was ended.
        """
        process = await self._start()
        try:
            while isinstance(answer := await self._answer(process), _Step):
                yield answer.progress
            if isinstance(answer, _Failed):
                raise self._error(answer)
            self.result = msgspec.convert(answer.result, self._type, dec_hook=_decoded)
        finally:
            await _end(process)

    async def _start(self) -> asyncio.subprocess.Process:
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # a corral.py in the working folder is none of ours
                "-m",
                "corral.job",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=environment(),
                **GROUPS.options,
            )
        except OSError as error:
            raise JobDied(f"{self._doing} could not begin: {reason_of(error)}") from error
        assert process.stdin is not None
        process.stdin.write(_message(self._call))  # a child that ends before it has read all is found by `_answer`
        return process

    async def _answer(self, process: asyncio.subprocess.Process) -> _Answer:
        assert process.stdout is not None
        try:
            (length,) = _LENGTH.unpack(await process.stdout.readexactly(_LENGTH.size))
            return _decoder.decode(await process.stdout.readexactly(length))
        except asyncio.IncompleteReadError:
            raise self._death(await process.wait()) from None

    def _death(self, status: int) -> CorralError:
        """Why the child ended without an answer; negative: the signal that ended it."""
        if status == KILLED:
            return OutOfMemory(f"{self._doing} was ended by the system, most likely because memory ran out")
        how = (
            f"signal: {(signal.strsignal(-status) or str(-status)).lower()}" if status < 0 else f"exit status {status}"
        )
        return JobDied(f"{self._doing} ended before it was done ({how})")

    def _error(self, failed: _Failed) -> CorralError:
        if not failed.kinds:
            logger.error("%s failed\n%s", self._doing, failed.traceback)
            return InternalError()
        known = {kind.__name__: kind for kind in _kinds(CorralError)}
        kind = next(known[name] for name in failed.kinds if name in known)
        error = kind.__new__(kind, *failed.arguments)
        error.__dict__.update(failed.data)
        return error


async def _end(process: asyncio.subprocess.Process) -> None:
    ended = asyncio.ensure_future(process.wait())
    if process.returncode is None:
        GROUPS.end(process)
    await asyncio.wait({ended}, timeout=GRACE)
    if process.returncode is None:
        GROUPS.end(process, kill=True)
    await ended


def _kinds(kind: type[CorralError]) -> Iterator[type[CorralError]]:
    """A class of `corral.errors` and those below it."""
    if kind.__module__ == errors.__name__:
        yield kind
        for below in kind.__subclasses__():
            yield from _kinds(below)


def _message(value: object) -> bytes:
    encoded = msgspec.msgpack.encode(value, enc_hook=_encoded)
    return _LENGTH.pack(len(encoded)) + encoded


def _encoded(value: object) -> object:
    if isinstance(value, Path):
        return os.fsencode(value)
    raise NotImplementedError(f"a job takes no {type(value).__name__}")


def _decoded(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(os.fsdecode(value))
    raise NotImplementedError(f"a job takes no {kind.__name__}")


def main() -> NoReturn:
    """The child's main program."""
    channel = take_standard_output()
    call = _read(sys.stdin.buffer)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # blocks of the function that tidy up have their turn
    _step_back()
    refused = _shut_in(call)
    end_with_parent(call.parent)
    lock = threading.Lock()

    def send(answer: _Answer) -> None:
        with lock:
            channel.write(_message(answer))
            channel.flush()

    send(refused or _run(call, lambda step: send(_Step(step))))
    os._exit(0)  # threads that a library has left behind are not waited for


def _shut_in(call: _Call) -> _Failed | None:
    """Before any module is imported that could start a thread; why it cannot be done where it has to be."""
    if call.cage is None:
        return None
    target = call.arguments.get("target")
    try:
        enter(
            call.cage,
            Needs(
                reads=tuple(_paths(list(call.arguments.values()))),
                writes=(Path(os.fsdecode(target)),) if isinstance(target, bytes) else (),
            ),
        )
    except CorralError as error:
        return _failed(error)
    return None


def _paths(value: object) -> Iterator[Path]:
    """The paths in an argument, which come as bytes."""
    match value:
        case bytes():
            yield Path(os.fsdecode(value))
        case dict():
            yield from _paths(list(value.values()))
        case list():
            for one in value:
                yield from _paths(one)


def _run(call: _Call, report: Any) -> _Done | _Failed:
    try:
        module, _, name = call.function.partition(":")
        function = getattr(importlib.import_module(module), name)
        types = get_type_hints(function)
        given = {key: msgspec.convert(value, types[key], dec_hook=_decoded) for key, value in call.arguments.items()}
        return _Done(function(**given, report=report))
    except CorralError as error:
        return _failed(error)
    except MemoryError:
        return _failed(OutOfMemory("not enough memory"))
    except Exception:  # the outermost place of the process: the parent logs it
        return _Failed((), traceback=traceback.format_exc())


def _failed(error: CorralError) -> _Failed:
    kinds = tuple(kind.__name__ for kind in type(error).__mro__ if issubclass(kind, CorralError))
    return _Failed(kinds, error.args, {key: value for key, value in vars(error).items() if key != "__notes__"})


def _read(file: BinaryIO) -> _Call:
    head = file.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        sys.exit(1)  # the parent has gone already
    return msgspec.msgpack.decode(file.read(_LENGTH.unpack(head)[0]), type=_Call)


def _step_back() -> None:
    if hasattr(os, "nice"):
        os.nice(_NICE)
    with contextlib.suppress(OSError):  # Linux only
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))


if __name__ == "__main__":
    main()
