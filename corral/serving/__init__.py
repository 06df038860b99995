"""How a model is loaded (spec), which models are loaded (scheduler), which requests use one now (admission)."""
