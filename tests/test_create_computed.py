"""Models that are converted, quantised or adapted on the way: status lines, layers, and what is left when it fails."""

import json
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from corral import gguf
from corral.errors import BadRequest, CorralError, DiskFull, ModelFileError
from corral.gguf.lora import ALPHA
from corral.messages import Progress
from corral.models.create import CreateRequest, create
from corral.models.model import Model, Models
from corral.names import Digest, Name, parse
from corral.store import MediaType, Store
from tests.lora_models import halves, matrices, write_peft
from tests.reference.models import CASES
from tests.tiny_models import CHATML, tiny_bert, tiny_llama, tiny_lora

LLAMA = next(case for case in CASES if case.name == "llama")
ZEROS = "0" * 19


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


async def _no_pull(name: Name) -> AsyncGenerator[Progress, None]:
    assert not name, f"{name} is not to be pulled"
    yield Progress("success")


def making(store: Store, name: str = "m", **fields: Any) -> AsyncGenerator[Progress, None]:
    return create(CreateRequest(name=parse(name), **fields), Models(store), _no_pull, threads=2)


async def make(store: Store, name: str = "m", **fields: Any) -> list[str]:
    """The status lines, each once."""
    async with aclosing(making(store, name, **fields)) as steps:
        return list(dict.fromkeys([step.status async for step in steps]))


def add(store: Store, *paths: Path) -> dict[str, Digest]:
    return {path.name: store.add_bytes(path.read_bytes())[0] for path in paths}


def upload(store: Store, files: Mapping[str, Path]) -> dict[str, Digest]:
    return {name: store.add_bytes(path.read_bytes())[0] for name, path in files.items()}


def model(store: Store, name: str = "m") -> Model:
    return Models(store).read(parse(name))


def blobs(store: Store) -> set[str]:
    return {path.name for path in store.blobs_folder.iterdir()} if store.blobs_folder.exists() else set()


def of_models(store: Store) -> set[str]:
    return {digest.filename for digest in store.references()}


async def test_a_file_is_quantised(store: Store, tmp_path: Path) -> None:
    file = tiny_llama(tmp_path / "model.gguf", chat_template=CHATML)
    files = add(store, file)
    statuses = await make(store, files=files, quantize="q8_0")
    made = model(store)
    assert statuses == [
        "parsing GGUF",
        "quantizing F16 model to Q8_0",
        "verifying conversion",
        f"Q8_0: {made.gguf.size // 1000} KB instead of {file.stat().st_size // 1000} KB",
        f"creating new layer sha256:{made.weights.name.removeprefix('sha256-')}",
        "using autodetected template chatml",
        *statuses[-3:-2],
        "writing manifest",
        "success",
    ]
    assert (made.config.file_type, made.gguf.file_type, made.quantization) == ("Q8_0", "Q8_0", "Q8_0")
    assert made.gguf.size < file.stat().st_size
    assert made.config.model_type == "119K"
    assert blobs(store) == of_models(store) | {digest.filename for digest in files.values()}


async def test_progress_of_quantising_counts_the_bytes_of_the_source(store: Store, tmp_path: Path) -> None:
    file = tiny_llama(tmp_path / "model.gguf")
    async with aclosing(making(store, files=add(store, file), quantize="Q4_0")) as steps:
        counted = [step async for step in steps if step.status.startswith("quantizing")]
    assert {(step.digest, step.status) for step in counted} == {(ZEROS, "quantizing F16 model to Q4_0")}
    assert [step.completed for step in counted] == sorted(step.completed for step in counted)
    assert {step.total for step in counted} == {counted[0].total}
    assert 0.9 * file.stat().st_size < counted[0].total < file.stat().st_size
    assert (counted[0].completed, counted[-1].completed) == (0, counted[-1].total)


