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
from tests.tiny_models import tiny_gemma3, tiny_llama, tiny_llava

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


FAMILIES: dict[str, Callable[[Path], Twins]] = {"llama3": llama3, "llava": llava, "gemma3": gemma3}
