"""What Ollama's routes take and answer, for those who read the API's document. Source: spec api §7–16."""

from typing import get_args

import msgspec

from corral.access.keys import MAX_NAME
from corral.inference import recent
from corral.server.http.operation import (
    ANYTHING,
    BOOLEAN,
    INTEGER,
    NUMBER,
    SOME_ITEMS,
    SOME_TEXT,
    STRING,
    Operation,
    Schema,
    a_list,
    an_object,
    nullable,
)
from corral.server.http.reranking import RANKED, WireRankRequest
from corral.server.ollama import create, keys, lines, models, nodes, quarantine, search, wire

ALWAYS = (403, 500, 503)
"""The statuses of errors of routes that ask nothing of the request."""

_DURATIONS = {"total_duration": INTEGER, "load_duration": INTEGER}
_DETAILS = an_object(
    {
        "parent_model": STRING,
        "format": STRING,
        "family": STRING,
        "families": nullable(a_list(STRING)),
        "parameter_size": STRING,
        "quantization_level": STRING,
    },
    {"context_length": INTEGER, "embedding_length": INTEGER},
)
_NAMED = {"name": STRING, "model": STRING, "size": INTEGER, "digest": STRING, "details": _DETAILS}
_TAG = an_object(
    {**_NAMED, "modified_at": STRING},
    {
        **dict.fromkeys(("capabilities", "spills_to"), a_list(STRING)),
        **dict.fromkeys(("remote_model", "remote_host"), STRING),
    },
)
_WORDS = "Words of the model's name, or `owner/repository`."
_NEEDS = an_object({"weights": INTEGER, "total": INTEGER}, {"context_length": INTEGER, "kv_cache": INTEGER})
_FOUND = an_object(
    {
        "name": STRING,
        "downloads": INTEGER,
        "likes": INTEGER,
        "gated": BOOLEAN,
        "quantizations": a_list(
            an_object(
                {
                    "name": STRING,
                    "quantization_level": STRING,
                    "size": INTEGER,
                    "requirements": _NEEDS,
                    "fits": {"enum": ["yes", "tight", "no"]},
                }
            )
        ),
    },
    {
        **dict.fromkeys(("modified_at", "architecture", "parameter_size", "suggested", "error"), STRING),
        "context_length": INTEGER,
    },
)
_ROOM = an_object({"total": INTEGER, "available": INTEGER, "gpus": INTEGER})
_LIVE = an_object(
    {
        "state": {"enum": ["loading", "ready"]},
        "slots": an_object({"busy": INTEGER, "total": INTEGER}),
        "pool": an_object({"used": INTEGER, "total": INTEGER}),
        "waiting": INTEGER,
        "served": INTEGER,
        "prompt_tokens_per_second": NUMBER,
        "generated_tokens_per_second": NUMBER,
    },
    dict.fromkeys(("loading", "preparing"), an_object({"completed": INTEGER, "total": INTEGER})),
)
_MEMORY = an_object({"total": INTEGER, "available": INTEGER, "workers": INTEGER})
_ENGINE = an_object({"name": STRING, "version": STRING})
_DEVICE = an_object({"name": STRING, "description": STRING, "total": INTEGER, "available": INTEGER, "workers": INTEGER})
_PLACED = an_object(
    {
        **dict.fromkeys(("layers", "of", "experts_in_memory"), INTEGER),
        "devices": a_list(an_object({"name": STRING, "layers": INTEGER, "size": INTEGER})),
        "reason": STRING,
    }
)
_REMOTE = {"remote_model": STRING, "remote_host": STRING}
"""Of a model that other servers answer for."""
_UPSTREAM = an_object(
    {
        **dict.fromkeys(("url", "model", "error", "owned_by"), STRING),
        "context_length": INTEGER,
        "capabilities": a_list(STRING),
    },
)
_RUNNING = an_object(
    {**_NAMED, "expires_at": STRING, "size_vram": INTEGER, "context_length": INTEGER},
    {
        "tuned": BOOLEAN,
        "live": _LIVE,
        "derived": an_object({"size": INTEGER, "disk": INTEGER}),
        "placement": _PLACED,
        "capabilities": a_list(STRING),
        **_REMOTE,
    },
)
_SHOWN = an_object(
    {"details": _DETAILS, "model_info": ANYTHING, "modified_at": STRING},
    {
        **dict.fromkeys(("license", "modelfile", "parameters", "template", "system", "requires"), STRING),
        "messages": a_list(an_object({"role": STRING, "content": STRING})),
        "projector_info": ANYTHING,
        "tensors": a_list(an_object({"name": STRING, "type": STRING, "shape": a_list(INTEGER)})),
        "capabilities": a_list(STRING),
        "derived": an_object({"size": INTEGER, "disk": INTEGER, "made": BOOLEAN}),
        **_REMOTE,
        "upstreams": a_list(_UPSTREAM),
    },
)
_RENDERED = an_object({"model": STRING, "prompt": STRING})
_CLOUD = an_object({"cloud": an_object({"disabled": BOOLEAN, "source": STRING})})
_DIGESTED = {200: "The file is in the store.", 201: "The file has been stored."}

