"""What a model needs in memory, before it is loaded: the estimates that the scheduler decides by. Loads nothing."""

from msgspec import Struct

from corral.config import Config
from corral.machine.memory import Memory
from corral.models.model import Model
from corral.options import merge
from corral.serving.decisions import OVERHEAD
from corral.serving.spec import runner_spec


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
