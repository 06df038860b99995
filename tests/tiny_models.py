"""Real models small enough to make in a test: random weights, whole vocabularies, files the engine loads in no time.

Deterministic: the same arguments give the same bytes. What the models say makes no sense, but they say it in plain
ASCII and always the same way. `tiny_bert_forward` computes in NumPy what the engine should answer.
"""

import string
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, PoolingType, TokenType, quants

Weights = dict[str, np.ndarray[Any, Any]]

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""A chat template in Jinja that fits the special tokens of `tiny_llama`."""

WIDTH = 64
HEADS = 2
KV_HEADS = 1
HEAD_WIDTH = WIDTH // HEADS
FEED_FORWARD = 128
LAYERS = 2

_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>", "<think>", "</think>")
_WORDS = ("the", "and", "ing", "tion", "er", "you", "that", "is", "hello", "world", "user", "assistant", "system")


def tiny_llama(
    path: Path,
    *,
    seed: int = 0,
    chat_template: str | None = None,
    name: str = "tiny llama",
    context_length: int = 2048,
    outtype: str = "f16",
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """A llama of two layers and some 120,000 parameters with a byte-level BPE vocabulary: any text can be tokenised.

    `outtype` is f32 or f16. It never says a special token, nor anything but printable ASCII, whatever the sampling,
    so an answer ends at its limit. `metadata` are further string values.
    """
    writer = _text_writer(path, "llama", name, context_length, chat_template)
    for key, value in (metadata or {}).items():
        writer.add_string(key, value)
    _write(writer, _text_weights(np.random.default_rng(seed), len(bpe_vocabulary()[0])), outtype)
    return path


def tiny_bert(
    path: Path,
    *,
    seed: int = 0,
    chat_template: str | None = None,
    name: str = "tiny bert",
    context_length: int = 512,
) -> Path:
    """A BERT of two layers with a WordPiece vocabulary and mean pooling, in 32-bit floats."""
    writer = _bert_writer(path, name, PoolingType.MEAN, chat_template, context_length)
    random = np.random.default_rng(seed)
    _write(writer, _bert_weights(random, len(wordpiece_vocabulary()), context_length), "f32")
    return path


def tiny_reranker(
    path: Path, *, seed: int = 0, has_head: bool = True, context_length: int = 512, template: str = ""
) -> Path:
    """A `tiny_bert` that ranks: the first token's state goes through a dense layer and one that gives the score.

    `template`: the prompt around `{query}` and `{document}`.
    """
    writer = _bert_writer(path, "tiny reranker", PoolingType.RANK, None, context_length)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)
    writer.add_add_sep_token(False)
    if template:
        writer.add_string("tokenizer.chat_template.rerank", template)
    random = np.random.default_rng(seed)
    weights = _bert_weights(random, len(wordpiece_vocabulary()), context_length)
    if has_head:
        _add_linear(weights, "cls", random, WIDTH, WIDTH)
        _add_linear(weights, "cls.output", random, 1, WIDTH)
    _write(writer, weights, "f32")
    return path


def _bert_writer(
    path: Path, name: str, pooling: PoolingType, chat_template: str | None, context_length: int
) -> GGUFWriter:
    vocabulary = wordpiece_vocabulary()
    writer = GGUFWriter(path, "bert")
    writer.add_name(name)
    writer.add_type("model")
    writer.add_context_length(context_length)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(_BERT_EPSILON)
    writer.add_causal_attention(False)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    writer.add_pooling_type(pooling)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([_phantom_space(token) for token in vocabulary])
    writer.add_token_types([_bert_token_type(token) for token in vocabulary])
    writer.add_token_type_count(2)
    writer.add_bos_token_id(vocabulary.index("[CLS]"))
    writer.add_eos_token_id(vocabulary.index("[SEP]"))
    writer.add_unk_token_id(vocabulary.index("[UNK]"))
    writer.add_sep_token_id(vocabulary.index("[SEP]"))
    writer.add_pad_token_id(vocabulary.index("[PAD]"))
    writer.add_mask_token_id(vocabulary.index("[MASK]"))
    return writer


def tiny_llava(model_path: Path, projector_path: Path, *, seed: int = 0, chat_template: str | None = None) -> None:
    """A text model and, in a file of its own, a CLIP encoder with LLaVA's projector: 16 patches of a 32×32 picture."""
    tiny_llama(model_path, seed=seed, chat_template=chat_template, name="tiny llava")
    writer = _projector_writer(projector_path, "mlp", image_size=32, patch_size=8)
    random = np.random.default_rng(seed + 1)
    weights = _vision_weights(random, patches=16, patch_size=8, class_token=True)
    weights["mm.0.weight"] = _matrix(random, WIDTH, WIDTH, gain=2)
    weights["mm.0.bias"] = np.zeros(WIDTH, np.float32)
    weights["mm.2.weight"] = _matrix(random, WIDTH, WIDTH, gain=2)
    weights["mm.2.bias"] = np.zeros(WIDTH, np.float32)
    _write(writer, weights, "f32")


