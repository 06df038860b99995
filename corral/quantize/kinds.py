"""The kinds of quantisation a model can be made into, by name: those that need no importance matrix."""

from corral.errors import BadRequest

KINDS: dict[str, str] = {
    "F32": "F32",
    "F16": "F16",
    "BF16": "BF16",
    "Q8_0": "Q8_0",
    "Q6_K": "Q6_K",
    "Q5_K_M": "Q5_K",
    "Q5_K_S": "Q5_K",
    "Q5_1": "Q5_1",
    "Q5_0": "Q5_0",
    "Q4_K_M": "Q4_K",
    "Q4_K_S": "Q4_K",
    "Q4_1": "Q4_1",
    "Q4_0": "Q4_0",
    "IQ4_NL": "IQ4_NL",
    "IQ4_XS": "IQ4_XS",
    "Q3_K_L": "Q3_K",
    "Q3_K_M": "Q3_K",
    "Q3_K_S": "Q3_K",
    "Q2_K": "Q2_K",
}
"""The type that most tensors get in a model of each kind."""

FLOATS = frozenset({"F32", "F16", "BF16"})
"""The kinds, and the types, that are not quantised."""

_ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}


def kind_named(text: str) -> str:
    """The name in `KINDS` that a person means, in whichever case; `Q4_K` means `Q4_K_M`. `BadRequest` for others."""
    name = text.upper()
    name = _ALIASES.get(name, name)
    if name not in KINDS:
        raise BadRequest(f"unsupported quantization type {text} - supported types are {', '.join(KINDS)}")
    return name
