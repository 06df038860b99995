"""What fuzzing begins with: small right files of each kind, so that random changes reach all of a reader."""

import hashlib
import io
import json
import struct
import tarfile
import zipfile
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

_DIGEST = "sha256:" + hashlib.sha256(b"{}").hexdigest()
_LAYER = {"mediaType": "application/vnd.ollama.image.model", "digest": _DIGEST, "size": 2}
_MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {**_LAYER, "mediaType": "application/vnd.docker.container.image.v1+json"},
        "layers": [{**_LAYER, "from": "library/x"}],
    }
).encode()
_NAMES = [
    *(
        b"llama3.2",
        b"registry.example:5000/a/b:c",
        b"https://hf.co/x/y:Q4_K_M",
        b"a/b@sha256:c",
        b"m:7b-cloud",
        b"../x",
    ),
    *(_DIGEST.encode(), _DIGEST.replace(":", "-").encode(), b"model-00002-of-00003.gguf"),
]
_CHALLENGES = [
    b'Bearer realm="https://auth.example/token",service="registry",scope="repository:a/b:pull,push"',
    b'Basic realm="x y", charset = UTF-8\r\nNegotiate',
    b'a ,,, = b " c=d',
]


def _event(value: object) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


_PROBABILITY = {"id": 7, "token": "a", "bytes": [97], "logprob": -0.1, "top_logprobs": [{"id": 8, "logprob": None}]}
_TIMINGS = {"cache_n": 1, "prompt_n": 2, "prompt_ms": 1.5, "predicted_n": 3, "predicted_ms": 2.5}
_EVENTS = [
    _event({"content": "a", "tokens": [7], "completion_probabilities": [_PROBABILITY]})
    + _event({"content": "", "stop": True, "stop_type": "word", "stopping_word": "x", "timings": _TIMINGS}),
    _event({"prompt_progress": {"total": 9, "cache": 1, "processed": 5}})
    + _event({"choices": [{"delta": {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f"}}]}}]})
    + _event({"choices": [{"delta": {"tool_calls": [{"function": {"arguments": '{"a":1}'}}]}, "finish_reason": "x"}]})
    + b"data: [DONE]\n\n",
    b'error: {"code":500,"message":"no"}\n\n',
    b'\n\ndata: {"error":{"code":400,"message":"no","type":"x"}}\n\n',
]


def _archive() -> bytes:
    """An image layout with one model, whose weights are its config, too."""
    manifest = hashlib.sha256(_MANIFEST).hexdigest()
    descriptor = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": f"sha256:{manifest}",
        "size": len(_MANIFEST),
        "annotations": {"org.opencontainers.image.ref.name": "registry.ollama.ai/library/x:latest"},
    }
    files = {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [descriptor]}).encode(),
        f"blobs/sha256/{manifest}": _MANIFEST,
        f"blobs/sha256/{_DIGEST[7:]}": b"{}",
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def _zipped(beginning: bytes, members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO(beginning)
    stream.seek(0, io.SEEK_END)
    with zipfile.ZipFile(stream, "a") as packed:
        for name, data in members.items():
            packed.writestr(name, data)
    return stream.getvalue()


def _bundle() -> bytes:
    weights, config = b"GGUF" + bytes(20), b"{}"
    layers = {"config": config, "weights": weights}
    digests = {name: f"sha256:{hashlib.sha256(data).hexdigest()}" for name, data in layers.items()}
    config_layer = {
        "mediaType": "application/vnd.docker.container.image.v1+json",
        "digest": digests["config"],
        "size": 2,
    }
    manifest = json.dumps(
        {"config": config_layer, "layers": [{**_LAYER, "digest": digests["weights"], "size": len(weights)}]}
    ).encode()
    described = {
        "version": 1,
        "name": "x",
        "weights": {"digest": digests["weights"], "size": len(weights)},
        "manifest": f"sha256:{hashlib.sha256(manifest).hexdigest()}",
    }
    members = {
        "corral-bundle.json": json.dumps(described).encode(),
        "model/manifest.json": manifest,
        f"model/{digests['config'].replace(':', '-')}": config,
    }
    return _zipped(weights, members)


_LLAMAFILES = [
    _zipped(b"MZqFpD", {".args": b"-m\na.gguf\n--temp\n0.5\n-r\nx\n-sys\nbe\n...\n", "a.gguf": b"GGUF" + bytes(9)}),
    _zipped(b"#!/bin/sh\n", {"a.gguf": b"GGUF", "mmproj.gguf": b"GGUF2"}),
]


def _pictures() -> list[bytes]:
    from PIL import Image

    made = []
    for kind, mode in (
        ("PNG", "RGBA"),
        ("JPEG", "RGB"),
        ("GIF", "P"),
        ("WEBP", "RGB"),
        ("BMP", "RGB"),
        ("PNG", "I;16"),
    ):
        file = io.BytesIO()
        Image.new(mode, (4, 3)).save(file, kind)
        made.append(file.getvalue())
    return made


_WAVE = b"RIFF" + struct.pack("<I", 36 + 3200) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16000, 32000, 2, 16)
_SOUNDS = [
    _WAVE + b"data" + struct.pack("<I", 3200) + bytes(3200),
    b"fLaC\x80\0\0\x22" + struct.pack(">HH", 4096, 4096) + bytes(6) + bytes.fromhex("0f4240f000000fa0") + bytes(16),
    b"ID3\x04\0\0\0\0\0\0" + b"\xff\xfb\x90\x64" + bytes(413),
]

SEEDS: dict[str, list[bytes]] = {
    "gguf": [header.encode() for header in _GGUF],
    "modelfile": _MODELFILE,
    "safetensors": _SAFETENSORS,
    "names": _NAMES,
    "manifest": [_MANIFEST],
    "challenges": _CHALLENGES,
    "events": _EVENTS,
    "archive": [_archive()],
    "llamafile": [_bundle(), *_LLAMAFILES],
    "media": [*_pictures(), *_SOUNDS],
}


def write_seeds(target: str, folder: Path) -> None:
    """Puts a target's seeds into a folder, where what fuzzing found before may lie already."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[target]):
        (folder / f"seed-{number}").write_bytes(seed)
