"""The published layouts, a module each. `FAMILIES` is asked in its order: the first that recognises a file has it."""

from corral.published.families import (
    arctic,
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
    nemotron,
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
    arctic.FAMILY,
    *nemotron.FAMILIES,
    *renamed.FAMILIES,
)

UNRUNNABLE = {"mllama": 'models of the architecture "mllama" (llama3.2-vision) cannot be run: no engine knows it'}
"""Architectures, as published, that no engine loads, each with the sentence that says so."""
