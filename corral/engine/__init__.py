"""What can run a model: its border (base), llama-server's client (llama), and one child process (process, worker)."""
