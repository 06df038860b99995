"""What is recorded of a download that is not finished, and believed of such records."""

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.errors import StoreError
from corral.sources.registry import ledger
from corral.sources.registry.ledger import Part, decode, encode, open_partial

TOTAL = 1000


def spans_of(points: set[int]) -> list[tuple[int, int]]:
    """Disjoint spans between sorted points."""
    ordered = sorted(points)
    return list(zip(ordered[::2], ordered[1::2], strict=False))


@given(points=st.sets(st.integers(0, TOTAL)), part_size=st.integers(1, TOTAL + 1))
def test_what_is_recorded_is_what_is_read(points: set[int], part_size: int) -> None:
    missing = spans_of(points)
    parts, _ = decode((), TOTAL, part_size)
    read, found = decode([encode(part, missing) for part in parts], TOTAL, part_size)
    assert read == parts
    assert found == missing


@given(
    ledgers=st.lists(
        st.one_of(
            st.binary(max_size=50),
            st.fixed_dictionaries(
                {key: st.integers(-10, TOTAL + 10) for key in ("N", "Offset", "Size", "Completed")},
                optional={"Ranges": st.lists(st.lists(st.integers(-10, TOTAL + 10), max_size=3), max_size=3)},
            ).map(lambda record: json.dumps(record).encode()),
        ),
        max_size=6,
    )
)
def test_whatever_is_recorded_the_parts_make_up_the_blob(ledgers: list[bytes]) -> None:
    parts, missing = decode(ledgers, TOTAL, 300)
    ends = [0, *(part.end for part in parts)]
    assert [part.offset for part in parts] == ends[:-1]
    assert ends[-1] == TOTAL
    assert [part.number for part in parts] == list(range(len(parts)))
    edges = [edge for span in missing for edge in span]
    assert edges == sorted(set(edges))
    assert not edges or 0 <= edges[0] < edges[-1] <= TOTAL


def test_a_ledger_looks_as_ollama_writes_it() -> None:
    text = encode(Part(2, 200, 100), [(0, 50), (240, 250), (260, 400)])
    assert text == b'{"N":2,"Offset":200,"Size":100,"Completed":40,"Ranges":[[250,260]]}\n'


def test_only_the_first_line_of_a_ledger_counts() -> None:
    """A process that dies between writing a shorter ledger and cutting the file leaves the end of the longer one."""
    whole = [b'{"N":0,"Offset":0,"Size":1000,"Completed":600}\n"Ranges":[[700,800]]}\n']
    assert decode(whole, TOTAL, 1000) == ([Part(0, 0, 1000)], [(600, 1000)])


@pytest.mark.parametrize(
    ("total", "expected"),
    [(10, 100_000_000), (1_600_000_001, 100_000_000), (8_000_000_000, 500_000_000), (10**12, 1_000_000_000)],
)
def test_parts_are_a_sixteenth_within_bounds(total: int, expected: int) -> None:
    assert ledger.part_bytes(total) == expected


def test_a_ledger_without_its_bytes_is_not_believed(tmp_path: Path) -> None:
    blob = tmp_path / ("sha256-" + "0" * 64)
    ledger.partial_path(blob).write_bytes(b"x" * 30)
    ledger.ledger_path(ledger.partial_path(blob), 0).write_bytes(encode(Part(0, 0, 100), [(80, 100)]))
    partial = open_partial(blob, 100, 100)
    assert partial is not None
    assert partial.missing == [(30, 100)]
    partial.close()


def test_ledgers_of_parts_that_there_are_not_are_removed(tmp_path: Path) -> None:
    blob = tmp_path / ("sha256-" + "0" * 64)
    for number in (0, 5, 77):
        ledger.ledger_path(ledger.partial_path(blob), number).write_bytes(b"nonsense")
    partial = open_partial(blob, 100, 50)
    assert partial is not None
    assert sorted(path.name.rpartition("-")[2] for path in tmp_path.iterdir()) == ["0", "1", "partial"]
    partial.remove()
    partial.close()
    assert list(tmp_path.iterdir()) == []


