"""The published layouts, a module each. `FAMILIES` is asked in its order: the first that recognises a file has it."""

from corral.published.families import (
    deepseekocr,
    embeddinggemma,
    gemma3,
    gemma3n,
    gemma4,
    glmocr,
    gptoss,
    llama3,
    llama4,
    llava,
    mistral3,
    qwen3vl,
    qwen25vl,
    qwen35,
    renamed,
)
from corral.published.plan import Family

FAMILIES: tuple[Family, ...] = (
    llama3.FAMILY,
    llava.FAMILY,
    embeddinggemma.FAMILY,  # before Gemma 3, whose architecture it has
    gemma3.FAMILY,
    gptoss.FAMILY,
    qwen25vl.FAMILY,
    mistral3.FAMILY,
    qwen3vl.FAMILY,
    gemma3n.FAMILY,
    llama4.FAMILY,
    qwen35.FAMILY,
    gemma4.FAMILY,
    deepseekocr.FAMILY,
    glmocr.FAMILY,
    *renamed.FAMILIES,
)

UNRUNNABLE = {
    "mllama": 'models of the architecture "mllama" (llama3.2-vision) cannot be run: no engine knows it',
    **{
        name: f'models that are published as "{name}" cannot be run yet: what their files need is not done here'
        for name in ("nemotron_h_omni",)
    },
}
"""Architectures, as published, that no engine loads and nothing is done for, each with the sentence that says so."""
