"""What fields of requests mean, by their names, for those who read the API's document.

Most mean the same in every dialect. A key with a dot, `EmbedRequest.input`, goes before the name alone.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Field(NamedTuple):
    """The sentence of a field; its schema where it may be anything by its type, or else how that is narrower."""

    sentence: str
    schema: Mapping[str, Any] | None = None


_STRINGS: dict[str, Any] = {"type": "array", "items": {"type": "string"}}
_TOKENS: dict[str, Any] = {"type": "array", "items": {"type": "integer"}}
_TEXT_OR_TEXTS: dict[str, Any] = {"anyOf": [{"type": "string"}, _STRINGS]}
_TEXTS_OR_TOKENS: dict[str, Any] = {
    "anyOf": [{"type": "string"}, _TOKENS, {"type": "array", "items": {"anyOf": [{"type": "string"}, _TOKENS]}}]
}
_ONE_OR_MORE: dict[str, Any] = {"anyOf": [{"type": "string"}, {"type": "array"}]}

FIELDS = {
    "model": Field("The name of a model, as `name:tag` or with its registry."),
    "stream": Field("Whether the answer comes piece by piece."),
    "messages": Field("The conversation, the first message first."),
    "prompt": Field("The text to go on from."),
    "CompletionRequest.prompt": Field("A text, a list of token ids, or a list of these.", _TEXTS_OR_TOKENS),
    "suffix": Field("The text that is to come after the answer."),
    "system": Field("What the model is to be and do; instead of the model's own."),
    "MessagesRequest.system": Field("What the model is to be and do: a text or blocks of it.", _ONE_OR_MORE),
    "template": Field("A Go template for the prompt, instead of the model's own."),
    "context": Field("Tokens that an earlier answer ended with."),
    "raw": Field("Whether the prompt goes to the model as it is, without a template."),
    "format": Field('`"json"`, or a JSON Schema that the answer has to fit.', {"type": ["string", "object"]}),
    "Text.format": Field("What the answer has to fit."),
    "response_format": Field("What the answer has to fit: text, any JSON, or a JSON Schema."),
    "keep_alive": Field(
        "How long the model stays loaded: seconds, or a duration such as `5m`; negative means for ever.",
        {"type": ["number", "string"]},
    ),
    "images": Field("Pictures and sounds, as base64."),
    "options": Field("Ollama's options: `num_ctx`, `num_predict`, `temperature`, `seed`, `stop`, and others."),
    "think": Field(
        "Whether the model thinks first, or how much.",
        {"anyOf": [{"type": "boolean"}, {"enum": ["low", "medium", "high", "max"]}]},
    ),
    "progress": Field("Whether lines of a stream say what happens before the answer begins."),
    "truncate": Field("Whether what does not fit into the context is cut, instead of refused."),
    "shift": Field("Whether the oldest tokens make room when the context is full."),
    "logprobs": Field("Whether the log probabilities of tokens are wanted."),
    "CompletionRequest.logprobs": Field("How many alternatives to each token are wanted."),
    "top_logprobs": Field("How many alternatives to each token are wanted.", {"minimum": 0, "maximum": 20}),
    "tools": Field("What the model may call."),
    "strict": Field("Whether calls have to fit the tool's schema. It concerns models that other servers answer for."),
    "tool_choice": Field("Whether the model may or must call a tool, or which.", {"type": ["string", "object"]}),
    "input": Field("What is asked: a text, or items of a conversation.", _ONE_OR_MORE),
    "Ollama.EmbedRequest.input": Field("A text, or a list of texts.", _TEXT_OR_TEXTS),
    "OpenAI.EmbedRequest.input": Field("A text, a list of token ids, or a list of these.", _TEXTS_OR_TOKENS),
    "dimensions": Field("How many numbers of each vector are kept; 0 for all."),
    "encoding_format": Field("`float`, or `base64` for little-endian single-precision numbers."),
    "max_tokens": Field("How many tokens the answer may have."),
    "max_completion_tokens": Field("How many tokens the answer may have; goes before `max_tokens`."),
    "max_output_tokens": Field("How many tokens the answer may have."),
    "n": Field("How many answers are wanted.", {"minimum": 1, "maximum": 16}),
    "stop": Field("Texts at which the answer ends.", _TEXT_OR_TEXTS),
    "stop_sequences": Field("Texts at which the answer ends."),
    "temperature": Field("How much chance there is in the choice of tokens; 0 for none."),
    "top_p": Field("The part of all probability that the likeliest tokens together have, from which one is chosen."),
    "top_k": Field("How many of the likeliest tokens one is chosen from."),
    "seed": Field("The same seed gives the same choice."),
    "logit_bias": Field("Token ids, and what is added to their logits: from -100 to 100."),
    "instructions": Field("What the model is to be and do."),
    "previous_response_id": Field("A kept response, whose conversation goes on."),
    "store": Field("Whether the response is kept."),
    "content": Field("The text."),
    "Message.content": Field("A text, or a list of its parts.", _ONE_OR_MORE),
    "role": Field("Who says it: `system`, `user`, `assistant` or `tool`."),
    "text": Field("Another name for `content`."),
    "TokenizeRequest.prompt": Field("Another name for `content`."),
    "name": Field("A name."),
    "NameRequest.name": Field("Another name for `model`."),
    "ShowRequest.name": Field("Another name for `model`."),
    "PullRequest.name": Field("Another name for `model`."),
    "CreateRequest.name": Field("Another name for `model`."),
    "tokens": Field("Token ids."),
    "add_special": Field("Whether the tokens with which the model's texts begin are added."),
    "verbose": Field("Whether long lists, such as the vocabulary, are shown whole."),
    "source": Field("Where it comes from instead of its registry: `file:///…`, `pypi:PACKAGE`, `registry:HOST`."),
    "CopyRequest.source": Field("The model's name."),
    "destination": Field("The second name."),
    "insecure": Field("Whether a registry without HTTPS, or with a certificate that cannot be checked, is accepted."),
    "from": Field("The model that the new one is made from."),
    "files": Field("Names of files, and the digests by which they are in the store."),
    "quantize": Field("The kind that weights are rounded to, such as `q4_K_M`."),
    "quantization": Field("Another name for `quantize`."),
    "parameters": Field("Options that the model has when a request gives none."),
    "license": Field("One license, or a list of them.", _TEXT_OR_TEXTS),
    "path": Field("The archive's absolute path on the server's machine."),
    "models": Field("Names of models."),
}
"""Sentences of fields, by `dialect.type.field`, `type.field` or `field`."""


def field_of(dialect: str, kind: str, name: str) -> Field | None:
    """What is said of a field of a type; None where nothing is."""
    keys = (f"{dialect}.{kind}.{name}", f"{kind}.{name}", name)
    return next((FIELDS[key] for key in keys if key in FIELDS), None)
