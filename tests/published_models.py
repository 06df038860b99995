"""Files as Ollama's registry has them, made of tiny models in the engine's own layout with the same weights.

Written from what is known of the published layouts (`docs/published-models.md`), in the other direction than
`corral.published` goes, and with none of its code.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, quants

from tests.gguf_bytes import BOOL, F32, I32, STRING, U32, ArrayOf, FakeTensor, Header, header_of
from tests.tiny_models import LAYERS, tiny_gemma3, tiny_llama, tiny_llava

KINDS = {kind.value: kind for kind in GGMLQuantizationType}


@dataclass(frozen=True)
class Stored:
    """A tensor as it lies in a file: its shape has the row length first."""

    kind: int
    shape: tuple[int, ...]
    data: bytes

    def numbers(self) -> np.ndarray[Any, Any]:
        """As an array of the shape in NumPy's order, in 32-bit floats."""
        raw = np.frombuffer(self.data, np.uint8).reshape(int(np.prod(self.shape[1:])), -1)
        return np.asarray(quants.dequantize(raw, KINDS[self.kind])).reshape(self.shape[::-1])

    def as_kind(self, kind: GGMLQuantizationType) -> "Stored":
        return stored(self.numbers(), kind)


def stored(numbers: np.ndarray[Any, Any], kind: GGMLQuantizationType = GGMLQuantizationType.F32) -> Stored:
    raw = quants.quantize(np.ascontiguousarray(numbers, np.float32), kind)
    return Stored(kind.value, numbers.shape[::-1], raw.tobytes())


@dataclass
class Parts:
    """A file in the hand: keys with their types and values, and tensors."""

    keys: dict[str, tuple[int, Any]]
    tensors: dict[str, Stored] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path) -> "Parts":
        header = header_of(path)
        keys = {str(name): (kind, value) for name, kind, value in header.keys}
        tensors = {}
        for entry in header.tensors:
            size = _size(entry.kind, tuple(entry.shape))
            tensors[str(entry.name)] = Stored(
                entry.kind, tuple(entry.shape), header.data[entry.offset : entry.offset + size]
            )
        return cls(keys, tensors)

    def copy(self) -> "Parts":
        return Parts(dict(self.keys), dict(self.tensors))

    def put(self, **keys: Any) -> None:
        """Sets keys, their dots written as two underscores; the type is that of the value."""
        for name, value in keys.items():
            self.keys[name.replace("__", ".")] = typed(value)

    def drop(self, *names: str) -> None:
        for name in names:
            self.keys.pop(name, None)

    def rename_prefix(self, old: str, new: str) -> None:
        self.keys = {
            (new + key.removeprefix(old) if key.startswith(old) else key): value for key, value in self.keys.items()
        }

    def rename(self, change: Callable[[str], str]) -> None:
        self.tensors = {change(name): tensor for name, tensor in self.tensors.items()}

    def write(self, path: Path, *, order: Callable[[str], Any] | None = None) -> Path:
        """Keys sorted, tensors by block and then by name, as Ollama writes them; `order` is another order."""
        names = sorted(self.tensors, key=order or ollamas_order)
        entries, data = [], b""
        for name in names:
            tensor = self.tensors[name]
            entries.append(FakeTensor(name, tensor.shape, tensor.kind, len(data)))
            data += tensor.data + bytes(-len(tensor.data) % 32)
        keys = [(name, *self.keys[name]) for name in sorted(self.keys)]
        path.write_bytes(Header(keys, entries, data).encode())
        return path


def typed(value: Any) -> tuple[int, Any]:
    match value:
        case bool():
            return BOOL, value
        case int():
            return U32, value
        case float():
            return F32, value
        case str():
            return STRING, value
        case list():
            kind = typed(value[0])[0]
            return 9, ArrayOf(I32 if kind == U32 else kind, value)
        case _:
            return tuple(value)


def ollamas_order(name: str) -> tuple[int, str]:
    first, _, rest = name.partition(".")
    return (int(rest.partition(".")[0]), name) if first == "blk" else (1 << 30, name)


def _size(kind: int, shape: tuple[int, ...]) -> int:
    from gguf import GGML_QUANT_SIZES

    block, size = GGML_QUANT_SIZES[KINDS[kind]]
    return int(np.prod(shape)) // block * size


def replaced(table: Mapping[str, str]) -> Callable[[str], str]:
    """Names changed by the parts of them that the table has, the first that is found."""

    def change(name: str) -> str:
        for old, new in table.items():
            if old in name:
                return name.replace(old, new)
        return name

    return change