_MODEL = {"model": SOME_TEXT}

ROOT = Operation(text="text/plain", errors=ALWAYS)
VERSION = Operation(answers=an_object({"version": STRING}), errors=ALWAYS)
STATUS = Operation(answers=_CLOUD, errors=ALWAYS)
ME = Operation(
    answers=an_object({"error": STRING}, {"signin_url": STRING}),
    success={401: 'No account is signed in: `error` is "unauthorized". Or a key is missing, and `error` says so.'},
    errors=ALWAYS,
)
GENERATE = Operation(
    takes=wire.WireGenerateRequest, requires=_MODEL, answers=lines.WireGenerateChunk, lines=lines.WireGenerateChunk
)
CHAT = Operation(takes=wire.WireChatRequest, requires=_MODEL, answers=lines.WireChatChunk, lines=lines.WireChatChunk)
RENDER = Operation(takes=wire.WireChatRequest, requires={**_MODEL, "messages": SOME_ITEMS}, answers=_RENDERED)
EMBED = Operation(takes=wire.WireEmbedRequest, requires=_MODEL, answers=lines.WireEmbedding)
EMBEDDINGS = Operation(
    takes=wire.WireEmbeddingRequest, requires=_MODEL, answers=an_object({"embedding": a_list(NUMBER)})
)
RERANK = Operation(
    takes=WireRankRequest,
    requires={**_MODEL, "query": {}, "documents": SOME_ITEMS},
    answers=an_object({**RANKED, **_DURATIONS}),
)
TOKENIZE = Operation(
    takes=wire.WireTokenizeRequest,
    requires=_MODEL,
    answers=an_object({"model": STRING, "tokens": a_list(INTEGER), "count": INTEGER, **_DURATIONS}),
)
DETOKENIZE = Operation(
    takes=wire.WireDetokenizeRequest,
    requires=_MODEL,
    answers=an_object({"model": STRING, "content": STRING, **_DURATIONS}),
)
MARKDOWN = Operation(
    takes=wire.WireMarkdownRequest,
    answers=an_object({"blocks": a_list(an_object({"line": INTEGER, "html": STRING}))}),
)
TAGS = Operation(answers=an_object({"models": a_list(_TAG)}), errors=ALWAYS)
PS = Operation(
    query={"live": {**BOOLEAN, "description": "Whether to say how busy the models are, too."}},
    answers=an_object(
        {"models": a_list(_RUNNING)},
        {"version": STRING, "waiting": INTEGER, "engine": _ENGINE, "memory": _MEMORY, "devices": a_list(_DEVICE)},
    ),
    errors=ALWAYS,
)
_REPORT = an_object(
    {
        **dict.fromkeys(("id", "created_at", "model", "replica", "replica_reason", "reason"), STRING),
        "kind": {"enum": list(get_args(recent.Kind))},
        "state": {"enum": list(get_args(recent.State))},
        **{
            f"{phase}_duration": INTEGER
            for phase in ("queue", "load", "plan", "room", "parked", "first_token", "prompt", "generation", "total")
        },
        **{f"{name}_tokens": INTEGER for name in ("prompt", "cached", "truncated", "generated")},
        "context_length": INTEGER,
        "placement": STRING,
        "warnings": a_list(STRING),
    }
)
REQUESTS = Operation(
    query={"id": {**STRING, "description": "The header `x-request-id` of the request's answer."}},
    answers=an_object({"requests": a_list(_REPORT)}),
    errors=ALWAYS,
)
SEARCH = Operation(
    query={
        "q": {**SOME_TEXT, "maxLength": search.MAX_QUERY, "description": _WORDS, "required": True},
        "limit": {**INTEGER, "minimum": 1, "maximum": search.MOST, "description": "How many models at most."},
    },
    answers=an_object({"models": a_list(_FOUND), "memory": _ROOM}),
    errors=(400, *ALWAYS),
)
SHOW = Operation(takes=models.WireShowRequest, answers=_SHOWN)
COPY = Operation(takes=models.WireCopyRequest, requires={"source": SOME_TEXT, "destination": SOME_TEXT})
DELETE = Operation(takes=models.WireNameRequest)
ANSWER = Operation(
    query={"after": {**INTEGER, "minimum": 0, "description": "Bytes of the answer that the client has."}},
    text="application/x-ndjson",
    errors=(400, 404, *ALWAYS),
)
STOPPED = Operation(answers=an_object({}), errors=(404, *ALWAYS))
BLOB = Operation(takes_bytes=True, success=_DIGESTED)
NEW_BLOB = Operation(takes_bytes=True, answers=an_object({"digest": STRING}), success={201: _DIGESTED[201]})
QUARANTINE = Operation(
    answers=an_object(
        {
            "files": a_list(
                an_object(
                    {
                        "digest": STRING,
                        "reason": STRING,
                        "models": a_list(STRING),
                        "released": BOOLEAN,
                        "for_good": BOOLEAN,
                    }
                )
            )
        }
    ),
    errors=ALWAYS,
)
RELEASE = Operation(
    takes=quarantine.WireReleaseRequest,
    requires={"model": SOME_TEXT},
    answers=an_object({"released": a_list(STRING)}),
)
_REPLICA = an_object(
    {
        **dict.fromkeys(("model", "state"), STRING),
        **dict.fromkeys(("users", "memory"), INTEGER),
        **dict.fromkeys(("prompt_tokens_per_second", "generated_tokens_per_second"), NUMBER),
    }
)
_NODE = an_object(
    {
        **dict.fromkeys(("id", "address", "unfit"), STRING),
        **dict.fromkeys(("alive", "drained"), BOOLEAN),
        **dict.fromkeys(("cpus", "free_cpus", "gpus"), NUMBER),
        **dict.fromkeys(("memory", "free_memory"), INTEGER),
        "replicas": a_list(_REPLICA),
    }
)
NODES = Operation(answers=an_object({"nodes": a_list(_NODE)}), errors=(400, *ALWAYS))
DRAIN = Operation(
    takes=nodes.WireNodeRequest,
    requires={"node": SOME_TEXT},
    answers=an_object(
        {
            "drained": BOOLEAN,
            "moved": a_list(an_object(dict.fromkeys(("model", "to", "reason"), STRING))),
        }
    ),
)
RESUME = Operation(takes=nodes.WireNodeRequest, requires={"node": SOME_TEXT}, answers=an_object({"node": STRING}))
_KEY = an_object(
    {
        **dict.fromkeys(("id", "name", "scope", "created_at"), STRING),
        "models": a_list(STRING),
        **dict.fromkeys(("requests_per_minute", "tokens_per_minute"), INTEGER),
    }
)
KEY = Operation(answers=an_object({"needed": BOOLEAN, "key": nullable(_KEY)}), errors=ALWAYS)
KEYS = Operation(answers=an_object({"keys": a_list(_KEY)}), errors=ALWAYS)
NEW_KEY = Operation(
    takes=keys.WireKeyRequest,
    requires={"name": {**SOME_TEXT, "maxLength": MAX_NAME}},
    answers={**_KEY, "properties": {**_KEY["properties"], "secret": STRING}, "required": [*_KEY["required"], "secret"]},
    success={201: "The key was made. Its secret is not shown again."},
)
REVOKED = Operation(takes=keys.WireRevokeRequest, requires={"key": SOME_TEXT}, answers=_KEY)
LOG = Operation(answers=an_object({"lines": a_list(STRING)}), errors=ALWAYS)


def _progress(takes: type[models.WireArchiveRequest | create.WireCreateRequest | models.WirePullRequest]) -> Operation:
    line: Schema = {"anyOf": [lines.WireProgress, an_object({"error": STRING})]}
    return Operation(takes=takes, answers=lines.WireProgress, lines=line)


CREATE = _progress(create.WireCreateRequest)
PULL = PUSH = _progress(models.WirePullRequest)
EXPORT = IMPORT = msgspec.structs.replace(_progress(models.WireArchiveRequest), requires={"path": SOME_TEXT})
