"""Models' files on a node: fetched from the server by their digests, checked on arrival, kept for the next load.

A file has its name only when all of it is there and right; before that it is a partial, with which the next fetch goes
on. Several workers of one node may want the same file at once: the first one fetches it.
"""

import asyncio
import contextlib
import os
import shutil
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import aiohttp

from corral import names
from corral.cluster.wire import WantedFile
from corral.errors import DiskFull, InvalidName, StoreError, Unreachable, reason_of
from corral.store.adoptions import hash_file
from corral.system import locks

PIECE = 1 << 20
"""Bytes that are read at once."""

CHECKED_BYTES = 64 << 20
"""After how many bytes of a file that is checked others can see that this goes on: a slow disk has them in seconds."""

SPARE_BYTES = 256 << 20
"""Bytes of the disk that are left free."""

CONNECT_SECONDS, SILENCE_SECONDS = 5.0, 30.0
"""How long connecting may take, and how long nothing may come of a file."""

WAIT_SECONDS = 0.1
"""Pause between two looks at a file that another worker fetches."""

TRIES = 3
"""How often a file is asked for whose connection breaks."""

Progress = Callable[[int], None]
"""Gets the bytes of a file that are there."""


class NodeFiles:
    """The files below one folder. What `get` returned is kept until `close`."""

    def __init__(self, folder: Path) -> None:
        self.checked = 0
        """Pieces read so far to see whether a file is the right one, by this worker or another of the node, about."""
        self._folder = folder
        self._held: list[BinaryIO] = []

    async def get(self, wanted: WantedFile, route: str, tls: ssl.SSLContext, shared: str, progress: Progress) -> Path:
        """A file, from a shared store where it has it, else from the folder, where it may have to be fetched to.

        `route` is the server's, `tls` how to ask it. `Unreachable` when it does not come, `StoreError` and `DiskFull`.
        """
        try:
            names.parse_digest(wanted.digest)
        except InvalidName as error:
            raise StoreError(f'"{wanted.digest}" is no digest') from error
        if shared and (found := await asyncio.to_thread(self._shared, wanted, Path(shared))) is not None:
            return found
        lock = await asyncio.to_thread(self._lock, wanted)
        self._held.append(lock)
        path = self._path(wanted)
        checks = _moment(path.with_suffix(".lock"))
        while not self._is_there(path, wanted, lock):
            if locks.take(lock.fileno()) == "held":  # another worker of this node fetches it
                await asyncio.sleep(WAIT_SECONDS)
                progress(_size(path.with_suffix(".partial")) or 0)
                before, checks = checks, _moment(path.with_suffix(".lock"))
                self.checked += checks != before
            elif _size(path) != wanted.size:
                await self._fetched(wanted, path, route, tls, progress)
        with contextlib.suppress(OSError):
            os.utime(path)  # those not used for longest go first
        return path

    def _is_there(self, path: Path, wanted: WantedFile, lock: BinaryIO) -> bool:
        """Whether all of a file is there; then it is kept from being removed."""
        if _size(path) != wanted.size or locks.take(lock.fileno(), shared=True) == "held":
            return False
        return _size(path) == wanted.size

    def close(self) -> None:
        """Lets go of all files."""
        for lock in self._held:
            lock.close()
        self._held.clear()

    def _path(self, wanted: WantedFile) -> Path:
        return self._folder / names.parse_digest(wanted.digest).filename

    def _step(self, lock: Path | None = None) -> None:
        """A piece of a file was checked. Others that wait for it see that by the time of its lock."""
        self.checked += 1
        if lock is not None:
            with contextlib.suppress(OSError):
                os.utime(lock)

    def _shared(self, wanted: WantedFile, folder: Path) -> Path | None:
        """The file in a shared store, once it was found to be the right one; None when it is not there."""
        path = folder / "blobs" / names.parse_digest(wanted.digest).filename
        if _size(path) != wanted.size:
            return None
        state = path.stat()
        note = self._folder / f"{path.name}.seen"
        mark = f"{path} {state.st_size} {state.st_mtime_ns} {state.st_ino}"
        with contextlib.suppress(OSError):
            if note.read_text() == mark:
                return path
        if digest_of(path, self._step) != wanted.digest:
            raise StoreError(f'"{path}" in the shared folder is not what its name says')
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            note.write_text(mark)
        return path

    def _lock(self, wanted: WantedFile) -> BinaryIO:
        """What is locked by who fetches the file, and by all who use it together."""
        path = self._path(wanted)
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            return open(path.with_suffix(".lock"), "ab")
        except OSError as error:
            raise StoreError(f'cannot write "{path}": {reason_of(error)}') from error

    async def _fetched(
        self, wanted: WantedFile, path: Path, route: str, tls: ssl.SSLContext, progress: Progress
    ) -> None:
        partial = path.with_suffix(".partial")
        await asyncio.to_thread(self._make_room, wanted, partial)
        for left in reversed(range(TRIES)):
            try:
                await self._fetch(wanted, partial, route, tls, progress)
                break
            except (aiohttp.ClientError, TimeoutError) as error:
                if not left:
                    raise Unreachable(
                        f"the server's file {wanted.digest[:19]} did not come: {error or 'timeout'}"
                    ) from error
            except OSError as error:
                raise StoreError(f'cannot write "{partial}": {reason_of(error)}') from error
        lock = partial.with_suffix(".lock")
        if await asyncio.to_thread(digest_of, partial, lambda: self._step(lock)) != wanted.digest:
            partial.unlink()
            raise StoreError(f"what came as {wanted.digest[:19]} is another file")
        partial.replace(path)

    async def _fetch(
        self, wanted: WantedFile, partial: Path, route: str, tls: ssl.SSLContext, progress: Progress
    ) -> None:
        """What is missing of a partial; one that is too long begins anew."""
        begun = _size(partial) or 0
        if begun > wanted.size:
            await asyncio.to_thread(partial.unlink)
            begun = 0
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
        headers = {"Range": f"bytes={begun}-"} if begun else {}
        if begun == wanted.size:
            return
        async with (
            aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session,
            session.get(f"{route}/{wanted.digest}", headers=headers, ssl=tls, allow_redirects=False) as response,
        ):
            if response.status != (206 if begun else 200):
                raise aiohttp.ClientPayloadError(f"it answered with status {response.status}")
            with partial.open("ab") as file:
                while piece := await response.content.read(PIECE):
                    begun += len(piece)
                    if begun > wanted.size:
                        raise aiohttp.ClientPayloadError("more came than was announced")
                    await asyncio.to_thread(file.write, piece)
                    progress(begun)
        if begun < wanted.size:
            raise aiohttp.ClientPayloadError("it ended early")

    def _make_room(self, wanted: WantedFile, partial: Path) -> None:
        """Removes files that nobody uses, those not used for longest first, while the disk has no room for this one."""
        needed = wanted.size - (_size(partial) or 0) + SPARE_BYTES
        others = sorted(
            (file for file in self._folder.glob("sha256-*") if file not in (partial, self._path(wanted))),
            key=lambda file: _moment(file),
        )
        for file in others:
            if shutil.disk_usage(self._folder).free >= needed:
                return
            if file.suffix in ("", ".partial"):
                _remove_unused(file)
        if shutil.disk_usage(self._folder).free < needed:
            raise DiskFull(f'"{self._folder}" has no room for {wanted.size} bytes more')


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _moment(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()


def digest_of(path: Path, step: Callable[[], None] = lambda: None) -> str:
    """A file's, as `sha256:…`. `step` is called after each `CHECKED_BYTES`. Blocks."""
    steps = 0

    def progress(done: int) -> None:
        nonlocal steps
        if done >= (steps + 1) * CHECKED_BYTES:
            steps += 1
            step()

    with path.open("rb", buffering=0) as file:
        return str(hash_file(file, progress))


def _remove_unused(file: Path) -> None:
    with contextlib.suppress(OSError), open(file.with_suffix(".lock"), "ab") as lock:
        if locks.take(lock.fileno()) == "taken":
            file.unlink()
