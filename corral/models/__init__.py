"""Models of the store: what a manifest amounts to (model), what lists show of it (index), how one is made
of files (assemble) or of another (create)."""
