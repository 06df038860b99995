"""The heads of a model's attention, and how much of them is rotated: whether the numbers go into each other.

The engine multiplies heads by groups and rotates pairs of elements, and ends the process where that does not come out.
"""

from corral.errors import ModelFileError
from corral.gguf.file import GGUF
from corral.gguf.keys import full_key, numbers, quoted

_MANY = 1 << 16
_WITHOUT_ATTENTION = (".ssm.", ".wkv.", ".shortconv.", ".kda.")
_ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")
_WITHOUT_ROPE = frozenset(
    {"bloom", "gpt2", "jais", "jina-bert-v2", "mpt", "refact", "starcoder", "t5", "t5encoder", "bert"}
)
_WHOLLY_ROTATED = frozenset(
    {
        *("baichuan", "codeshell", "ernie4_5", "exaone", "hunyuan-dense", "internlm2", "minicpm", "olmo", "olmo2"),
        *("orion", "qwen2", "qwen2moe", "qwen3", "qwen3moe", "smollm3", "starcoder2", "xverse"),
    }
)
"""Architectures whose heads the engine rotates whole, and ends the process where the file says otherwise."""


_ATTENDS_TO_ALL = frozenset(
    {
        *("llama", "mistral3", "qwen2", "qwen2moe", "qwen3", "qwen3moe", "smollm3", "granite", "granitemoe"),
        *("starcoder2", "gemma", "phi2", "olmo", "internlm2", "glm4", "deepseek", "deepseek2", "stablelm"),
    }
)
"""Architectures in which every layer keeps all tokens, unless a key says otherwise."""


def attends_to_all(file: GGUF) -> bool:
    """Whether every layer is known to keep all tokens, with no window that slides and no state that they pass into."""
    return file.architecture in _ATTENDS_TO_ALL and not any(numbers(file, "attention.sliding_window"))


def check_attention(file: GGUF) -> None:
    """Raises `ModelFileError`, naming the key, for numbers of heads and rotations that no engine could work with."""
    _check_heads(file)
    _check_rope(file)
    rank = file.integer("attention.kv_lora_rank")
    if file.architecture == "deepseek2" and file.integer("attention.key_length_mla") and rank:
        _check_latent(file, rank)


def _check_heads(file: GGUF) -> None:
    heads, kv_heads = numbers(file, "attention.head_count"), numbers(file, "attention.head_count_kv")
    recurrent = any(mark in key for key in file.metadata for mark in _WITHOUT_ATTENTION)
    if heads and not any(heads) and not recurrent:
        raise ModelFileError(f'key "{full_key(file, "attention.head_count")}" is 0')
    most, width = max(heads, default=_MANY), file.embedding_length
    if heads and width is not None and most > width:
        raise ModelFileError(f'key "{full_key(file, "attention.head_count")}" is {most}, for {width} elements')
    if max(kv_heads, default=0) > most:
        raise ModelFileError(f'key "{full_key(file, "attention.head_count_kv")}" is {max(kv_heads)}, of {most} heads')
    for layer, (of_queries, of_keys) in enumerate(_by_layer(heads, kv_heads)):
        if of_keys and of_queries % of_keys:
            key = full_key(file, "attention.head_count_kv")
            raise ModelFileError(f'key "{key}" is {of_keys}, which does not divide {of_queries} heads')
        if of_queries and not of_keys and any(tensor.name == f"blk.{layer}.attn_k.weight" for tensor in file.tensors):
            key = full_key(file, "attention.head_count_kv")
            raise ModelFileError(
                f'key "{key}" is 0 for layer {layer}, which has the tensor "blk.{layer}.attn_k.weight"'
            )


def _by_layer(heads: list[int], kv_heads: list[int]) -> list[tuple[int, int]]:
    """Both numbers for each layer; a single number goes for all of them."""
    if not heads or not kv_heads:
        return []
    layers = max(len(heads), len(kv_heads))
    one, other = (values * layers if len(values) == 1 else values for values in (heads, kv_heads))
    return list(zip(one, other, strict=False))


def _check_rope(file: GGUF) -> None:
    """How much of a head is rotated: an even number of elements, and no more than it has."""
    for key, width_key in (("rope.dimension_count", ""), ("rope.dimension_count_swa", "_swa")):
        rotated, width = file.integer(key), _head_width(file, width_key)
        if rotated is None:
            if width is not None and width % 2 and not key.endswith("_swa") and not _may_have_no_rope(file):
                full = full_key(file, "attention.head_count")
                raise ModelFileError(f'key "{full}" makes heads of {width} elements, which is not even')
            continue
        if rotated % 2:
            raise ModelFileError(f'key "{full_key(file, key)}" is {rotated}, which is not even')
        if width is not None and rotated > width:
            raise ModelFileError(f'key "{full_key(file, key)}" is {rotated}, for heads of {width} elements')
        if not rotated and not _may_have_no_rope(file):
            raise ModelFileError(f'key "{full_key(file, key)}" is 0')
        if width is not None and rotated < width and file.architecture in _WHOLLY_ROTATED:
            raise ModelFileError(f'key "{full_key(file, key)}" is {rotated}, for heads of {width} elements')
    sections, width = numbers(file, "rope.dimension_sections"), _head_width(file, "")
    if sections and (not any(sections[:3]) or (width is not None and sum(sections) > width)):
        raise ModelFileError(
            f'key "{full_key(file, "rope.dimension_sections")}" is {sections[:8]}, for {width} elements'
        )
    scaling = file.text("rope.scaling.type")
    if scaling is not None and scaling not in _ROPE_SCALINGS:
        known = ", ".join(_ROPE_SCALINGS)
        raise ModelFileError(f'key "{full_key(file, "rope.scaling.type")}" is "{quoted(scaling)}", not one of {known}')


def _check_latent(file: GGUF, rank: int) -> None:
    """Latent attention: one key for all heads, the latent vector with the rotated part, and the vector as its value."""
    rotated = file.integer("rope.dimension_count") or 0
    wanted = (
        ("attention.head_count_kv", 1),
        ("attention.key_length", rank + rotated),
        ("attention.value_length", rank),
    )
    for key, number in wanted:
        if found := set(numbers(file, key)) - {number}:
            raise ModelFileError(
                f'key "{full_key(file, key)}" is {max(found)} instead of {number}, for latent attention'
            )
    if rotated >= (file.integer("attention.key_length_mla") or 0):
        raise ModelFileError(f'key "{full_key(file, "rope.dimension_count")}" is {rotated}, which is a whole key')


def _head_width(file: GGUF, suffix: str) -> int | None:
    """Elements of a key of one head: the widest, where the layers differ."""
    latent = () if suffix else ("attention.key_length_mla",)
    for key in (f"attention.key_length{suffix}", *latent, "attention.key_length"):
        if widths := numbers(file, key):
            return max(widths)
    heads = [number for number in numbers(file, "attention.head_count") if number]
    return file.embedding_length // min(heads) if heads and file.embedding_length is not None else None


def _may_have_no_rope(file: GGUF) -> bool:
    return file.architecture in _WITHOUT_ROPE or any(
        mark in key for key in file.metadata for mark in _WITHOUT_ATTENTION
    )
