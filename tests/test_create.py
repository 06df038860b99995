"""Making a model of uploaded files: the progress on the way, and what is left when it fails."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest

from corral.errors import BadRequest, StoreError
from corral.messages import Progress
from corral.models.create import CreateRequest, create
from corral.models.model import Models
from corral.names import Digest, Name, parse
from corral.store import Store
from tests.test_assemble import write_model, write_split


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


@pytest.fixture
def parts(store: Store, tmp_path: Path) -> dict[str, Digest]:
    """A model in three parts, uploaded."""
    files = write_split(tmp_path / "split")
    return {name: store.add_bytes(Path(str(path)).read_bytes())[0] for name, path in files.items()}


async def _no_pull(name: Name) -> AsyncGenerator[Progress, None]:
    assert not name, f"{name} is not to be pulled"
    yield Progress("success")


def making(
    store: Store, parts: dict[str, Digest], *, quantize: str = "", system: str = ""
) -> AsyncGenerator[Progress, None]:
    request = CreateRequest(name=parse("whole"), files=parts, quantize=quantize, system=system)
    return create(request, Models(store), _no_pull)


async def collect(steps: AsyncGenerator[Progress, None]) -> list[Progress]:
    async with aclosing(steps):
        return [step async for step in steps]


def blobs(store: Store) -> set[str]:
    return {path.name for path in store.blobs_folder.iterdir()}


async def test_merging_a_split_set_shows_its_progress(store: Store, parts: dict[str, Digest], tmp_path: Path) -> None:
    write_model(tmp_path / "whole.gguf")
    whole = (tmp_path / "whole.gguf").read_bytes()
    seen = await collect(making(store, parts))
    (layer,) = store.manifest(parse("whole")).manifest.layers
    assert store.open_path(layer.digest).read_bytes() == whole
    merging = [step for step in seen if step.status == "merging GGUF parts"]
    counted = [step.completed for step in merging]
    assert counted == sorted(counted)
    assert merging[-1] == Progress("merging GGUF parts", "0" * 19, len(whole), len(whole))
    assert [step for step in seen if step not in merging] == [
        *[Progress("parsing GGUF")] * 3,
        Progress("verifying conversion"),
        Progress(f"creating new layer {layer.digest}"),
        Progress("writing manifest"),
        Progress("success"),
    ]


async def test_what_was_made_of_files_for_no_model_is_removed(store: Store, parts: dict[str, Digest]) -> None:
    with pytest.raises(BadRequest, match='"context_length" must be a number'):
        await collect(
            create(
                CreateRequest(name=parse("whole"), files=parts, info={"context_length": "8"}), Models(store), _no_pull
            )
        )
    assert blobs(store) == {digest.filename for digest in parts.values()}


async def test_texts_of_no_model_are_removed(store: Store, parts: dict[str, Digest]) -> None:
    (store.manifests_folder / parse("whole").path / "a folder where a file should be").mkdir(parents=True)
    with pytest.raises(StoreError):
        await collect(making(store, parts, system="Be brief."))
    assert blobs(store) == {digest.filename for digest in parts.values()}


async def test_a_text_that_no_model_is_read_with_is_refused(store: Store, parts: dict[str, Digest]) -> None:
    with pytest.raises(BadRequest, match=r"^a system of 8388609 bytes is too large: 8388608 are the most$"):
        await collect(making(store, parts, system="x" * ((8 << 20) + 1)))
    assert (blobs(store), store.list()) == ({digest.filename for digest in parts.values()}, [])


@pytest.mark.parametrize("status", ["parsing GGUF", "merging GGUF parts", "verifying conversion"])
async def test_hanging_up_ends_the_work_and_leaves_nothing(status: str, store: Store, parts: dict[str, Digest]) -> None:
    async with aclosing(making(store, parts)) as steps:
        async for step in steps:
            if step.status == status:
                break
    assert blobs(store) == {digest.filename for digest in parts.values()}
    assert store.list() == []


async def test_a_layer_that_goes_with_another_model_meanwhile_is_made_again(
    store: Store, parts: dict[str, Digest]
) -> None:
    await collect(making(store, parts, system="the same"))
    store.copy(parse("whole"), parse("base"))
    await collect(
        create(CreateRequest(name=parse("other"), from_="base", system="of their own"), Models(store), _no_pull)
    )
    request = CreateRequest(name=parse("mine"), from_="base", system="of their own")
    async with aclosing(create(request, Models(store), _no_pull)) as steps:
        async for step in steps:
            if step.status == "writing manifest":
                store.delete(parse("other"))
    for layer in store.manifest(parse("mine")).manifest.blobs:
        assert store.blob_size(layer.digest) == layer.size
