"""A model spread over several GGUF files, read as if it were one. Tensor bytes are passed on as they are.

Such a set's first file has all metadata; each has `split.no`, `split.count` and some of the tensors (spec api §11.3).
"""

from collections.abc import Iterator, Sequence

from msgspec import Struct

from corral.errors import ModelFileError
from corral.gguf.file import GGUF, Tensor, tensor_chunks
from corral.gguf.writer import copied_fields, layout


class Merged(Struct, frozen=True):
    """The one file a complete set amounts to: its header, and where each tensor comes from."""

    parts: tuple[GGUF, ...]
    header: bytes
    size: int

    def chunks(self) -> Iterator[bytes]:
        """The file's bytes, in pieces of a megabyte at most; `ModelFileError` when a part cannot be read to its end."""
        yield self.header
        alignment = self.parts[0].alignment
        for part in self.parts:
            try:
                with open(part.path, "rb") as file:
                    for tensor in part.tensors:
                        yield from tensor_chunks(file, part.path, tensor)
                        yield bytes(-tensor.size % alignment)
            except OSError as error:
                raise ModelFileError(f'cannot read "{part.path}": {error.strerror}') from error


def merge(files: Sequence[GGUF]) -> Merged:
    """A whole set, given in any order, as one file; `ModelFileError` says what does not fit together."""
    parts = _in_order(files)
    tensors = [tensor for part in parts for tensor in part.tensors]
    _check_tensors(parts[0], tensors)
    fields = {key: value for key, value in copied_fields(parts[0]).items() if not key.startswith("split.")}
    whole = layout(fields, tensors, alignment=parts[0].alignment, version=parts[0].version)
    return Merged(tuple(parts), whole.header, whole.size)


def _in_order(files: Sequence[GGUF]) -> list[GGUF]:
    numbered: dict[int, GGUF] = {}
    counts = {file.split[1] if file.split else 1 for file in files}
    if len(counts) != 1:
        raise ModelFileError(f"the parts of the split model speak of {_listed(sorted(counts))} parts")
    for file in files:
        number = file.split[0] if file.split else 0
        if number in numbered:
            raise ModelFileError(f"part {number + 1} of the split model is there twice")
        numbered[number] = file
        if file.big_endian or file.version < 2:
            raise ModelFileError("a split model must be a little-endian GGUF of version 2 or 3")
    missing = [number + 1 for number in range(counts.pop()) if number not in numbered]
    if missing:
        raise ModelFileError(f"the split model lacks part {_listed(missing[:10])} of {len(missing) + len(numbered)}")
    return [numbered[number] for number in sorted(numbered)]


def _check_tensors(first: GGUF, tensors: Sequence[Tensor]) -> None:
    declared = first.integer("split.tensors.count")
    if declared is not None and declared != len(tensors):
        raise ModelFileError(f"the parts of the split model have {len(tensors)} tensors instead of {declared}")
    names = set()
    for tensor in tensors:
        if tensor.name in names:
            raise ModelFileError(f'tensor "{tensor.name}" is in two parts of the split model')
        names.add(tensor.name)


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
