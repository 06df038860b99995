"""llama.cpp's server as an engine: one worker process a loaded model, spoken to over HTTP on loopback."""
