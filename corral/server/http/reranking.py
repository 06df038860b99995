"""Requests to rank documents and their answers, in the one form that Jina's, Cohere's and most other APIs share.

Dialects differ only in their errors, and in what they add to an answer. Source: spec api §16.1.
"""

from typing import Any

from msgspec import Struct
from starlette.requests import Request

from corral import inference
from corral.errors import BadRequest
from corral.inference.rank import Scores
from corral.messages import Json, RankRequest
from corral.server.http.bodies import body_converted
from corral.server.http.keep_alive import read_keep_alive
from corral.server.http.operation import INTEGER, NUMBER, STRING, a_list, an_object, constant
from corral.server.http.requests import runtime_of


class WireRankRequest(Struct):
    """`truncate`, `options` and `keep_alive` are those of Ollama's API."""

    model: str = ""
    query: Any = ""
    documents: list[Any] = []
    top_n: int | None = None
    return_documents: bool = False
    truncate: bool = True
    options: dict[str, Any] = {}
    keep_alive: Any = None


_RESULT = an_object({"index": INTEGER, "relevance_score": NUMBER}, {"document": an_object({"text": STRING})})
RANKED: dict[str, Any] = {
    "model": STRING,
    "object": constant("list"),
    "results": a_list(_RESULT),
    "usage": an_object({"prompt_tokens": INTEGER, "total_tokens": INTEGER}),
}
"""The members of an answer."""


async def ranked(request: Request) -> tuple[dict[str, Any], Scores]:
    """The answer to a request, best document first, and what it was made of."""
    asked, converted = await body_converted(request, WireRankRequest, rank_request)
    scores = await inference.rank(runtime_of(request), converted)
    return rank_answer(asked, converted, scores), scores


def rank_request(wire: WireRankRequest) -> RankRequest:
    """Our request; `BadRequest` for a query or document that is no text, and for a `top_n` below 1."""
    if wire.top_n is not None and wire.top_n < 1:
        raise BadRequest(f"top_n is {wire.top_n}, not at least 1")
    return RankRequest(
        model=wire.model,
        query=_text(wire.query, "query"),
        documents=tuple(_text(document, f"documents[{index}]") for index, document in enumerate(wire.documents)),
        truncate=wire.truncate,
        options=wire.options,
        keep_alive=read_keep_alive(wire.keep_alive),
    )


def rank_answer(wire: WireRankRequest, request: RankRequest, scores: Scores) -> dict[str, Any]:
    """The best `top_n` documents, best first; of equal ones that which was given first."""
    order = sorted(range(len(scores.scores)), key=lambda index: -scores.scores[index])
    results: list[dict[str, Any]] = []
    for index in order[: wire.top_n]:
        result: dict[str, Any] = {"index": index, "relevance_score": scores.scores[index]}
        if wire.return_documents:
            result["document"] = {"text": request.documents[index]}
        results.append(result)
    usage = {"prompt_tokens": scores.tokens, "total_tokens": scores.tokens}
    return {"model": wire.model, "object": "list", "results": results, "usage": usage}


def _text(value: Json, name: str) -> str:
    match value:
        case str(text) | {"text": str(text)}:
            return text
        case _:
            raise BadRequest(f'{name} must be a text, or an object with a "text"')
