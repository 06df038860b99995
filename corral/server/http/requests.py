"""What a handler asks of any request: the server's runtime, whether the client is on this machine."""

import ipaddress

import msgspec
from starlette.requests import Request

from corral.errors import Forbidden
from corral.inference import Runtime
from corral.server.http.access import caller_of


def runtime_of(request: Request) -> Runtime:
    """The server's runtime, as the sender of this request may use it."""
    runtime: Runtime = request.app.state.runtime
    caller = caller_of(request.scope)
    return runtime if caller is None else msgspec.structs.replace(runtime, caller=caller)


_FROM_ELSEWHERE = ("origin", "sec-fetch-site", "x-forwarded-for", "forwarded", "via")
"""Headers of requests that a page in a browser has made, or that a proxy has passed on."""


def require_local(request: Request, *, or_our_page: bool = False) -> None:
    """`Forbidden` for a client that is not a program of this machine: its paths are none of a stranger's business.

    Strangers are other machines, and those who reach us from this one: pages in its browser, clients of its proxies.
    `or_our_page`: the page that this server sends is none, when it is opened on this machine.
    """
    if not is_local(request, or_our_page=or_our_page):
        raise Forbidden("files of the server's machine can only be named from there")


def is_local(request: Request, *, or_our_page: bool = False) -> bool:
    """Whether the client is a program of this machine, as `require_local` wants it."""
    host = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(host)
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None  # one socket for both
        near = (mapped or address).is_loopback
    except ValueError:
        return False
    signs = [header for header in _FROM_ELSEWHERE if header in request.headers]
    if or_our_page and request.headers.get("sec-fetch-site") == "same-origin":
        signs.remove("sec-fetch-site")
    return near and not signs
