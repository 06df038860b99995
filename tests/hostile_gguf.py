"""GGUF files as somebody writes them who wants to do harm: one of each kind, and what becomes of it.

Each case is refused when a model is made of it, with the sentence given here, or it is harmless: the engine loads it
and answers, or says why not. `tests/test_hostile_gguf.py` tries both, with a real server and the real engine.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from tests import drafts
from tests.drafts import EXPERTS, Draft, Value, Weight, weight
from tests.gguf_bytes import (
    ARRAY,
    BOOL,
    F32,
    F64,
    I32,
    I64,
    STRING,
    U8,
    U16,
    U32,
    U64,
    ArrayOf,
    FakeTensor,
    Header,
    Raw,
)
from tests.tiny_models import LAYERS, WIDTH

Files = Mapping[str, bytes]
Ask = Literal["generate", "embed", "picture"]

HUGE = (1 << 64) - 1
TOKENS = 350
"""Of the tiny llama."""


@dataclass(frozen=True)
class Case:
    """Files by the names they are sent under. `refusal` empty: no model is refused for it."""

    files: Callable[[], Files]
    refusal: str = ""
    ask: Ask = "generate"


def _alone(content: Callable[[], bytes | Draft | Header], refusal: str = "", ask: Ask = "generate") -> Case:
    """A file that is a model by itself, or claims so."""

    def files() -> Files:
        made = content()
        return {"model.gguf": made if isinstance(made, bytes) else made.encode()}

    return Case(files, refusal, ask)


def _keyed(refusal: str = "", make: Callable[[], Draft] = drafts.llama, ask: Ask = "generate", **keys: Value) -> Case:
    return _alone(lambda: make().with_keys(**keys), refusal, ask)


def _shaped(name: str, changed: Weight, refusal: str = "", make: Callable[[], Draft] = drafts.llama) -> Case:
    return _alone(lambda: make().with_tensors({name: changed}), refusal)


def _without(name: str, refusal: str, make: Callable[[], Draft] = drafts.llama) -> Case:
    return _alone(lambda: make().without(name), refusal)


def _projector(change: Callable[[Draft], Draft], refusal: str = "") -> Case:
    def files() -> Files:
        projector = change(drafts.llava_projector()).encode()
        return {"model.gguf": drafts.llama().encode(), "projector.gguf": projector}

    return Case(files, refusal, "picture")


def _adapter(change: Callable[[Draft], Draft], refusal: str = "", model: Callable[[], Draft] = drafts.llama) -> Case:
    def files() -> Files:
        return {"model.gguf": model().encode(), "adapter.gguf": change(drafts.lora()).encode()}

    return Case(files, refusal)


def _tokens(count: int = TOKENS) -> list[str]:
    return [f"token{number}" for number in range(count)]


def _array(kind: int, *elements: Any) -> Value:
    return (ARRAY, ArrayOf(kind, elements))


def _cut(at: Callable[[bytes], int]) -> Callable[[], bytes]:
    """The llama, ended within."""

    def content() -> bytes:
        whole = drafts.llama().encode()
        return whole[: at(whole)]

    return content


def _patched(old: bytes, new: bytes) -> Callable[[], bytes]:
    def content() -> bytes:
        whole = drafts.llama().encode()
        assert old in whole
        return whole.replace(old, new, 1)

    return content


def _with_header(**changes: Any) -> Callable[[], Header]:
    return lambda: replace(drafts.llama().header(), **changes)


def _with_first_tensor(**changes: Any) -> Callable[[], Header]:
    def header() -> Header:
        plain = drafts.llama().header()
        return replace(plain, tensors=[replace(plain.tensors[0], **changes), *plain.tensors[1:]])

    return header


def _with_key(name: str | bytes, kind: int, value: Any) -> Callable[[], Header]:
    def header() -> Header:
        plain = drafts.llama().header()
        return replace(plain, keys=[*plain.keys, (name, kind, value)])

    return header


def _nested(depth: int) -> ArrayOf:
    return ArrayOf(U8, [1]) if depth == 1 else ArrayOf(ARRAY, [_nested(depth - 1)])


STRUCTURE: dict[str, Case] = {
    "an empty file": _alone(lambda: b"", "supplied file was not in GGUF format"),
    "another kind of file": _alone(lambda: b"PK\3\4" + bytes(100), "supplied file was not in GGUF format"),
    "only the magic": _alone(lambda: b"GGUF", "the file ends within its header"),
    "version 0": _alone(lambda: b"GGUF" + bytes(60), "unsupported GGUF version 0"),
    "version 4": _alone(_with_header(version=4), "unsupported GGUF version 4"),
    "big-endian": _alone(lambda: _with_header(order=">")(), "which cannot be run here"),
    "big-endian magic": _alone(lambda: _with_header(order=">", magic=b"FUGG")(), "which cannot be run here"),
    "ends within the counts": _alone(_cut(lambda _: 20), "the header needs 8 bytes, but the file ends after 4"),
    "ends within a key": _alone(_cut(lambda _: 40), "tensor count 21 cannot fit into the 16 bytes that follow"),
    "ends within the tokens": _alone(
        _cut(lambda whole: whole.index(b"tokenizer.ggml.tokens") + 60), "which cannot fit into the 23 bytes"
    ),
    "ends within the tensor list": _alone(_cut(lambda whole: whole.index(b"output.weight") + 4), "but the file ends"),
    "ends within the data": _alone(_cut(lambda whole: len(whole) - 32), "exceeds file size"),
    "ends after the first byte of data": _alone(_cut(lambda whole: len(whole) // 2), "exceeds file size"),
    "2⁶⁴ - 1 tensors": _alone(_with_header(tensor_count=HUGE), f"tensor count {HUGE} is more than 65536"),
    "a small file that claims 65,536 tensors": _alone(
        lambda: Header([("general.architecture", STRING, "llama")], tensor_count=65_536),
        "tensor count 65536 cannot fit into the",
    ),
    "a small file that claims 2⁶³ keys": _alone(
        lambda: b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 63), "key count 9223372036854775808 is more than 65536"
    ),
    "tensors whose sizes together wrap": _alone(
        lambda: Header(
            [("general.architecture", STRING, "llama")],
            [FakeTensor("a", (1 << 61,)), FakeTensor("b", (1 << 61,), offset=1 << 63)],
            bytes(64),
        ),
        "exceeds file size",
    ),
    "2⁶⁴ - 1 keys": _alone(_with_header(key_count=HUGE), f"key count {HUGE} is more than 65536"),
    "60,000 keys that are not there": _alone(_with_header(key_count=60_000), "key count 60000 cannot fit into the"),
    "a key more than there are": _alone(_with_header(key_count=25), "has the unknown type 16384"),
    "a tensor more than there are": _alone(_with_header(tensor_count=22), "a string of tensor 21 has"),
    "a tensor less than there are": _alone(_with_header(tensor_count=20)),
    "a string of 2⁶⁴ - 1 bytes": _alone(_with_key("x", STRING, Raw(struct.pack("<Q", HUGE))), "more than 16777216"),
    "a string longer than the file": _alone(
        _with_key("x", STRING, Raw(struct.pack("<Q", 1 << 23))), "the file ends after"
    ),
    "an array of 2⁶⁴ - 1": _alone(_with_key("x", ARRAY, ArrayOf(U8, [], HUGE)), "more than 67108864"),
    "an array longer than the file": _alone(_with_key("x", ARRAY, ArrayOf(F64, [], 1 << 24)), "the file ends after"),
    "strings longer than the file": _alone(_with_key("x", ARRAY, ArrayOf(STRING, [], 1 << 22)), "cannot fit into the"),
    "arrays in arrays": _alone(_with_key("x", ARRAY, _nested(5)), "nested deeper than 4"),
    "arrays in arrays without end": _alone(
        _with_key("x", ARRAY, Raw(struct.pack("<IQ", ARRAY, 1) * 100_000)), "nested deeper than 4"
    ),
    "an unknown value type": _alone(_with_key("x", 99, Raw(b"")), "has the unknown value type 99"),
    "a key twice": _alone(_with_key("llama.block_count", U32, 2), 'key "llama.block_count" is there twice'),
    "a key of no name": _alone(_with_key("", U32, 2), "has 0 bytes instead of 1 to 65535"),
    "a key of 70,000 bytes": _alone(_with_key("x" * 70_000, U32, 2), "has 70000 bytes instead of 1 to 65535"),
    "a key that is no text": _alone(_with_key(b"\xff\xfe", U32, 2), "is not UTF-8"),
    "a key with a NUL byte": _alone(_with_key(b"llama.x\0y", U32, 2), "cannot be printed"),
    "64 MB of text": _alone(
        lambda: drafts.llama().with_key({f"x.{number}": (STRING, "x" * (13 << 20)) for number in range(5)}),
        "brings the metadata's text to more than 67108864 bytes",
    ),
    "a chat template of 64 MB": _keyed(
        'a string of key "tokenizer.chat_template" has 67108864 bytes, more than 16777216',
        tokenizer__chat_template=(STRING, "x" * (64 << 20)),
    ),
    "alignment 0": _keyed("is 0, not a power of two", general__alignment=(U32, 0)),
    "alignment 3": _keyed("is 3, not a power of two", general__alignment=(U32, 3)),
    "alignment 2³¹": _keyed("is 2147483648, not a power of two up to 1048576", general__alignment=(U32, 1 << 31)),
    "alignment in 64 bits": _keyed('key "general.alignment" is not a 32-bit number', general__alignment=(U64, 32)),
    "alignment other than the data's": _keyed("which is not a multiple of 4096", general__alignment=(U32, 4096)),
    "a tensor twice": _alone(
        lambda: replace(header := drafts.llama().header(), tensors=[*header.tensors, FakeTensor("output.weight")]),
        "is there twice",
    ),
    "a tensor of no name": _alone(_with_first_tensor(name=""), "has 0 bytes instead of 1 to 63"),
    "a tensor of a long name": _alone(_with_first_tensor(name="x" * 64), "has 64 bytes instead of 1 to 63"),
    "a tensor named in no text": _alone(_with_first_tensor(name=b"\xff"), "is not UTF-8"),
    "a tensor with a line break": _alone(_with_first_tensor(name="a\nb"), "cannot be printed"),
    "five dimensions": _alone(_with_first_tensor(shape=(1, 1, 1, 1, 1)), "has 5 dimensions, more than 4"),
    "2³² - 1 dimensions": _alone(_with_first_tensor(dimensions=(1 << 32) - 1), "has 4294967295 dimensions"),
    "a dimension of 0": _alone(_with_first_tensor(shape=(64, 0)), "no dimension may be 0"),
    "a dimension of 2⁶⁴ - 1": _alone(_with_first_tensor(shape=(HUGE,)), "more than any file can hold"),
    "dimensions whose product is 0": _alone(
        _with_first_tensor(shape=(1 << 32, 1 << 32)), "more than any file can hold"
    ),
    "an unknown tensor type": _alone(_with_first_tensor(kind=99), "has the unknown type 99"),
    "a tensor type that was dropped": _alone(_with_first_tensor(kind=5), "has the unknown type 5"),
    "the first form of MXFP4": _alone(
        _with_first_tensor(kind=4), "has the type 4, which only the first files of gpt-oss"
    ),
    "half a block": _alone(_with_first_tensor(kind=12), "cannot divide into 256s"),
    "a crooked offset": _alone(_with_first_tensor(offset=8), "which is not a multiple of 32"),
    "an offset past the end": _alone(_with_first_tensor(offset=1 << 40), "exceeds file size"),
    "an offset that wraps": _alone(_with_first_tensor(offset=HUGE - 31), "exceeds file size"),
    "tensors over each other": _alone(_with_first_tensor(offset=32), "begins within tensor"),
    "no tensors": _alone(lambda: Draft(drafts.llama().keys, {}), "has no tensors in it: it is no model"),
    "no keys": _alone(lambda: Draft({}, drafts.llama().tensors), ""),
}
"""Files that lie about where their parts are."""

NUMBERS: dict[str, Case] = {
    "no architecture": _without("general.architecture", ""),
    "architecture a number": _keyed("", general__architecture=(U32, 3)),
    "an architecture that is none": _keyed("", general__architecture=(STRING, "../../etc")),
    "512 layers": _keyed('the tensors of layer 2 of 512, "blk.2.…", are missing', llama__block_count=(U32, 512)),
    "one layer of two": _keyed("is of a layer beyond the 1 that the model has", llama__block_count=(U32, 1)),
    "2³² - 1 layers": _keyed("is 4294967295, not between 1 and 512", llama__block_count=(U32, (1 << 32) - 1)),
    "layers in 64 bits": _keyed("", llama__block_count=(U64, 2)),
    "a negative context": _keyed("is -1, not between 1 and 2147483647", llama__context_length=(I64, -1)),
    "a huge context": _keyed("is 1099511627776, not between", llama__context_length=(U64, 1 << 40)),
    "the longest context": _keyed("", llama__context_length=(U32, (1 << 31) - 1)),
    "a context of 1": _keyed("", llama__context_length=(U32, 1)),
    "a huge width": _keyed("instead of [1048576, 350]", llama__embedding_length=(U32, 1 << 20)),
    "a width beyond all": _keyed("not between 1 and 1048576", llama__embedding_length=(U32, (1 << 32) - 1)),
    "an odd width": _keyed("for heads of 31 elements", llama__embedding_length=(U32, 63)),
    "no heads": _keyed('key "llama.attention.head_count" is 0', llama__attention__head_count=(U32, 0)),
    "heads that do not divide": _keyed(
        "which does not divide 3 heads",
        llama__attention__head_count=(U32, 3),
        llama__attention__head_count_kv=(U32, 2),
    ),
    "heads for one layer only": _keyed("", llama__attention__head_count=_array(U32, 2)),
    "heads without keys in a layer": _keyed(
        'is 0 for layer 1, which has the tensor "blk.1.attn_k.weight"',
        llama__attention__head_count_kv=_array(U32, 1, 0),
    ),
    "heads of another width": _keyed(
        "by embedding_length and attention.head_count", llama__attention__key_length=(U32, 34)
    ),
    "three elements rotated": _keyed("is 3, which is not even", llama__rope__dimension_count=(U32, 3)),
    "more rotated than there are": _keyed("is 34, for heads of 32 elements", llama__rope__dimension_count=(U32, 34)),
    "nothing rotated": _keyed(
        'key "gemma3.rope.dimension_count" is 0', drafts.gemma3, gemma3__rope__dimension_count=(U32, 0)
    ),
    "half rotated": _keyed("is 16, for heads of 32 elements", drafts.qwen2, qwen2__rope__dimension_count=(U32, 16)),
    "an unknown scaling of positions": _keyed(
        'is "wat", not one of none, linear, yarn, longrope', llama__rope__scaling__type=(STRING, "wat")
    ),
    "positions scaled by 0": _keyed("", llama__rope__scaling__factor=(F32, 0.0)),
    "positions scaled by next to nothing": _keyed(
        "",
        llama__rope__scaling__type=(STRING, "yarn"),
        llama__rope__scaling__factor=(F32, 1e-38),
        llama__rope__scaling__original_context_length=(U32, 0),
    ),
    "a base that is no number": _keyed("is nan", llama__rope__freq_base=(F32, float("nan"))),
    "an epsilon of 0": _keyed("", llama__attention__layer_norm_rms_epsilon=(F32, 0.0)),
    "a negative epsilon": _keyed("is -1.0", llama__attention__layer_norm_rms_epsilon=(F32, -1.0)),
    "experts that are never used": _keyed(
        'key "llama.expert_used_count" is missing, for 4 experts', llama__expert_count=(U32, 4)
    ),
    "more experts used than there are": _keyed("is 9, of 4 experts", drafts.experts, llama__expert_used_count=(U32, 9)),
    "experts for a number of others": _keyed("for 3 experts", drafts.experts, llama__expert_count=(U32, 3)),
    "more experts than the engine has room for": _keyed(
        "is 2048, not between 0 and 1024", drafts.experts, llama__expert_count=(U32, 2048)
    ),
    "experts that one layer never uses": _keyed(
        'is 0 for layer 1, which has the tensor "blk.1.ffn_gate_inp.weight"',
        drafts.experts,
        llama__expert_used_count=_array(U32, 2, 0),
    ),
    "experts in groups that do not divide": _keyed(
        "is 3, for 4 experts", drafts.experts, llama__expert_group_count=(U32, 3)
    ),
    "groups of experts that are never used": _keyed(
        "is 0, of 2 groups of experts", drafts.experts, llama__expert_group_count=(U32, 2)
    ),
    "an unknown way to choose experts": _keyed(
        "is 9, not between 0 and 4", drafts.experts, llama__expert_gating_func=(U32, 9)
    ),
    "latent attention with many keys": _keyed(
        "is 2 instead of 1, for latent attention", drafts.deepseek2, deepseek2__attention__head_count_kv=(U32, 2)
    ),
    "latent attention of another width": _keyed(
        "is 255 instead of 48, for latent attention", drafts.deepseek2, deepseek2__attention__key_length=(U32, 255)
    ),
    "latent attention that is all rotated": _keyed(
        "is 16, which is a whole key", drafts.deepseek2, deepseek2__attention__key_length_mla=(U32, 16)
    ),
    "heads of one element": _alone(
        lambda: drafts.nomic_bert().with_key({"nomic-bert.attention.head_count": (U32, WIDTH)}),
        "makes heads of 1 elements, which is not even",
        "embed",
    ),
    "rotations in no section": _keyed(
        "is [0, 0, 0, 0], for 32 elements", llama__rope__dimension_sections=_array(I32, 0, 0, 0, 0)
    ),
    "an unprintable scaling of positions": _keyed(
        r'is "a\n\x00", not one of', llama__rope__scaling__type=(STRING, "a\n\0")
    ),
    "more layers of another kind than layers": _keyed("is 500, of 2 layers", llama__nextn_predict_layers=(U32, 500)),
    "a window of 0": _keyed("", drafts.gemma3, gemma3__attention__sliding_window=(U32, 0)),
    "windows for no layer": _keyed("", drafts.gemma3, gemma3__attention__sliding_window_pattern=_array(BOOL, True)),
    "an unknown way to sample": _keyed("is 99, not between 0 and 2", general__sampling__mirostat=(I32, 99)),
    "a temperature that is no number": _keyed("", general__sampling__temp=(F32, float("nan"))),
    "a state of no width": _keyed("", drafts.mamba, mamba__ssm__state_size=(U32, 0)),
    "a state of a huge width": _keyed(
        "not between 0 and 16777216", drafts.mamba, mamba__ssm__inner_size=(U32, 1 << 30)
    ),
    "an unknown pooling": _keyed("is 99, not between 0 and 4", drafts.bert, "embed", bert__pooling_type=(U32, 99)),
    "no types of tokens": _keyed("", drafts.bert, "embed", bert__token_type_count=(U32, 0)),
    "more positions than there are": _keyed("", drafts.bert, "embed", bert__context_length=(U32, 100_000)),
    "part 5 of 3": _keyed("is 5, of 3 files", split__no=(U16, 5), split__count=(U16, 3)),
    "part 1 of 65,535": _keyed("the split model lacks part 2, 3,", split__no=(U16, 0), split__count=(U16, 65_535)),
    "tensors counted wrongly": _keyed("", split__count=(U16, 1), split__tensors__count=(I32, 99)),
}
"""Numbers that the engine divides by, sizes memory by, or counts to."""

TENSORS: dict[str, Case] = {
    "embeddings the other way round": _shaped("token_embd.weight", weight(TOKENS, WIDTH), "instead of [64, 350]"),
    "fewer embeddings than tokens": _shaped("token_embd.weight", weight(WIDTH, TOKENS - 1), "instead of [64, 350]"),
    "an output of fewer tokens": _shaped("output.weight", weight(WIDTH, 1), "instead of [64, 350]"),
    "no embeddings": _without("token_embd.weight", ""),
    "no norm": _without("output_norm.weight", ""),
    "no queries": _without("blk.1.attn_q.weight", 'tensor "blk.1.attn_q.weight" is missing'),
    "a norm too short": _shaped("blk.0.attn_norm.weight", weight(WIDTH // 2), "instead of [64] by embedding_length"),
    "queries too narrow": _shaped("blk.0.attn_q.weight", weight(WIDTH, WIDTH // 2), "instead of [64, 64]"),
    "keys too wide": _shaped("blk.0.attn_k.weight", weight(WIDTH, WIDTH), "instead of [64, 32]"),
    "a feed-forward too narrow": _shaped("blk.1.ffn_up.weight", weight(WIDTH, 1), "instead of [64, 128]"),
    "half of a gate": _shaped("blk.1.ffn_up.weight", weight(WIDTH, 128), "instead of [64, 256]", drafts.phi3),
    "experts missing": _shaped("blk.0.ffn_up_exps.weight", weight(WIDTH, 128, 2), "for 4 experts", drafts.experts),
    "a layer beyond": _shaped("blk.7.attn_norm.weight", weight(WIDTH), "is of a layer beyond the 2"),
    "a tensor of no use": _shaped("../../x.weight", weight(WIDTH), ""),
    "a scale too long": _shaped("blk.0.attn_q.scale", weight(7), ""),
    "rotations too many": _shaped("rope_freqs.weight", weight(17), ""),
    "half-precision norm": _shaped("output_norm.weight", weight(WIDTH, kind="F16"), "has the type F16"),
    "half-precision bias": _shaped("blk.0.attn_q.bias", weight(WIDTH, kind="BF16"), "has the type BF16", drafts.qwen2),
    "half-precision rotations": _shaped("rope_freqs.weight", weight(16, kind="F16"), "has the type F16"),
    "whole numbers for weights": _shaped("blk.0.attn_q.weight", weight(WIDTH, WIDTH, kind="I32"), "has the type I32"),
    "64-bit weights": _shaped("token_embd.weight", weight(WIDTH, TOKENS, kind="F64"), "has the type F64"),
    "weights of an inner type": _shaped("output.weight", weight(WIDTH, TOKENS, kind="Q8_1"), "has the type Q8_1"),
    "a quantised norm": _shaped("output_norm.weight", weight(WIDTH, kind="Q8_0"), "has the type Q8_0"),
    "a quantised convolution": _shaped(
        "blk.0.ssm_conv1d.weight", weight(4, 2 * WIDTH, kind="F16"), "has the type F16", drafts.mamba
    ),
    "a state in half precision": _shaped(
        "blk.0.ssm_a", weight(8, 2 * WIDTH, kind="F16"), "has the type F16", drafts.mamba
    ),
}
"""Tensors whose shapes and types are not those that the numbers ask for."""


def _filled(value: float, kind: str = "F32", name: str = "blk.0.attn_q.weight") -> Callable[[], Draft]:
    def made() -> Draft:
        draft = drafts.llama()
        shape = draft.tensors[name].shape
        count = int(np.prod(shape))
        plain = np.full(count, value, np.float32)
        layouts: dict[str, Callable[[], bytes]] = {
            "F32": plain.tobytes,
            "F16": plain.astype(np.float16).tobytes,
            "BF16": (plain.view(np.uint32) >> 16).astype(np.uint16).tobytes,
            "Q8_0": lambda: (np.float16(value).tobytes() + bytes(range(32))) * (count // 32),
            "Q4_1": lambda: (np.float16(value).tobytes() * 2 + bytes(range(16))) * (count // 32),
        }
        return draft.with_tensors({name: Weight(shape, kind, layouts[kind]())})

    return made


WEIGHTS: dict[str, Case] = {
    **{f"{kind} that is no number": _alone(_filled(float("nan"), kind)) for kind in ("F32", "F16", "BF16")},
    **{f"a scale of {kind} that is no number": _alone(_filled(float("nan"), kind)) for kind in ("Q8_0", "Q4_1")},
    "endless embeddings": _alone(_filled(float("inf"), name="token_embd.weight")),
    "endless output": _alone(_filled(float("-inf"), name="output.weight")),
    "a norm that is no number": _alone(_filled(float("nan"), name="output_norm.weight")),
    "experts chosen by what is no number": _alone(
        lambda: drafts.experts().with_tensors(
            {
                f"blk.{layer}.ffn_gate_inp.weight": Weight((WIDTH, EXPERTS), "F32", b"\xff" * (4 * WIDTH * EXPERTS))
                for layer in range(LAYERS)
            }
        )
    ),
    "a BERT of what is no number": _alone(
        lambda: drafts.bert().with_tensors({"token_types.weight": Weight((WIDTH, 2), "F32", b"\xff" * (8 * WIDTH))}),
        ask="embed",
    ),
}
"""Weights that are no numbers. The engine answers nonsense with them, and no more: they are not looked for."""


def _vocabulary(refusal: str = "", **keys: Value) -> Case:
    return _alone(
        lambda: drafts.llama().with_key({f"tokenizer.ggml.{name}": value for name, value in keys.items()}), refusal
    )


def _template(refusal: str, text: str | bytes) -> Case:
    return _keyed(refusal, tokenizer__chat_template=(STRING, text))


VOCABULARY: dict[str, Case] = {
    "no tokens": _without("tokenizer.ggml.tokens", 'key "tokenizer.ggml.tokens" is missing'),
    "tokens that are no list": _vocabulary("is not an array of string", tokens=(U32, 5)),
    "tokens that are numbers": _vocabulary("is not an array of string", tokens=_array(U8, *range(200))),
    "fewer tokens than embeddings": _vocabulary("instead of [64, 5]", tokens=_array(STRING, *_tokens(5))),
    "no token at all": _vocabulary("instead of [64, 0]", tokens=_array(STRING)),
    "a token twice": _vocabulary('has the token "a" twice', tokens=_array(STRING, *["a"] * TOKENS)),
    "tokens that are the same to the engine": _vocabulary(
        'has the token "a" twice', tokens=_array(STRING, *(f"a\0{number}" for number in range(TOKENS)))
    ),
    "empty tokens": _vocabulary("", tokens=_array(STRING, *[""] * TOKENS)),
    "tokens that are no text": _vocabulary(
        "", tokens=_array(STRING, *(b"\xff%d" % number for number in range(TOKENS)))
    ),
    "tokens of 100,000 bytes": _vocabulary("", tokens=_array(STRING, *("x" * 100_000 + token for token in _tokens()))),
    "too few types": _vocabulary("has 3 elements for 350 tokens", token_type=_array(I32, 1, 1, 1)),
    "types that are none": _vocabulary("", token_type=_array(I32, *[-7] * TOKENS)),
    "types that are fractions": _vocabulary("is not an array of int32", token_type=_array(F32, *[1.0] * TOKENS)),
    "all bytes": _vocabulary("", token_type=_array(I32, *[6] * TOKENS)),
    "too few scores": _vocabulary("has 1 elements for 350 tokens", model=(STRING, "llama"), scores=_array(F32, 0.0)),
    "scores that are no numbers": _vocabulary("", model=(STRING, "t5"), scores=_array(F32, *[float("nan")] * TOKENS)),
    "merges that join nothing": _vocabulary("", merges=_array(STRING, "abc", "", " ", "zz qq")),
    "merges that are numbers": _vocabulary("is not an array of string", merges=_array(U8, 1)),
    "no merges": _without("tokenizer.ggml.merges", ""),
    "a special token beyond": _vocabulary("", bos_token_id=(U32, TOKENS), eos_token_id=(U32, (1 << 32) - 1)),
    "a negative special token": _vocabulary("", bos_token_id=(I32, -1)),
    "special tokens beyond, and added": _vocabulary(
        "", add_bos_token=(BOOL, True), add_eos_token=(BOOL, True), bos_token_id=(U32, 999), eos_token_id=(U32, 999)
    ),
    "no tokenizer": _vocabulary("a model without a tokenizer cannot be run", model=(STRING, "none")),
    "an unknown tokenizer": _vocabulary("", model=(STRING, "wat")),
    "a tokenizer that would search for ever": _vocabulary(
        "begin with the byte 116, which is none itself", model=(STRING, "rwkv"), tokens=_array(STRING, *_tokens())
    ),
    "a table of letters that lies": _vocabulary(
        "",
        model=(STRING, "t5"),
        scores=_array(F32, *[0.0] * TOKENS),
        precompiled_charsmap=_array(U8, *b"\xff\xff\xff\x7f" + bytes(8)),
    ),
    "a byte token that is no byte": _vocabulary(
        'has the byte token "<0x-1>"', model=(STRING, "plamo2"), tokens=_array(STRING, "<0x-1>", *_tokens(TOKENS - 1))
    ),
    "a template of 2 MB": _template("has 2097152 characters, more than 262144", "x" * (2 << 20)),
    "a template of brackets": _template(
        "brackets nested deeper than 500", "{{" + "(" * 50_000 + "1" + ")" * 50_000 + "}}"
    ),
    "a template of blocks": _template("blocks nested deeper than 500", "{% if 1 %}" * 9000 + "{% endif %}" * 9000),
    "a template of branches": _template(
        "more than 2000 branches", "{% if 0 %}" + "{% elif 0 %}" * 20_000 + "{% endif %}"
    ),
    "a template of operators": _template("more than 2000 operations", "{{ 1" + " + 1" * 50_000 + " }}"),
    "a template of filters": _template("more than 2000 operations", "{{ 1" + "|string" * 30_000 + " }}"),
    "a template that is broken": _template("", "{% if %}"),
    "a template that is no text": _template("", b"\xff\xfe{{ messages[0].content }}\0\x80"),
    "a template that is a number": _keyed("", tokenizer__chat_template=(U32, 1)),
}
"""Tokenizers and chat templates that lie, are incomplete or without end."""

PARTS: dict[str, Case] = {
    "a projector alone": _alone(drafts.llava_projector, "a projector alone is no model"),
    "a projector by another name": _projector(
        lambda draft: draft.with_keys(general__architecture=(STRING, "llama")),
        'key "general.architecture" is "llama", in a projector',
    ),
    "a projector of an unknown kind": _projector(lambda draft: draft.with_keys(clip__projector_type=(STRING, "wat"))),
    "a projector without patches": _projector(
        lambda draft: draft.without("v.patch_embd.weight"), 'tensor "v.patch_embd.weight" is missing'
    ),
    "a projector without queries": _projector(
        lambda draft: draft.without("v.blk.0.attn_q.weight"), 'tensor "v.blk.0.attn_q.weight" is missing'
    ),
    "a projector without its end": _projector(
        lambda draft: draft.without("mm.2.weight"), 'tensor "mm.2.weight" is missing'
    ),
    "patches of another size": _projector(
        lambda draft: draft.with_tensors({"v.patch_embd.weight": weight(9, 8, 3, WIDTH)}), "instead of [8, 8, 3, 64]"
    ),
    "too few positions": _projector(
        lambda draft: draft.with_tensors({"v.position_embd.weight": weight(WIDTH, 8)}), "has 8 rows, for 17 patches"
    ),
    "a picture larger than its positions": _projector(
        lambda draft: draft.with_keys(clip__vision__image_size=(U32, 64)), "has 17 rows, for 65 patches"
    ),
    "queries of another width": _projector(
        lambda draft: draft.with_tensors({"v.blk.0.attn_q.weight": weight(32, WIDTH)}), "instead of rows of 64 elements"
    ),
    "a bias too long": _projector(
        lambda draft: draft.with_tensors({"v.blk.1.ffn_up.bias": weight(999)}), "instead of 128 elements"
    ),
    "a feed-forward that does not fit": _projector(
        lambda draft: draft.with_tensors({"v.blk.0.ffn_down.weight": weight(32, WIDTH)}), "which do not fit together"
    ),
    "an end that does not fit": _projector(
        lambda draft: draft.with_tensors({"mm.2.weight": weight(32, WIDTH)}), "instead of rows of 64 elements"
    ),
    "a projector for another model": _projector(
        lambda draft: draft.with_tensors({"mm.2.weight": weight(64, 32), "mm.2.bias": weight(32)})
    ),
    "an encoder of another width": _projector(
        lambda draft: draft.with_keys(clip__vision__embedding_length=(U32, 128)), "instead of rows of 128 elements"
    ),
    "an encoder of no heads": _projector(
        lambda draft: draft.with_keys(clip__vision__attention__head_count=(U32, 0)), "is 0, not between 1 and 65536"
    ),
    "an encoder's key of another type": _projector(
        lambda draft: draft.with_keys(clip__vision__attention__layer_norm_epsilon=(U32, 1)),
        "is of type uint32, not float32",
    ),
    "colours divided by 0": _projector(
        lambda draft: draft.with_keys(clip__vision__image_std=_array(F32, 0.0, 0.0, 0.0))
    ),
    "half-precision class": _projector(
        lambda draft: draft.with_tensors({"v.class_embd": weight(WIDTH, kind="F16")}), ""
    ),
    "an adapter's half": _adapter(
        lambda draft: draft.without("blk.0.attn_q.weight.lora_b"), 'tensor "blk.0.attn_q.weight.lora_b" is missing'
    ),
    "an adapter whose halves do not fit": _adapter(
        lambda draft: draft.with_tensors({"blk.0.attn_q.weight.lora_b": weight(8, WIDTH)}), "which cannot be multiplied"
    ),
    "an adapter of three dimensions": _adapter(
        lambda draft: draft.with_tensors({"blk.0.attn_q.weight.lora_a": weight(WIDTH, 4, 2)}),
        "which cannot be multiplied",
    ),
    "an adapter for other experts": _adapter(
        lambda draft: Draft(
            draft.keys,
            {
                "blk.0.ffn_up_exps.weight.lora_a": weight(WIDTH, 4, 2),
                "blk.0.ffn_up_exps.weight.lora_b": weight(4, 128, 2),
            },
        ),
        "which do not fit the model's [64, 128, 4]",
        drafts.experts,
    ),
    "an adapter for another layer": _adapter(
        lambda draft: draft.renamed("blk.0.attn_q.weight.lora_a", "blk.9.attn_q.weight.lora_a").renamed(
            "blk.0.attn_q.weight.lora_b", "blk.9.attn_q.weight.lora_b"
        ),
        'the adapter changes tensor "blk.9.attn_q.weight", which the model does not have',
    ),
    "an adapter for another architecture": _adapter(
        lambda draft: draft.with_keys(general__architecture=(STRING, "qwen2")),
        'for models of architecture "qwen2", the model is "llama"',
    ),
    "an adapter in whole numbers": _adapter(
        lambda draft: draft.with_tensors({"blk.0.attn_q.weight.lora_a": weight(WIDTH, 4, kind="I32")}),
        "has the type I32",
    ),
    "an adapter's strength as a text": _adapter(
        lambda draft: draft.with_keys(adapter__lora__alpha=(STRING, "x")), "is of type string, not float32"
    ),
    "an adapter's strength that is no number": _adapter(
        lambda draft: draft.with_keys(adapter__lora__alpha=(F32, float("nan"))), 'key "adapter.lora.alpha" is nan'
    ),
    "an adapter of another type": _adapter(
        lambda draft: draft.with_keys(adapter__type=(STRING, "x")), 'adapters of type "x" are not supported'
    ),
    "an adapter's type as a number": _adapter(
        lambda draft: draft.with_keys(adapter__type=(U32, 1)), "is of type uint32, not string"
    ),
    "an adapter of nonsense": _adapter(
        lambda draft: draft.with_tensors(
            {"blk.0.attn_q.weight.lora_a": Weight((WIDTH, 4), "F32", b"\xff" * (16 * WIDTH))}
        )
    ),
}
"""Projectors and adapters beside a model that is right."""

CASES: dict[str, Case] = {**STRUCTURE, **NUMBERS, **TENSORS, **WEIGHTS, **VOCABULARY, **PARTS}
KNOWN_HOLES: dict[str, tuple[str, ...]] = {
    "CVE-2024-21802, header lengths": ("a string of 2⁶⁴ - 1 bytes", "2⁶⁴ - 1 keys", "a string longer than the file"),
    "CVE-2024-32878, freed before it was set": ("an array longer than the file", "ends within the tokens"),
    "CVE-2024-39720, read past the end": ("only the magic", "ends within the counts", "ends within the tensor list"),
    "CVE-2025-0312, no such key": ("no keys", "no architecture", "no tokens"),
    "CVE-2025-0315, memory by a claimed length": ("an array of 2⁶⁴ - 1", "strings longer than the file"),
    "CVE-2025-0317, divided by zero": ("no heads", "alignment 0", "a dimension of 0"),
    "CVE-2024-12055, read past the end": ("ends within the data", "an offset past the end"),
    "CVE-2025-49847, a token's length": ("tokens of 100,000 bytes",),
    "CVE-2025-52566, more tokens than fit": ("a special token beyond", "fewer tokens than embeddings"),
    "CVE-2025-53630 and CVE-2026-27940, sizes that wrap": (
        "an offset that wraps",
        "tensors whose sizes together wrap",
        "dimensions whose product is 0",
    ),
    "CVE-2025-66959 and CVE-2025-66960, a decoder that panics": (
        "an unknown value type",
        "arrays in arrays without end",
    ),
    "CVE-2026-33298, a tensor's size that wraps": ("a dimension of 2⁶⁴ - 1", "dimensions whose product is 0"),
    "CVE-2026-5757 and CVE-2026-7482, tensors larger than the file": ("ends after the first byte of data",),
    "CVE-2026-65315, a small file of huge counts": (
        "a small file that claims 65,536 tensors",
        "a small file that claims 2⁶³ keys",
    ),
    "llama.cpp 25969, a byte token that is no byte": ("a byte token that is no byte",),
    "llama.cpp 27166, a projector that lacks what it is asked for": ("a projector without queries",),
}
"""Holes that were found in programs which read such files, and the cases here that are of their kind."""

assert all(name in CASES for names in KNOWN_HOLES.values() for name in names)
assert len(CASES) == sum(map(len, (STRUCTURE, NUMBERS, TENSORS, WEIGHTS, VOCABULARY, PARTS)))
