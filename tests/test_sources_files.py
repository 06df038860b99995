"""Models that are files of this machine: taken over in place, split sets whole, and the steps reported."""

import os
from contextlib import aclosing
from pathlib import Path

import pytest

from corral.errors import BadRequest, CorralError, ModelFileError, StoreError
from corral.messages import Progress
from corral.models import assemble
from corral.names import parse
from corral.sources import files
from corral.sources.mirrors import FileMirror
from corral.store import Store
from tests.test_assemble import write_model, write_split
from tests.tiny_models import CHATML, tiny_llama


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_llama(tmp_path / "Tiny Model.gguf", chat_template=CHATML)


def described(path: Path) -> tuple[bytes, int, int]:
    """Content, size and time of a file."""
    return path.read_bytes(), path.stat().st_size, path.stat().st_mtime_ns


async def pull(store: Store, path: Path, name: str = "m") -> list[Progress]:
    async with aclosing(files.pull(FileMirror(path), parse(name), store)) as steps:
        return [step async for step in steps]


async def test_a_file_becomes_a_model_where_it_lies(store: Store, model: Path, tmp_path: Path) -> None:
    content, size, before = described(model)
    steps = await pull(store, model, "mine:v1")
    stored = store.manifest(parse("mine:v1"))
    by_hand = assemble.assemble({"any": model}, Store(tmp_path / "other"), link=False)
    assert stored.manifest.layers == by_hand.layers
    blob = store.open_path(stored.manifest.layers[0].digest)
    assert blob.read_bytes() == content
    assert described(model) == (content, size, before)
    assert blob.samefile(model) or blob.stat().st_nlink == 1
    assert [step.status for step in steps if step.status != "hashing"] == [
        f"pulling from {model.as_uri()}",
        "parsing GGUF",
        "writing manifest",
        "success",
    ]
    hashing = [step for step in steps if step.status == "hashing"]
    assert hashing[-1] == Progress("hashing", "0" * 19, size, size)


async def test_any_part_of_a_split_set_brings_the_whole_model(store: Store, tmp_path: Path) -> None:
    write_model(tmp_path / "whole.gguf")
    parts = [Path(str(path)) for path in write_split(tmp_path / "split").values()]
    for number, part in enumerate(parts):
        await pull(store, part, f"m:{number}")
    assert len({stored.digest for stored in store.list()}) == 1
    blob = store.blob_path(store.list()[0].manifest.layers[0].digest)
    assert blob.read_bytes() == (tmp_path / "whole.gguf").read_bytes()


async def test_a_missing_part_is_named(store: Store, tmp_path: Path) -> None:
    parts = [Path(str(path)) for path in write_split(tmp_path / "split").values()]
    parts[1].unlink()
    with pytest.raises(ModelFileError) as caught:
        await pull(store, parts[2])
    assert str(caught.value) == f'the split model lacks part 2 of 3: "{parts[1]}"'
    assert store.list() == []


async def test_what_is_no_model_is_refused_and_leaves_nothing(store: Store, tmp_path: Path) -> None:
    text, cut = tmp_path / "x.gguf", tmp_path / "cut.gguf"
    text.write_bytes(b"hello")
    cut.write_bytes(tiny_llama(tmp_path / "t.gguf").read_bytes()[:-9])
    os.mkfifo(tmp_path / "pipe.gguf")
    unreadable = text / "x.gguf", tmp_path / ("n" * 300)
    cases: list[tuple[Path, type[CorralError], str]] = [
        (tmp_path / "gone.gguf", CorralError, f'no such file: "{tmp_path}/gone.gguf"'),
        (unreadable[0], CorralError, f'no such file: "{unreadable[0]}"'),
        (unreadable[1], StoreError, f'reading "{unreadable[1]}" failed: file name too long'),
        (tmp_path / "pipe.gguf", BadRequest, "supplied file was not in GGUF format"),
        (text, BadRequest, "supplied file was not in GGUF format"),
        (cut, ModelFileError, 'tensor "'),
        (tmp_path, ModelFileError, f'cannot read "{tmp_path}": is a directory'),
        (Path("/dev/zero"), BadRequest, "supplied file was not in GGUF format"),
    ]
    for path, kind, sentence in cases:
        with pytest.raises(kind) as caught:
            await pull(store, path)
        assert str(caught.value).startswith(sentence)
    assert [path for path in store.root.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("status", ["parsing GGUF", "hashing", "writing manifest"])
async def test_hanging_up_ends_the_work_and_leaves_nothing(status: str, store: Store, model: Path) -> None:
    """Nothing, or all of it when the work was done before it heard."""
    async with aclosing(files.pull(FileMirror(model), parse("m"), store)) as steps:
        async for step in steps:
            if step.status == status:
                break
    left = [path for path in store.root.rglob("*") if path.is_file()]
    assert bool(left) == bool(store.list())
    assert not left or status == "writing manifest"


async def test_a_model_whose_manifest_cannot_be_written_leaves_nothing(store: Store, model: Path) -> None:
    (store.manifests_folder / parse("m").path / "a folder where a file should be").mkdir(parents=True)
    with pytest.raises(StoreError):
        await pull(store, model)
    assert not any(store.blobs_folder.iterdir())
