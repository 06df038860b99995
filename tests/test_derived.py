"""Derived files of a store: made once, whole or not at all, within their room, and gone with the model."""

import asyncio
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from corral import gguf, names, published
from corral.config import Config
from corral.engine import choice
from corral.errors import DiskFull, ModelFileError
from corral.job import Job
from corral.messages import Progress
from corral.models.derived import Deriver, EngineFiles
from corral.models.deriving import PADDING
from corral.models.model import Models
from corral.server.runtime import runtime
from corral.store import Store, disk
from corral.store.derived import Made
from tests.conftest import add_model
from tests.derived_files import BLOCK, CopyingBlocks, contents, derive
from tests.published_models import FAMILIES, Parts, Twins

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="locks of folders and limits of processes")


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Twins:
    return FAMILIES["gemma3"](tmp_path_factory.mktemp("gemma3"))


@pytest.fixture
def store(tmp_path: Path, twins: Twins) -> Iterator[Store]:
    """With the published model, and as another one its twin, of which nothing has to be made."""
    add_model(tmp_path / "models", "m", twins.published)
    add_model(tmp_path / "models", "twin", twins.model)
    store = Store(tmp_path / "models")
    yield store
    store.close()


def blob(store: Store, name: str = "m") -> Path:
    weights = store.manifest(names.parse(name)).weights
    assert weights is not None
    return store.blob_path(weights.digest)


def files(deriver: Deriver, path: Path) -> EngineFiles:
    return asyncio.run(deriver.files(str(path), (), "m"))


def steps(deriver: Deriver, path: Path) -> list[Progress]:
    async def collect() -> list[Progress]:
        return [step async for step in deriver.steps([path])]

    return asyncio.run(collect())


def folders(store: Store) -> list[str]:
    """All that there is below the folder of derived files, but for what is in what was made."""
    return sorted(path.name for path in store.derived.folder.glob("*/*"))


def test_it_is_made_once_and_then_found(store: Store) -> None:
    deriver = Deriver(store, lambda: "engine-1")
    first = steps(deriver, blob(store))
    assert first[-1].completed == first[-1].total > 0
    assert {step.status for step in first} == {"preparing the model for the engine"}
    assert steps(deriver, blob(store)) == []
    made = files(deriver, blob(store))
    assert Path(made.model).parent.name.endswith("engine-1")
    assert made.projectors == (str(Path(made.model).with_name("projector.gguf")),)
    assert gguf.read(Path(made.model)).architecture == "gemma3"


def test_other_files_are_left_alone(store: Store) -> None:
    path = blob(store, "twin")
    assert files(Deriver(store, lambda: "engine-1"), path) == EngineFiles(str(path), ())
    assert not store.derived.folder.exists()


def test_a_header_that_is_known_is_not_read_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    deriver, models = Deriver(store, lambda: "e"), Models(store)
    wanted = files(deriver, blob(store))
    fresh = Deriver(store, lambda: "e")
    for name in ("m", "twin"):
        fresh.know(asyncio.run(models.load(names.parse(name))))
    monkeypatch.setattr("corral.published.read", lambda path: pytest.fail(f"{path} is read"))
    assert files(fresh, blob(store)).model == files(deriver, blob(store)).model == wanted.model
    assert files(fresh, blob(store, "twin")).derived == ()
    models.close()


def test_another_engine_gets_files_of_its_own(store: Store) -> None:
    chosen = iter(["engine-1", "engine-2"])
    deriver = Deriver(store, lambda: next(chosen))
    one, other = (files(deriver, blob(store)).model for _ in range(2))
    assert Path(one).parent.name != Path(other).parent.name
    assert len(folders(store)) == 2


async def test_a_running_server_makes_files_for_the_engine_that_is_chosen_meanwhile(tmp_path: Path) -> None:
    """`corral engine use` counts from the next load on, and so does what the loaded file is kept by."""
    config = Config(home=tmp_path, models=tmp_path / "models", engines=tmp_path / "engines", state=tmp_path)
    async with runtime(config) as running:
        keys = {running.deriver.key("r")}
        for number in range(2):
            program = tmp_path / f"llama-server-{number}"
            program.write_bytes(b"#!/bin/sh\n")
            program.chmod(0o755)
            choice.write(config.engines, choice.Choice(name="mine", program=str(program)))
            keys.add(running.deriver.key("r"))
    assert len(keys) == 3


