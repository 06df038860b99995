"""What clients on other machines are not told: where files lie here. Knows no route and no dialect."""

import re

from starlette.requests import Request
from starlette.types import Scope

from corral.errors import CorralError
from corral.server.http.requests import is_local

_QUOTED = re.compile(r"""(["'])(?!/(?:api|v1)/)(?:/|[A-Za-z]:\\)[^"']*[/\\](?=[^"'/\\]+\1)""")
_BARE = re.compile(r"(?<![\w./:-])(?!/(?:api|v1)/)(?:/[\w.@+~:%-]+)+/(?=[\w.@+~:%-])|\b[A-Za-z]:\\[^\s\"']*\\")


def said_to(scope: Scope, error: CorralError) -> CorralError:
    """The error as this client may read it. The log and clients on this machine get it whole."""
    sentence = str(error)
    if is_local(Request(scope)) or (shown := without_folders(sentence)) == sentence:
        return error
    said: CorralError = type(error).__new__(type(error))
    said.__dict__.update(error.__dict__)
    said.args = (shown,)
    return said


def without_folders(text: str) -> str:
    """The text with only the last part of each absolute path; addresses of the API are none."""
    return _BARE.sub("…/", _QUOTED.sub(r"\1…/", text))
