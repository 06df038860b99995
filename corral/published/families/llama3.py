"""Llama 3, 3.1, 3.2 and 3.3, and models made of them: files from before the engine named ways to cut a text up.

Without the name of its own way, digits, contractions and spaces become other tokens. The tokens tell the family.
"""

from corral.gguf import GGUF, Array, ValueType
from corral.published.draft import Draft
from corral.published.plan import Drafts, Family

_PRE = "tokenizer.ggml.pre"
_HEADER, _END_OF_TEXT, _END_OF_TURN = 128006, 128001, 128009
_TEMPLATE_MARKS = ("<|start_header_id|>", "<|eot_id|>")


def _recognises(file: GGUF) -> bool:
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    if file.text(_PRE) not in (None, "", "default") or not isinstance(tokens, Array) or tokens.length <= _END_OF_TURN:
        return False
    found = file.values("tokenizer.ggml.tokens")
    has_marks = any(mark in (file.chat_template or "") for mark in _TEMPLATE_MARKS)
    return found[_END_OF_TURN] == "<|eot_id|>" and (found[_HEADER] == "<|start_header_id|>" or has_marks)


def _derive(file: GGUF) -> Drafts:
    draft = Draft.of(file)
    draft.default_text(_PRE, "llama-bpe")
    for key in ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"):
        if file.metadata.get(key) in (None, _END_OF_TEXT):
            draft.put(key, ValueType.UINT32, _END_OF_TURN)
    return Drafts(text=draft)


FAMILY = Family(name="llama3", version=1, architectures=("llama",), recognises=_recognises, derive=_derive)
