"""Files to layers: what a file is taken for, what is added to it, and that its bytes stay as they are."""

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from corral.errors import BadRequest, CorralError, DiskFull, ModelFileError, StoreError
from corral.golang.units import count_text
from corral.messages import Progress
from corral.models.assemble import Assembled, assemble, encode_params
from corral.models.config import ModelConfig, encode_config, parse_config
from corral.names import Digest, parse
from corral.store import Layer, MediaType, Store, encode_manifest
from tests.tiny_models import CHATML, tiny_llama, tiny_llava

CHATML_TEMPLATE = (
    "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"
)
CHATML_STOP = b'{"stop":["\\u003c|im_start|\\u003e","\\u003c|im_end|\\u003e"]}\n'


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models")


def digest_of(path: Path) -> Digest:
    return Digest(hashlib.sha256(path.read_bytes()).hexdigest())


def content(store: Store, layer: Layer) -> bytes:
    return store.blob_path(layer.digest).read_bytes()


def types(assembled: Assembled) -> list[str]:
    return [layer.media_type.rpartition(".")[2] for layer in assembled.layers]


def test_a_model_gets_its_layers_config_and_lines(store: Store, tmp_path: Path) -> None:
    path = tiny_llama(tmp_path / "m.gguf", chat_template=CHATML)
    digest, size, _ = store.add_bytes(path.read_bytes())
    seen: list[Progress] = []
    assembled = assemble({"m.gguf": digest}, store, progress=seen.append)
    template, params = assembled.layers[1:]
    assert assembled.layers[0] == Layer(MediaType.MODEL, digest_of(path), size)
    assert template.media_type == MediaType.TEMPLATE
    assert content(store, template) == CHATML_TEMPLATE.encode()
    assert params.media_type == MediaType.PARAMS
    assert content(store, params) == CHATML_STOP
    assert assembled.notes == (
        f"creating new layer {digest}",
        "using autodetected template chatml",
        f"creating new layer {params.digest}",
    )
    assert seen == [Progress("parsing GGUF")]
    model = gguf.GGUFReader(path)
    assert assembled.config == ModelConfig(
        model_format="gguf",
        model_family="llama",
        model_families=("llama",),
        model_type=count_text(sum(int(tensor.n_elements) for tensor in model.tensors)),
        file_type="F16",
        context_length=2048,
        embedding_length=64,
    )


def test_an_uploaded_and_a_local_file_give_the_same_manifest(store: Store, tmp_path: Path) -> None:
    path = tiny_llama(tmp_path / "m.gguf", chat_template=CHATML)
    other = Store(tmp_path / "other")
    uploaded = assemble({"m.gguf": store.add_bytes(path.read_bytes())[0]}, store)
    local = assemble({"another name": path}, other, link=False)
    assert (local.layers, local.config) == (uploaded.layers, uploaded.config)


def test_a_template_that_writes_what_the_tokenizer_leaves_out_is_kept(store: Store, tmp_path: Path) -> None:
    path = tiny_llama(tmp_path / "m.gguf", chat_template="{{ bos_token }}" + CHATML)
    assert types(assemble({"m.gguf": path}, store)) == ["model"]


def test_layers_that_models_have_already_are_called_existing(store: Store, tmp_path: Path) -> None:
    path = tiny_llama(tmp_path / "m.gguf", chat_template=CHATML)
    first = assemble({"m.gguf": path}, store)
    config, _ = store.add_bytes(encode_config(first.config))[:2]
    config_layer = Layer(MediaType.CONFIG, config, store.blob_size(config))
    store.write_manifest(parse("m"), encode_manifest(config_layer, first.layers))
    again = assemble({"m.gguf": first.layers[0].digest}, store)
    assert again.layers == first.layers
    assert again.notes == (
        f"using existing layer {first.layers[0].digest}",
        "using autodetected template chatml",
        f"using existing layer {first.layers[2].digest}",
    )


