"""`/api/markdown`: what a model wrote as HTML that is safe to show. An addition of Corral's, for pages in a browser."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from corral.background import Threads
from corral.errors import BadRequest
from corral.server.http.bodies import body_as, reply
from corral.server.http.dialect import set_routine
from corral.server.ollama import wire

_THREAD = Threads("markdown", 1)
"""One thread for all, since Python would not render two texts faster side by side, and answers need its lock, too."""


async def markdown(request: Request) -> Response:
    """Markdown as blocks of HTML that is safe to show, each with the line on which it begins."""
    set_routine(request.scope)
    asked = await body_as(request, wire.WireMarkdownRequest)
    return reply({"blocks": await _THREAD.run(_blocks, asked.text)})


def _blocks(text: str) -> Any:
    from corral.rendering.markdown import MAX_CHARACTERS, blocks  # takes time, and only browsers ask for it

    if len(text) > MAX_CHARACTERS:
        raise BadRequest(f"the text has {len(text)} characters, and at most {MAX_CHARACTERS} are rendered at once")
    return msgspec.to_builtins(blocks(text))
