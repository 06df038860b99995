"""Conversations kept on disk while their model is not loaded: slots written by llama-server, and read into it again.

A conversation is two files of one name: `.state`, the KV cache as the engine writes it, and `.json`, our record of it,
which appears last, so that nothing half-written is ever found. A state begins with its tokens. It is given to the
engine only for a prompt that begins with them, and only when its bytes are those that were written: the engine checks
neither. Knows no request and no connection; what bounds the folder is the business of who gave it.
"""

import array
import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import zlib
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from corral.engine.base import Keeping
from corral.engine.llama import wire
from corral.errors import EngineError

log = logging.getLogger(__name__)

LEAST_TOKENS = 256
"""Tokens that are worth a file, or reading one: fewer are computed in about the time of that."""

SPARE_BYTES = 1 << 30
"""Disk space that is left free."""

_MAGIC, _PACKED, _MOST_TOKENS = 0x67677371, -1, 1 << 24
_CHUNK = 1 << 20

Ask = Callable[[str, str, Any], Awaitable[Any]]
"""Asks the engine: method, path and JSON body; gives the JSON of its answer."""

Recall = Callable[[Sequence[int]], Awaitable[int | None]]
"""Has the engine put a prompt into a slot, and returns that slot's id; None if its cache does not have most of it."""


class Record(Struct, frozen=True):
    """What a state file is to be: its bytes, and their CRC-32."""

    size: int
    crc: int


class Kept(Struct, frozen=True):
    """A conversation on disk."""

    path: Path
    """Its state; the record lies beside it."""
    record: Record
    tokens: "array.array[int]"


class KeptConversations:
    """Those of one loaded model. Their folder exists and holds only what an engine loaded in the same way has written.

    `bytes_per_token` says about how large a file will be.
    """

    def __init__(self, keeping: Keeping, ask: Ask, bytes_per_token: int) -> None:
        self._folder = Path(keeping.folder)
        self._ask = ask
        self._most_bytes = keeping.most_bytes
        self._written = keeping.written
        self._bytes_per_token = bytes_per_token
        self._kept: list[Kept] | None = None
        self._restored: list[Kept] = []
        self._restoring = asyncio.Lock()

    async def restore(self, tokens: Sequence[int]) -> bool:
        """Puts the conversation that begins most like a prompt into a slot, unless that would spare few tokens.

        Returns whether it did; an engine that refuses, or a file that is not as it was written, only costs time.
        """
        async with self._restoring:
            kept = await self._known()
            wanted = array.array("i", tokens)
            known = max((common(one.tokens, wanted) for one in self._restored), default=0)
            best = max(kept, key=lambda one: common(one.tokens, wanted), default=None)
            if best is None or common(best.tokens, wanted) < known + LEAST_TOKENS:
                return False
            kept.remove(best)  # it is tried once a load
            try:
                return await self._restore(best)
            except (EngineError, msgspec.ValidationError) as error:
                log.info("a saved conversation is not gone on with: %s", error)
                return False

    async def may_help(self, prompt: str | tuple[int, ...]) -> bool:
        """Whether it is worthwhile to find the tokens of a prompt. A text has no more of them than bytes."""
        return len(prompt.encode() if isinstance(prompt, str) else prompt) >= LEAST_TOKENS and bool(await self._known())

    async def _restore(self, one: Kept) -> bool:
        if not await asyncio.to_thread(is_whole, one):
            await asyncio.to_thread(_remove, one.path)
            return False
        idle = [slot for slot in await self._slots() if not slot.is_processing]
        if not idle:
            return False
        slot = min(idle, key=lambda slot: slot.n_prompt_tokens)
        if slot.n_prompt_tokens >= LEAST_TOKENS:
            await self._save(slot)  # what lies in the slot would be lost
        await self._ask("POST", f"/slots/{slot.id}?action=restore", {"filename": one.path.name})
        self._restored.append(one)
        with contextlib.suppress(OSError):
            os.utime(one.path)
        return True

    async def save(self) -> None:
        """Writes what idle slots hold, as far as it is worth a file and there is room."""
        with contextlib.suppress(EngineError, msgspec.ValidationError):
            for slot in await self._slots():
                if not slot.is_processing and slot.n_prompt_tokens >= LEAST_TOKENS:
                    await self._save(slot)

    async def save_recalled(self, prompts: AsyncIterable[Sequence[int]], recall: Recall) -> None:
        """Writes what the engine has in its prompt cache of `prompts`, in this order: one after the other is put into
        a slot. `save` has been called before, since what lies there goes."""
        with contextlib.suppress(EngineError, msgspec.ValidationError):
            async for prompt in prompts:
                known = [*await self._known(), *self._restored]
                wanted = array.array("i", prompt)
                saved = max((common(one.tokens, wanted) for one in known), default=0)
                if len(wanted) < saved + LEAST_TOKENS or (place := await recall(prompt)) is None:
                    continue
                for slot in await self._slots():
                    if slot.id == place:
                        await self._save(slot)

    async def _save(self, slot: wire.Slot) -> None:
        expected = slot.n_prompt_tokens * self._bytes_per_token
        if expected > self._most_bytes or not await asyncio.to_thread(self._has_room, expected):
            return
        path = self._folder / f"new-{secrets.token_hex(8)}.state"
        try:
            body = {"filename": path.name}
            saved = msgspec.convert(await self._ask("POST", f"/slots/{slot.id}?action=save", body), wire.SavedSlot)
            known = [*await self._known(), *self._restored]
            made = await asyncio.to_thread(_publish, path, saved.n_written, known)
        except OSError as error:
            log.warning("a conversation could not be saved: %s", error)
        else:
            if made is not None:
                self._restored.append(made)
                await asyncio.to_thread(self._written)
        finally:
            with contextlib.suppress(OSError):
                path.unlink()

    async def _slots(self) -> list[wire.Slot]:
        return msgspec.convert(await self._ask("GET", "/slots", None), list[wire.Slot])

    async def _known(self) -> list[Kept]:
        if self._kept is None:
            self._kept = await asyncio.to_thread(read_folder, self._folder)
        return self._kept

    def _has_room(self, size: int) -> bool:
        try:
            return shutil.disk_usage(self._folder).free >= size + SPARE_BYTES
        except OSError:
            return False