def tiny_gemma3(model_path: Path, projector_path: Path, *, seed: int = 0, chat_template: str | None = None) -> None:
    """A Gemma 3 and its SigLIP encoder: 64 patches of a 64×64 picture, pooled to 4, seen all at once by the model."""
    random = np.random.default_rng(seed)
    writer = _text_writer(model_path, "gemma3", "tiny gemma", 2048, chat_template)
    writer.add_key_length(HEAD_WIDTH)
    writer.add_value_length(HEAD_WIDTH)
    writer.add_sliding_window(512)
    weights = _text_weights(random, len(bpe_vocabulary()[0]))
    for layer in range(LAYERS):
        for part in ("attn_q", "attn_k"):
            weights[f"blk.{layer}.{part}_norm.weight"] = np.ones(HEAD_WIDTH, np.float32)
        for part in ("post_attention", "post_ffw"):
            # The architecture multiplies embeddings by the root of the width, which would drown what layers add.
            weights[f"blk.{layer}.{part}_norm.weight"] = np.full(WIDTH, WIDTH**0.5, np.float32)
    _write(writer, weights, "f32")
    writer = _projector_writer(projector_path, "gemma3", image_size=64, patch_size=8)
    weights = _vision_weights(random, patches=64, patch_size=8, class_token=False)
    weights["v.patch_embd.bias"] = np.zeros(WIDTH, np.float32)
    weights["mm.input_projection.weight"] = _matrix(random, WIDTH, WIDTH, gain=2)
    weights["mm.soft_emb_norm.weight"] = np.full(WIDTH, WIDTH**0.5, np.float32)
    _write(writer, weights, "f32")


def tiny_ultravox(model_path: Path, projector_path: Path, *, seed: int = 0, chat_template: str | None = None) -> None:
    """A text model that hears: Whisper's encoder with Ultravox's projector, 375 tokens for each 30 seconds begun."""
    tiny_llama(model_path, seed=seed, chat_template=chat_template, name="tiny ultravox")
    writer = GGUFWriter(projector_path, "clip")
    writer.add_type("mmproj")
    writer.add_name("tiny ultravox projector")
    writer.add_clip_has_audio_encoder(True)
    writer.add_clip_projector_type("ultravox")
    writer.add_audio_embedding_length(WIDTH)
    writer.add_audio_feed_forward_length(FEED_FORWARD)
    writer.add_audio_block_count(LAYERS)
    writer.add_audio_head_count(HEADS)
    writer.add_audio_projection_dim(WIDTH)
    writer.add_audio_attention_layernorm_eps(1e-5)
    writer.add_audio_num_mel_bins(_MEL_BINS)
    writer.add_audio_stack_factor(_STACKED)
    random = np.random.default_rng(seed + 1)
    weights = _audio_weights(random)
    weights["mm.a.norm_pre.weight"] = np.ones(WIDTH * _STACKED, np.float32)
    weights["mm.a.mlp.1.weight"] = _matrix(random, 2 * WIDTH, WIDTH * _STACKED, gain=2)
    weights["mm.a.norm_mid.weight"] = np.ones(WIDTH, np.float32)
    weights["mm.a.mlp.2.weight"] = _matrix(random, WIDTH, WIDTH, gain=2)
    _write(writer, weights, "f32")