async def test_another_model_is_quantised_and_keeps_the_rest(store: Store, tmp_path: Path) -> None:
    await make(
        store, "base", files=add(store, tiny_llama(tmp_path / "b.gguf")), system="Be brief.", template="{{ .Prompt }}"
    )
    statuses = await make(store, from_="base", quantize="q4_k_m")
    assert statuses[0] == "quantizing F16 model to Q4_K_M"
    assert statuses[1] == "verifying conversion"
    made, base = model(store), model(store, "base")
    assert (made.quantization, base.quantization) == ("Q4_K_M", "F16")
    assert [layer.media_type for layer in made.layers] == [layer.media_type for layer in base.layers]
    assert [layer.digest for layer in made.layers[1:]] == [layer.digest for layer in base.layers[1:]]
    again = await make(store, "again", from_="m", quantize="Q4_K")
    assert again[0].startswith("using existing layer")


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("Q9_Z", "unsupported quantization type Q9_Z - supported types are F32, F16, Q4_K_S, Q4_K_M, Q8_0, BF16, "),
        ("Q8_0", "quantization is only supported for F16, BF16 and F32 models"),
    ],
)
async def test_what_cannot_be_quantised_is_refused(kind: str, sentence: str, store: Store, tmp_path: Path) -> None:
    await make(store, "base", files=add(store, tiny_llama(tmp_path / "b.gguf")), quantize="q4_0")
    before = blobs(store)
    with pytest.raises(CorralError) as caught:
        await make(store, from_="base", quantize=kind)
    assert str(caught.value).startswith(sentence)
    assert blobs(store) == before


async def test_a_checkpoint_becomes_a_model(store: Store, tmp_path: Path) -> None:
    files = upload(store, LLAMA.write(tmp_path / "checkpoint"))
    statuses = await make(store, files=files)
    made = model(store)
    assert statuses == [
        "converting model",
        "verifying conversion",
        f"creating new layer sha256:{made.weights.name.removeprefix('sha256-')}",
        "writing manifest",
        "success",
    ]
    assert (made.config.model_family, made.config.file_type, made.gguf.kind) == ("llama", "F16", "model")
    assert blobs(store) == of_models(store) | {digest.filename for digest in files.values()}


async def test_a_checkpoint_is_quantised_and_nothing_in_between_is_kept(store: Store, tmp_path: Path) -> None:
    files = upload(store, LLAMA.write(tmp_path / "checkpoint"))
    statuses = await make(store, files=files, quantize="Q8_0")
    assert [status for status in statuses if "layer" not in status and "instead" not in status] == [
        "converting model",
        "quantizing F16 model to Q8_0",
        "verifying conversion",
        "writing manifest",
        "success",
    ]
    assert model(store).gguf.file_type == "Q8_0"
    assert blobs(store) == of_models(store) | {digest.filename for digest in files.values()}


async def test_a_checkpoint_in_fp8_becomes_q8_0_unless_another_kind_is_asked_for(store: Store, tmp_path: Path) -> None:
    written = LLAMA.write(tmp_path / "checkpoint")
    config = {**LLAMA.config, "quantization_config": {"quant_method": "fp8"}}
    written["config.json"].write_text(json.dumps(config))
    files = upload(store, written)
    statuses = await make(store, files=files)
    assert statuses[:2] == ["converting model", "quantizing F16 model to Q8_0"]
    assert statuses.count("verifying conversion") == 1
    await make(store, "other", files=files, quantize="F16")
    assert [model(store, name).quantization for name in ("m", "other")] == ["Q8_0", "F16"]


