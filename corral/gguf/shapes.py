"""Whether the tensors of a new model have the shapes that its numbers ask for. Judges only what it knows.

The engine checks shapes by itself, when it loads a model: what is refused here could not be loaded, and is refused at
once, where the model is made. Architectures that are not named here are the engine's to judge.
"""

import re
from collections.abc import Iterator, Mapping

from corral.errors import ModelFileError
from corral.gguf.file import GGUF, Tensor

_STANDARD = frozenset(
    {
        *("baichuan", "ernie4_5", "exaone", "gemma", "gemma2", "gemma3", "granite", "internlm2", "llama", "minicpm"),
        *("mistral3", "olmo", "olmo2", "orion", "phi3", "qwen2", "qwen3", "smollm3", "starcoder2", "xverse"),
    }
)
"""Architectures of one kind of layer: attention by heads, then a feed-forward or experts."""

_OF_ONE_WIDTH = _STANDARD | {
    *("bert", "bloom", "chatglm", "cohere2", "codeshell", "command-r", "deepseek2", "exaone4", "falcon", "glm4"),
    *("gpt-oss", "gpt2", "gptneox", "granitemoe", "llama4", "lfm2", "mamba", "mamba2", "mpt", "nemotron"),
    *("nomic-bert", "phi2", "qwen2moe", "qwen2vl", "qwen3moe", "refact", "seed_oss", "stablelm", "starcoder"),
}
"""Architectures whose embeddings have a row for each token and are as wide as all that flows from layer to layer."""

_BLOCK = re.compile(r"blk\.(\d+)\.(.+)")

Shape = tuple[int, ...]


def check_shapes(file: GGUF) -> None:
    """Raises `ModelFileError`, naming the tensor, for one that no engine could use; other kinds of files are left."""
    embeddings = next((tensor for tensor in file.tensors if tensor.name == "token_embd.weight"), None)
    if file.kind != "model" or file.architecture not in _OF_ONE_WIDTH or embeddings is None:
        return
    _check_embeddings(file, embeddings)
    blocks = _blocks(file)
    layers = file.block_count
    if layers is None:
        raise ModelFileError(f'key "{file.architecture}.block_count" is missing')
    beyond = next((number for number in blocks if number >= layers), None)
    if beyond is not None:
        name = next(iter(blocks[beyond].values())).name
        raise ModelFileError(f'tensor "{name}" is of a layer beyond the {layers} that the model has')
    for number in range(layers - (file.integer("nextn_predict_layers") or 0)):
        if number not in blocks:
            raise ModelFileError(f'the tensors of layer {number} of {layers}, "blk.{number}.…", are missing')
    if file.architecture in _STANDARD:
        for number, block in blocks.items():
            _check_block(file, number, block)


def _check_embeddings(file: GGUF, embeddings: Tensor) -> None:
    width = file.embedding_length
    if width is None:
        raise ModelFileError(f'key "{file.architecture}.embedding_length" is missing')
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    if tokens is None:
        raise ModelFileError('key "tokenizer.ggml.tokens" is missing')
    _expect(embeddings, (width, file.vocabulary_size), "embedding_length and tokens")
    output = next((tensor for tensor in file.tensors if tensor.name == "output.weight"), None)
    if output is not None and file.architecture in _STANDARD:
        _expect(output, (width, file.vocabulary_size), "embedding_length and tokens")
    norm = next((tensor for tensor in file.tensors if tensor.name == "output_norm.weight"), None)
    if norm is not None:
        _expect(norm, (width,), "embedding_length")


def _blocks(file: GGUF) -> dict[int, dict[str, Tensor]]:
    """The tensors of each layer, by their names within it."""
    found: dict[int, dict[str, Tensor]] = {}
    for tensor in file.tensors:
        if match := _BLOCK.fullmatch(tensor.name):
            found.setdefault(int(match[1]), {})[match[2]] = tensor
    return found


def _check_block(file: GGUF, number: int, block: Mapping[str, Tensor]) -> None:
    for name, shape, keys in _expected(file, number):
        if name in block and 0 not in shape:
            _expect(block[name], shape, keys)
    experts = file.integer("expert_count")
    for part in ("gate", "up", "down"):
        tensor = block.get(f"ffn_{part}_exps.weight")
        if tensor is not None and experts and (*tensor.shape, 1, 1, 1)[2] != experts:
            raise ModelFileError(f'tensor "{tensor.name}" has the shape {list(tensor.shape)}, for {experts} experts')
    _check_attention(number, block)


def _check_attention(number: int, block: Mapping[str, Tensor]) -> None:
    """A layer with attention has all of it."""
    if "attn_output.weight" not in block or "attn_qkv.weight" in block:
        return
    for part in ("attn_q", "attn_k", "attn_v"):
        if f"{part}.weight" not in block:
            raise ModelFileError(f'tensor "blk.{number}.{part}.weight" is missing')


def _expected(file: GGUF, number: int) -> Iterator[tuple[str, Shape, str]]:
    """Names of tensors with the shapes they have if they are there, and the keys these come from."""
    width = file.embedding_length or 0
    heads = _of_layer(file, "attention.head_count", number)
    kv_heads = _of_layer(file, "attention.head_count_kv", number) or heads
    usual = width // heads if heads else 0
    key, value = file.integer("attention.key_length") or usual, file.integer("attention.value_length") or usual
    by_heads = "embedding_length and attention.head_count"
    yield "attn_q.weight", (width, heads * key), by_heads
    yield "attn_k.weight", (width, kv_heads * key), f"{by_heads}_kv"
    yield "attn_v.weight", (width, kv_heads * value), f"{by_heads}_kv"
    yield "attn_qkv.weight", (width, heads * key + kv_heads * (key + value)), by_heads
    yield "attn_output.weight", (heads * value, width), by_heads
    for norm in ("attn_norm.weight", "ffn_norm.weight"):
        yield norm, (width,), "embedding_length"
    inner = _of_layer(file, "feed_forward_length", number)
    by_inner = "embedding_length and feed_forward_length"
    yield "ffn_gate.weight", (width, inner), by_inner
    yield "ffn_up.weight", (width, 2 * inner if file.architecture == "phi3" else inner), by_inner
    yield "ffn_down.weight", (inner, width), by_inner


def _of_layer(file: GGUF, key: str, number: int) -> int:
    """A number of the layer; 0: not known, or none."""
    values = file.per_layer(key) or []
    return values[number] if number < len(values) else 0


def _expect(tensor: Tensor, shape: Shape, keys: str) -> None:
    """Dimensions of 1 at the end say nothing."""
    if (*tensor.shape, 1, 1, 1, 1)[:4] != (*shape, 1, 1, 1, 1)[:4]:
        raise ModelFileError(
            f'tensor "{tensor.name}" has the shape {list(tensor.shape)} instead of {list(shape)} by {keys}'
        )