def test_a_model_without_a_known_template_is_left_to_its_own(store: Store, tmp_path: Path) -> None:
    path = tiny_llama(tmp_path / "m.gguf", chat_template="{{ messages }} {{ tools }}")
    assert types(assemble({"m.gguf": path}, store)) == ["model"]


def test_a_projector_follows_its_model_whatever_order_they_come_in(store: Store, tmp_path: Path) -> None:
    model, projector = tmp_path / "m.gguf", tmp_path / "a-projector.gguf"
    tiny_llava(model, projector)
    assembled = assemble({"a-projector.gguf": projector, "m.gguf": model}, store)
    assert types(assembled) == ["model", "projector"]
    assert assembled.layers[1].digest == digest_of(projector)
    assert assembled.config.model_families == ("llama", "clip")


def adapter(path: Path) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 16)
    writer.add_tensor("blk.0.attn_q.weight.lora_a", np.zeros((4, 64), np.float32))
    writer.add_tensor("blk.0.attn_q.weight.lora_b", np.zeros((64, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_an_adapter_is_distinguished_from_a_model(store: Store, tmp_path: Path) -> None:
    files = {"l.gguf": adapter(tmp_path / "l.gguf"), "m.gguf": tiny_llama(tmp_path / "m.gguf")}
    assert types(assemble(files, store)) == ["model", "adapter"]
    assert types(assemble({"l.gguf": tmp_path / "l.gguf"}, store)) == ["adapter"]


def test_what_is_not_one_model_is_refused(store: Store, tmp_path: Path) -> None:
    model = tiny_llama(tmp_path / "m.gguf")
    lora = adapter(tmp_path / "l.gguf")
    text = tmp_path / "text"
    text.write_bytes(b"hello")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(model.read_bytes()[:2000])
    cases: list[tuple[dict[str, Digest | Path], type[CorralError], str]] = [
        ({}, BadRequest, "no files provided to convert"),
        ({"a": model, "b": model}, BadRequest, "2 models were given, a model can only be made of one"),
        ({"a": lora, "b": lora, "c": model}, BadRequest, "only one adapter is currently supported"),
        ({"a": text}, BadRequest, "supplied file was not in GGUF format"),
        ({"a": tmp_path / "gone"}, ModelFileError, f'cannot read "{tmp_path}/gone": no such file or directory'),
        ({"a": tmp_path}, ModelFileError, f'cannot read "{tmp_path}": is a directory'),
        ({"a": Digest("0" * 64)}, CorralError, f'blob "sha256:{"0" * 64}" not found'),
    ]
    for files, kind, sentence in cases:
        with pytest.raises(kind) as caught:
            assemble(files, store)
        assert str(caught.value) == sentence
    with pytest.raises(ModelFileError):
        assemble({"a": broken}, store)


# Split sets


def write_model(path: Path, **split: Any) -> None:
    """A model of odd-sized tensors, in several files if `split` says so."""
    random = np.random.default_rng(7)
    writer = gguf.GGUFWriter(path, "llama", **split)
    writer.add_name("split")
    writer.add_string("text", "two\nlines and a \N{SNOWMAN}")
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_block_count(2)
    writer.add_head_count(2)
    writer.add_token_list(["a", "b", "c"])
    writer.add_array("nested.numbers", [1, 2, 3])
    writer.add_bool("flag", True)
    for number in range(7):
        writer.add_tensor(f"blk.{number}.x", random.standard_normal((number + 1, 33)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_split(folder: Path, most: int = 3) -> dict[str, Digest | Path]:
    folder.mkdir(exist_ok=True)
    write_model(folder / "m.gguf", split_max_tensors=most)
    return {path.name: path for path in sorted(folder.iterdir())}


def test_a_split_set_becomes_the_file_it_was_split_from(store: Store, tmp_path: Path) -> None:
    write_model(tmp_path / "whole.gguf")
    files = write_split(tmp_path / "split")
    assert list(files) == ["m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"]
    seen: list[Progress] = []
    assembled = assemble(dict(reversed(files.items())), store, progress=seen.append)
    assert types(assembled) == ["model"]
    merged = content(store, assembled.layers[0])
    assert merged == (tmp_path / "whole.gguf").read_bytes()
    assert seen[:3] == [Progress("parsing GGUF")] * 3
    assert seen[-1] == Progress("merging GGUF parts", "0" * 19, len(merged), len(merged))
    assert assembled.config.model_family == "llama"


def test_uploaded_parts_are_merged_too(store: Store, tmp_path: Path) -> None:
    write_model(tmp_path / "whole.gguf")
    files = write_split(tmp_path / "split", most=2)
    uploaded = {name: store.add_bytes(Path(str(path)).read_bytes())[0] for name, path in files.items()}
    assembled = assemble(uploaded, store)
    assert assembled.layers[0].digest == digest_of(tmp_path / "whole.gguf")


def test_a_set_that_does_not_fit_together_is_refused(store: Store, tmp_path: Path) -> None:
    files = write_split(tmp_path / "split")
    others = write_split(tmp_path / "others", most=4)
    first, second, third = files
    cases: list[tuple[dict[str, Digest | Path], str]] = [
        ({first: files[first]}, "the split model lacks part 2, 3 of 3"),
        ({second: files[second], third: files[third]}, "the split model lacks part 1 of 3"),
        (
            {first: files[first], second: files[second], third: files[second]},
            "part 2 of the split model is there twice",
        ),
        (
            {first: files[first], second: files[second], third: others["m-00002-of-00002.gguf"]},
            "the parts of the split model speak of 2, 3 parts",
        ),
    ]
    for broken, sentence in cases:
        with pytest.raises(ModelFileError) as caught:
            assemble(broken, store)
        assert str(caught.value) == sentence
    assert list(store.root.glob("blobs/*")) == []


def test_parts_with_tensors_too_many_or_twice_are_refused(store: Store, tmp_path: Path) -> None:
    files = write_split(tmp_path / "split")
    first, second, _ = files
    path = tmp_path / "second.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint16("split.no", 1)
    writer.add_uint16("split.count", 3)
    for name in ("blk.0.x", "blk.1.x", "blk.99.x"):
        writer.add_tensor(name, np.zeros(32, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelFileError, match=r'^tensor "blk.0.x" is in two parts of the split model$'):
        assemble({**files, second: path}, store)
    path.write_bytes(path.read_bytes().replace(b"blk.99.x", b"blk.98.x").replace(b"blk.0.x", b"blk.7.x"))
    path.write_bytes(path.read_bytes().replace(b"blk.1.x", b"blk.8.x"))
    more = write_split(tmp_path / "more", most=3)
    shorter = Path(str(more[first]))
    shorter.write_bytes(
        shorter.read_bytes().replace(b"split.tensors.count\x05\0\0\0\x07", b"split.tensors.count\x05\0\0\0\x08")
    )
    with pytest.raises(ModelFileError, match=r"^the parts of the split model have 7 tensors instead of 8$"):
        assemble({**more, second: path}, store)


# Config, parameters, numbers


def test_a_config_is_written_as_the_other_program_writes_it() -> None:
    config = ModelConfig(
        model_format="gguf",
        model_family="llama",
        model_families=("llama",),
        model_type="134.52M",
        file_type="Q4_1",
    )
    assert encode_config(config) == (
        b'{"model_format":"gguf","model_family":"llama","model_families":["llama"],"model_type":"134.52M",'
        b'"file_type":"Q4_1","architecture":"amd64","os":"linux"}\n'
    )
    assert encode_config(ModelConfig()) == (
        b'{"model_format":"","model_family":"","model_families":null,"model_type":"","file_type":"",'
        b'"architecture":"amd64","os":"linux"}\n'
    )


def test_a_config_is_read_with_what_registries_add_to_it() -> None:
    raw = json.dumps(
        {
            "model_format": "gguf",
            "model_families": None,
            "Model_Type": "7B",
            "context_length": 8192,
            "rootfs": {"type": "layers", "diff_ids": []},
            "capabilities": ["completion"],
            "draft": {"model_format": "gguf", "architecture": "dflash"},
        }
    ).encode()
    config = parse_config(raw)
    assert (config.model_format, config.model_families, config.model_type) == ("gguf", None, "7B")
    assert (config.context_length, config.capabilities) == (8192, ("completion",))
    assert parse_config(encode_config(config)) == config


@pytest.mark.parametrize("raw", [b"", b"[1]", b'{"model_format":1}', b"[" * 100_000])
def test_a_broken_config_is_refused(raw: bytes) -> None:
    with pytest.raises(StoreError, match=r"^invalid model config: "):
        parse_config(raw)


def test_parameters_are_one_sorted_object_with_a_newline() -> None:
    assert encode_params({"temperature": 0.3, "num_ctx": 1024, "stop": ["ARR"]}) == (
        b'{"num_ctx":1024,"stop":["ARR"],"temperature":0.3}\n'
    )


def no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, the disk has no free byte."""
    monkeypatch.setattr("corral.store.disk.free_bytes", lambda path: 0)


def test_a_file_that_is_in_the_store_already_needs_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tiny_llama(tmp_path / "model.gguf", seed=1)
    other = tiny_llama(tmp_path / "other.gguf", seed=2)
    assert file.stat().st_size == other.stat().st_size
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:  # another disk, so that nothing can be linked
        store = Store(Path(elsewhere) / "models")
        first = assemble({"model.gguf": file}, store)
        no_room(monkeypatch)
        steps: list[Progress] = []
        second = assemble({"again.gguf": file}, store, progress=steps.append)
        assert second.layers == first.layers
        assert second.created == ()
        hashing = [step.completed for step in steps if step.status == "hashing"]
        assert hashing[-1] == file.stat().st_size
        with pytest.raises(DiskFull):
            assemble({"other.gguf": other}, store)
        blob = store.blob_path(digest_of(file))
        blob.write_bytes(b"x" * file.stat().st_size)  # of the same size, but no longer the same
        with pytest.raises(DiskFull):
            assemble({"again.gguf": file}, store)


def test_a_split_set_that_was_merged_already_needs_no_room(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = write_split(tmp_path / "split")
    first = assemble(parts, store)
    no_room(monkeypatch)
    assert assemble(parts, store).layers == first.layers


def write_odd(path: Path, *, endianess: gguf.GGUFEndian = gguf.GGUFEndian.LITTLE, tensors: bool = True) -> Path:
    writer = gguf.GGUFWriter(path, "llama", endianess=endianess)
    writer.add_context_length(64)
    if tensors:
        writer.add_tensor("token_embd.weight", np.ones((8, 8), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_files_that_no_engine_could_load_are_refused_before_anything_is_stored(store: Store, tmp_path: Path) -> None:
    projector = tmp_path / "mmproj.gguf"
    tiny_llava(tmp_path / "m.gguf", projector)
    alone = "a projector alone is no model: give the file of its model, too"
    big = write_odd(tmp_path / "big.gguf", endianess=gguf.GGUFEndian.BIG)
    empty = write_odd(tmp_path / "empty.gguf", tensors=False)
    cases: list[tuple[dict[str, Path], str]] = [
        ({"big.gguf": big}, '"big.gguf" is a big-endian GGUF file, which cannot be run here'),
        (
            {"m.gguf": tmp_path / "m.gguf", "b.gguf": big},
            '"b.gguf" is a big-endian GGUF file, which cannot be run here',
        ),
        ({"empty.gguf": empty}, '"empty.gguf" has no tensors in it: it is no model'),
        ({"mmproj.gguf": projector}, alone),
        ({"a.gguf": projector, "b.gguf": projector}, alone),
    ]
    for files, sentence in cases:
        with pytest.raises(BadRequest) as caught:
            assemble(dict(files), store)
        assert str(caught.value) == sentence
        assert not store.blobs_folder.exists()