@pytest.mark.parametrize("status", ["converting model", "quantizing F16 model to Q8_0", "verifying conversion"])
async def test_hanging_up_ends_the_child_and_leaves_nothing(status: str, store: Store, tmp_path: Path) -> None:
    files = upload(store, LLAMA.write(tmp_path / "checkpoint"))
    before = blobs(store)
    async with aclosing(making(store, files=files, quantize="Q8_0")) as steps:
        async for step in steps:
            if step.status == status and (step.completed or status == "verifying conversion"):
                break
    assert blobs(store) == before
    assert store.list() == []


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("config.json", b'{"architectures": ["StrangeForCausalLM"]}', 'unsupported architecture "StrangeForCausalLM"'),
        ("config.json", b"{", '"config.json" is not JSON'),
        ("model.safetensors", b"\xff" * 64, "model.safetensors"),
        ("tokenizer.json", b"[]", "tokenizer.json"),
    ],
)
async def test_a_checkpoint_that_is_broken_leaves_nothing(
    name: str, content: bytes, sentence: str, store: Store, tmp_path: Path
) -> None:
    written = LLAMA.write(tmp_path / "checkpoint")
    written[name].write_bytes(content)
    files = upload(store, written)
    before = blobs(store)
    with pytest.raises(CorralError) as caught:
        await make(store, files=files)
    assert sentence in str(caught.value)
    assert blobs(store) == before
    assert store.list() == []


async def test_a_file_that_ends_early_leaves_nothing(store: Store, tmp_path: Path) -> None:
    file = tiny_llama(tmp_path / "model.gguf")
    file.write_bytes(file.read_bytes()[:-1000])
    files = add(store, file)
    with pytest.raises(ModelFileError, match="exceeds file size"):
        await make(store, files=files, quantize="Q8_0")
    assert (blobs(store), store.list()) == ({files["model.gguf"].filename}, [])


async def test_room_on_the_disk_is_asked_for_before_the_work(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make(store, "base", files=add(store, tiny_llama(tmp_path / "b.gguf")))
    before = blobs(store)
    monkeypatch.setattr("corral.store.disk.free_bytes", lambda path: 1000)
    with pytest.raises(DiskFull, match=r"bytes are needed, 1000 are free$"):
        await make(store, from_="base", quantize="Q8_0")
    assert blobs(store) == before


async def test_an_adapter_is_laid_over_a_model(store: Store, tmp_path: Path) -> None:
    await make(store, "base", files=add(store, tiny_llama(tmp_path / "b.gguf")), system="Be brief.")
    adapter = add(store, tiny_lora(tmp_path / "lora.gguf"))
    statuses = await make(store, from_="base", adapters=adapter)
    assert statuses[0] == "parsing GGUF"
    assert statuses[2] == f"creating new layer {adapter['lora.gguf']}"
    made = model(store)
    assert [layer.media_type for layer in made.layers] == [MediaType.MODEL, MediaType.ADAPTER, MediaType.SYSTEM]
    assert made.adapters == (store.blob_path(adapter["lora.gguf"]),)


async def test_an_adapter_in_safetensors_is_converted_for_its_model(store: Store, tmp_path: Path) -> None:
    await make(store, "base", files=upload(store, LLAMA.write(tmp_path / "checkpoint")))
    before = blobs(store)
    files = upload(store, write_peft(tmp_path / "peft", halves(LLAMA, matrices(LLAMA)[:3], {})))
    statuses = await make(store, from_="base", adapters=files, quantize="Q8_0")
    made = model(store)
    assert statuses[:2] == ["converting adapter", "quantizing F16 model to Q8_0"]
    assert statuses[5] == f"creating new layer sha256:{made.adapters[0].name.removeprefix('sha256-')}"
    assert gguf.read(made.adapters[0]).kind == "adapter"
    assert blobs(store) == before | of_models(store) | {digest.filename for digest in files.values()}


async def test_an_adapter_may_count_more_or_less(store: Store, tmp_path: Path) -> None:
    base = upload(store, LLAMA.write(tmp_path / "checkpoint"))
    await make(store, "base", files=base)
    peft = upload(store, write_peft(tmp_path / "peft", halves(LLAMA, matrices(LLAMA)[:3], {})))
    await make(store, "whole", from_="base", adapters=peft)
    statuses = await make(store, "half", from_="base", adapters=peft, adapter_scale=0.5)
    assert statuses[0] == "converting adapter"
    whole = model(store, "whole").adapters[0]
    statuses = await make(store, "less", from_="base", adapters=add(store, whole), adapter_scale=0.5)
    assert statuses[:2] == ["parsing GGUF", "scaling adapter"]
    strengths = [gguf.read(model(store, name).adapters[0]).get(ALPHA) for name in ("whole", "half", "less")]
    assert strengths == [8.0, 4.0, 4.0]
    for scale in (0.0, float("nan"), 1e9):
        with pytest.raises(BadRequest, match="an adapter's scale is"):
            await make(store, "none", from_="base", adapters=peft, adapter_scale=scale)


async def test_an_adapter_among_the_files_must_fit_the_model(store: Store, tmp_path: Path) -> None:
    files = add(store, tiny_bert(tmp_path / "bert.gguf"), tiny_lora(tmp_path / "lora.gguf"))
    before = blobs(store)
    with pytest.raises(ModelFileError, match='the adapter is for models of architecture "llama", the model is "bert"'):
        await make(store, files=files)
    assert blobs(store) == before


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (["lora", "other"], "only one adapter is currently supported"),
        (["text"], "unknown type"),
        (["llama"], "the file is not an adapter"),
        (["lora"], 'the adapter is for models of architecture "llama", the model is "bert"'),
    ],
)
async def test_an_adapter_must_be_one_and_fit(files: list[str], sentence: str, store: Store, tmp_path: Path) -> None:
    await make(store, "base", files=add(store, tiny_bert(tmp_path / "bert.gguf")))
    tiny_lora(tmp_path / "lora")
    tiny_lora(tmp_path / "other", seed=1)
    tiny_llama(tmp_path / "llama")
    (tmp_path / "text").write_text("no model")
    adapters = add(store, *(tmp_path / name for name in files))
    before = blobs(store)
    with pytest.raises(CorralError) as caught:
        await make(store, from_="base", adapters=adapters)
    assert str(caught.value) == sentence
    assert (blobs(store), len(store.list())) == (before, 1)


