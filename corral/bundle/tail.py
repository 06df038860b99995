"""The archive behind the weights, as it is written: nothing in it is compressed, and weights begin at whole pages.

Offsets in its directory count from where the archive begins and not from the file's beginning, so that no archive of
less than 4 GiB needs zip64, whatever lies in front; Python's readers find it by its end.
"""

import hashlib
import io
import os
import zipfile
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

from corral.background import Report
from corral.errors import BadRequest, StoreError
from corral.models.assemble import throttled_progress
from corral.store import Layer, Store, disk
from corral.system.files import block_size

PAGE = 4096
MAX_TAIL = (1 << 32) - (64 << 20)
"""Bytes of an archive without zip64, with room for its directory."""
_LOCAL_BYTES, _ZIP64_BYTES = 30, 20
"""A local header without its name, and the extra field for large sizes (APPNOTE 4.3.7, 4.5.3)."""
_PADDING = b"\xff\xff"
"""The kind of an extra field that means nothing."""


class Tail:
    """The archive, from `start` on in a file. A context manager: the directory is written when the block ends well."""

    def __init__(self, file: FileIO, start: int) -> None:
        self._shifted = _Shifted(file, start)
        self._start = start
        self._archive = zipfile.ZipFile(self._shifted, "w", zipfile.ZIP_STORED, allowZip64=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self._archive.close()

    def add(self, member: str, data: bytes) -> None:
        self._archive.writestr(member_info(member), data)

    def add_file(self, member: str, source: Path) -> None:
        """A file of at most some hundred megabytes."""
        self._check_room(source.stat().st_size)
        with source.open("rb") as file, self._archive.open(member_info(member), "w") as target:
            while chunk := file.read(disk.COPY_BYTES):
                target.write(chunk)

    def add_blob(self, member: str, store: Store, layer: Layer, report: Report) -> None:
        """A blob of the store, at a whole page of the file if it fills one; `StoreError` for one that is damaged."""
        self._check_room(layer.size)
        if layer.size < PAGE:
            self.add(member, b"".join(checked(store, layer, report)))
        else:
            add_aligned(self._archive, self._start + self._shifted.tell(), member, store, layer, report)

    def _check_room(self, size: int) -> None:
        if self._shifted.tell() + size > MAX_TAIL:
            raise BadRequest("projectors, adapters and packages of more than 4 GB together do not fit into a bundle")


def copied(store: Store, layer: Layer, file: FileIO, report: Report) -> None:
    """Puts a blob's bytes at the beginning of an empty file, on shared disk blocks where the file system can.

    `StoreError` if they are not those of its digest.
    """
    with disk.open_regular(store.open_path(layer.digest)) as blob:
        block = block_size(store.blobs_folder)
        whole = layer.size // block * block
        cloned = whole if whole and disk.clone_range(blob, 0, file, 0, whole) else 0
    file.seek(cloned)
    done = 0
    for chunk in checked(store, layer, report):
        if done + len(chunk) > cloned:
            disk.write_all(file, memoryview(chunk)[max(cloned - done, 0) :])
        done += len(chunk)


def checked(store: Store, layer: Layer, report: Report) -> Iterator[bytes]:
    """A blob's bytes in pieces; `StoreError` at their end when they are not those of its digest."""
    state, done = hashlib.sha256(), 0
    count = throttled_progress(report, f"bundling {layer.digest.short}", str(layer.digest), layer.size)
    with disk.open_regular(store.open_path(layer.digest)) as blob:
        while done < layer.size and (chunk := blob.read(min(disk.COPY_BYTES, layer.size - done))):
            state.update(chunk)
            done += len(chunk)
            count(done)
            yield chunk
    if done != layer.size or state.hexdigest() != layer.digest.hex:
        raise StoreError(f'blob "{layer.digest}" is damaged: remove its model and pull it again')


def add_aligned(
    archive: zipfile.ZipFile,
    begin: int,
    member: str,
    store: Store,
    layer: Layer,
    report: Report,
    *,
    zip64: bool = False,
) -> None:
    """Adds a blob to an archive, whose next member is at `begin` of its file, so that its bytes begin at a whole page.

    `zip64`: with the sizes that need more than 32 bits. Errors: as of `checked`.
    """
    info = member_info(member)
    info.file_size = layer.size
    info.extra = _padding(begin + _LOCAL_BYTES + len(member) + (_ZIP64_BYTES if zip64 else 0))
    with archive.open(info, "w", force_zip64=zip64) as target:
        for chunk in checked(store, layer, report):
            target.write(chunk)
    info.extra = b""  # only the local header needs it


def _padding(begin: int) -> bytes:
    """The extra field at the offset `begin` of a file behind which a page begins."""
    padding = -(begin + len(_PADDING) + 2) % PAGE
    return _PADDING + padding.to_bytes(2, "little") + bytes(padding)


def member_info(member: str) -> zipfile.ZipInfo:
    """What is said of a file in an archive. Its date is always the same, so that the same bundle has the same bytes."""
    info = zipfile.ZipInfo(member)
    info.external_attr = 0o644 << 16
    return info


class _Shifted(io.RawIOBase):
    """A file that is being written, whose offset 0 is at `start` of another."""

    def __init__(self, file: FileIO, start: int) -> None:
        self._file = file
        self._start = start
        file.seek(start)

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def write(self, data: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]
        disk.write_all(self._file, data)
        return len(data)

    def tell(self) -> int:
        return self._file.tell() - self._start

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        moved = self._file.seek(offset + self._start if whence == os.SEEK_SET else offset, whence)
        return moved - self._start
