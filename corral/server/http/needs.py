"""What a route asks of those who call it. Every route says so in its table; one that does not is for admins."""

from msgspec import Struct

from corral.access.scopes import Scope


class Needs(Struct, frozen=True):
    """The scope of the keys that a route is for."""

    scope: Scope | None
    """None: no key is needed, wherever the server listens."""
    asks_model: bool = False
    """Whether its requests count towards the limits of a key."""


OPEN = Needs(None)
READ = Needs("infer")
ASK = Needs("infer", asks_model=True)
MANAGE = Needs("manage")
ADMIN = Needs("admin")
