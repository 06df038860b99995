"""What a bundle carries, packed: Corral's code without comments, and wheels, each one archive compressed as a whole.

So a wheel takes about four fifths of what it does as a zip, whose files are compressed one by one.
"""

import asyncio
import importlib.metadata
import io
import lzma
import re
import tarfile
import zipfile
from collections.abc import AsyncGenerator, Iterable, Sequence
from pathlib import Path

import corral
from corral.bundle.source import without_comments
from corral.errors import SourceError
from corral.messages import Progress
from corral.system.processes import cores

PACKED = ".tar.xz"
_PRESET = 2
"""Of xz: the sixth takes three times as long for a tenth less."""
_FOR_TEXT = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4, "pb": 0}
"""How xz compresses what consists of single bytes: four bits of the last one say more than where one lies."""
_DOCUMENTED = "corral/server/"
NOT_RUN = re.compile(
    r"corral/(adopting|builds|doctor|services|cli/completion)/"
    r"|corral/cli/commands/(adopt|completion|doctor|engine|service|tune)\.py"
)
"""What a bundle has no use for: its program is `corral run` and `corral serve`, which import none of it."""
_DATA_PARTS = ("purelib", "platlib")
"""Of a wheel's data folder, those that are a package's files."""


def metadata() -> importlib.metadata.Distribution:
    """Of Corral, as it is installed here. `SourceError` where it is not."""
    try:
        return importlib.metadata.distribution("corral")
    except importlib.metadata.PackageNotFoundError as error:
        raise SourceError("Corral is not installed as a package here, so what it needs is not known") from error


def packed_code() -> bytes:
    """What a bundle runs of Corral's package as it is installed here, without comments, and the package's metadata.

    The same code has the same bytes.
    """
    root = Path(corral.__file__).parent
    paths = [path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    named = [(f"corral/{path.relative_to(root).as_posix()}", path) for path in paths]
    carried = sorted((one for one in named if not NOT_RUN.match(one[0])), key=lambda one: (one[1].suffix, one[1]))
    files = ((name, _shortened(name, path)) for name, path in carried)
    about = (metadata().read_text("METADATA") or "").partition("\n\n")[0].encode()
    tar = _tar([*files, (f"corral-{corral.__version__}.dist-info/METADATA", about)])
    return lzma.compress(tar, filters=[_FOR_TEXT])


def _shortened(name: str, path: Path) -> bytes:
    """A file of Corral's package as a bundle has it. The API's document is made of docstrings of the server's."""
    data = path.read_bytes()
    if path.suffix != ".py":
        return data
    return without_comments(data.decode(), keeps_docstrings=name.startswith(_DOCUMENTED)).encode()


async def packed_wheels(wheels: Sequence[Path], folder: Path) -> AsyncGenerator[Progress, None]:
    """Packs each wheel into `folder`, as `packed_name` says, as many at once as there are cores."""
    sizes = {wheel: wheel.stat().st_size for wheel in wheels}
    free, done, total = asyncio.Semaphore(cores()), 0, sum(sizes.values())

    async def pack(wheel: Path) -> int:
        async with free:
            await asyncio.to_thread(_pack, wheel, folder / packed_name(wheel))
        return sizes[wheel]

    yield Progress("packing packages", "packages", total, 0)
    largest_first = sorted(sizes, key=lambda wheel: -sizes[wheel])
    for packed in asyncio.as_completed([*map(pack, largest_first)]):
        done += await packed
        yield Progress("packing packages", "packages", total, done)


def packed_name(wheel: Path) -> str:
    """The name of a wheel's archive."""
    return wheel.with_suffix("").name + PACKED


def _pack(wheel: Path, target: Path) -> None:
    """The files of a wheel where pip would put them; scripts and headers are left out."""
    with zipfile.ZipFile(wheel) as archive:
        named = ((_place(name), name) for name in archive.namelist() if not name.endswith("/"))
        # Files of one kind lie beside each other.
        order = sorted((place.rpartition(".")[2], place, name) for place, name in named if place)
        tar = _tar((place, archive.read(name)) for _, place, name in order)
    target.write_bytes(lzma.compress(tar, preset=_PRESET))


def _place(name: str) -> str:
    """Where a wheel's file belongs among packages; empty: nowhere ("The .data directory" of the format)."""
    first, _, rest = name.partition("/")
    if not first.endswith(".data"):
        return name
    kind, _, rest = rest.partition("/")
    return rest if kind in _DATA_PARTS else ""


def _tar(files: Iterable[tuple[str, bytes]]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()