_MEL_BINS = 128
_STACKED = 4
"""Frames of sound that become one token."""
_FRAMES = 1500
"""Frames of sound in 30 seconds, after the second convolution."""


def tiny_lora(path: Path, *, seed: int = 0, alpha: float = 16.0) -> Path:
    """A LoRA adapter of rank 4 for the attention of any `tiny_llama`."""
    random = np.random.default_rng(seed)
    writer = GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_name("tiny lora")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    weights: Weights = {}
    for layer in range(LAYERS):
        for part in ("attn_q", "attn_output"):
            weights[f"blk.{layer}.{part}.weight.lora_a"] = _matrix(random, 4, WIDTH, gain=2)
            weights[f"blk.{layer}.{part}.weight.lora_b"] = _matrix(random, WIDTH, 4, gain=2)
    _write(writer, weights, "f32")
    return path


def large_vocabulary(path: Path, tokens: int = 150_000, *, chat_template: str = CHATML) -> Path:
    """A llama with as many tokens and merges as a model of this decade has: to be looked at, not to be loaded.

    Its name is eight digits, `LARGE_NAME`, so that copies with other bytes there are models of other digests.
    """
    writer = GGUFWriter(path, "llama")
    writer.add_name(LARGE_NAME)
    writer.add_type("model")
    writer.add_context_length(131072)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([f"token{number:06d}" for number in range(tokens)])
    writer.add_token_types([TokenType.NORMAL] * tokens)
    writer.add_token_merges([f"to ken{number:06d}" for number in range(tokens)])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_chat_template(chat_template)
    _write(writer, {"output_norm.weight": np.ones(WIDTH, np.float32)}, "f32")
    return path


LARGE_NAME = "00000000"
"""The name in the file of `large_vocabulary`."""


def tiny_bert_tokens(text: str) -> list[int]:
    """WordPiece, as `tiny_bert` wants it: lower case, accents dropped, longest piece first, between [CLS] and [SEP]."""
    index = {token: number for number, token in enumerate(wordpiece_vocabulary())}
    found = [index["[CLS]"]]
    for word in _bert_words(text):
        found += _word_pieces(word, index)
    return [*found, index["[SEP]"]]


def tiny_bert_forward(path: Path, token_ids: list[int]) -> np.ndarray[Any, Any]:
    """The embedding of `token_ids` by the weights in `path`: mean over the tokens, of length 1."""
    pooled = _bert_hidden(_tensors(path), token_ids).mean(axis=0)
    return np.asarray(pooled / np.linalg.norm(pooled))


def tiny_reranker_score(path: Path, query: str, document: str) -> float:
    """The score that the weights in `path` give to a document, before it is brought between 0 and 1."""
    weights = _tensors(path)
    tokens = [*tiny_bert_tokens(query), *tiny_bert_tokens(document)[1:]]
    state = np.tanh(_linear(_bert_hidden(weights, tokens)[0], weights, "cls"))
    return float(_linear(state, weights, "cls.output")[0])


def _tensors(path: Path) -> Weights:
    return {tensor.name: tensor.data.astype(np.float64) for tensor in GGUFReader(path).tensors}


def _bert_hidden(weights: Weights, token_ids: list[int]) -> np.ndarray[Any, Any]:
    hidden = (
        weights["token_embd.weight"][token_ids]
        + weights["token_types.weight"][0]
        + weights["position_embd.weight"][: len(token_ids)]
    )
    hidden = _layer_norm(hidden, weights, "token_embd_norm")
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        hidden = _layer_norm(hidden + _bert_attention(hidden, weights, block), weights, f"{block}.attn_output_norm")
        inner = _gelu(_linear(hidden, weights, f"{block}.ffn_up"))
        outer = _linear(inner, weights, f"{block}.ffn_down")
        hidden = _layer_norm(hidden + outer, weights, f"{block}.layer_output_norm")
    return np.asarray(hidden)


