"""What a derived file is held against, and ways to make one without a server."""

import os
from io import FileIO
from pathlib import Path

from corral import gguf, published
from corral.gguf.writer import copied_fields
from corral.models import deriving
from corral.store.derived import Made
from corral.system.files import block_size

BLOCK = block_size(Path(__file__))


class CopyingBlocks:
    """Shares blocks as btrfs and XFS do, by the same rules, but copies them. `offered`: which calls there are."""

    def __init__(self, *offered: str) -> None:
        self.offered = offered
        self.shared = 0
        """Bytes."""

    def clone(self, source: FileIO, target: Path) -> bool:
        if "clone" not in self.offered:
            return False
        size = os.fstat(source.fileno()).st_size
        target.write_bytes(os.pread(source.fileno(), size, 0))
        self.shared += size
        return True

    def clone_range(self, source: FileIO, offset: int, target: FileIO, target_offset: int, length: int) -> bool:
        if "ranges" not in self.offered:
            return False
        assert all(number % BLOCK == 0 for number in (offset, target_offset, length))
        os.pwrite(target.fileno(), os.pread(source.fileno(), length, offset), target_offset)
        self.shared += length
        return True


NOTHING_SHARED = CopyingBlocks()


def derive(source: Path, target: Path, sharing: CopyingBlocks = NOTHING_SHARED) -> Made:
    """Makes the files of a published file in a new folder."""
    target.mkdir(parents=True)
    return deriving.write(source, published.read(source).rules, target, sharing, lambda step: None)


def difference(derived: Path, expected: Path, published_file: Path) -> list[str]:
    """What a derived file has otherwise than the one it should be like: keys and tensors, by their names.

    It may keep keys of the published file that no one reads.
    """
    made, wanted, old = (gguf.read_structure(path) for path in (derived, expected, published_file))
    ours, theirs = copied_fields(made), copied_fields(wanted)
    found = [key for key in theirs if ours.get(key) != theirs[key] and key not in DESCRIPTIONS]
    found += [key for key in ours if key not in theirs and key not in old.metadata]
    one, other = contents(made), contents(wanted)
    found += sorted(one.keys() ^ other.keys())
    return found + sorted(name for name in one.keys() & other.keys() if one[name] != other[name])


DESCRIPTIONS = ("general.name", "general.file_type", "general.quantization_version")
"""Keys of a twin's projector that say nothing to the engine."""


def contents(file: gguf.GGUF) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Type, shape and bytes of each tensor."""
    raw = file.path.read_bytes()
    return {
        tensor.name: (tensor.type, tensor.shape, raw[tensor.offset : tensor.offset + tensor.size])
        for tensor in file.tensors
    }
