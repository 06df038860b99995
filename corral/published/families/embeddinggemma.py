"""EmbeddingGemma: Gemma 3 with two dense layers behind it, which the engine has as an architecture of its own."""

from corral.gguf import GGUF, ValueType
from corral.published import values
from corral.published.draft import Draft
from corral.published.plan import Drafts, Family

_NEW = "gemma-embedding"


def _recognises(file: GGUF) -> bool:
    return values.find(file, "dense.0.weight") is not None


def _derive(file: GGUF) -> Drafts:
    draft = Draft.of(file)
    draft.rename_architecture("gemma3", _NEW)
    draft.drop(f"{_NEW}.attention.causal", f"{_NEW}.attention.sliding_window_pattern")
    draft.default(f"{_NEW}.rope.freq_base_swa", ValueType.FLOAT32, 10000.0)
    draft.default(f"{_NEW}.attention.layer_norm_rms_epsilon", ValueType.FLOAT32, 1e-6)
    for old, new in (("dense.0", "dense_2"), ("dense.1", "dense_3")):
        draft.put(f"{_NEW}.{new}_feat_in", ValueType.UINT32, values.dimension(file, f"{old}.weight", 0))
        draft.put(f"{_NEW}.{new}_feat_out", ValueType.UINT32, values.dimension(file, f"{old}.weight", 1))
    draft.rename({"dense.0": "dense_2", "dense.1": "dense_3", "norm": "output_norm"})
    return Drafts(draft)


FAMILY = Family(name="embeddinggemma", version=1, architectures=("gemma3",), recognises=_recognises, derive=_derive)
