"""Checkpoints as their makers publish them → GGUF files: tensors, tokenizers, adapters. Runs no model.

Imports NumPy, so only a child process imports it.
"""
