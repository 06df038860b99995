"""Conversations on disk: what is found again, what is refused, what goes first."""

import array
import asyncio
import os
import stat
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.engine.base import Keeping
from corral.engine.llama import kept
from corral.engine.llama.kept import KeptConversations, common, read_folder, read_tokens
from corral.errors import EngineRefused
from corral.names import parse_digest
from corral.store.conversations import Conversations

DIGEST = parse_digest("sha256:" + "ab" * 32)
LONG = list(range(1000, 1400))


def state(tokens: list[int], behind: tuple[int, ...] = (0,)) -> bytes:
    """A state as the engine writes it: its tokens packed, then numbers that only the engine knows."""
    packed = [-1, 1, len(tokens), *tokens, *behind]
    return struct.pack(f"<{3 + len(packed)}i", 0x67677371, 4, len(packed), *packed) + b"cells" * 100


class Worker:
    """llama-server's slots as far as they are saved and restored; `slots` has the tokens of each."""

    def __init__(self, folder: Path, slots: list[list[int]]) -> None:
        self.folder, self.slots = folder, slots
        self.busy: set[int] = set()
        self.has_route = True
        self.cut = 0
        self.asked: list[str] = []

    async def ask(self, method: str, path: str, body: Any) -> Any:
        self.asked.append(path)
        if path == "/slots":
            return [
                {"id": n, "is_processing": n in self.busy, "n_prompt_tokens": len(tokens)}
                for n, tokens in enumerate(self.slots)
            ]
        if not self.has_route:
            raise EngineRefused("This server does not support slots action", code=501)
        slot, action = path.removeprefix("/slots/").split("?action=")
        file = self.folder / body["filename"]
        if action == "save":
            data = state(self.slots[int(slot)])
            file.write_bytes(data[: len(data) - self.cut])
            return {"n_saved": len(self.slots[int(slot)]), "n_written": len(data)}
        self.slots[int(slot)] = list(read_tokens(file))
        return {"n_restored": len(self.slots[int(slot)])}


def conversations(worker: Worker, most_bytes: int = 1 << 30) -> KeptConversations:
    return KeptConversations(Keeping(str(worker.folder), most_bytes), worker.ask, 10)


def saved(folder: Path, *slots: list[int]) -> Worker:
    """A worker with empty slots, after another one with these was unloaded."""
    before = Worker(folder, list(slots))
    asyncio.run(conversations(before).save())
    return Worker(folder, [[], []])


def test_a_conversation_is_saved_and_restored_to_an_empty_slot(tmp_path: Path) -> None:
    worker = saved(tmp_path, LONG, [])
    assert asyncio.run(conversations(worker).restore([*LONG, 5, 6]))
    assert worker.slots == [LONG, []]
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_short_busy_and_known_slots_are_not_saved(tmp_path: Path) -> None:
    worker = Worker(tmp_path, [LONG[:200], LONG])
    worker.busy = {1}
    asyncio.run(conversations(worker).save())
    assert not list(tmp_path.iterdir())
    saved(tmp_path, LONG)
    saved(tmp_path, LONG[:300])
    assert [len(one.tokens) for one in read_folder(tmp_path)] == [400]


def test_a_longer_conversation_replaces_its_beginning(tmp_path: Path) -> None:
    saved(tmp_path, LONG[:300])
    saved(tmp_path, LONG)
    assert [len(one.tokens) for one in read_folder(tmp_path)] == [400]
    assert len(list(tmp_path.iterdir())) == 2


def test_only_a_prompt_that_begins_alike_restores(tmp_path: Path) -> None:
    worker = saved(tmp_path, LONG)
    assert not asyncio.run(conversations(worker).restore([*LONG[:200], *range(300)]))
    assert worker.slots == [[], []]