def bpe_vocabulary() -> tuple[list[str], list[str]]:
    """(tokens, merges) of `tiny_llama`: special tokens, a token for every byte, then what the merges make."""
    merges: dict[str, str] = {}
    for word in _WORDS:
        for spelled in ("Ġ" + word, word):
            for end in range(2, len(spelled) + 1):
                merges.setdefault(spelled[:end], f"{spelled[: end - 1]} {spelled[end - 1]}")
    return [*_SPECIAL, *_byte_letters(), *merges], list(merges.values())


def wordpiece_vocabulary() -> list[str]:
    """Tokens of `tiny_bert`: special ones, ASCII characters as words and as continuations, some words."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = string.ascii_lowercase + string.digits
    words = [*_WORDS, "cat", "dog", "sky", "blue", "why", "because", "embedding", "model", "##ness", "##ly", "##ed"]
    return [*special, *letters, *string.punctuation, *(f"##{letter}" for letter in letters), *words]


def _text_writer(
    path: Path, architecture: str, name: str, context_length: int, chat_template: str | None
) -> GGUFWriter:
    tokens, merges = bpe_vocabulary()
    writer = GGUFWriter(path, architecture)
    writer.add_name(name)
    writer.add_type("model")
    writer.add_size_label("120K")
    writer.add_context_length(context_length)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HEAD_WIDTH)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if token in _SPECIAL[:3] else _plain_type(token) for token in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokens.index("<|endoftext|>"))
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_pad_token_id(tokens.index("<|endoftext|>"))
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    return writer


def _plain_type(token: str) -> TokenType:
    return TokenType.USER_DEFINED if token in _SPECIAL else TokenType.NORMAL


def _text_weights(random: np.random.Generator, vocabulary_size: int) -> Weights:
    """Random weights, but no layer changes the first element of a hidden state, which gives the output a bias."""
    embedding = random.normal(0, 1, (vocabulary_size, WIDTH)).astype(np.float32)
    embedding[:, 0] = 8
    output = _matrix(random, vocabulary_size, WIDTH, gain=4)
    output[:, 0] = [0 if _speakable(token) else -100 for token in bpe_vocabulary()[0]]
    weights: Weights = {"token_embd.weight": embedding}
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        weights[f"{block}.attn_norm.weight"] = np.ones(WIDTH, np.float32)
        weights[f"{block}.attn_q.weight"] = _matrix(random, WIDTH, WIDTH, gain=2)
        weights[f"{block}.attn_k.weight"] = _matrix(random, KV_HEADS * HEAD_WIDTH, WIDTH, gain=2)
        weights[f"{block}.attn_v.weight"] = _matrix(random, KV_HEADS * HEAD_WIDTH, WIDTH, gain=2)
        weights[f"{block}.attn_output.weight"] = _without_first_row(_matrix(random, WIDTH, WIDTH, gain=2))
        weights[f"{block}.ffn_norm.weight"] = np.ones(WIDTH, np.float32)
        weights[f"{block}.ffn_gate.weight"] = _matrix(random, FEED_FORWARD, WIDTH, gain=2)
        weights[f"{block}.ffn_up.weight"] = _matrix(random, FEED_FORWARD, WIDTH, gain=2)
        weights[f"{block}.ffn_down.weight"] = _without_first_row(_matrix(random, WIDTH, FEED_FORWARD, gain=1))
    weights["output_norm.weight"] = np.ones(WIDTH, np.float32)
    weights["output.weight"] = output
    return weights


def _bert_weights(random: np.random.Generator, vocabulary_size: int, context_length: int) -> Weights:
    weights: Weights = {
        "token_embd.weight": random.normal(0, 1, (vocabulary_size, WIDTH)).astype(np.float32),
        "token_types.weight": random.normal(0, 0.1, (2, WIDTH)).astype(np.float32),
        "position_embd.weight": random.normal(0, 0.3, (context_length, WIDTH)).astype(np.float32),
    }
    _add_norm(weights, "token_embd_norm", random)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            _add_linear(weights, f"{block}.{part}", random, WIDTH, WIDTH)
        _add_norm(weights, f"{block}.attn_output_norm", random)
        _add_linear(weights, f"{block}.ffn_up", random, FEED_FORWARD, WIDTH)
        _add_linear(weights, f"{block}.ffn_down", random, WIDTH, FEED_FORWARD)
        _add_norm(weights, f"{block}.layer_output_norm", random)
    return weights


def _projector_writer(path: Path, kind: str, *, image_size: int, patch_size: int) -> GGUFWriter:
    writer = GGUFWriter(path, "clip")
    writer.add_type("mmproj")
    writer.add_name(f"tiny {kind} projector")
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type(kind)
    writer.add_vision_image_size(image_size)
    writer.add_vision_patch_size(patch_size)
    writer.add_vision_embedding_length(WIDTH)
    writer.add_vision_feed_forward_length(FEED_FORWARD)
    writer.add_vision_block_count(LAYERS)
    writer.add_vision_head_count(HEADS)
    writer.add_vision_projection_dim(WIDTH)
    writer.add_vision_attention_layernorm_eps(1e-5)
    writer.add_vision_use_gelu(True)
    writer.add_vision_image_mean([0.5, 0.5, 0.5])
    writer.add_vision_image_std([0.5, 0.5, 0.5])
    return writer


def _vision_weights(random: np.random.Generator, *, patches: int, patch_size: int, class_token: bool) -> Weights:
    patch_shape = (WIDTH, 3, patch_size, patch_size)
    weights: Weights = {
        "v.patch_embd.weight": random.normal(0, 0.3, patch_shape).astype(np.float32),
        "v.position_embd.weight": random.normal(0, 0.3, (patches + class_token, WIDTH)).astype(np.float32),
    }
    if class_token:
        weights["v.class_embd"] = random.normal(0, 1, WIDTH).astype(np.float32)
        _add_norm(weights, "v.pre_ln", random)
    for layer in range(LAYERS):
        block = f"v.blk.{layer}"
        for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
            _add_linear(weights, f"{block}.{part}", random, WIDTH, WIDTH)
        _add_norm(weights, f"{block}.ln1", random)
        _add_norm(weights, f"{block}.ln2", random)
        _add_linear(weights, f"{block}.ffn_up", random, FEED_FORWARD, WIDTH)
        _add_linear(weights, f"{block}.ffn_down", random, WIDTH, FEED_FORWARD)
    _add_norm(weights, "v.post_ln", random)
    return weights


def _audio_weights(random: np.random.Generator) -> Weights:
    """Whisper's encoder: two convolutions, then blocks whose keys have no bias."""
    weights: Weights = {"a.position_embd.weight": random.normal(0, 0.3, (_FRAMES, WIDTH)).astype(np.float32)}
    for number, channels in ((1, _MEL_BINS), (2, WIDTH)):
        kernel = random.normal(0, 1.5 / (3 * channels) ** 0.5, (WIDTH, channels, 3))
        weights[f"a.conv1d.{number}.weight"] = kernel.astype(np.float16)  # the only type the engine convolves with
        weights[f"a.conv1d.{number}.bias"] = random.normal(0, 0.1, (WIDTH, 1)).astype(np.float32)
    for layer in range(LAYERS):
        block = f"a.blk.{layer}"
        for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
            _add_linear(weights, f"{block}.{part}", random, WIDTH, WIDTH)
        del weights[f"{block}.attn_k.bias"]
        _add_norm(weights, f"{block}.ln1", random)
        _add_norm(weights, f"{block}.ln2", random)
        _add_linear(weights, f"{block}.ffn_up", random, FEED_FORWARD, WIDTH)
        _add_linear(weights, f"{block}.ffn_down", random, WIDTH, FEED_FORWARD)
    _add_norm(weights, "a.post_ln", random)
    return weights


