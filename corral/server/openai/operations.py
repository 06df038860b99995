"""What OpenAI's routes take and answer, for those who read the API's document. Source: spec api §17–§19."""

from corral.server.http.operation import (
    ANYTHING,
    FILE,
    INTEGER,
    NUMBER,
    SOME_ITEMS,
    SOME_TEXT,
    STRING,
    Operation,
    a_list,
    an_object,
    constant,
    meaning,
    nullable,
)
from corral.server.http.reranking import RANKED, WireRankRequest
from corral.server.openai import chat, wire
from corral.server.openai.responses.wire import WireResponseRequest
from corral.server.openai.transcriptions import MAX_TEMPERATURE

_TOKEN = an_object({"token": STRING, "logprob": NUMBER})
_LOGPROBS = an_object({"content": a_list(_TOKEN)})
_CHOICE = an_object(
    {"index": INTEGER, "message": chat.Answer, "finish_reason": nullable(STRING)}, {"logprobs": _LOGPROBS}
)
_TEXT_CHOICE = an_object({"index": INTEGER, "text": STRING, "finish_reason": nullable(STRING)})
_HEAD = {"id": STRING, "created": INTEGER, "model": STRING, "system_fingerprint": STRING}
_MODEL = an_object(
    {"id": STRING, "object": constant("model"), "created": INTEGER, "owned_by": STRING},
    {"max_model_len": INTEGER, "capabilities": a_list(STRING)},
)
_RESPONSE = an_object(
    {
        "id": STRING,
        "object": constant("response"),
        "created_at": INTEGER,
        "status": STRING,
        "model": STRING,
        "output": a_list(an_object({"type": STRING})),
        "usage": nullable(ANYTHING),
        "error": nullable(ANYTHING),
    }
)
_VECTOR = an_object(
    {
        "object": constant("embedding"),
        "index": INTEGER,
        "embedding": {"anyOf": [a_list(NUMBER), {**STRING, "contentEncoding": "base64"}]},
    }
)
_SOME_INPUT = {"type": ["string", "array"], "minLength": 1, "minItems": 1}
_EMBEDDED_USAGE = an_object({"prompt_tokens": INTEGER, "total_tokens": INTEGER})

_TOKENS = an_object(
    {"type": constant("tokens"), "input_tokens": INTEGER, "output_tokens": INTEGER, "total_tokens": INTEGER}
)

CHAT = Operation(
    takes=wire.WireChatRequest,
    requires={"model": SOME_TEXT, "messages": SOME_ITEMS},
    answers=an_object(
        {**_HEAD, "object": constant("chat.completion"), "choices": a_list(_CHOICE), "usage": chat.Usage}
    ),
    events="With `stream`: an event for each chunk, a `chat.completion.chunk` in its data; the last data is `[DONE]`.",
)
COMPLETIONS = Operation(
    takes=wire.WireCompletionRequest,
    requires={"model": SOME_TEXT},
    answers=an_object(
        {**_HEAD, "object": constant("text_completion"), "choices": a_list(_TEXT_CHOICE), "usage": chat.Usage}
    ),
    events="With `stream`: an event for each chunk, a `text_completion` in its data; the last data is `[DONE]`.",
)
EMBEDDINGS = Operation(
    takes=wire.WireEmbedRequest,
    requires={"model": SOME_TEXT, "input": _SOME_INPUT},
    answers=an_object({"object": constant("list"), "data": a_list(_VECTOR), "model": STRING, "usage": _EMBEDDED_USAGE}),
)
TRANSCRIPTION = Operation(
    takes_form=an_object(
        {
            "file": meaning(FILE, "The recording: WAV, MP3 or FLAC, of 25 MiB at most."),
            "model": meaning(SOME_TEXT, "The name of a model that hears: its capabilities have `audio`."),
        },
        {
            "language": meaning(STRING, "The language that is spoken, as an ISO 639 code or by its name."),
            "prompt": meaning(STRING, "A text that shows how names and words are spelt, or that came before."),
            "response_format": meaning(
                {"enum": ["json", "text"], "default": "json"},
                "How the answer is written. Formats with times are refused.",
            ),
            "stream": meaning({"type": "boolean", "default": False}, "Whether the answer comes piece by piece."),
            "temperature": meaning(
                {"type": "number", "minimum": 0, "maximum": MAX_TEMPERATURE, "default": 0},
                "How much chance there is in the choice of tokens; 0 for none.",
            ),
            "include[]": meaning(a_list({"enum": ["logprobs"]}), "`logprobs`: log probabilities of tokens are wanted."),
            "options": meaning(STRING, "Ollama's options, as a JSON object."),
            "keep_alive": meaning(STRING, "How long the model stays loaded: seconds, or a duration such as `5m`."),
        },
    ),
    answers=an_object({"text": STRING, "usage": _TOKENS}, {"logprobs": a_list(_TOKEN)}),
    text="text/plain",
    events="With `stream`: a `transcript.text.delta` in each data, and last a `transcript.text.done`.",
)
RERANK = Operation(
    takes=WireRankRequest,
    requires={"model": SOME_TEXT, "query": {}, "documents": SOME_ITEMS},
    answers=an_object(RANKED),
)
MODELS = Operation(answers=an_object({"object": constant("list"), "data": a_list(_MODEL)}), errors=(403, 500, 503))
MODEL = Operation(answers=_MODEL)
RESPONSES = Operation(
    takes=WireResponseRequest,
    requires={"model": SOME_TEXT, "input": _SOME_INPUT},
    answers=_RESPONSE,
    events="With `stream`: named events from `response.created` to `response.completed` or `response.incomplete`.",
)
RESPONSE = Operation(answers=_RESPONSE)
DELETED = Operation(
    answers=an_object({"id": STRING, "object": constant("response"), "deleted": {"type": "boolean", "const": True}})
)
_ITEM_ID = nullable(STRING)
INPUT_ITEMS = Operation(
    answers=an_object(
        {
            "object": constant("list"),
            "data": a_list(an_object({"type": STRING})),
            "first_id": _ITEM_ID,
            "last_id": _ITEM_ID,
            "has_more": {"type": "boolean"},
        }
    )
)
