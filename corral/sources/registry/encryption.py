"""Whether a registry is spoken to encrypted. Knows which hosts always are, and no request."""

from enum import Enum, auto

from corral.names import DEFAULT_HOST

_ALWAYS_ENCRYPTED = (DEFAULT_HOST, "hf.co", "huggingface.co")
"""Registries of the public internet that speak HTTPS: what answers otherwise in their name is another server."""


class Encryption(Enum):
    """What a registry is asked in."""

    REQUIRED = auto()
    """HTTPS."""
    PREFERRED = auto()
    """HTTPS, or HTTP where the host's port refuses connections or answers with something else than TLS."""
    NONE = auto()
    """HTTP."""

    @classmethod
    def asked(cls, *, insecure: bool) -> "Encryption":
        """What the field and flag `insecure` mean. Some clients set it always, whatever the registry."""
        return cls.PREFERRED if insecure else cls.REQUIRED

    def at(self, host: str) -> "Encryption":
        """The same for a registry at `host[:port]`; `REQUIRED` for the public ones."""
        is_public = host.partition(":")[0].lower().rstrip(".") in _ALWAYS_ENCRYPTED
        return Encryption.REQUIRED if is_public else self