@dataclass(frozen=True)
class Twins:
    """The same weights twice: in the engine's layout, and as they are published."""

    model: Path
    published: Path
    projector: Path | None = None
    """In the engine's layout; None without an encoder."""
    published_projector: Path | None = None
    """Where that is a file of its own as published."""
    embeds: bool = False
    """Whether it makes vectors of texts."""


F16 = GGMLQuantizationType.F16
F32_KIND = GGMLQuantizationType.F32


def halved(parts: Parts) -> None:
    """Makes F16 of all matrices, as most published files have them."""
    parts.tensors = {
        name: tensor.as_kind(F16) if len(tensor.shape) > 1 else tensor for name, tensor in parts.tensors.items()
    }


def widen(parts: Parts, *names: str) -> None:
    for name in names:
        parts.tensors[name] = parts.tensors[name].as_kind(F32_KIND)


def add_tokens(parts: Parts, count: int) -> None:
    """More tokens than the embeddings have rows."""
    for key, value in (("tokens", ""), ("token_type", 4), ("scores", -1.0)):
        if (found := parts.keys.get(f"tokenizer.ggml.{key}")) is not None:
            old = found[1]
            added = [f"[PAD{number}]" for number in range(count)] if key == "tokens" else [value] * count
            parts.keys[f"tokenizer.ggml.{key}"] = (9, ArrayOf(old.kind, [*old.elements, *added]))


def llama3(folder: Path) -> Twins:
    """128,010 tokens, most of them names only, with eight numbers each."""
    tiny_llama(folder / "tiny.gguf", metadata={})
    parts = Parts.of(folder / "tiny.gguf")
    tokens = parts.keys["tokenizer.ggml.tokens"][1].elements
    names = [*tokens, *(f"filler{number}" for number in range(len(tokens), 128000))]
    special = ["begin_of_text", "end_of_text", *(f"reserved_special_token_{number}" for number in range(4))]
    names += [f"<|{name}|>" for name in (*special, "start_header_id", "end_header_id", "reserved_4", "eot_id")]
    parts.keys["tokenizer.ggml.tokens"] = (9, ArrayOf(STRING, names))
    types = [*parts.keys["tokenizer.ggml.token_type"][1].elements, *[1] * (128000 - len(tokens)), *[3] * 10]
    parts.keys["tokenizer.ggml.token_type"] = (9, ArrayOf(I32, types))
    parts.put(llama__vocab_size=len(names), tokenizer__ggml__bos_token_id=128000)
    random = np.random.default_rng(3)
    for name in ("token_embd.weight", "output.weight"):
        rows = parts.tensors[name].numbers()
        filler = random.normal(0, 1, (len(names) - len(rows), rows.shape[1]))
        parts.tensors[name] = stored(np.concatenate([rows, filler]), F16)
    parts.put(tokenizer__ggml__pre="llama-bpe", tokenizer__ggml__eos_token_id=128009)
    parts.put(tokenizer__ggml__eot_token_id=128009)
    model = parts.write(folder / "model.gguf")
    parts.put(tokenizer__ggml__pre="default", tokenizer__ggml__eos_token_id=128001)
    parts.drop("tokenizer.ggml.eot_token_id")
    return Twins(model, parts.write(folder / "published.gguf"))


def llava(folder: Path) -> Twins:
    """A projector of its own file, with norms and positions in F16 as the first converters left them."""
    tiny_llava(folder / "model.gguf", folder / "tiny.gguf")
    parts = Parts.of(folder / "tiny.gguf")
    halved(parts)
    small = [name for name, tensor in parts.tensors.items() if len(tensor.shape) < 2]
    for name in small:
        parts.tensors[name] = parts.tensors[name].as_kind(F16)
    published = parts.copy()
    widen(parts, *small, "v.position_embd.weight")
    projector = parts.write(folder / "projector.gguf")
    published.drop("clip.projector_type")
    published.keys["clip.vision.block_count"] = (I32, published.keys["clip.vision.block_count"][1])
    return Twins(folder / "model.gguf", folder / "model.gguf", projector, published.write(folder / "published.gguf"))


