"""Models of the store: what a manifest amounts to (model), one made of files (assemble), of another one (create)."""
