"""Talking with a model: the conversation at a terminal, attached files, and how answers are printed."""
