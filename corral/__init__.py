"""Corral runs open large language models on your own machine, as Ollama does, on llama.cpp."""

__version__ = "0.1.0"

EMULATES = "0.33.0"
"""The release of Ollama whose behaviour is matched; `/api/version` reports it because clients gate features on it."""
