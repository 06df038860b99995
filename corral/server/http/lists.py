"""Replies that list models: a long one is written in a thread, and that of all models only when they have changed."""

from collections.abc import Callable, Sequence
from typing import TypeAlias
from weakref import WeakKeyDictionary

from corral.inference import Runtime
from corral.models.listing import Listed, Listing

SHORT = 20
"""Models whose list takes less time to write than to hand to a thread and back."""

Write: TypeAlias = Callable[[Sequence[Listed]], bytes]

_kept: WeakKeyDictionary[Listing, dict[Write, bytes]] = WeakKeyDictionary()


async def listed_as(write: Write, runtime: Runtime) -> bytes:
    """What `write` makes of the models that the caller may use."""
    models, caller = runtime.models, runtime.caller
    if caller.is_limited:
        return await _written(write, await models.list(lambda stored: caller.may_use(stored.name)), runtime)
    listing = await models.all()
    replies = _kept.setdefault(listing, {})
    if write not in replies:
        replies[write] = await _written(write, listing.models, runtime)
    return replies[write]


async def _written(write: Write, listed: Sequence[Listed], runtime: Runtime) -> bytes:
    return write(listed) if len(listed) <= SHORT else await runtime.models.store.run(write, listed)
