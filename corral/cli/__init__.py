"""The command line: every command but `serve` is a client of the server. `program` starts it."""
