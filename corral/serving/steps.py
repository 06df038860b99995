"""What is tried next when a model did not load on GPUs: less of it there, in few steps, and at last none. Pure."""

from collections.abc import Callable

import msgspec
from msgspec import Struct

from corral.engine.base import RunnerSpec
from corral.engine.placement import Placement
from corral.serving.decisions import CONTEXT_TIERS

LEAST_LAYERS = 4
"""Fewer on a GPU are not worth another try."""


class Step(Struct, frozen=True):
    """The next try, and what is less of it, as a phrase."""

    spec: RunnerSpec
    what: str


def after_out_of_memory(
    spec: RunnerSpec, least_ctx: int, replaced: Callable[[RunnerSpec, int], RunnerSpec]
) -> Step | None:
    """A smaller pool, a smaller context, half of the layers, none of them; None where nothing of it is on GPUs.

    `least_ctx` is the context that the request needs, in tokens; `replaced` places a specification with a number of
    layers on GPUs anew. Each step takes less than the one before, so that there are few.
    """
    placement = spec.placement
    if placement is None or not placement.shares:
        return None
    if spec.pool > spec.num_ctx:
        less = msgspec.structs.replace(spec, pool=spec.num_ctx)
        return Step(replaced(less, placement.layers), f"a pool of {less.pool} tokens")
    if (shorter := _shorter(spec, least_ctx)) < spec.num_ctx:
        less = msgspec.structs.replace(spec, num_ctx=shorter, pool=shorter)
        return Step(replaced(less, placement.layers), f"a context of {shorter}")
    if placement.layers // 2 >= LEAST_LAYERS:
        return Step(replaced(spec, placement.layers // 2), f"{placement.layers // 2} of {placement.of} layers on GPUs")
    return Step(without_gpus(spec, "the GPUs' memory did not suffice for less"), "main memory only")


def without_gpus(spec: RunnerSpec, reason: str) -> RunnerSpec:
    """The same model in main memory."""
    before = spec.placement
    of = 0 if before is None else before.of
    devices = 0 if before is None else before.devices
    host = spec.weights_bytes + spec.pool * spec.cache_bytes_per_token
    placement = Placement(of=of, devices=devices, host=host, reason=f"in main memory: {reason}")
    return msgspec.structs.replace(spec, placement=placement)


def _shorter(spec: RunnerSpec, least_ctx: int) -> int:
    """A context that was given more than was asked for gets that; one that was left open the next tier."""
    if spec.num_ctx > least_ctx:
        return least_ctx
    if spec.num_ctx_automatic:
        return next((tier for tier in CONTEXT_TIERS if tier < spec.num_ctx), spec.num_ctx)
    return spec.num_ctx