def gemma3(folder: Path) -> Twins:
    """With an encoder of pictures, a few tokens too many, and old names throughout."""
    tiny_gemma3(folder / "tiny.gguf", folder / "tower.gguf")
    text, tower = Parts.of(folder / "tiny.gguf"), Parts.of(folder / "tower.gguf")
    halved(text)
    halved(tower)
    text.put(gemma3__rope__freq_base=500000.0, gemma3__rope__freq_base_swa=20000.0, gemma3__context_length=131072)
    text.put(gemma3__attention__layer_norm_rms_epsilon=9.999999974752427e-07)
    text.put(gemma3__rope__scaling__type="linear", gemma3__rope__scaling__factor=8.0)
    text.put(gemma3__rope__scaling__yarn_beta_fast=30.0)
    model = text.write(folder / "model.gguf")
    published = text.copy()
    published.drop("gemma3.rope.freq_base", "gemma3.rope.freq_base_swa", "gemma3.attention.layer_norm_rms_epsilon")
    published.drop("gemma3.rope.scaling.type", "gemma3.rope.scaling.factor", "gemma3.rope.scaling.yarn_beta_fast")
    published.put(gemma3__rope__global__freq_base=500000.0, gemma3__rope__local__freq_base=20000.0)
    published.put(gemma3__rope__scaling__beta_fast=30.0, gemma3__mm__tokens_per_image=4)
    add_tokens(published, 3)
    _take_vision_keys(published, tower, "gemma3")
    tower.rename(
        replaced(
            {
                "v.patch_embd": "v.patch_embedding",
                "v.position_embd": "v.position_embedding",
                "v.post_ln": "v.post_layernorm",
                ".ln1": ".layer_norm1",
                ".ln2": ".layer_norm2",
                ".attn_out": ".attn_output",
                ".ffn_up": ".mlp.fc1",
                ".ffn_down": ".mlp.fc2",
                "mm.input_projection": "mm.mm_input_projection",
                "mm.soft_emb_norm": "mm.mm_soft_emb_norm",
            }
        )
    )
    published.tensors |= tower.tensors
    tower = Parts.of(folder / "tower.gguf")
    halved(tower)
    widen(tower, "v.patch_embd.weight", "v.position_embd.weight")
    return Twins(model, published.write(folder / "published.gguf"), tower.write(folder / "projector.gguf"))


def _take_vision_keys(published: Parts, tower: Parts, architecture: str, *, leave: tuple[str, ...] = ()) -> None:
    """The encoder's numbers as the model's file has them, under its architecture."""
    unwanted = ("projection_dim", "image_mean", "image_std", *leave)
    for key, value in tower.keys.items():
        name = key.removeprefix("clip.vision.")
        if key.startswith("clip.vision.") and name not in unwanted:
            published.keys[f"{architecture}.vision.{name}"] = value


def decoder(folder: Path, architecture: str) -> Parts:
    """A `tiny_llama` under another architecture, its matrices in F16."""
    parts = Parts.of(tiny_llama(folder / "llama.gguf", outtype="f32"))
    parts.rename_prefix("llama.", f"{architecture}.")
    parts.put(general__architecture=architecture)
    halved(parts)
    return parts


def random_tensor(seed: int, *shape: int, kind: GGMLQuantizationType = F16, centre: float = 0.0) -> Stored:
    """Of a shape in NumPy's order."""
    return stored(np.random.default_rng(seed).normal(centre, 0.3, shape), kind)


