"""Which type each tensor of a model gets, as llama.cpp's own quantiser chooses. Reads names and shapes, no weights.

Some tensors suffer more than others from lost bits: a model of one kind is a mix. Small ones, and those that steer
others (norms, routers, positions), stay as they are. Sources: spec cli §19, llama.cpp's `src/llama-quant.cpp`.
"""

import re
from fnmatch import fnmatchcase

from msgspec import Struct

from corral.gguf import GGUF, TENSOR_TYPES, Tensor
from corral.quantize.kinds import FLOATS, KINDS

_BLOCKS = {layout.name: layout.block for layout in TENSOR_TYPES.values()}

_LAYER = re.compile(r"blk\.(\d+)\.")

_EMBEDDED = ("v.", "a.", "mm.", "s.")
"""How the names of vision and audio tensors in a model's own file begin: they stay as they are."""

_KEPT_WHOLE = frozenset({"position_embd.weight", "token_types.weight"})
_KEPT = (
    *("_norm.weight", "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight", "attn_rel_b.weight"),
    *("altup", "laurel", "per_layer_model_proj"),
    *("ssm_conv1d", "shortconv.conv.weight", "indexer.k_proj.weight", "indexer.q_proj.weight"),
    *("time_mix_first.weight", "time_mix_lerp_fused.weight", "time_mix_decay_w1.weight", "time_mix_decay_w2.weight"),
    *(f"time_mix_{name}.weight" for name in ("w0", "w1", "w2", "v0", "v1", "v2", "a0", "a1", "a2", "g1", "g2")),
    *(".position_embd", "sam.pos_embd", "sam.neck.", "sam.net_", ".rel_pos", ".patch_embd", ".patch_merger"),
    *("a.rvq.codebook", "mm.a.code_embd"),
)
"""Parts of the names of tensors that are small, or steer others: they stay as they are."""

_PINS: dict[str, dict[str, str]] = {
    "qwen35": {"blk.*.nextn.eh_proj.weight": "Q8_0"},
    "qwen35moe": {"blk.*.nextn.eh_proj.weight": "Q8_0"},
    "gemma3n": {"per_layer_token_embd.weight": "F16"},
    "deepseek2": {
        f"blk.*.{name}.weight": "Q8_0" for name in ("attn_k_b", "attn_q_a", "attn_q_b", "attn_v_b", "attn_kv_a_mqa")
    },
    "glm4": {"token_embd.weight": "F16", "output.weight": "F16"},
    "glmocr": {"token_embd.weight": "F16", "output.weight": "F16"},
}
"""Types of an architecture's tensors in Q4_K_S and Q4_K_M (spec cli §19)."""

_FALLBACKS = {
    "Q2_K": "Q4_0",
    "Q3_K": "Q4_0",
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
    "IQ4_XS": "IQ4_NL",
}
"""What a tensor gets whose rows cannot be divided into blocks of 256: the nearest type with blocks of 32."""

_LARGE = {("llama", 80), ("qwen2", 80), ("deci", 80), ("jais2", 68)}
"""Architectures and layers of the 70B models, whose values serve eight heads each: more bits for them cost little."""

_ROLES = (
    ("attn_qkv.weight", "attention v"),
    ("attn_kv_b.weight", "attention v"),
    ("attn_v.weight", "attention v"),
    ("attn_k.weight", "attention k"),
    ("attn_output.weight", "attention output"),
    (".attn_out.weight", "attention output"),
    ("ffn_down", "ffn down"),
)
"""Parts of names, and what such a tensor does; one that mixes values with others is treated as values are.

The same tensor has another name in gpt-oss as Ollama publishes it, which llama.cpp never sees.
"""


class _Model(Struct, frozen=True):
    """What the choice asks of a model."""

    architecture: str
    layers: int
    experts: int
    heads_per_value: int
    is_large: bool
    has_imatrix: bool


def choose(file: GGUF, kind: str, *, has_imatrix: bool) -> dict[str, str]:
    """The type of each tensor by its name, in a model of one of `KINDS`."""
    model = _Model(
        architecture=file.architecture,
        layers=file.block_count or 0,
        experts=file.integer("expert_count") or 0,
        heads_per_value=_heads_per_value(file),
        is_large=_is_large(file),
        has_imatrix=has_imatrix,
    )
    chooser = _Chooser(model, kind, [tensor.name for tensor in file.tensors])
    return {tensor.name: chooser.type_of(tensor) for tensor in sorted(file.tensors, key=_by_layer)}


def _by_layer(tensor: Tensor) -> tuple[int, str]:
    """llama.cpp's order: the first few layers get more bits, whatever the order in the file."""
    return _layer(tensor.name), tensor.name


def _layer(name: str) -> int:
    found = _LAYER.match(name)
    return int(found[1]) if found else -1


def _heads_per_value(file: GGUF) -> int:
    """How many heads of the first layer share a value; 0 when the layer has none."""
    heads = file.per_layer("attention.head_count") or [0]
    values = file.per_layer("attention.head_count_kv") or heads
    return heads[0] // values[0] if heads and values and values[0] > 0 else 0


def _is_large(file: GGUF) -> bool:
    if file.architecture == "llama" and _heads_per_value(file) == 1:
        return False
    return (file.architecture, file.block_count) in _LARGE


