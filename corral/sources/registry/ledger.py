"""What has arrived of a blob: the partial file and, beside it, a ledger for each of its parts. Knows no network.

Both are in Ollama's format (spec cli §8), so that either program goes on where the other stopped. Ollama counts a part
from its beginning (`Completed`); what has arrived further on is in a member of our own, `Ranges`, which it ignores.
"""

import hashlib
import os
import stat
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

import msgspec

from corral.errors import StoreError
from corral.names import Digest
from corral.store import disk
from corral.system import files, locks

Span: TypeAlias = tuple[int, int]
"""Bytes of the blob: from the first (inclusive) to the second (exclusive)."""

MIN_PART_BYTES = 100_000_000
MAX_PART_BYTES = 1_000_000_000
_MAX_LEDGER_BYTES = 1 << 20
_HASH_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of the blob with a ledger of its own."""

    number: int
    offset: int
    size: int

    @property
    def end(self) -> int:
        return self.offset + self.size


def part_bytes(total: int) -> int:
    """How large the parts of a blob are (spec cli §9.2)."""
    return min(max(total // 16, MIN_PART_BYTES), MAX_PART_BYTES)


def encode(part: Part, missing: Iterable[Span]) -> bytes:
    """The ledger of a part, given what is missing of the blob: sorted, disjoint, not empty."""
    present = list(_without((part.offset, part.end), missing))
    completed = present.pop(0)[1] - part.offset if present and present[0][0] == part.offset else 0
    record = _Record(part.number, part.offset, part.size, completed, present)
    return msgspec.json.encode(record) + b"\n"


def decode(ledgers: Iterable[bytes], total: int, part_size: int) -> tuple[list[Part], list[Span]]:
    """The parts of a blob of `total` bytes, without gap or overlap, and what is missing of it.

    A ledger that cannot be read, or contradicts the total or another, counts as none: its bytes come anew.
    """
    parts: list[Part] = []
    present: list[Span] = []
    end = 0
    for record in sorted(_records(ledgers), key=lambda record: record.offset):
        if record.offset < end or record.offset + record.size > total or not record.is_sound:
            continue
        parts += _cut(end, record.offset, part_size)
        parts.append(Part(0, record.offset, record.size))
        present += [(record.offset, record.offset + record.completed), *record.ranges]
        end = record.offset + record.size
    parts += _cut(end, total, part_size)
    numbered = [Part(number, part.offset, part.size) for number, part in enumerate(parts)]
    return numbered, list(_without((0, total), (span for span in present if span[0] < span[1])))


class Partial:
    """The files of one unfinished blob, ours alone while open. Blocking; methods may run in different threads.

    Errors: `DiskFull`, `StoreError`.
    """

    def __init__(self, path: Path, descriptor: int, total: int, part_size: int) -> None:
        self.path = path
        self.total = total
        self._descriptor = descriptor
        self._hash = hashlib.sha256()
        self._written: dict[Part, bytes] = {}
        self._idle = threading.Condition()
        self._order = threading.Lock()
        self._is_finished = False
        self._users = 0
        self._closed = False
        with disk.explained(path, "writing"):
            status = os.fstat(descriptor)
            parts, missing = decode(_read_ledgers(path) if status.st_size else (), total, part_size)
            file_end = min(status.st_size, total)
            self._parts = parts
            self.missing = list(_without((0, total), _without((0, file_end), missing)))
            os.ftruncate(descriptor, total)
            self._remove_ledgers(beyond=len(parts))
            self.save(self.missing)

    def write(self, offset: int, chunks: Sequence[bytes]) -> None:
        """Puts bytes in their place."""
        with self._used(), disk.explained(self.path, "writing"):
            size = sum(map(len, chunks))
            written = files.write_at(self._descriptor, chunks, offset)
            if written < size:  # a nearly full disk: writing the rest raises the reason
                rest = memoryview(b"".join(chunks))
                while written < size:
                    written += files.write_at(self._descriptor, [rest[written:]], offset + written)

    def hash(self, start: int, end: int) -> None:
        """Takes bytes into the digest; each call goes on where the last one ended."""
        buffer = memoryview(bytearray(min(_HASH_BYTES, end - start)))
        with self._used(), disk.explained(self.path, "reading"):
            while start < end:
                count = files.read_into(self._descriptor, buffer[: end - start], start)
                if not count:
                    raise StoreError(f'"{self.path}" was cut short by another program')
                self._hash.update(buffer[:count])
                start += count

    def actual_digest(self) -> Digest:
        """Of what went through `hash`."""
        return Digest(self._hash.hexdigest())

    def save(self, missing: Sequence[Span]) -> None:
        """Records what has arrived, once it is on the disk itself: a power cut leaves no ledger that claims more.

        When it returns, the ledgers are on the disk, too, and so are their names.
        """
        with self._used(), self._order, disk.explained(self.path, "writing"):
            if self._is_finished:
                return
            if self._written:  # as the file is found, there is nothing new in it
                os.fsync(self._descriptor)
            is_new = False
            for part in self._parts:
                ledger = encode(part, missing)
                if self._written.get(part) != ledger:
                    _overwrite(ledger_path(self.path, part.number), ledger)
                    is_new = is_new or part not in self._written
                    self._written[part] = ledger
            if is_new:
                disk.flush_folder(self.path.parent)

    def commit(self, blob: Path) -> None:
        """Gives the finished file its name. The caller has compared the digests."""
        with self._used(), self._order, disk.explained(blob, "writing"):
            self._is_finished = True
            os.fsync(self._descriptor)
            try:
                self.path.replace(blob)
            except FileNotFoundError:  # Ollama takes no claim: at work on the same file, it may have been quicker
                if not os.path.samestat(blob.stat(), os.fstat(self._descriptor)):
                    raise
            disk.flush_folder(blob.parent)  # before the ledgers go, without which the partial would count as nothing
            self._remove_ledgers()

    def remove(self) -> None:
        """Leaves nothing of it."""
        with self._used(), self._order, disk.explained(self.path, "deleting"):
            self._is_finished = True
            self.path.unlink(missing_ok=True)
            self._remove_ledgers()

    def close(self) -> None:
        """Ends the claim, when whatever still runs in another thread is done: the descriptor may not change hands."""
        with self._idle:
            if self._closed:
                return
            self._closed = True
            self._idle.wait_for(lambda: not self._users)
            os.close(self._descriptor)

    @contextmanager
    def _used(self) -> Iterator[None]:
        with self._idle:
            if self._closed:
                raise StoreError(f'"{self.path}" is closed')
            self._users += 1
        try:
            yield
        finally:
            with self._idle:
                self._users -= 1
                self._idle.notify_all()

    def _remove_ledgers(self, beyond: int = 0) -> None:
        for path in _ledger_paths(self.path):
            if int(path.name.rpartition("-")[2]) >= beyond:
                path.unlink(missing_ok=True)


def open_partial(blob: Path, total: int, part_size: int) -> Partial | None:
    """The unfinished files of a blob, found or made; None while another transfer, here or elsewhere, has them open."""
    path = partial_path(blob)
    with disk.explained(path, "writing"):
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | files.BINARY | files.NOT_A_LINK | files.WITHOUT_WAITING
        descriptor = os.open(path, flags, 0o644)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise StoreError(f'"{path}" is not a file')
            if _is_ours(path, descriptor):
                return Partial(path, descriptor, total, part_size)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None


def arrived(blob: Path, total: int) -> int:
    """How many bytes have arrived according to the ledgers, which another program may be writing."""
    _, missing = decode(_read_ledgers(partial_path(blob)), total, part_bytes(total))
    return total - sum(end - start for start, end in missing)


def allocated(blob: Path) -> int:
    """Bytes of disk that the partial file of a blob takes up already."""
    with suppress(OSError):
        return int(getattr(partial_path(blob).stat(), "st_blocks", 0)) * 512
    return 0


def partial_path(blob: Path) -> Path:
    """Where the bytes of an unfinished blob lie (spec cli §8)."""
    return blob.with_name(f"{blob.name}-partial")


def ledger_path(partial: Path, number: int) -> Path:
    """Where the ledger of a part lies (spec cli §8)."""
    return partial.with_name(f"{partial.name}-{number}")


_Natural: TypeAlias = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]


class _Record(msgspec.Struct):
    number: _Natural = msgspec.field(name="N")
    offset: _Natural = msgspec.field(name="Offset")
    size: _Natural = msgspec.field(name="Size")
    completed: _Natural = msgspec.field(name="Completed")
    ranges: list[Span] = msgspec.field(name="Ranges", default=[])

    @property
    def is_sound(self) -> bool:
        end = self.offset + self.completed
        for start, stop in self.ranges:
            if not end <= start < stop:
                return False
            end = stop
        return self.size > 0 and end <= self.offset + self.size


def _records(ledgers: Iterable[bytes]) -> Iterator[_Record]:
    for ledger in ledgers:
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            # Only the first line counts: a shorter ledger may have been written over a longer one.
            yield msgspec.json.decode(ledger.partition(b"\n")[0], type=_Record)


def _without(whole: Span, holes: Iterable[Span]) -> Iterator[Span]:
    """What `holes`, sorted, leave of `whole`."""
    position, end = whole
    for start, stop in holes:
        if start >= end:
            break
        if position < start:
            yield position, start
        position = max(position, stop)
    if position < end:
        yield position, end


def _cut(start: int, end: int, part_size: int) -> list[Part]:
    return [Part(0, offset, min(part_size, end - offset)) for offset in range(start, end, part_size)]


def _is_ours(path: Path, descriptor: int) -> bool:
    """Takes the claim on an open partial file; false if it is another's, or the name means another file by now."""
    outcome = locks.take(descriptor)
    if outcome != "taken":
        return outcome == "impossible"
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _ledger_paths(partial: Path) -> list[Path]:
    found = partial.parent.glob(f"{partial.name}-*")
    return [path for path in found if path.name[len(partial.name) + 1 :].isdecimal()]


def _read_ledgers(partial: Path) -> list[bytes]:
    found = []
    for path in _ledger_paths(partial):
        with suppress(FileNotFoundError), disk.open_regular(path) as file:
            found.append(file.read(_MAX_LEDGER_BYTES))
    return found


def _overwrite(path: Path, data: bytes) -> None:
    """In one stroke, so that a process that dies leaves the old ledger or the new one; then it is on the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
    try:
        os.write(descriptor, data)
        os.ftruncate(descriptor, len(data))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
