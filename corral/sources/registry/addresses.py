"""Which network addresses a server may send us to. A public server may not reach into our own network.

Addresses are judged where sockets are made, so that a host name cannot lead to another address than the one judged.
"""

import ipaddress
from enum import Enum, auto


class AddressPolicy(Enum):
    """Where connections of one kind may go."""

    ORIGIN = auto()
    """The server itself: anywhere; its addresses are noted."""
    PUBLIC = auto()
    """Public addresses only."""
    LOCAL = auto()
    """Any address but link-local ones, where cloud machines keep their secrets, and multicast ones."""
    PROXIED = auto()
    """Anywhere: a proxy of the user's makes the connections."""


class RefusedAddressError(OSError):
    """An address that the policy forbids. An `OSError`, as anything raised where a socket would be made has to be."""


def check_address(policy: AddressPolicy, address: str) -> None:
    """`RefusedAddressError` if connections of this kind may not go to an address."""
    match policy:
        case AddressPolicy.PUBLIC:
            is_allowed = is_public(address)
        case AddressPolicy.LOCAL:
            ip = unwrap(address)
            is_allowed = not (ip.is_link_local or ip.is_multicast)
        case AddressPolicy.ORIGIN | AddressPolicy.PROXIED:
            is_allowed = True
    if not is_allowed:
        raise RefusedAddressError(f'the private address "{address}", where no registry may send us')


def is_public(address: str) -> bool:
    """Whether an address is one that the whole internet can reach."""
    ip = unwrap(address)
    is_site_local = isinstance(ip, ipaddress.IPv6Address) and ip.is_site_local
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or is_site_local)


def is_address(host: str) -> bool:
    """Whether a host is written as an address, not as a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def unwrap(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address itself, or the IPv4 address that an IPv6 one stands for."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
