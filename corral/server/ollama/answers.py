"""`/api/answers`: the rest of an answer whose client had gone. An addition of Corral's, for pages in a browser."""

from starlette.requests import Request
from starlette.responses import Response

from corral.errors import BadRequest, NotFound
from corral.server.http.bodies import reply
from corral.server.http.kept_answers import KeptAnswer, KeptAnswers, Rest
from corral.server.http.requests import runtime_of


async def answer(request: Request) -> Response:
    """What comes of an answer after so many bytes, to a request that asked for keeping it."""
    after = request.query_params.get("after", "0")
    if not (after.isascii() and after.isdigit() and len(after) < 10):
        raise BadRequest(f'after must be a number of bytes, got "{after[:40]}"')
    return Rest(_kept(request), int(after))


async def stop(request: Request) -> Response:
    """Ends an answer that is kept."""
    _kept(request).stop()
    return reply({})


def _kept(request: Request) -> KeptAnswer:
    answers: KeptAnswers = request.app.state.kept_answers
    request_id = request.path_params["id"]
    found = answers.get(request_id, runtime_of(request).caller.owner)
    if found is None:
        raise NotFound(f'no answer "{request_id[:64]}" is kept')
    return found
