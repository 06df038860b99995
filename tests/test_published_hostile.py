"""Published layouts that are broken: each is a sentence which names what is wrong, before anything is made of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corral import gguf, names, published
from corral.errors import CorralError, ModelFileError
from corral.models import assemble
from corral.store import Store
from tests.gguf_bytes import F32, I32, STRING, U64, ArrayOf
from tests.published_models import FAMILIES, Parts
from tests.published_models.building import random_tensor

Change = Callable[[Parts], Any]


def _reshaped(name: str, *shape: int) -> Change:
    return lambda parts: parts.tensors.update({name: random_tensor(1, *shape)})


def _without(name: str) -> Change:
    return lambda parts: parts.tensors.pop(name)


def _key(name: str, kind: int, value: Any) -> Change:
    return lambda parts: parts.keys.update({name: (kind, value)})


def _array(name: str, kind: int, *values: Any) -> Change:
    return _key(name, 9, ArrayOf(kind, values))


BROKEN: dict[str, tuple[str, Change, str]] = {
    "no patches": ("gemma3", _without("v.patch_embedding.weight"), 'tensor "v.patch_embd.weight" is missing'),
    "no width": ("gemma3", lambda parts: parts.drop("gemma3.vision.embedding_length"), 'embedding_length" is missing'),
    "a text for a number": ("gemma3", _key("gemma3.vision.block_count", STRING, "2"), "is not a whole number"),
    "a number below 0": ("gemma3", _key("gemma3.vision.block_count", I32, -1), "is -1, not between 0 and"),
    "a number of 64 bits": ("gemma3", _key("gemma3.vision.image_size", U64, 1 << 40), "is 1099511627776, not"),
    "no encoder's epsilon": (
        *("gemma3", lambda parts: parts.drop("gemma3.vision.attention.layer_norm_epsilon")),
        'layer_norm_epsilon" is missing',
    ),
    "a head too many": ("gemma3", _key("gemma3.vision.attention.head_count", 4, 5), "which does not divide 64"),
    "positions for other pictures": (
        "gemma3",
        _reshaped("v.position_embedding.weight", 7, 64),
        "has 7 rows, for 64 patches",
    ),
    "a name that becomes too long": (
        *("gptoss", _reshaped(f"blk.{'9' * 33}.ffn_norm.weight", 64)),
        "has 64 bytes instead of 1 to 63",
    ),
    "experts that are no matrix": ("gptoss", _reshaped("blk.0.ffn_gate_exps.weight", 64), "which is no matrix"),
    "no merging": (
        *("qwen25vl", lambda parts: parts.drop("qwen25vl.vision.spatial_merge_size")),
        'spatial_merge_size" is missing',
    ),
    "sections of text": (
        "qwen25vl",
        _array("qwen25vl.rope.mrope_section", STRING, "a"),
        "not an array of whole numbers",
    ),
    "sections that are no array": ("qwen25vl", _key("qwen25vl.rope.mrope_section", F32, 1.0), "is not an array"),
    "queries of half a head": ("mistral3", _reshaped("v.blk.0.attn_q.weight", 44, 48), "for 4 heads"),
    "no heads": ("mistral3", _key("mistral3.vision.attention.head_count", 4, 0), "for 0 heads"),
    "patches of three dimensions": ("qwen3vl", _reshaped("v.patch_embed.weight", 2, 14, 14), "not two convolutions"),
    "values of other rows": ("qwen3vl", _reshaped("v.blk.0.attn_v.weight", 48, 40), "which cannot be joined"),
    "no values": ("qwen3vl", _without("v.blk.1.attn_v.weight"), 'tensor "v.blk.1.attn_v.weight" is missing'),
    "a state of no block": (
        *("qwen3vl", _array("qwen3vl.vision.deepstack_visual_indexes", 4)),
        "one of more than the 0 blocks",
    ),
    "one table of positions": ("gemma4", _reshaped("v.position_embd.weight", 128, 48), "instead of [48, any, 2]"),
    "no convolution of sounds": ("gemma4", _without("a.blk.1.conv_dw.weight"), "a.blk.1.conv_dw.weight"),
    "sounds of other bins": ("gemma4", _key("gemma4.audio.num_mel_bins", 4, 80), "instead of [40, 48]"),
    "a convolution too long": ("gemma4", _reshaped("a.blk.0.conv_dw.weight", 48, 7), "instead of [5, 48]"),
    "no way into the model": ("gemma4", _without("mm.a.fc.weight"), 'tensor "a.pre_encode.out.weight" is missing'),
    "no width of sounds": (
        *("gemma4", lambda parts: parts.drop("gemma4.audio.embedding_length")),
        "audio.embedding_length",
    ),
    "no view of the whole picture": ("deepseekocr", _key("deepseekocr.sam.block_count", 4, 2), "is 2, not more than 2"),
    "no experts to count": ("deepseekocr", _without("blk.1.ffn_down_exps.weight"), "blk.1.ffn_down_exps.weight"),
    "a separator of another width": ("deepseekocr", _reshaped("mm.view_seperator", 32), "instead of 64 elements"),
    "encoders of different widths": ("deepseekocr", _reshaped("s.net_3.weight", 40, 32, 3, 3), "[3, 3, any, 48]"),
    "no neck": ("deepseekocr", _without("s.neck.2.weight"), 'tensor "v.sam.neck.2.weight" is missing'),
    "a gate without what it lets through": ("glmocr", _without("blk.1.ffn_up.weight"), "blk.1.ffn_up.weight"),
    "a gate of other rows": ("glmocr", _reshaped("blk.0.ffn_gate.weight", 128, 32), "which cannot be joined"),
    "no sections": ("glmocr", lambda parts: parts.drop("glmocr.rope.mrope_section"), 'mrope_section" is missing'),
    "one half of the patches": ("glmocr", _without("v.patch_embd_1.weight"), '"v.patch_embd.weight.1" is missing'),
    "a merger of nine": ("glmocr", _reshaped("mm.patch_merger.weight", 80, 48, 3, 3), "instead of [2, 2, 48, any]"),
    "a dense layer of one dimension": ("embeddinggemma", _reshaped("dense.0.weight", 64), "which is no matrix"),
    "positions that are no square": (
        "nemotron-omni",
        _reshaped("v.position_embd", 37, 48),
        "37 positions, which are no",
    ),
    "positions of another width": ("nemotron-omni", _reshaped("v.position_embd", 36, 40), "for 4×4 patches of 48"),
    "patches of another size": ("nemotron-omni", _reshaped("v.patch_embd.weight", 48, 700), "of patches of 16"),
    "pictures of no patch": ("nemotron-omni", _key("nemotron_h_omni.vision.patch_size", 4, 0), "patches of 0"),
    "pictures of too many patches": (
        *("nemotron-omni", _key("nemotron_h_omni.vision.image_size", 4, 1 << 20)),
        "for 65536×65536 patches",
    ),
    "a class of another width": ("nemotron-omni", _reshaped("v.cls_embd", 3, 40), "instead of rows of 48"),
    "a projection that is missing": ("nemotron-omni", _without("mm.2.weight"), 'tensor "mm.model.mlp.3.weight" is'),
    "a projection of other rows": ("nemotron-omni", _reshaped("mm.1.weight", 96, 190), "instead of rows of 192"),
    "an odd square of patches": (
        *("nemotron-omni", _key("nemotron_h_omni.vision.projector.scale_factor", 4, 3)),
        "which does not divide 4 patches",
    ),
    "a latent vector without length": ("nemotron", _reshaped("blk.2.ffn_latent_in.weight", 64), "which is no matrix"),
    "a table of longer texts": (
        *("arctic", _array("tokenizer.ggml.precompiled_charsmap", STRING, "AA", "A")),
        "not one character each",
    ),
    "a table that is no base64": (
        "arctic",
        _array("tokenizer.ggml.precompiled_charsmap", STRING, *"A?AA"),
        "not base64",
    ),
    "a table that is cut off": (
        *("arctic", _array("tokenizer.ggml.precompiled_charsmap", STRING, *"/wAAAAAAAAAAAAAA")),
        "not a table of characters: it has 12 bytes",
    ),
    "a projector without its layers": ("llava", _without("mm.0.weight"), 'tensor "mm.0.weight" is missing'),
    "a projector in 64 bits": ("llava", _key("clip.vision.block_count", U64, 1 << 33), "block_count"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_published_file_is_refused_with_what_is_wrong(case: str, tmp_path: Path) -> None:
    family, change, sentence = BROKEN[case]
    twins = FAMILIES[family](tmp_path)
    source = twins.published_projector or twins.published
    parts = Parts.of(source)
    change(parts)
    broken = parts.write(tmp_path / "broken.gguf")
    with pytest.raises(ModelFileError) as raised:
        published.read(broken)
    assert sentence in str(raised.value)


def test_a_file_that_ends_anywhere_is_refused(tmp_path: Path) -> None:
    whole = FAMILIES["gemma3"](tmp_path).published.read_bytes()
    cut = tmp_path / "cut.gguf"
    for size in [*range(0, 12_000, 397), len(whole) // 2, len(whole) - 1]:
        cut.write_bytes(whole[:size])
        with pytest.raises(ModelFileError):
            published.read(cut)


def test_any_byte_may_be_another_one(tmp_path: Path) -> None:
    """Read, or refused by a sentence: nothing else."""
    source = FAMILIES["qwen3vl"](tmp_path).published
    whole = bytearray(source.read_bytes())
    changed = tmp_path / "changed.gguf"
    refusals = []
    for position in range(8, gguf.read_structure(source).data_offset, 101):
        was, whole[position] = whole[position], whole[position] ^ 0x41
        changed.write_bytes(whole)
        whole[position] = was
        try:
            published.read(changed)
        except CorralError as error:
            refusals.append(str(error))
    assert refusals
    assert all(refusals)


@pytest.mark.parametrize(
    ("architecture", "tensor", "sentence"),
    [
        ("mllama", "v.blk.0.attn_q.weight", 'models of the architecture "mllama" (llama3.2-vision) cannot be run'),
        ("qwen2", "v.blk.0.attn_q.weight", 'of an encoder beside a model of architecture "qwen2"'),
        ("llama", "mtp.fc.weight", 'has tensor "mtp.fc.weight" of an encoder beside a model'),
    ],
)
def test_what_no_engine_can_run_is_refused_by_name(
    tmp_path: Path, architecture: str, tensor: str, sentence: str
) -> None:
    parts = Parts.of(FAMILIES["gemma3"](tmp_path).model)
    parts.rename_prefix("gemma3.", f"{architecture}.")
    parts.put(general__architecture=architecture)
    parts.tensors[tensor] = random_tensor(1, 8, 8)
    path = parts.write(tmp_path / "file.gguf")
    store = Store(tmp_path / "models")
    with pytest.raises(ModelFileError) as raised:
        assemble.assemble({"file.gguf": path}, store)
    store.close()
    assert sentence in str(raised.value)


def test_a_published_model_is_made_and_described_as_it_was_published(tmp_path: Path) -> None:
    twins = FAMILIES["gptoss"](tmp_path)
    store = Store(tmp_path / "models")
    made = assemble.assemble({"file.gguf": twins.published}, store)
    assemble.write_model(names.parse("m"), made, store)
    assert (made.config.model_family, made.config.context_length) == ("gptoss", 2048)
    assert store.manifest(names.parse("m")).manifest.layers[0].size == twins.published.stat().st_size
    store.close()


def test_of_two_markers_at_once_the_first_family_has_the_file(tmp_path: Path) -> None:
    """Dense layers make an EmbeddingGemma of a Gemma 3, whatever else it has; and what a family's rules leave of an
    encoder is named."""
    parts = Parts.of(FAMILIES["embeddinggemma"](tmp_path).published)
    parts.put(gemma3__mm__tokens_per_image=4)
    made = published.plan(gguf.read_structure(parts.write(tmp_path / "both.gguf")))
    assert made is not None
    assert made.rules.startswith("embeddinggemma.")
    for name in ("llama3", "lfm2"):
        (tmp_path / name).mkdir()
        parts = Parts.of(FAMILIES[name](tmp_path / name).published)
        parts.tensors["v.blk.0.attn_q.weight"] = random_tensor(1, 8, 8)
        with pytest.raises(ModelFileError, match=r'tensor "v\.blk\.0\.attn_q\.weight" of an encoder beside a model'):
            published.plan(gguf.read_structure(parts.write(tmp_path / f"{name}.gguf")))


@pytest.mark.parametrize("text", ["", "default", "mrope"])
def test_a_kind_of_rope_scaling_that_is_none_is_dropped_from_any_file(tmp_path: Path, text: str) -> None:
    parts = Parts.of(FAMILIES["gptoss"](tmp_path).model)
    parts.put(**{"gpt-oss__rope__scaling__type": text, "gpt-oss__rope__scaling__factor": 0.0})
    found = published.read(parts.write(tmp_path / "file.gguf"))
    assert found.rules == f"general-{published.general.VERSION}"
    assert not [key for key in found.text.metadata if ".rope.scaling." in key and "original" not in key]


def test_another_kind_of_rope_scaling_is_refused(tmp_path: Path) -> None:
    parts = Parts.of(FAMILIES["gptoss"](tmp_path).model)
    parts.put(**{"gpt-oss__rope__scaling__type": "wild"})
    with pytest.raises(ModelFileError, match='is "wild", not one of'):
        published.read(parts.write(tmp_path / "file.gguf"))