class _Chooser:
    """Goes through a model's tensors layer by layer, and counts those it has seen of a role."""

    def __init__(self, model: _Model, kind: str, names: list[str]) -> None:
        self._model = model
        self._kind = kind
        self._usual = KINDS[kind]
        self._falcon = model.architecture == "falcon"
        self._pins = _PINS.get(model.architecture, {}) if kind in ("Q4_K_S", "Q4_K_M") else {}
        self._tied = "output.weight" not in names
        self._values = sum(_role(name) == "attention v" and not name.startswith(_EMBEDDED) for name in names)
        self._values_seen = 0
        self._downs_seen = 0

    def type_of(self, tensor: Tensor) -> str:
        if not _may_change(tensor):
            return tensor.type
        if self._usual in FLOATS:
            return self._usual
        pinned = next((kind for pattern, kind in self._pins.items() if fnmatchcase(tensor.name, pattern)), None)
        return _that_fits(tensor, pinned or self._mixed(tensor))

    def _mixed(self, tensor: Tensor) -> str:
        is_tied_output = self._tied and tensor.name in ("token_embd.weight", "per_layer_token_embd.weight")
        if tensor.name == "output.weight" or is_tied_output:
            return self._output(tensor)
        match _role(tensor.name):
            case "attention v":
                self._values_seen += 1
                return self._attention_v(self._values_seen - 1)
            case "attention k" if self._model.experts == 8:
                return "Q8_0"
            case "attention output":
                return self._attention_output()
            case "ffn down":
                self._downs_seen += 1
                by_name = _layer(tensor.name) if self._model.experts > 1 else -1
                return self._ffn_down(self._downs_seen - 1 if by_name < 0 else by_name)
        return self._usual

    def _output(self, tensor: Tensor) -> str:
        if self._falcon or self._usual == "Q8_0" or tensor.shape[0] % _BLOCKS[self._usual]:
            return "Q8_0"
        return "Q6_K"

    def _attention_v(self, seen: int) -> str:
        shared = self._model.heads_per_value >= 4
        chosen = self._usual
        match self._kind:
            case "Q2_K":
                chosen = "Q4_K" if shared else "Q3_K"
            case "Q3_K_M":
                chosen = "Q5_K" if seen < 2 else "Q4_K"
            case "Q3_K_L":
                chosen = "Q5_K"
            case "IQ4_NL" | "IQ4_XS" if shared:
                chosen = "Q5_K"
            case "Q4_K_S" if seen < 4:
                chosen = "Q5_K"
            case "Q4_K_M" | "Q5_K_M" if _is_sensitive(seen, self._values):
                chosen = "Q6_K"
        if self._model.experts == 8:
            return "Q8_0"
        return "Q5_K" if self._model.is_large and chosen in ("Q3_K", "Q4_K") else chosen

    def _attention_output(self) -> str:
        if self._falcon:
            return "Q4_K" if self._kind == "Q3_K_L" else self._usual
        if self._model.experts == 8:
            raised = ("Q2_K", "Q3_K_S", "Q3_K_M", "IQ4_NL", "IQ4_XS", "Q4_K_S", "Q4_K_M")
            return "Q5_K" if self._kind in raised else self._usual
        return {"Q2_K": "Q3_K", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K"}.get(self._kind, self._usual)

    def _ffn_down(self, layer: int) -> str:
        layers = self._model.layers
        sensitive = _is_sensitive(layer, layers)
        first_eighth = layer < layers // 8
        first_sixteenth = layer < layers // 16
        match self._kind:
            case "Q2_K":
                return "Q3_K"
            case "Q3_K_M":
                if first_sixteenth:
                    return "Q5_K"
                return "Q3_K" if self._falcon and not sensitive else "Q4_K"
            case "Q3_K_L":
                return "Q4_K" if self._falcon else "Q5_K"
            case "Q4_K_M" if self._falcon:
                if first_sixteenth:
                    return "Q6_K"
                return "Q5_K" if sensitive else "Q4_K"
            case "Q4_K_M" | "Q5_K_M" if sensitive:
                return "Q6_K"
            case "Q4_K_S" if first_eighth and not self._falcon:
                return "Q5_K"
            case "IQ4_NL" | "IQ4_XS" if first_eighth and not self._model.has_imatrix:
                return "Q5_K"
            case "Q4_0" if first_eighth and self._model.has_imatrix:
                return "Q4_1"
            case "Q5_0" if first_eighth and self._model.has_imatrix:
                return "Q5_1"
        return self._usual


def _may_change(tensor: Tensor) -> bool:
    dimensions = max((place for place, size in enumerate(tensor.shape, 1) if size > 1), default=1)
    return (
        tensor.type in FLOATS
        and dimensions > 1
        and tensor.name.endswith("weight")
        and tensor.name not in _KEPT_WHOLE
        and not tensor.name.startswith(_EMBEDDED)
        and not any(part in tensor.name for part in _KEPT)
    )


def _role(name: str) -> str:
    return next((role for part, role in _ROLES if part in name), "")


def _is_sensitive(layer: int, layers: int) -> bool:
    """The first and the last eighth of the layers, and every third between them."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def _that_fits(tensor: Tensor, kind: str) -> str:
    """The type, or one whose blocks the tensor's rows can be divided into."""
    row = tensor.shape[0]
    if row % _BLOCKS[kind]:
        kind = _FALLBACKS.get(kind, kind)
    return "F16" if row % _BLOCKS[kind] else kind