def test_two_servers_at_once_make_one_file(store: Store) -> None:
    async def both() -> tuple[list[Progress], list[Progress]]:
        async def of(deriver: Deriver) -> list[Progress]:
            return [step async for step in deriver.steps([blob(store)])]

        other = Store(store.root)
        found = await asyncio.gather(of(Deriver(store, lambda: "e")), of(Deriver(other, lambda: "e")))
        other.close()
        return found

    ends = [reported[-1].completed for reported in asyncio.run(both())]
    assert sorted(map(bool, ends)) == [False, True]  # the other one is only waited for
    assert len(folders(store)) == 1


def test_what_a_killed_server_left_is_removed_and_never_used(store: Store) -> None:
    code = (
        "import sys, time; from pathlib import Path; from corral import names; from corral.store import Store;"
        "store = Store(Path(sys.argv[1])); claim = store.derived.claim(names.parse_digest(sys.argv[2]));"
        "(claim.folder / 'text.gguf').write_bytes(b'GGUF'); print('half', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(store.root), blob(store).name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "half\n"
        assert store.derived.claim(names.parse_digest(blob(store).name)) is None
        process.send_signal(signal.SIGKILL)
    assert [name.startswith(".new-") for name in folders(store)] == [True]
    files(Deriver(store, lambda: "e"), blob(store))
    assert folders(store) == [f"{_rules(store)}-e"]


def test_a_cancelled_request_leaves_nothing_and_the_next_one_makes_it(store: Store) -> None:
    deriver = Deriver(store, lambda: "e")

    async def cancelled() -> None:
        steps = deriver.steps([blob(store)])
        await anext(steps)
        await steps.aclose()

    asyncio.run(cancelled())
    assert folders(store) == []
    assert files(deriver, blob(store)).derived


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """For this process and its children: what fails beyond is as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full_half_way_is_a_sentence_and_leaves_nothing(store: Store) -> None:
    deriver = Deriver(store, lambda: "e")
    with files_of_at_most(100_000), pytest.raises(DiskFull, match=r"^no space left on the disk while writing "):
        files(deriver, blob(store))
    assert folders(store) == []
    assert files(deriver, blob(store)).derived


def test_what_it_takes_is_said_before_it_is_begun(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "free_bytes", lambda path: 1000)
    monkeypatch.setattr(disk, "can_clone", lambda path: False)
    wanted = r"of it: 46. KB are needed for that on the disk that holds \".*/derived\", 1 KB are free$"
    with pytest.raises(DiskFull, match=wanted):
        files(Deriver(store, lambda: "e"), blob(store))


def test_what_was_not_used_for_longest_makes_room(store: Store, twins: Twins, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(twins.published.read_bytes() + b"\0")
    add_model(store.root, "other", other)
    files(Deriver(store, lambda: "e"), blob(store))
    in_use = [str(blob(store))]
    files(Deriver(store, lambda: "e", most_bytes=300_000, in_use=lambda: in_use), blob(store, "other"))
    assert len(folders(store)) == 2
    time.sleep(0.01)
    store.derived.delete(store.derived.entries()[-1])
    in_use.clear()
    files(Deriver(store, lambda: "e", most_bytes=300_000, in_use=lambda: in_use), blob(store, "other"))
    assert [entry.digest.filename for entry in store.derived.entries()] == [blob(store, "other").name]


@pytest.mark.parametrize("damage", ["cut", "touched", "record"])
def test_a_damaged_file_is_made_anew(store: Store, damage: str) -> None:
    deriver = Deriver(store, lambda: "e")
    made = Path(files(deriver, blob(store)).model)
    match damage:
        case "cut":
            os.truncate(made, 1000)
        case "touched":
            os.utime(made, (1, 1))
        case "record":
            made.with_name("made.json").write_text("{")
    assert steps(deriver, blob(store)) != []
    assert steps(deriver, blob(store)) == []
    assert gguf.read(Path(files(deriver, blob(store)).model)).size > 1000


def test_they_go_with_the_model(store: Store) -> None:
    files(Deriver(store, lambda: "e"), blob(store))
    store.copy(names.parse("m"), names.parse("second"))
    store.delete(names.parse("m"))
    assert len(folders(store)) == 1
    store.delete(names.parse("second"))
    assert not store.derived.folder.exists()


def test_a_prune_removes_those_of_models_that_another_program_deleted(store: Store) -> None:
    path = blob(store)
    files(Deriver(store, lambda: "e"), path)
    store.prune()
    assert len(folders(store)) == 1
    path.unlink()
    store.prune()
    assert not store.derived.folder.exists()


def test_a_model_that_cannot_be_prepared_is_a_sentence(store: Store, tmp_path: Path, twins: Twins) -> None:
    with pytest.raises(ModelFileError, match="was changed while it was prepared"):
        asyncio.run(_derive_by_other_rules(store))


async def _derive_by_other_rules(store: Store) -> None:
    job = Job("corral.models.deriving:derive", Made, "preparing", source=blob(store), rules="x", target=store.root)
    async for _ in job.steps():
        pass


def _rules(store: Store) -> str:
    models = Models(store)
    rules = models.read(names.parse("m")).file.rules
    models.close()
    return rules


@pytest.mark.parametrize("offered", [("clone", "ranges"), ("ranges",), ()])
@pytest.mark.parametrize("order", ["tower last", "tower first"])
def test_every_way_gives_the_same_tensors(twins: Twins, tmp_path: Path, offered: tuple[str, ...], order: str) -> None:
    source = twins.published
    if order == "tower first":
        source = tmp_path / "published.gguf"
        reordered(twins.published, source)
    sharing = CopyingBlocks(*offered)
    made = derive(source, tmp_path / "made", sharing)
    assert made.way == ("ranges" if offered else "copy")
    found: dict[str, object] = {}
    for one in made.files:
        if one.name.startswith("text"):
            found |= contents(gguf.read_structure(tmp_path / "made" / one.name))
    assert found == contents(gguf.read(twins.model))
    assert made.size - made.disk_bytes == sharing.shared


def test_sharing_blocks_writes_headers_and_ends_of_runs_only(twins: Twins, tmp_path: Path) -> None:
    made = derive(twins.published, tmp_path / "made", CopyingBlocks("ranges"))
    text = [one for one in made.files if one.name.startswith("text")]
    headers = sum(gguf.read_structure(tmp_path / "made" / one.name).data_offset for one in text)
    written = sum(one.size - one.shared for one in text)
    assert written <= headers + 2 * BLOCK * (len(text) - 1)


def test_long_stretches_of_an_encoder_share_blocks_too(twins: Twins, tmp_path: Path) -> None:
    assert twins.projector is not None
    made = derive(twins.published, tmp_path / "made", CopyingBlocks("ranges"))
    (encoder,) = (one for one in made.files if one.name == made.projector)
    found = contents(gguf.read(tmp_path / "made" / made.projector))
    padding = [name for name in found if name.startswith(PADDING)]
    assert {name: tensor for name, tensor in found.items() if name not in padding} == contents(
        gguf.read(twins.projector)
    )
    computed = published.read(twins.published).computed_bytes
    assert padding
    assert encoder.shared >= (encoder.size - computed) // 2
    assert encoder.size <= twins.projector.stat().st_size + len(padding) * (BLOCK + 96)


def test_a_file_whose_tensors_stay_in_place_is_cloned_with_another_header(tmp_path: Path) -> None:
    twins = FAMILIES["gemma3"](tmp_path)
    parts = Parts.of(twins.model)
    parts.drop("gemma3.rope.freq_base", "gemma3.rope.freq_base_swa")
    parts.put(gemma3__rope__global__freq_base=500000.0, gemma3__rope__local__freq_base=20000.0)
    parts.put(gemma3__mm__tokens_per_image=4, tokenizer__ggml__add_padding_token=False)
    published = parts.write(tmp_path / "text only.gguf")
    made = derive(published, tmp_path / "made", CopyingBlocks("clone"))
    assert (made.way, made.text) == ("clone", "text.gguf")
    derived_file = gguf.read(tmp_path / "made" / "text.gguf")
    assert derived_file.data_offset == gguf.read_structure(published).data_offset
    assert contents(derived_file) == contents(gguf.read(twins.model))


def reordered(source: Path, target: Path) -> None:
    """The same file, tensors in another order: that of a converter which put the encoder first."""
    Parts.of(source).write(target, order=lambda name: (not name.startswith("v."), name[::-1]))


def test_a_folder_that_is_removed_while_it_is_claimed_is_made_again(store: Store) -> None:
    digest = names.parse_digest(blob(store).name)
    for _ in range(3):
        claim = store.derived.claim(digest)
        assert claim is not None
        store.derived.forget(digest)
        second = store.derived.claim(digest)  # of the folder that is there now
        assert second is not None
        assert second.folder.is_dir()
        claim.release()
        second.release()
