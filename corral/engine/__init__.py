"""What can run a model: its border (base), and llama.cpp behind it (llama)."""