def test_the_longest_beginning_is_chosen_and_restored_once(tmp_path: Path) -> None:
    first, second = LONG[:300] + [1] * 100, LONG[:300] + [2] * 300
    worker = saved(tmp_path, first, second)

    async def twice() -> list[bool]:
        one = conversations(worker)
        return [await one.restore([*second, 3]), await one.restore([*second, 3]), await one.restore(LONG)]

    assert asyncio.run(twice()) == [True, False, False]
    assert worker.slots == [second, []]


def test_what_lies_in_the_only_slot_is_saved_before_it_is_replaced(tmp_path: Path) -> None:
    worker = saved(tmp_path, LONG)
    other = list(range(5000, 5300))
    worker.slots = [other]
    assert asyncio.run(conversations(worker).restore(LONG))
    assert sorted(len(one.tokens) for one in read_folder(tmp_path)) == [300, 400]


@pytest.mark.parametrize("damage", ["cut", "bit", "tokens", "record", "gone"])
def test_a_damaged_file_never_reaches_the_engine(tmp_path: Path, damage: str) -> None:
    worker = saved(tmp_path, LONG)
    [one] = read_folder(tmp_path)
    data = bytearray(one.path.read_bytes())
    match damage:
        case "cut":
            one.path.write_bytes(data[:-7])
        case "bit":
            data[-3] ^= 4
            one.path.write_bytes(data)
        case "tokens":
            data[12:16] = struct.pack("<i", 1 << 30)
            one.path.write_bytes(data)
        case "record":
            one.path.with_suffix(".json").write_bytes(b"{")
        case "gone":
            one.path.unlink()
    assert not asyncio.run(conversations(worker).restore(LONG))
    assert not any("restore" in path for path in worker.asked)


def test_a_state_that_is_not_all_written_is_not_kept(tmp_path: Path) -> None:
    worker = Worker(tmp_path, [LONG])
    worker.cut = 50  # the disk is full
    asyncio.run(conversations(worker).save())
    assert not list(tmp_path.iterdir())


def test_pictures_and_servers_without_the_route_keep_nothing(tmp_path: Path) -> None:
    file = tmp_path / "picture.state"
    file.write_bytes(state(LONG, behind=(1, 3)))
    with pytest.raises(ValueError, match="not text alone"):
        read_tokens(file)
    file.unlink()
    worker = Worker(tmp_path, [LONG])
    worker.has_route = False
    asyncio.run(conversations(worker).save())
    assert not list(tmp_path.iterdir())


def test_no_room_on_the_disk_saves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "SPARE_BYTES", 1 << 62)
    worker = Worker(tmp_path, [LONG])
    asyncio.run(conversations(worker).save())
    assert worker.asked == ["/slots"]
    asyncio.run(conversations(worker, most_bytes=100).save())
    assert not list(tmp_path.iterdir())


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
def test_common_counts_from_the_beginning(one: list[int], other: list[int]) -> None:
    count = common(array.array("i", one), array.array("i", other))
    assert one[:count] == other[:count]
    assert one[: count + 1] != other[: count + 1] or count == min(len(one), len(other))


def test_the_folder_is_bounded_private_and_goes_with_its_model(tmp_path: Path) -> None:
    store = Conversations(tmp_path / "conversations")
    place = store.place(DIGEST, "way")
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in (store.folder, place.parent, place)] == [0o700] * 3
    for number in range(4):
        for suffix, size in ((".state", 100), (".json", 10)):
            file = place / f"{number}{suffix}"
            file.write_bytes(bytes(size))
            os.utime(file, (number, number))
    os.utime(place / "0.state", (9, 9))
    store.trim(250)
    assert sorted({file.stem for file in place.iterdir()}) == ["0", "3"]
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / DIGEST.filename).touch()
    left = place / "new-1.state"
    left.touch()
    os.utime(left, (1, 1))
    store.tidy(tmp_path / "blobs")
    assert not left.exists()
    assert len(list(place.iterdir())) == 4
    store.forget(DIGEST)
    assert not store.folder.exists()