def common(one: "array.array[int]", other: "array.array[int]") -> int:
    """How many tokens two lists have in common from their beginning."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def read_folder(folder: Path) -> list[Kept]:
    """The conversations in a folder, without those whose state or record cannot be read."""
    found = []
    for note in folder.glob("*.json"):
        path = note.with_suffix(".state")
        with contextlib.suppress(OSError, ValueError, msgspec.MsgspecError):
            record = msgspec.json.decode(note.read_bytes(), type=Record)
            if path.stat().st_size == record.size:
                found.append(Kept(path, record, read_tokens(path)))
    return found


def read_tokens(path: Path) -> "array.array[int]":
    """The tokens a state file begins with: as they are, or packed with their number. `ValueError` for other files."""
    with path.open("rb") as file:
        head = _numbers(file.read(12), 3)
        count = head[2]
        if head[0] != _MAGIC or not 0 <= count <= _MOST_TOKENS:
            raise ValueError("no state of a slot")
        tokens = _numbers(file.read(4 * count), count)
    if count >= 3 and tokens[0] == _PACKED:
        length, rest = tokens[2], tokens[3:]
        if tokens[1] != 1 or not 0 <= length <= len(rest) or any(rest[length:]):  # behind them: pictures
            raise ValueError("a state that is not text alone")
        tokens = rest[:length]
    if tokens and min(tokens) < 0:
        raise ValueError("a state that is not text alone")
    return tokens


def _numbers(data: bytes, count: int) -> "array.array[int]":
    if len(data) != 4 * count:
        raise ValueError("a state that is cut off")
    numbers = array.array("i")
    numbers.frombytes(data)
    return numbers


def is_whole(one: Kept) -> bool:
    """Whether a state still has the bytes that were written."""
    try:
        return one.path.stat().st_size == one.record.size and _crc(one.path) == one.record.crc
    except OSError:
        return False


def _crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc


def _publish(new: Path, size: int, known: Sequence[Kept]) -> Kept | None:
    """Gives a state that was written its name and its record; None if it is incomplete or adds nothing to the known.

    Shorter beginnings of the same conversation go.
    """
    new.chmod(0o600)
    if new.stat().st_size != size:
        return None
    try:
        tokens = read_tokens(new)
    except ValueError as error:
        log.info("a conversation is not saved: %s", error)
        return None
    if len(tokens) < LEAST_TOKENS or any(common(one.tokens, tokens) == len(tokens) for one in known):
        return None
    made = Kept(new.with_name(new.name.removeprefix("new-")), Record(size, _crc(new)), tokens)
    new.rename(made.path)
    note = made.path.with_suffix(".json")
    written = new.with_suffix(".json")
    written.touch(0o600)
    written.write_bytes(msgspec.json.encode(made.record))
    written.rename(note)
    for one in known:
        if common(one.tokens, tokens) == len(one.tokens):
            _remove(one.path)
    return made


def _remove(path: Path) -> None:
    for file in (path.with_suffix(".json"), path):
        with contextlib.suppress(OSError):
            file.unlink()
