"""What fuzzing begins with: small right files of each kind, so that random changes reach all of a reader."""

import json
import struct
from pathlib import Path

from tests.gguf_bytes import ARRAY, BOOL, F32, F64, I32, STRING, U8, U32, U64, ArrayOf, FakeTensor, Header, Raw

_VOCABULARY = [
    ("tokenizer.ggml.model", STRING, "gpt2"),
    ("tokenizer.ggml.tokens", ARRAY, ArrayOf(STRING, ["a", "b", "ab", ""])),
    ("tokenizer.ggml.token_type", ARRAY, ArrayOf(I32, [1, 1, 1, 3])),
    ("tokenizer.ggml.scores", ARRAY, ArrayOf(F32, [0.0] * 4)),
    ("tokenizer.ggml.merges", ARRAY, ArrayOf(STRING, ["a b"])),
    ("tokenizer.ggml.bos_token_id", U32, 3),
    ("tokenizer.chat_template", STRING, "{% for m in messages %}{{ m['content'] }}{# note #}{% endfor %}"),
]
_LLAMA = [
    ("general.architecture", STRING, "llama"),
    ("general.type", STRING, "model"),
    ("general.alignment", U32, 32),
    ("general.file_type", U32, 1),
    ("llama.block_count", U32, 1),
    ("llama.context_length", U32, 64),
    ("llama.embedding_length", U32, 8),
    ("llama.feed_forward_length", ARRAY, ArrayOf(U32, [16])),
    ("llama.attention.head_count", U32, 2),
    ("llama.attention.head_count_kv", ARRAY, ArrayOf(U32, [1])),
    ("llama.attention.key_length", U32, 4),
    ("llama.rope.dimension_count", U32, 4),
    ("llama.rope.freq_base", F32, 1e4),
    ("llama.rope.scaling.type", STRING, "yarn"),
    ("llama.expert_count", U32, 2),
    ("llama.expert_used_count", U32, 1),
    ("split.count", U32, 1),
    *_VOCABULARY,
]
_LLAMA_TENSORS = [
    FakeTensor("token_embd.weight", (8, 4), offset=0),
    FakeTensor("blk.0.attn_q.weight", (8, 8), offset=128),
    FakeTensor("blk.0.ffn_up_exps.weight", (8, 16, 2), offset=384),
    FakeTensor("output_norm.weight", (8,), offset=1408),
]
_CLIP = [
    ("general.architecture", STRING, "clip"),
    ("clip.has_vision_encoder", BOOL, True),
    ("clip.projector_type", STRING, "mlp"),
    ("clip.vision.image_size", U32, 4),
    ("clip.vision.patch_size", U32, 2),
    ("clip.vision.embedding_length", U32, 8),
    ("clip.vision.attention.head_count", U32, 2),
    ("clip.vision.block_count", U32, 1),
    ("clip.vision.image_mean", ARRAY, ArrayOf(F32, [0.5] * 3)),
]
_CLIP_TENSORS = [
    FakeTensor("v.blk.0.attn_q.weight", (8, 8), offset=0),
    FakeTensor("v.blk.0.attn_k.weight", (8, 8), offset=256),
    FakeTensor("v.blk.0.attn_v.weight", (8, 8), offset=512),
    FakeTensor("v.blk.0.ffn_up.weight", (8, 8), offset=768),
    FakeTensor("v.blk.0.ffn_up.bias", (8,), offset=1024),
]
_LORA = [
    ("general.architecture", STRING, "llama"),
    ("general.type", STRING, "adapter"),
    ("adapter.type", STRING, "lora"),
    ("adapter.lora.alpha", F32, 16.0),
]
_LORA_TENSORS = [
    FakeTensor("blk.0.attn_q.weight.lora_a", (8, 2), offset=0),
    FakeTensor("blk.0.attn_q.weight.lora_b", (2, 8), offset=64),
]
_EVERY_TYPE = [
    ("general.architecture", STRING, "unknown"),
    ("x.numbers", ARRAY, ArrayOf(U8, [1, 2])),
    ("x.nested", ARRAY, ArrayOf(ARRAY, [ArrayOf(STRING, ["y"]), ArrayOf(F64, [0.5])])),
    ("x.large", U64, 1 << 63),
    ("x.text", STRING, Raw(struct.pack("<Q", 3) + b"\xff\xfe\x00")),
]

_GGUF = [
    Header(_LLAMA, _LLAMA_TENSORS, bytes(1440)),
    Header(_LLAMA, _LLAMA_TENSORS, bytes(1440), version=2),
    Header([("general.architecture", STRING, "llama"), *_VOCABULARY], version=1),
    Header(_CLIP, _CLIP_TENSORS, bytes(1056)),
    Header(_LORA, _LORA_TENSORS, bytes(128)),
    Header(_EVERY_TYPE, [FakeTensor("q", (32, 1), kind=8)], bytes(64)),
    Header(_LLAMA, order=">", magic=b"FUGG"),
]
_MODELFILE = [
    b'FROM llama3\n# note\nPARAMETER temperature 0.5\nPARAMETER stop "a b"\nSYSTEM """two\nlines"""\n',
    b"from ./model.gguf\nADAPTER ./lora\nTEMPLATE {{ .Prompt }}\nLICENSE MIT\nMESSAGE user hi\nMESSAGE assistant yes\n",
    'FROM x\r\nSYSTEM "ü"\r\nPARAMETER num_ctx 4096\r\nREQUIRES 0.1.0\r\n'.encode("utf-16"),
    b"\xef\xbb\xbfFROM a\nRENDERER x\nPARSER y\nPARAMETER mirostat true\n",
]


def _safetensors(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


_SAFETENSORS = [
    _safetensors({"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}, bytes(16)),
    _safetensors(
        {"__metadata__": {"format": "pt"}, "b": {"dtype": "BF16", "shape": [], "data_offsets": [0, 2]}}, b"12"
    ),
    _safetensors(
        {
            "a": {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]},
            "q": {"dtype": "I8", "shape": [2, 1, 4], "data_offsets": [8, 16]},
        },
        bytes(16),
    ),
]

SEEDS: dict[str, list[bytes]] = {
    "gguf": [header.encode() for header in _GGUF],
    "modelfile": _MODELFILE,
    "safetensors": _SAFETENSORS,
}


def write_seeds(target: str, folder: Path) -> None:
    """Puts a target's seeds into a folder, where what fuzzing found before may lie already."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[target]):
        (folder / f"seed-{number}").write_bytes(seed)