# Files of this machine


async def test_a_file_of_this_machine_is_taken_over_by_its_digest(store: Store, tmp_path: Path) -> None:
    file = tiny_llama(tmp_path / "model.gguf")
    digest, _, _ = Store(tmp_path / "other").add_bytes(file.read_bytes())
    statuses = await make(store, files={"m.gguf": digest}, paths={digest: file})
    assert statuses[0] == "parsing GGUF"
    assert model(store).weights.read_bytes() == file.read_bytes()
    assert blobs(store) == of_models(store)


async def test_files_and_adapters_may_have_one_name(store: Store, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    file, lora = tiny_llama(tmp_path / "m.gguf"), tiny_lora(tmp_path / "other" / "m.gguf")
    (first,), (second,) = (tuple(add(Store(tmp_path / "elsewhere"), path).values()) for path in (file, lora))
    await make(store, files={"m.gguf": first}, adapters={"m.gguf": second}, paths={first: file, second: lora})
    assert [layer.digest for layer in model(store).layers] == [first, second]


async def test_a_checkpoint_of_this_machine_leaves_nothing_but_the_model(store: Store, tmp_path: Path) -> None:
    written = LLAMA.write(tmp_path / "checkpoint")
    digests = upload(Store(tmp_path / "other"), written)
    await make(store, files=digests, paths={digests[name]: path for name, path in written.items()})
    assert blobs(store) == of_models(store)
    assert sorted(path.name for path in (tmp_path / "checkpoint").iterdir()) == sorted(written)


async def test_nothing_is_said_of_a_file_whose_digest_is_another(store: Store, tmp_path: Path) -> None:
    """No caller learns whether there is such a file, nor anything of what is in it."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"GGUF and more")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    digest = Digest("0" * 64)
    for path in (secret, tmp_path / "nothing", tmp_path, pipe, Path("/dev/zero"), secret / "below", Path("/\udcff")):
        with pytest.raises(BadRequest) as caught:
            await make(store, files={"m.gguf": digest}, paths={digest: path})
        assert str(caught.value) == f'file "m.gguf" was not uploaded: there is no blob {digest}'
        assert blobs(store) == set()
