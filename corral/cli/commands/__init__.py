"""The commands, one module for each or for a few of one kind; `program` says which there are."""
