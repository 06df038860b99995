"""Who sends one request: what it may do and see, and what of that it has asked for."""

from collections.abc import Callable

from corral.access import patterns
from corral.access.keys import Key
from corral.access.scopes import Scope, holds
from corral.errors import ModelForbidden, ScopeMissing
from corral.names import Name

MOST_NOTED = 8
"""Names of models that are noted of a request."""


def _uncounted(tokens: int) -> None:
    """Tokens of a caller without a limit."""


class Caller:
    """The sender of one request. Without a key it may do everything: none was needed."""

    __slots__ = ("action", "key", "models", "spend")

    def __init__(self, key: Key | None = None, spend: Callable[[int], None] = _uncounted) -> None:
        self.key = key
        self.spend = spend
        """Counts tokens that it has used."""
        self.action = ""
        """What it manages by a route that as a rule only asks; empty: nothing."""
        self.models: tuple[str, ...] = ()
        """The models that it has named, for the audit log."""

    @property
    def owner(self) -> str:
        """Whose what it leaves behind is: the id of its key, empty without one."""
        return self.key.id if self.key else ""

    @property
    def is_limited(self) -> bool:
        """Whether it may use some models only."""
        return self.key is not None and bool(self.key.models)

    def require(self, needed: Scope, action: str = "") -> None:
        """`ScopeMissing` unless it may do what needs this scope. `action` is noted."""
        self.action = action or self.action
        if self.key is not None and not holds(self.key.scope, needed):
            raise ScopeMissing(needed, self.key.scope)

    def require_model(self, name: Name) -> None:
        """`ModelForbidden` for a model that it may not use, whether that is there or not. The name is noted."""
        if len(self.models) < MOST_NOTED:
            self.models = (*self.models, str(name))
        if not self.may_use(name):
            raise ModelForbidden(str(name))

    def may_use(self, name: Name) -> bool:
        return self.key is None or not self.key.models or patterns.allows(self.key.models, name)