def _write(writer: GGUFWriter, weights: Weights, outtype: str) -> None:
    """Matrices as `outtype` says, or in half precision where they are given in it; vectors in single precision."""
    kind = {"f32": GGMLQuantizationType.F32, "f16": GGMLQuantizationType.F16}[outtype]
    writer.add_file_type(int(kind))
    writer.add_quantization_version(2)
    for name, weight in weights.items():
        wanted = kind if weight.ndim > 1 else GGMLQuantizationType.F32
        if weight.dtype == np.float16:
            wanted = GGMLQuantizationType.F16
        writer.add_tensor(name, quants.quantize(weight, wanted), raw_dtype=wanted)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _matrix(random: np.random.Generator, outputs: int, inputs: int, *, gain: float) -> np.ndarray[Any, Any]:
    return random.normal(0, gain / inputs**0.5, (outputs, inputs)).astype(np.float32)


def _without_first_row(matrix: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    matrix[0] = 0
    return matrix


def _add_linear(weights: Weights, name: str, random: np.random.Generator, outputs: int, inputs: int) -> None:
    weights[f"{name}.weight"] = _matrix(random, outputs, inputs, gain=1.5)
    weights[f"{name}.bias"] = random.normal(0, 0.1, outputs).astype(np.float32)


def _add_norm(weights: Weights, name: str, random: np.random.Generator) -> None:
    weights[f"{name}.weight"] = random.normal(1, 0.1, WIDTH).astype(np.float32)
    weights[f"{name}.bias"] = random.normal(0, 0.1, WIDTH).astype(np.float32)


def _speakable(token: str) -> bool:
    return token not in _SPECIAL and all(letter == "Ġ" or letter in _PRINTABLE for letter in token)


_PRINTABLE = frozenset(string.ascii_letters + string.digits + ".,;:!?'-")


def _byte_letters() -> list[str]:
    """The letter that byte-level BPE writes for each byte: printable ones stand for themselves."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]


def _phantom_space(token: str) -> str:
    """How GGUF spells WordPiece: a word begins with ▁, a continuation is bare."""
    if token.startswith("[") and token.endswith("]") and len(token) > 2:
        return token
    return token[2:] if token.startswith("##") and len(token) > 2 else "▁" + token


def _bert_token_type(token: str) -> TokenType:
    if token == "[UNK]":
        return TokenType.UNKNOWN
    return TokenType.CONTROL if token in ("[PAD]", "[CLS]", "[SEP]", "[MASK]") else TokenType.NORMAL


def _bert_words(text: str) -> list[str]:
    bare = "".join(letter for letter in unicodedata.normalize("NFD", text.lower()) if not unicodedata.combining(letter))
    return "".join(f" {letter} " if _stands_alone(letter) else letter for letter in bare).split()


def _stands_alone(letter: str) -> bool:
    return letter in string.punctuation or "\u4e00" <= letter <= "\u9fff"


def _word_pieces(word: str, index: Mapping[str, int]) -> list[int]:
    found: list[int] = []
    rest = word
    while rest:
        spelled = f"##{rest}" if found else rest
        shortest = 3 if found else 1
        piece = next((spelled[:end] for end in range(len(spelled), shortest - 1, -1) if spelled[:end] in index), None)
        if piece is None:
            return [index["[UNK]"]]
        rest = rest[len(piece) - (2 if found else 0) :]
        found.append(index[piece])
    return found


_BERT_EPSILON = 1e-12


def _layer_norm(hidden: np.ndarray[Any, Any], weights: Weights, name: str) -> np.ndarray[Any, Any]:
    centred = hidden - hidden.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + _BERT_EPSILON)
    return np.asarray(scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"])


def _linear(hidden: np.ndarray[Any, Any], weights: Weights, name: str) -> np.ndarray[Any, Any]:
    return np.asarray(hidden @ weights[f"{name}.weight"].T + weights[f"{name}.bias"])


def _gelu(hidden: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(0.5 * hidden * (1 + np.tanh((2 / np.pi) ** 0.5 * (hidden + 0.044715 * hidden**3))))


def _bert_attention(hidden: np.ndarray[Any, Any], weights: Weights, block: str) -> np.ndarray[Any, Any]:
    query, key, value = (
        _linear(hidden, weights, f"{block}.{part}").reshape(-1, HEADS, HEAD_WIDTH).transpose(1, 0, 2)
        for part in ("attn_q", "attn_k", "attn_v")
    )
    scores = query @ key.transpose(0, 2, 1) / HEAD_WIDTH**0.5
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = scores / scores.sum(axis=-1, keepdims=True) @ value
    return _linear(mixed.transpose(1, 0, 2).reshape(-1, WIDTH), weights, f"{block}.attn_output")
