"""Replies that list models: a long one is written in a thread, and that of all models only when they have changed."""

from collections.abc import Callable, Collection, Sequence
from typing import TypeAlias
from weakref import WeakKeyDictionary

from msgspec import Struct

from corral.inference import Runtime
from corral.inference.served_state import ServedState
from corral.models.listing import Listed, Listing

SHORT = 20
"""Models whose list takes less time to write than to hand to a thread and back."""


class Elsewhere(Struct, frozen=True):
    """Models that other servers answer for: those that the store has not, and those that it has, too."""

    alone: tuple[ServedState, ...] = ()
    beside: tuple[ServedState, ...] = ()


Write: TypeAlias = Callable[[Sequence[Listed], Elsewhere], bytes]

_kept: WeakKeyDictionary[Listing, dict[Write, tuple[Elsewhere, bytes]]] = WeakKeyDictionary()
"""Replies, and what they say of other servers."""


async def listed_as(write: Write, runtime: Runtime) -> bytes:
    """What `write` makes of the models that the caller may use."""
    models, caller = runtime.models, runtime.caller
    if caller.is_limited:
        listed = await models.list(lambda stored: caller.may_use(stored.name))
        return await _written(write, listed, elsewhere(runtime, listed), runtime)
    listing = await models.all()
    others = elsewhere(runtime, listing.models)
    replies = _kept.setdefault(listing, {})
    if write not in replies or replies[write][0] != others:
        replies[write] = others, await _written(write, listing.models, others, runtime)
    return replies[write][1]


def elsewhere(runtime: Runtime, listed: Collection[Listed]) -> Elsewhere:
    """What is known of those models of other servers that the caller may use; `listed`: all that are in the store."""
    served = [one for one in runtime.elsewhere.all() if runtime.caller.may_use(one.name)]
    if not served:
        return Elsewhere()
    here = {model.stored.name.folded for model in listed}
    return Elsewhere(
        alone=tuple(one.state() for one in served if one.name.folded not in here),
        beside=tuple(one.state() for one in served if one.name.folded in here),
    )


async def _written(write: Write, listed: Sequence[Listed], others: Elsewhere, runtime: Runtime) -> bytes:
    if len(listed) <= SHORT:
        return write(listed, others)
    return await runtime.models.store.run(write, listed, others)