def gptoss(folder: Path) -> Twins:
    """With MXFP4 experts, sinks and biases."""
    parts = decoder(folder, "gpt-oss")
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        for part, rows in (("attn_q", 64), ("attn_k", 32), ("attn_v", 32), ("attn_output", 64)):
            parts.tensors[f"{block}.{part}.bias"] = random_tensor(rows + layer, rows, kind=F32_KIND)
        parts.tensors[f"{block}.attn_sinks.weight"] = random_tensor(layer, 2, kind=F32_KIND)
        parts.tensors[f"{block}.post_attention_norm.weight"] = parts.tensors.pop(f"{block}.ffn_norm.weight")
        for part in ("gate", "up", "down"):
            del parts.tensors[f"{block}.ffn_{part}.weight"]
        parts.tensors[f"{block}.ffn_gate_inp.weight"] = random_tensor(layer, 4, 64, kind=F32_KIND)
        parts.tensors[f"{block}.ffn_gate_inp.bias"] = random_tensor(layer + 5, 4, kind=F32_KIND)
        for number, (part, shape) in enumerate((("gate", (4, 96, 64)), ("up", (4, 96, 64)), ("down", (4, 64, 96)))):
            name = f"{block}.ffn_{part}_exps"
            parts.tensors[f"{name}.weight"] = random_tensor(9 * layer + number, *shape, kind=MXFP4)
            parts.tensors[f"{name}.bias"] = random_tensor(7 * layer + number, *shape[:2], kind=F32_KIND)
    parts.rename_prefix("gpt-oss.feed_forward_length", "gpt-oss.expert_feed_forward_length")
    parts.put(**{f"gpt-oss__{key}": value for key, value in _MOE.items()})
    parts.put(**{"gpt-oss__expert_feed_forward_length": 96, "gpt-oss__attention__sliding_window": 64})
    parts.put(**{"gpt-oss__rope__scaling__type": "yarn", "tokenizer__ggml__pre": "gpt-4o"})
    parts.put(**{"gpt-oss__rope__scaling__factor": 32.0, "gpt-oss__rope__scaling__original_context_length": 512})
    model = parts.write(folder / "model.gguf")
    parts.rename_prefix("gpt-oss.", "gptoss.")
    parts.put(general__architecture="gptoss", tokenizer__ggml__pre="default")
    parts.drop("gptoss.expert_feed_forward_length", "gptoss.rope.scaling.type")
    parts.rename(
        replaced(
            {
                "attn_output": "attn_out",
                "attn_sinks.weight": "attn_sinks",
                "post_attention_norm": "ffn_norm",
            }
        )
    )
    return Twins(model, parts.write(folder / "published.gguf"))


_MOE = {"expert_count": 4, "expert_used_count": 2}
MXFP4 = GGMLQuantizationType.MXFP4


def vision(kind: str, **numbers: Any) -> Parts:
    """The keys of a projector for pictures of 56×56: width 48, two blocks, four heads."""
    parts = Parts({})
    parts.put(general__architecture="clip", general__type="mmproj")
    parts.put(clip__has_vision_encoder=True, clip__projector_type=kind)
    usual = {"block_count": 2, "embedding_length": 48, "feed_forward_length": 96, "attention__head_count": 4}
    usual |= {"patch_size": 14, "image_size": 56, "projection_dim": 64}
    parts.put(**{f"clip__vision__{name}": value for name, value in (usual | numbers).items()})
    return parts


def tower_blocks(parts: Parts, linear: Mapping[str, tuple[int, int]], norms: tuple[str, ...], *, bias: bool) -> None:
    """Two blocks of random weights; `linear` has (rows, row length), norms have 48 numbers."""
    for layer in range(2):
        for number, (name, shape) in enumerate(linear.items()):
            parts.tensors[f"v.blk.{layer}.{name}.weight"] = random_tensor(20 * layer + number, *shape)
            if bias:
                seed = 50 * layer + number
                parts.tensors[f"v.blk.{layer}.{name}.bias"] = random_tensor(seed, shape[0], kind=F32_KIND)
        for number, name in enumerate(norms):
            seed = 70 * layer + number
            parts.tensors[f"v.blk.{layer}.{name}.weight"] = random_tensor(seed, 48, kind=F32_KIND, centre=1)
            if bias and name.startswith("ln") and "only weights" not in norms:
                parts.tensors[f"v.blk.{layer}.{name}.bias"] = random_tensor(seed + 9, 48, kind=F32_KIND)


_ATTENTION = {"attn_q": (48, 48), "attn_k": (48, 48), "attn_v": (48, 48), "attn_out": (48, 48)}
_GATED = {"ffn_gate": (96, 48), "ffn_up": (96, 48), "ffn_down": (48, 96)}


