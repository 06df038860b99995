"""What a model needs in memory, before it is loaded or even fetched: the estimates that the scheduler decides by."""

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

from msgspec import Struct

from corral.config import Config
from corral.engine.base import RunnerSpec
from corral.machine.memory import Memory
from corral.models.model import Model
from corral.options import merge
from corral.serving.decisions import OVERHEAD, SHARE, loaded_size
from corral.serving.spec import CACHE_BYTES, runner_spec, usual_context

Fit: TypeAlias = Literal["yes", "tight", "no"]
"""Whether memory suffices: `tight` where the model would take more of it than the scheduler gives one by choice."""


class Requirements(Struct, frozen=True):
    """Bytes of memory for one request at a time; `total` has what computing takes, too."""

    weights: int
    context_length: int
    """Tokens that the model would be loaded with here."""
    kv_cache: int
    """For so many tokens."""
    total: int


def requirements(model: Model, config: Config, memory: Memory) -> Requirements:
    """What the model needs with its own parameters and this machine's settings; `CorralError` for a broken one."""
    spec = runner_spec(model, merge(model.parameters), config, memory)
    cache = spec.num_ctx * spec.cache_bytes_per_token
    total = spec.weights_bytes + cache + spec.compute_bytes + OVERHEAD
    return Requirements(spec.weights_bytes, spec.num_ctx, cache, total)


def forecast(weights: int, elements: int, trained: int, config: Config, memory: Memory) -> Requirements:
    """What a model needs of which only this is known: bytes of weights, numbers that the KV cache keeps of a token, and
    the tokens of context it was trained on, 0: not known."""
    per_token = math.ceil(elements * CACHE_BYTES[config.kv_cache_type])
    context = usual_context(config, memory, per_token)
    context = min(context, trained) if trained else context
    cache = context * per_token
    return Requirements(weights, context, cache, weights + cache + OVERHEAD)


def fit(total: int, memory: Memory) -> Fit:
    """Whether a model that needs `total` bytes would fit into what is free, by the scheduler's own measure."""
    free = memory.available + sum(gpu.free for gpu in memory.gpus)
    if total <= free * SHARE:
        return "yes"
    return "tight" if total <= free else "no"


def without(loaded: Sequence[RunnerSpec], memory: Memory) -> Memory:
    """The memory as it would be with these models unloaded, as the scheduler does for another model."""
    available = min(memory.total, memory.available + sum(map(loaded_size, loaded)))
    return Memory(memory.total, available, memory.gpus)
