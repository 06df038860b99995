"""Responses kept on disk, so that a later request can go on from one by its id, also after a restart.

One file a response: what it was asked, what it answered, and which response it went on from. The oldest go first when
there are too many; none is kept for longer than `EXPIRY`. Blocking: to be called in a thread.
"""

import logging
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from corral.server.openai.errors import PreviousNotFound, ResponseNotFound
from corral.server.openai.responses.items import Item
from corral.system import private_files

log = logging.getLogger(__name__)

EXPIRY = 30 * 86400
"""Seconds after its last use until a response is forgotten."""

MAX_BYTES = 256 << 20
"""Of all that are kept together."""

MAX_CHAIN = 4096
"""Responses that one may go back on."""

_ID = re.compile(r"resp_[0-9a-f]{24}")
_ITEM_ID = re.compile(r"(?:msg|rs|fc|ctc)_([0-9a-f]{24})(?:_\d+)?")


class Kept(Struct, frozen=True):
    """A response as it is kept."""

    items: list[Item]
    """What the request brought."""
    response: dict[str, Any]
    previous: str = ""
    owner: str = ""
    """Whose it is (`Caller.owner`)."""

    @property
    def output(self) -> list[Item]:
        found: list[Item] = self.response["output"]
        return found


class KeptResponses:
    """The folder of responses, as `owner` may see it; `count` of them at most, none when it is 0."""

    def __init__(self, folder: Path, count: int, owner: str = "") -> None:
        self._folder = folder
        self._count = count
        self._owner = owner

    def keep(self, kept: Kept) -> None:
        """Writes one down; what cannot be written is done without."""
        if self._count <= 0:
            return
        data = msgspec.json.encode(msgspec.structs.replace(kept, owner=self._owner))
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            path = self._path(kept.response["id"])
            temporary = path.with_suffix(".new")
            with open(temporary, "xb", opener=private_files.opener) as file:
                file.write(data)
            temporary.replace(path)
            self._forget_old()
        except OSError as error:
            log.warning("a response is not kept: %s", error)

    def find(self, response_id: str) -> Kept:
        """A response, which counts as used now. `ResponseNotFound`."""
        found = self._read(response_id)
        if found is None:
            raise ResponseNotFound(response_id)
        return found

    def conversation(self, response_id: str) -> list[Item]:
        """All items up to the end of a response, from the first of those it goes back on. `PreviousNotFound`."""
        turns: list[list[Item]] = []
        at = response_id
        while at:
            kept = self._read(at) if len(turns) < MAX_CHAIN else None
            if kept is None:
                raise PreviousNotFound(at)
            turns.append([*kept.items, *kept.output])
            at = kept.previous
        return [item for turn in reversed(turns) for item in turn]

    def item(self, item_id: str) -> Item | None:
        """An item of a kept response, which its id leads to."""
        named = _ITEM_ID.fullmatch(item_id)
        kept = self._read(f"resp_{named[1]}") if named else None
        return next((item for item in kept.output if item.get("id") == item_id), None) if kept else None

    def delete(self, response_id: str) -> None:
        """`ResponseNotFound` when there is none."""
        self.find(response_id)
        with suppress(OSError):
            self._path(response_id).unlink(missing_ok=True)

    def _path(self, response_id: str) -> Path:
        return self._folder / f"{response_id}.json"

    def _read(self, response_id: str) -> Kept | None:
        """None for an id that cannot be one, for what is not there, too old or another's, and for a damaged file."""
        if not _ID.fullmatch(response_id):
            return None
        path = self._path(response_id)
        try:
            if path.stat().st_mtime < time.time() - EXPIRY:
                return None
            kept = msgspec.json.decode(path.read_bytes(), type=Kept)
            if kept.owner != self._owner:
                return None
            path.touch()
        except (OSError, msgspec.MsgspecError):
            return None
        return kept

    def _forget_old(self) -> None:
        """Removes what is too old, too many or too large, the longest unused first."""
        found = []
        for path in self._folder.glob("resp_*"):
            with suppress(OSError):
                state = path.stat()
                found.append((state.st_mtime, state.st_size, path))
        found.sort(key=lambda entry: entry[0], reverse=True)
        size, oldest = 0, time.time() - EXPIRY
        for number, (used, bytes_, path) in enumerate(found):
            size += bytes_
            if number >= self._count or size > MAX_BYTES or used < oldest:
                path.unlink(missing_ok=True)
