"""gpt-oss: another architecture name, and three names of tensors. Its experts are MXFP4 and stay as they are."""

from corral.gguf import GGUF, ValueType
from corral.published import values
from corral.published.draft import Draft
from corral.published.plan import Drafts, Family


def _derive(file: GGUF) -> Drafts:
    draft = Draft.of(file)
    draft.rename_architecture("gptoss", "gpt-oss")
    inner = "gpt-oss.expert_feed_forward_length"
    if inner not in draft.fields and values.find(file, "blk.0.ffn_gate_exps.weight"):
        draft.default(inner, ValueType.UINT32, values.dimension(file, "blk.0.ffn_gate_exps.weight", 1))
    draft.default("gpt-oss.rope.scaling.type", ValueType.STRING, "yarn")
    draft.put("tokenizer.ggml.pre", ValueType.STRING, "gpt-4o")
    draft.rename(
        {"blk.N.attn_out": "blk.N.attn_output", "blk.N.ffn_norm": "blk.N.post_attention_norm"},
        {"blk.N.attn_sinks": "blk.N.attn_sinks.weight"},
    )
    return Drafts(draft)


FAMILY = Family(name="gptoss", version=1, architectures=("gptoss",), recognises=lambda file: True, derive=_derive)
