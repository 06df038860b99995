"""The rim: HTTP, one module a dialect. Nothing below it knows a dialect."""