def qwen25vl(folder: Path) -> Twins:
    text = decoder(folder, "qwen2vl")
    for layer in range(LAYERS):
        for part, rows in (("attn_q", 64), ("attn_k", 32), ("attn_v", 32)):
            text.tensors[f"blk.{layer}.{part}.bias"] = random_tensor(rows + layer, rows, kind=F32_KIND)
    text.put(qwen2vl__rope__dimension_sections=[4, 6, 6, 0])
    model = text.write(folder / "model.gguf")
    tower = vision("qwen2.5vl_merger", spatial_merge_size=2, window_size=112, n_wa_pattern=2)
    tower.put(clip__use_silu=True)
    tower.keys["clip.vision.attention.layer_norm_epsilon"] = (F32, 9.999999974752427e-07)
    tower.put(clip__vision__image_mean=[0.48145466, 0.4578275, 0.40821073])
    tower.put(clip__vision__image_std=[0.26862954, 0.26130258, 0.27577711])
    for number, name in enumerate(("weight", "weight.1")):
        tower.tensors[f"v.patch_embd.{name}"] = random_tensor(number, 48, 3, 14, 14)
    tower_blocks(tower, _ATTENTION | _GATED, (), bias=True)
    tower_blocks(tower, {}, ("ln1", "ln2"), bias=False)
    tower.tensors["v.post_ln.weight"] = random_tensor(4, 48, kind=F32_KIND, centre=1)
    for name, shape in (("mm.0", (192, 192)), ("mm.2", (64, 192))):
        tower.tensors[f"{name}.weight"] = random_tensor(5, *shape)
        tower.tensors[f"{name}.bias"] = random_tensor(6, shape[0], kind=F32_KIND)
    published = text.copy()
    published.rename_prefix("qwen2vl.", "qwen25vl.")
    published.put(general__architecture="qwen25vl", qwen25vl__rope__mrope_section=[4, 6, 6])
    published.drop("qwen25vl.rope.dimension_sections")
    _take_vision_keys(published, tower, "qwen25vl", leave=("n_wa_pattern", "feed_forward_length"))
    published.put(qwen25vl__vision__fullatt_block_indexes=[1])
    as_published = tower.copy()
    as_published.tensors["v.patch_embd_1.weight"] = as_published.tensors.pop("v.patch_embd.weight.1")
    as_published.rename(
        replaced(
            {
                "v.patch_embd.weight": "v.patch_embd_0.weight",
                "v.post_ln": "v.merger.ln_q",
                "mm.0": "v.merger.mlp.0",
                "mm.2": "v.merger.mlp.2",
            }
        )
    )
    published.tensors |= as_published.tensors
    widen(tower, "v.patch_embd.weight", "v.patch_embd.weight.1")
    return Twins(model, published.write(folder / "published.gguf"), tower.write(folder / "projector.gguf"))


def mistral3(folder: Path) -> Twins:
    text = decoder(folder, "mistral3")
    tokens = text.keys["tokenizer.ggml.tokens"][1].elements
    number = tokens.index("world")
    text.keys["tokenizer.ggml.tokens"] = (9, ArrayOf(STRING, [*tokens[:number], "[IMG_BREAK]", *tokens[number + 1 :]]))
    merges = [merge for merge in text.keys["tokenizer.ggml.merges"][1].elements if merge.replace(" ", "") != "world"]
    text.keys["tokenizer.ggml.merges"] = (9, ArrayOf(STRING, merges))
    text.put(tokenizer__ggml__pre="tekken", mistral3__rope__scaling__type="yarn", mistral3__rope__scaling__factor=16.0)
    text.put(mistral3__rope__scaling__original_context_length=512, mistral3__rope__scaling__yarn_beta_fast=30.0)
    text.put(mistral3__rope__scaling__yarn_beta_slow=2.0, mistral3__rope__scaling__yarn_log_multiplier=1.5)
    text.put(mistral3__attention__temperature_scale=0.25)
    model = text.write(folder / "model.gguf")
    tower = vision("pixtral", spatial_merge_size=2)
    tower.put(clip__use_silu=True, clip__rope__freq_base=5000.0)
    tower.keys["clip.vision.attention.layer_norm_epsilon"] = (F32, 9.999999747378752e-06)
    tower.put(clip__vision__image_mean=[0.48145467, 0.4578275, 0.40821072])
    tower.put(clip__vision__image_std=[0.26862955, 0.26130259, 0.2757771])
    tower.tensors["v.patch_embd.weight"] = random_tensor(0, 48, 3, 14, 14)
    tower.tensors["v.pre_ln.weight"] = random_tensor(1, 48, kind=F32_KIND, centre=1)
    tower_blocks(tower, _ATTENTION | _GATED, ("ln1", "ln2"), bias=False)
    for number, (name, shape) in enumerate((("mm.1", (64, 48)), ("mm.2", (64, 64)), ("mm.patch_merger", (48, 192)))):
        tower.tensors[f"{name}.weight"] = random_tensor(30 + number, *shape)
    tower.tensors["mm.input_norm.weight"] = random_tensor(4, 48, kind=F32_KIND, centre=1)
    published = text.copy()
    published.put(tokenizer__ggml__pre="default", mistral3__spatial_merge_size=2)
    for new, old in (("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")):
        published.rename_prefix(f"mistral3.rope.scaling.{new}", f"mistral3.rope.scaling.{old}")
    published.rename_prefix("mistral3.rope.scaling.yarn_log_multiplier", "mistral3.rope.scaling.mscale_all_dim")
    published.rename_prefix("mistral3.attention.temperature_scale", "mistral3.rope.scaling_beta")
    _take_vision_keys(published, tower, "mistral3", leave=("spatial_merge_size", "attention.layer_norm_epsilon"))
    published.put(mistral3__vision__rope__freq_base=5000.0)
    as_published = tower.copy()
    for name, tensor in tower.tensors.items():
        if name.endswith(("attn_q.weight", "attn_k.weight")):
            # New row 2i+s of a head is old row s·d/2+i; here the other way.
            rows = tensor.numbers().reshape(4, 6, 2, 48).swapaxes(1, 2).reshape(48, 48)
            as_published.tensors[name] = stored(rows, F16)
    as_published.rename(
        replaced(
            {
                "v.patch_embd": "v.patch_conv",
                "v.pre_ln": "v.encoder_norm",
                ".ln1": ".attn_norm",
                ".ln2": ".ffn_norm",
                ".attn_out": ".attn_output",
                "mm.1": "mm.linear_1",
                "mm.2": "mm.linear_2",
                "mm.input_norm": "mm.norm",
                "mm.patch_merger": "mm.patch_merger.merging_layer",
            }
        )
    )
    published.tensors |= as_published.tensors
    widen(tower, "v.patch_embd.weight")
    row = text.tensors["token_embd.weight"].numbers()[tokens.index("world")]
    tower.tensors["v.token_embd.img_break"] = stored(row)
    return Twins(model, published.write(folder / "published.gguf"), tower.write(folder / "projector.gguf"))


