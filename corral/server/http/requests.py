"""What a handler asks of any request: the server's runtime, whether the client is on this machine."""

import ipaddress

from starlette.requests import Request

from corral.errors import Forbidden
from corral.inference import Runtime


def runtime_of(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


def require_local(request: Request) -> None:
    """`Forbidden` for a client on another machine: paths of this one are none of its business."""
    host = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(host)
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None  # one socket for both
        local = (mapped or address).is_loopback
    except ValueError:
        local = False
    if not local:
        raise Forbidden("files of the server's machine can only be named from there")
