"""Families of which only names, or single keys of the metadata, are others in the engine: a function and a row each."""

from corral.gguf import GGUF, Array, ValueType
from corral.published import values
from corral.published.draft import Draft
from corral.published.plan import Drafts, Family


def _olmo3(file: GGUF) -> Drafts:
    draft = Draft.of(file)
    draft.rename_architecture("olmo3", "olmo2")
    return Drafts(draft)


def _glm4moelite(file: GGUF) -> Drafts:
    """GLM 4.7 Flash, which the engine runs as DeepSeek 2: one key for all heads, the latent vector."""
    draft = Draft.of(file)
    rank = values.whole(file, "glm4moelite.attention.kv_lora_rank")
    rotated = values.whole(file, "glm4moelite.rope.dimension_count")
    width = values.whole(file, "glm4moelite.attention.key_length")
    value_width = values.whole(file, "glm4moelite.attention.value_length", width)
    draft.rename_architecture("glm4moelite", "deepseek2")
    numbers = {
        "head_count_kv": 1,
        "key_length": rank + rotated,
        "value_length": rank,
        "key_length_mla": width,
        "value_length_mla": value_width,
    }
    for name, number in numbers.items():
        draft.put(f"deepseek2.attention.{name}", ValueType.UINT32, number)
    for name in ("expert_group_count", "expert_group_used_count"):
        draft.default(f"deepseek2.{name}", ValueType.UINT32, 1)
    draft.put("tokenizer.ggml.pre", ValueType.STRING, "glm4")
    ends = values.integers(file, "tokenizer.ggml.eos_token_ids", [])
    for name, number in zip(("eot_token_id", "eom_token_id"), ends[1:3], strict=False):
        draft.default(f"tokenizer.ggml.{name}", ValueType.UINT32, number)
    return Drafts(draft)


def _lfm2(file: GGUF) -> Drafts:
    draft = Draft.of(file)
    draft.rename({"output_norm": "token_embd_norm"})
    draft.put("tokenizer.ggml.pre", ValueType.STRING, "lfm2")
    if values.find(file, "blk.0.ffn_gate.weight"):
        inner = values.dimension(file, "blk.0.ffn_gate.weight", 1)
        if file.metadata.get("lfm2.feed_forward_length") != inner:
            draft.put("lfm2.feed_forward_length", ValueType.UINT32, inner)
    return Drafts(draft)


def _lfm2_is_published(file: GGUF) -> bool:
    return values.find(file, "output_norm.weight") is not None and values.find(file, "token_embd_norm.weight") is None


def _qwen3next(file: GGUF) -> Drafts:
    draft = Draft.of(file)
    heads = "qwen3next.attention.head_count_kv"
    if isinstance(file.metadata.get(heads), Array) and (most := max(values.integers(file, heads), default=0)):
        draft.put(heads, ValueType.UINT32, most)
    draft.rename({}, {"blk.N.ssm_dt": "blk.N.ssm_dt.bias"})
    return Drafts(draft)


_LAGUNA_KEYS = {
    "laguna.rope.swa.dimension_count": "laguna.rope.dimension_count_swa",
    "laguna.rope.swa.freq_base": "laguna.rope.freq_base_swa",
}


def _laguna(file: GGUF) -> Drafts:
    """Poolside's Laguna, from before the engine knew it."""
    draft = Draft.of(file)
    for old, new in _LAGUNA_KEYS.items():
        draft.rename_key(old, new)
    draft.rename({"blk.N.attn_g": "blk.N.attn_gate"})
    return Drafts(draft)


def _laguna_is_published(file: GGUF) -> bool:
    return any(key in file.metadata for key in _LAGUNA_KEYS) or any(
        tensor.name.endswith(".attn_g.weight") for tensor in file.tensors
    )


FAMILIES = (
    Family(name="laguna", version=1, architectures=("laguna",), recognises=_laguna_is_published, derive=_laguna),
    Family(name="olmo3", version=1, architectures=("olmo3",), recognises=lambda file: True, derive=_olmo3),
    Family(
        name="glm4moelite",
        version=1,
        architectures=("glm4moelite",),
        recognises=lambda file: True,
        derive=_glm4moelite,
    ),
    Family(name="lfm2", version=1, architectures=("lfm2",), recognises=_lfm2_is_published, derive=_lfm2),
    Family(
        name="qwen3next",
        version=1,
        architectures=("qwen3next",),
        recognises=lambda file: any(tensor.name.endswith(".ssm_dt") for tensor in file.tensors),
        derive=_qwen3next,
    ),
)
