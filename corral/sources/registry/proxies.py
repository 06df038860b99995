"""Which proxy a request goes through: what `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` say (spec cli §13).

The standard library reads them, or the settings of the system where it has such; this module decides what they mean for
one URL. They are no settings of ours, so `corral.config` does not have them.
"""

import ipaddress
import urllib.request
from collections.abc import Iterator
from contextlib import suppress

from yarl import URL

from corral.errors import SourceError
from corral.sources.registry.addresses import is_address, unwrap


def proxy_for(url: URL) -> URL | None:
    """The proxy to ask for a URL, if there is one. May block. `SourceError` for one that cannot be used."""
    proxies = urllib.request.getproxies()
    found = proxies.get(url.scheme) or proxies.get("all")
    if not found or _is_direct(url, proxies.get("no", "")):
        return None
    try:
        proxy = URL(found if "://" in found else f"http://{found}")
    except ValueError as error:  # not quoted: there may be a password in it
        raise SourceError(f"the address of the proxy for {url.scheme} cannot be read") from error
    if proxy.scheme not in ("http", "https"):
        raise SourceError(f'proxies of the kind "{proxy.scheme}" are not supported')
    return proxy


def _is_direct(url: URL, exceptions: str) -> bool:
    """Whether no proxy is asked: for this machine itself, and for what `NO_PROXY` lists, which may be networks."""
    host = url.host or ""
    if host == "localhost" or urllib.request.proxy_bypass(url.authority.rpartition("@")[2]):
        return True
    if not is_address(host):
        return False
    address = unwrap(host)
    return address.is_loopback or any(address in network for network in _networks(exceptions))


def _networks(exceptions: str) -> Iterator[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    for text in exceptions.split(","):
        with suppress(ValueError):  # a name
            yield ipaddress.ip_network(text.strip().strip("[]"), strict=False)