def test_a_partial_file_has_one_owner_at_a_time(tmp_path: Path) -> None:
    blob = tmp_path / ("sha256-" + "0" * 64)
    first = open_partial(blob, 100, 100)
    assert first is not None
    assert open_partial(blob, 100, 100) is None
    first.close()
    second = open_partial(blob, 100, 100)
    assert second is not None
    second.close()


def test_a_partial_file_that_leads_elsewhere_is_not_followed(tmp_path: Path) -> None:
    blob = tmp_path / ("sha256-" + "0" * 64)
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    ledger.partial_path(blob).symlink_to(victim)
    with pytest.raises(StoreError):
        open_partial(blob, 100, 100)
    assert victim.read_bytes() == b"precious"


class PowerCut:
    """Keeps what is surely on the disk: bytes of files that were flushed, names in folders that were flushed."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._bytes: dict[int, bytes] = {}
        self._names: dict[str, int] = {}
        self.moments: list[dict[str, bytes]] = []
        """What would be found after a power cut, at each flush."""
        flush = os.fsync

        def noted(descriptor: int) -> None:
            flush(descriptor)
            status = os.fstat(descriptor)
            paths = list(folder.iterdir())
            if stat.S_ISDIR(status.st_mode):
                self._names = {path.name: path.stat().st_ino for path in paths}
            for path in paths:
                if path.stat().st_ino == status.st_ino:
                    self._bytes[status.st_ino] = path.read_bytes()
            self.moments.append(self.found)

        monkeypatch.setattr(os, "fsync", noted)

    @property
    def found(self) -> dict[str, bytes]:
        """A file whose bytes were never flushed has none, or zeros."""
        return {name: self._bytes.get(inode, b"") for name, inode in self._names.items()}


def restored(folder: Path, found: Mapping[str, bytes]) -> Path:
    """The blob's path in a folder as it is after a power cut."""
    folder.mkdir()
    for name, data in found.items():
        (folder / name).write_bytes(data)
    return folder / "blob"


def test_what_was_saved_counts_after_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "blobs").mkdir()
    cut = PowerCut(tmp_path / "blobs", monkeypatch)
    partial = open_partial(tmp_path / "blobs" / "blob", TOTAL, 300)
    assert partial is not None
    for number, missing in enumerate([[(100, TOTAL)], [(100, 350), (450, TOTAL)], [(450, TOTAL)], [(450, 999)]]):
        for start, end in spans_without(missing):
            partial.write(start, [b"x" * (end - start)])
        partial.save(missing)
        again = open_partial(restored(tmp_path / f"after-{number}", cut.found), TOTAL, 300)
        assert again is not None
        assert again.missing == missing
        again.close()
    partial.close()


def test_no_moment_of_a_power_cut_leaves_a_ledger_that_claims_more_than_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "blobs").mkdir()
    cut = PowerCut(tmp_path / "blobs", monkeypatch)
    partial = open_partial(tmp_path / "blobs" / "blob", TOTAL, 300)
    assert partial is not None
    for missing in ([(100, TOTAL)], [(100, 350), (450, TOTAL)], [(990, TOTAL)]):
        for start, end in spans_without(missing):
            partial.write(start, [b"x" * (end - start)])
        partial.save(missing)
    partial.write(0, [b"x" * TOTAL])
    partial.save([])
    partial.commit(tmp_path / "blobs" / "blob")
    partial.close()
    assert cut.found["blob"] == b"x" * TOTAL
    monkeypatch.undo()
    for number, found in enumerate(cut.moments):
        if found.get("blob"):
            continue
        again = open_partial(restored(tmp_path / f"after-{number}", found), TOTAL, 300)
        assert again is not None
        data = again.path.read_bytes()
        assert all(data[start:end].strip(b"x") == b"" for start, end in spans_without(again.missing))
        again.close()


def spans_without(missing: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """What is there of the blob."""
    edges = [0, *(edge for span in missing for edge in span), TOTAL]
    return [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if start < end]
