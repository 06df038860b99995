"""Safetensors checkpoints into GGUF: `convert(files, target, report=…)`, memory near one slice of the largest tensor.

Knows nothing of the store, the engine or quantising. `safetensors` reads the files distrustfully, `checkpoint` puts
config and tensors of a folder together, `architectures` says which keys and tensors a model of a kind has in GGUF,
`conversion` writes them. Source: spec cli §18.

Imports NumPy: to be imported in the process that converts only.
"""

from corral.convert.conversion import convert

__all__ = ["convert"]
