"""Writes derived files, in a child process: what the engine is given of a published file. Decides nothing about them.

Three ways, the cheapest that goes: the whole file on the published file's own disk blocks, with another header of the
same length; a split set whose parts share stretches of its blocks; a copy. The first two need a file system that shares
blocks. A projector is one file, as the engine takes no sets of them; since it leaves tensors alone that it does not ask
for, empty ones among the others bring stretches to where they can share blocks.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from io import FileIO
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from corral import gguf, published
from corral.background import Report
from corral.errors import ModelFileError
from corral.gguf import GGUF, Tensor, ValueType
from corral.gguf.types import DEFAULT_ALIGNMENT
from corral.gguf.writer import encode, layout, new_tensor
from corral.published import arithmetic
from corral.published.plan import Part
from corral.published.recipe import Kept, Recipe, Zeros
from corral.store import disk
from corral.store.derived import Made, MadeFile, Way, step
from corral.system import files

MAX_PARTS = 16
"""Files a split set may have; a model whose tensors lie in more pieces than that is copied."""

PADDING = "corral.padding"
"""The key whose text fills a header up to a length."""

LEAST_SHARED = 8
"""Blocks that a stretch of a projector has at least, for an empty tensor before it to be worth its room."""

_PADDING_COST = 8 + len(PADDING) + 4 + 8


class Sharing(Protocol):
    """Files that share disk blocks, where the file system can."""

    def clone(self, source: FileIO, target: Path) -> bool:
        """Makes `target` all of the source, as a new file."""
        ...

    def clone_range(self, source: FileIO, offset: int, target: FileIO, target_offset: int, length: int) -> bool:
        """Makes a stretch of `target`, all in multiples of the block size, one of the source."""
        ...


def derive(source: Path, rules: str, target: Path, report: Report) -> Made:
    """Makes the files of a published file's plan in the folder `target`; `rules` are those the caller knows it by.

    `ModelFileError` when the file is no longer the same or does not come out as planned, `StoreError`, `DiskFull`.
    """
    return write(source, rules, target, disk, report)


def write(source: Path, rules: str, target: Path, sharing: Sharing, report: Report) -> Made:
    """The same with another way of sharing blocks."""
    file = gguf.read_structure(source)
    plan = published.plan(file)
    if plan is None or plan.rules != rules:
        raise ModelFileError(f'"{source}" was changed while it was prepared for the engine')
    total = sum(part.layout().size for part in plan.parts)
    with disk.explained(target, "writing"), ExitStack() as stack:
        writing = _Writing(file, stack.enter_context(disk.open_regular(source)), target, sharing, report, total)
        text = writing.text(plan.text) if plan.text else ""
        projector = writing.projector(plan.projector) if plan.projector else ""
        writing.end()
    return Made(tuple(writing.files), text, projector, writing.way)


class _Run(Struct, frozen=True):
    """Tensors whose bytes lie behind each other in the published file, or one that is computed (`offset` −1)."""

    recipes: tuple[Recipe, ...]
    offset: int
    size: int
    """Bytes, with the padding between tensors but not behind the last."""


class _Writing:
    """One run of `write`: files come one after the other, `files` says which there are."""

    def __init__(self, file: GGUF, opened: FileIO, target: Path, sharing: Sharing, report: Report, total: int) -> None:
        self._file = file
        self._opened = opened
        self._target = target
        self._sharing = sharing
        self._report = report
        self._total = total
        self._done = 0
        self.files: list[MadeFile] = []
        self.way: Way = "copy"

    def text(self, part: Part) -> str:
        """Writes the model's own part; the name of its file, or of the first."""
        runs = _runs(part)
        if len(runs) == 1 and self._clone(part, runs[0]):
            return self.files[-1].name
        if all(run.offset >= 0 for run in runs) and len(runs) < MAX_PARTS and self._split(part, runs):
            return self.files[0].name
        return self.whole(part, "text.gguf")

    def projector(self, part: Part) -> str:
        """Writes an encoder, long stretches of it on the published file's blocks; the name of its file."""
        name, block, done = "projector.gguf", files.block_size(self._target), self._done
        aligned = _aligned(part, block)
        if aligned is not None and self._file_of(aligned, name, block):
            return name
        (self._target / name).unlink(missing_ok=True)
        self._done = done
        return self.whole(part, name)

    def whole(self, part: Part, name: str) -> str:
        """Writes a part as one file: stretches that are kept are copied, the rest is computed."""
        self._file_of(part, name)
        return name

    def _file_of(self, part: Part, name: str, block: int = 0) -> bool:
        """Writes a part as one file. With a `block`, long stretches share blocks; false where they cannot."""
        laid_out, shared = part.layout(), 0
        with disk.create(self._target / name) as file:
            disk.write_all(file, laid_out.header)
            for run in _runs(part):
                if run.offset < 0:
                    self._compute(run.recipes[0], file)
                elif block and run.size >= LEAST_SHARED * block:
                    length = self._share_run(run, file, block)
                    if not length:
                        return False
                    shared += length
                else:
                    self._copy(run.offset, run.size, file)
                disk.write_all(file, bytes(-file.tell() % part.alignment))
            disk.flush(file)
        self._made(name, shared)
        self._check(name, laid_out.tensors)
        return True

    def _clone(self, part: Part, run: _Run) -> bool:
        """The blob's own blocks with another header over its own, if that has room and nothing lies before the run."""
        if run.offset != self._file.data_offset:
            return False
        header = _padded(part, run.recipes, run.offset)
        path = self._target / "text.gguf"
        if header is None or not self._sharing.clone(self._opened, path):
            return False
        with open(path, "r+b", buffering=0) as file:
            disk.write_all(file, header)
            file.truncate(run.offset + run.size + -run.size % part.alignment)
            disk.flush(file)
        self._advance(run.size)
        self._made(path.name, run.size)
        self._check(path.name, None)
        self.way = "clone"
        return True

    def _split(self, part: Part, runs: Sequence[_Run]) -> bool:
        """A file with the metadata, and one for each run, which begins in its file as it does in a block here."""
        block = files.block_size(self._target)
        count = len(runs) + 1
        names = [f"text-{number:05d}-of-{count:05d}.gguf" for number in range(1, count + 1)]
        tensors = sum(len(run.recipes) for run in runs)
        for number, (name, run) in enumerate(zip(names[1:], runs, strict=True), start=1):
            header = _padded(_subset(part, number, count, tensors), run.recipes, run.offset, block)
            if header is None or not self._share(name, header, run, block):
                for path in self._target.iterdir():
                    path.unlink()
                self.files, self._done = [], 0
                return False
        first = layout(_subset(part, 0, count, tensors).fields, [], alignment=part.alignment)
        with disk.create(self._target / names[0]) as file:
            disk.write_all(file, first.header)
            disk.flush(file)
        self._made(names[0], 0)
        self.files = [self.files[-1], *self.files[:-1]]
        for name in names:
            self._check(name, None)
        self.way = "ranges"
        return True

    def _share(self, name: str, header: bytes, run: _Run, block: int) -> bool:
        """Writes a part whose whole blocks are those of the published file; false where it cannot share them."""
        with disk.create(self._target / name) as file:
            disk.write_all(file, header)
            length = 0
            if _whole_blocks(run, block)[1]:
                length = self._share_run(run, file, block)
                if not length:
                    return False
            else:
                self._copy(run.offset, run.size, file)
            disk.write_all(file, bytes(-file.tell() % self._file.alignment))
            disk.flush(file)
        self._made(name, length)
        return True

    def _share_run(self, run: _Run, file: FileIO, block: int) -> int:
        """Appends a run, which lies in its blocks here as it does there; how many bytes share blocks, 0 if none can."""
        first, length = _whole_blocks(run, block)
        self._copy(run.offset, first - run.offset, file)
        if not self._sharing.clone_range(self._opened, first, file, file.tell(), length):
            return 0
        self._advance(length)
        file.seek(0, os.SEEK_END)
        self._copy(first + length, run.offset + run.size - first - length, file)
        return length

    def _copy(self, offset: int, size: int, file: FileIO) -> None:
        before = self._done
        for done in disk.copy_range(self._opened, offset, file, size):
            self._done = before + done
            self._tell()

    def _compute(self, recipe: Recipe, file: FileIO) -> None:
        disk.write_all(file, arithmetic.computed(recipe, self._opened))
        self._advance(recipe.tensor.size)

    def end(self) -> None:
        """Reports that all is done: headers are not counted on the way."""
        self._advance(self._total)

    def _advance(self, size: int) -> None:
        self._done += size
        self._tell()

    def _tell(self) -> None:
        self._report(step(min(self._done, self._total), self._total))

    def _made(self, name: str, shared: int) -> None:
        status = (self._target / name).stat()
        self.files.append(MadeFile(name, status.st_size, status.st_mtime_ns, shared))

    def _check(self, name: str, tensors: Sequence[Tensor] | None) -> None:
        """What holds for files of others holds for ours: native code opens it next."""
        path = self._target / name
        found = gguf.read_structure(path) if tensors is None else gguf.read(path)
        at = found.data_offset
        for tensor in found.tensors:
            if tensor.offset != at:
                raise ModelFileError(f'"{path}" came out with a gap before tensor "{tensor.name}"')
            at += tensor.size + -tensor.size % found.alignment
        if tensors is not None and found.tensors != tuple(tensors):
            raise ModelFileError(f'"{path}" did not come out as planned')


