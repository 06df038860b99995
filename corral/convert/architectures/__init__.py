"""Which architectures can be converted, one module each, by the name in `config.json`.

A module's `plan` says which keys and tensors the new file has, as a value; it reads the configuration only.
"""

from collections.abc import Callable

from corral.convert.architectures import (
    bert,
    gemma,
    gemma2,
    gemma3,
    granite,
    llama,
    mistral,
    mixtral,
    nomic_bert,
    phi3,
    qwen2,
    qwen3,
)
from corral.convert.checkpoint import Checkpoint
from corral.convert.draft import Plan
from corral.convert.safetensors import shortened
from corral.errors import ModelFileError

_PLANS: dict[str, Callable[[Checkpoint], Plan]] = {
    "BertModel": bert.plan,
    "Gemma2ForCausalLM": gemma2.plan,
    "Gemma3ForCausalLM": gemma3.plan,
    "Gemma3ForConditionalGeneration": gemma3.plan_of_text,
    "GemmaForCausalLM": gemma.plan,
    "GraniteForCausalLM": granite.plan,
    "LlamaForCausalLM": llama.plan,
    "MistralForCausalLM": mistral.plan,
    "MixtralForCausalLM": mixtral.plan,
    "NomicBertModel": nomic_bert.plan,
    "Phi3ForCausalLM": phi3.plan,
    "Qwen2ForCausalLM": qwen2.plan,
    "Qwen3ForCausalLM": qwen3.plan,
    "Qwen3MoeForCausalLM": qwen3.plan_of_experts,
}


def plan(checkpoint: Checkpoint) -> Plan:
    """What the new file is to hold; `ModelFileError` for an architecture that is not known here."""
    names = checkpoint.config.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    if not isinstance(name, str) or not name:
        raise ModelFileError("unknown architecture")
    if name not in _PLANS:
        raise ModelFileError(f'unsupported architecture "{shortened(name)}"')
    return _PLANS[name](checkpoint)
