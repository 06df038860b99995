"""Other servers that answer for a model by OpenAI's API: vLLM, SGLang, llama-server, another Corral.

Speaks to one server, and takes all that it says for lies until it is checked. Which one gets a request is decided in
`replicas`, and what becomes of it in `inference/elsewhere.py`.
"""