def _repeat_blocks(parts: Parts, count: int) -> None:
    """As many blocks, of the first two in turn."""
    for number in range(LAYERS, count):
        begin = f"blk.{number % LAYERS}."
        parts.tensors |= {
            f"blk.{number}.{name.removeprefix(begin)}": tensor
            for name, tensor in parts.tensors.items()
            if name.startswith(begin)
        }


def embeddinggemma(folder: Path) -> Twins:
    tiny_gemma3(folder / "tiny.gguf", folder / "tower.gguf")
    parts = Parts.of(folder / "tiny.gguf")
    halved(parts)
    parts.rename_prefix("gemma3.", "gemma-embedding.")
    del parts.tensors["output.weight"]
    _repeat_blocks(parts, 6)  # the sixth attends to all tokens: without such a block the engine ends its process
    parts.put(**{"gemma-embedding__block_count": 6})
    parts.tensors["dense_2.weight"] = random_tensor(1, 96, 64)
    parts.tensors["dense_3.weight"] = random_tensor(2, 64, 96)
    parts.put(general__architecture="gemma-embedding")
    numbers: dict[str, Any] = {"pooling_type": 1, "rope__freq_base_swa": 10000.0}
    numbers |= {"dense_2_feat_in": 64, "dense_2_feat_out": 96, "dense_3_feat_in": 96, "dense_3_feat_out": 64}
    parts.put(**{f"gemma-embedding__{name}": value for name, value in numbers.items()})
    parts.keys["gemma-embedding.attention.layer_norm_rms_epsilon"] = (F32, 9.999999974752427e-07)
    model = parts.write(folder / "model.gguf")
    parts.rename_prefix("gemma-embedding.", "gemma3.")
    parts.drop("gemma3.rope.freq_base_swa", "gemma3.attention.layer_norm_rms_epsilon")
    parts.drop(*(f"gemma3.dense_{number}_feat_{end}" for number in (2, 3) for end in ("in", "out")))
    parts.put(general__architecture="gemma3", gemma3__attention__causal=False)
    parts.put(gemma3__attention__sliding_window_pattern=(9, ArrayOf(BOOL, [False, True])))
    parts.rename(replaced({"dense_2": "dense.0", "dense_3": "dense.1"}))
    parts.tensors["norm.weight"] = parts.tensors.pop("output_norm.weight")
    return Twins(model, parts.write(folder / "published.gguf"), embeds=True)


FAMILIES: dict[str, Callable[[Path], Twins]] = {
    "llama3": llama3,
    "llava": llava,
    "gemma3": gemma3,
    "gptoss": gptoss,
    "qwen25vl": qwen25vl,
    "mistral3": mistral3,
    "embeddinggemma": embeddinggemma,
}
