"""What a key is for. Each scope holds those before it."""

from typing import Literal, TypeAlias, get_args

Scope: TypeAlias = Literal["infer", "manage", "admin"]
"""`infer`: to see models and ask them. `manage`: to change which there are. `admin`: keys, and others at work."""

SCOPES: tuple[Scope, ...] = get_args(Scope)


def holds(scope: Scope, needed: Scope) -> bool:
    """Whether a key of one scope may do what needs another."""
    return SCOPES.index(scope) >= SCOPES.index(needed)
