"""Who runs where: how a model is to be loaded (spec), which are loaded (scheduler), who may use one now (admission)."""