def _runs(part: Part) -> list[_Run]:
    """The tensors in their order, those together whose bytes already lie behind each other as they will."""
    runs: list[_Run] = []
    for recipe in part.recipes:
        if recipe.how != Kept():
            runs.append(_Run((recipe,), -1, recipe.tensor.size))
            continue
        (source,) = recipe.sources
        last = runs[-1] if runs else None
        if last is not None and last.offset >= 0:
            end = last.offset + last.size
            gap = source.offset - end
            if gap == -last.size % part.alignment and last.offset % part.alignment == 0:
                runs[-1] = _Run((*last.recipes, recipe), last.offset, last.size + gap + source.size)
                continue
        runs.append(_Run((recipe,), source.offset, source.size))
    return runs


def _whole_blocks(run: _Run, block: int) -> tuple[int, int]:
    """Where the first block begins that is all in the run, and how many bytes such blocks have together."""
    first = -(-run.offset // block) * block
    return first, max(0, (run.offset + run.size - first) // block * block)


def _aligned(part: Part, block: int) -> Part | None:
    """The part with an empty tensor before each long run, which then begins in a block as it does there.

    None where there is no long run, or one that no padding can bring there.
    """
    runs = _runs(part)
    longs = [number for number, run in enumerate(runs) if run.offset >= 0 and run.size >= LEAST_SHARED * block]
    if not longs:
        return None
    sizes = dict.fromkeys(longs, block)
    at = len(_with_empty(part, runs, sizes).layout().header)  # a tensor's size does not change a header's length
    for number, run in enumerate(runs):
        if number in sizes:
            sizes[number] = (run.offset - at) % block or block
            at += sizes[number]
            if at % part.alignment:
                return None
        at += run.size + -run.size % part.alignment
    return _with_empty(part, runs, sizes)


def _with_empty(part: Part, runs: Sequence[_Run], sizes: Mapping[int, int]) -> Part:
    """The part with empty tensors of these bytes, each before the run of that number."""
    recipes: list[Recipe] = []
    for number, run in enumerate(runs):
        if number in sizes:
            recipes.append(Recipe(new_tensor(f"{PADDING}.{number}", "F32", (sizes[number] // 4,)), (), Zeros()))
        recipes += run.recipes
    return Part(part.fields, tuple(recipes), part.alignment)


def _subset(part: Part, number: int, count: int, tensors: int) -> Part:
    """Part `number` of a split set, all metadata in the first."""
    own = {
        "split.no": encode(ValueType.UINT16, number),
        "split.count": encode(ValueType.UINT16, count),
        "split.tensors.count": encode(ValueType.INT32, tensors),
    }
    if number == 0:
        return Part({**part.fields, **own}, (), part.alignment)
    if part.alignment != DEFAULT_ALIGNMENT:
        own["general.alignment"] = encode(ValueType.UINT32, part.alignment)
    return Part(own, (), part.alignment)


def _padded(part: Part, recipes: Sequence[Recipe], end: int, modulus: int = 0) -> bytes | None:
    """A header that ends exactly at `end`, or with a `modulus` at what is congruent to it; None where there is no room.

    Fills with one key of text, which takes some bytes itself.
    """
    tensors = [recipe.tensor for recipe in recipes]
    plain = layout(part.fields, tensors, alignment=part.alignment).header
    if len(plain) == end or (modulus and (len(plain) - end) % modulus == 0):
        return plain
    unpadded = layout(part.fields, tensors, alignment=1).header
    room = end - len(unpadded) - _PADDING_COST
    if modulus:
        room %= modulus
        if not room:
            room = modulus
    if room < 1:
        return None
    fields = {**part.fields, PADDING: encode(ValueType.STRING, " " * room)}
    return layout(fields, tensors, alignment=part.alignment).header
