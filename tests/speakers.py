"""Models that say what they are made to say, by real weights in the real engine.

Each piece of the text is a token, and each token's embedding points to the token after it. Whatever the prompt, the
answer begins with the first piece and ends after the last: a word for word answer that passes through tokenizer,
sampler, grammar and parser like any other.
"""

import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, TokenType

from tests.tiny_models import bpe_vocabulary

WIDTH = 64
FEED_FORWARD = 32


def speaker(
    path: Path,
    *pieces: str | bytes,
    chat_template: str | None = None,
    special: Mapping[str, str] | None = None,
    in_circles: bool = False,
    context_length: int = 4096,
) -> Path:
    """A llama of one layer that says `pieces`, at most 60, no two alike; `in_circles`: again and again, without end.

    A prompt that ends in one of the pieces is answered with those after it. Text is a token of its own (a special one
    when `special` calls it "control"); bytes are the tokens of these bytes.
    """
    tokens, merges = bpe_vocabulary()
    types = [TokenType.CONTROL if token.startswith("<|") else TokenType.NORMAL for token in tokens]
    said = []
    for piece in pieces:
        if isinstance(piece, bytes):
            said += [tokens.index(_letter(value)) for value in piece]
            continue
        if piece not in tokens:
            tokens.append(piece)
            types.append(TokenType.NORMAL)
        number = tokens.index(piece)
        types[number] = TokenType.CONTROL if (special or {}).get(piece) == "control" else TokenType.USER_DEFINED
        said.append(number)
    assert len(said) == len(set(said)) <= 60, "every piece leads to one other"
    after = said[0] if in_circles else tokens.index("<|im_end|>")
    writer = _writer(path, tokens, types, merges, chat_template, context_length)
    for name, weight in _weights(len(tokens), [*said, after]).items():
        writer.add_tensor(name, weight.astype(np.float32), raw_dtype=GGMLQuantizationType.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _letter(value: int) -> str:
    """How byte-level BPE writes a byte; its letters stand in the vocabulary in the order of the bytes."""
    vocabulary = bpe_vocabulary()[0]
    return vocabulary[vocabulary.index("!") - ord("!") + value]


def _weights(vocabulary_size: int, said: list[int]) -> dict[str, "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"]:
    """Element 0 says that anything may come before the first piece, element k that the k-th piece was the last."""
    embedding = np.zeros((vocabulary_size, WIDTH), np.float32)
    output = np.zeros((vocabulary_size, WIDTH), np.float32)
    embedding[:, 0] = 1
    output[said[0], 0] = 4
    for place, (token, following) in enumerate(itertools.pairwise(said), 1):
        embedding[token, place] = 8
        output[following, place] = 8
    width, height = (WIDTH, WIDTH), (FEED_FORWARD, WIDTH)
    shapes = {"attn_q": width, "attn_k": width, "attn_v": width, "attn_output": width}
    shapes |= {"ffn_gate": height, "ffn_up": height, "ffn_down": height[::-1]}
    layer = {f"blk.0.{name}.weight": np.zeros(shape, np.float32) for name, shape in shapes.items()}
    norms = ("blk.0.attn_norm.weight", "blk.0.ffn_norm.weight", "output_norm.weight")
    ones = {name: np.ones(WIDTH, np.float32) for name in norms}
    return {"token_embd.weight": embedding, **layer, **ones, "output.weight": output}


def _writer(
    path: Path,
    tokens: list[str],
    types: list[TokenType],
    merges: list[str],
    chat_template: str | None,
    context_length: int,
) -> GGUFWriter:
    writer = GGUFWriter(path, "llama")
    writer.add_name("speaker")
    writer.add_type("model")
    writer.add_context_length(context_length)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_block_count(1)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // 2)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokens.index("<|endoftext|>"))
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_file_type(0)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    return writer
