"""Which proxy a request goes through: what `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` say (spec cli §13).

The standard library reads them, or the settings of the system where it has such; this module decides what they mean for
one URL. They are no settings of ours, so `corral.config` does not have them.
"""

import ipaddress
import logging
import urllib.request
from collections.abc import Iterator
from contextlib import suppress

import aiohttp
import aiohttp_socks
from yarl import URL

from corral.errors import Unreachable
from corral.sources.registry.addresses import is_address, unwrap

log = logging.getLogger(__name__)


def proxy_for(url: URL) -> URL | None:
    """The proxy to ask for a URL, if there is one. May block.

    `Unreachable` for one that cannot be used, so that mirrors are tried. `ALL_PROXY` is not meant for us alone: where
    it names a proxy that cannot be used, none is asked, with a warning.
    """
    proxies = {scheme: text.strip() for scheme, text in urllib.request.getproxies().items()}
    own, general = proxies.get(url.scheme), proxies.get("all")
    if not (own or general) or _is_direct(url, proxies.get("no", "")):
        return None
    if own:
        return _parse(own, f"the proxy for {url.scheme}")
    try:
        return _parse(general or "", "the proxy in ALL_PROXY")
    except Unreachable as error:
        log.warning("no proxy is asked: %s", error)
        return None


def is_socks(proxy: URL) -> bool:
    """Whether a proxy speaks SOCKS, version 5; it looks up the names of hosts itself."""
    return proxy.scheme in _SOCKS


def socks_connector(proxy: URL) -> aiohttp.BaseConnector:
    """Makes connections through a SOCKS proxy."""
    return aiohttp_socks.ProxyConnector(
        proxy.host or "",
        proxy.port or _SOCKS_PORT,
        username=proxy.user,
        password=proxy.password,
        rdns=True,
        limit=0,
    )


_SOCKS_PORT = 1080
_SOCKS = ("socks5", "socks5h")
_KINDS = ("http", "https", *_SOCKS)


def _parse(text: str, which: str) -> URL:
    try:
        proxy = URL(text if "://" in text else f"http://{text}")
    except ValueError:
        proxy = URL()
    if proxy.scheme and proxy.scheme not in _KINDS:
        raise Unreachable(f'proxies of the kind "{proxy.scheme}" are not supported')
    if not proxy.host:  # not quoted: there may be a password in it
        raise Unreachable(f"the address of {which} cannot be read")
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
