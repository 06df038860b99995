"""What the scheduler does next, decided from values: which model is reused, loaded, evicted, and with how much memory.

Knows no engine, no queue and no clock: `scheduler.py` carries the decisions out. Source: spec cli §11.
"""

from collections.abc import Sequence
from typing import TypeAlias

import msgspec
from msgspec import Struct

from corral.engine.base import RunnerSpec
from corral.engine.load_options import TEXT_BATCH, can_serve, same_model
from corral.engine.placement import Parts, Ratios, Share
from corral.machine.gpus import Gpu
from corral.machine.memory import Memory
from corral.serving.placing import Devices, place
from corral.serving.spec import CONTEXT_STEP

OVERHEAD = 64 << 20
"""Bytes a worker needs besides weights and cache: code, compute buffers."""

SHARE = 0.8
"""Part of the available memory that a new model may take."""

MAX_POOL = (1 << 31) - 1
"""Tokens of a pool at most, as the engine counts them in 32 bits."""

_PLENTY = 1 << 62
"""Bytes that are enough for any model."""

CONTEXT_TIERS = (32768, 4096)
"""What an automatic context falls back to, one step, when memory does not suffice."""

MODELS_PER_GPU = 3
"""Models kept loaded for each GPU, and without one (spec cli §11)."""


class SchedulerLimits(Struct, frozen=True, kw_only=True):
    """What the configuration allows."""

    max_loaded: int = 0
    """Models that are loaded at once; 0: `MODELS_PER_GPU` for each GPU."""
    max_queue: int = 512
    """Requests that may wait."""
    pool_contexts: int = 4
    """Full contexts that a model's KV cache has room for at most, where memory suffices."""
    first_contexts: int = 1
    """Those that it has room for before it was found to be short."""
    idle_shortage: float = 1.0
    busy_shortage: float = 120.0
    """Seconds that requests have waited for tokens of a model's pool, after which it is loaded anew with a larger one:
    when it has no users, or as soon as those that it has are done."""
    keep_alive: float = 300.0
    """Seconds that an idle model stays loaded unless a request says otherwise."""
    ping_after: float = 10.0
    """Seconds of idleness after which a runner is pinged before it is used."""
    gpu_overhead: int = 0
    """Bytes kept free on each GPU."""
    spread: bool = False
    """Whether a model is spread over all GPUs even where one suffices."""


class RunnerState(Struct, frozen=True, kw_only=True):
    """What `decide` sees of a loaded model."""

    spec: RunnerSpec
    users: int = 0
    """Requests that hold it."""
    keep_alive: float = 300.0
    """Seconds."""
    draining: bool = False
    """Whether it gets no new users and is unloaded after those it has."""
    loading: bool = False
    held: tuple[tuple[str, int], ...] = ()
    """Bytes on devices, by their names: as the engine said, or by the estimate."""


class Reuse(Struct, frozen=True):
    """Use the runner at this place of the list."""

    index: int


class Start(Struct, frozen=True):
    """Load the model with this specification, in which the pool's size is filled in."""

    spec: RunnerSpec


class Evict(Struct, frozen=True):
    """Unload the runner at this place, after its users have finished; then decide again."""

    index: int
    reason: str


class Wait(Struct, frozen=True):
    """Decide again when a load or an unload has ended."""


Decision: TypeAlias = Reuse | Start | Evict | Wait


def decide(
    wanted: RunnerSpec,
    loaded: Sequence[RunnerState],
    memory: Memory,
    limits: SchedulerLimits,
    *,
    grows: bool = False,
    widens: bool = False,
    ratios: Ratios = Ratios(),  # noqa: B008 - frozen
    unusable: str = "",
) -> Decision:
    """What to do for a request that wants `wanted`; `grows`: its model was unloaded since its context was too short.

    `widens`: its pool was short of tokens before. `ratios`: by how much earlier estimates for this model were wrong;
    `unusable`: why it may use no GPU now.

    1. The model is loaded: reuse it when it can serve the request, else evict it.
    2. Another model is being loaded, whose memory is not taken yet: wait.
    3. The limit of models is reached, or memory does not suffice beside the others: evict one.
    4. Otherwise start it, with a pool of the contexts that it is to have, or as many as memory allows; at least one.

    While another model drains, whose memory will be free soon, nothing is evicted for 3, and nothing gets less for 4
    than it would with all the memory there is: it waits.
    """
    for index, state in enumerate(loaded):
        if same_model(wanted, state.spec):
            if state.draining:
                return Wait()
            return Reuse(index) if can_serve(wanted, state.spec) else Evict(index, "it is wanted with other options")
    if any(state.loading for state in loaded):
        return Wait()
    if not widens and wanted.cache_bytes_per_token:
        limits = msgspec.structs.replace(limits, pool_contexts=min(limits.first_contexts, limits.pool_contexts))
    drains = any(state.draining for state in loaded)
    if loaded and len(loaded) >= (limits.max_loaded or MODELS_PER_GPU * max(1, len(memory.gpus))):
        return Wait() if drains else Evict(victim(loaded), "as many models are loaded as may be")
    if wanted.parts is not None and memory.gpus:
        devices = Devices(memory.gpus, limits.gpu_overhead, limits.spread, ratios, unusable)
        placed = _placed(wanted, wanted.parts, loaded, memory, devices, limits, grows=grows)
        if not isinstance(placed, RunnerSpec):
            return placed
        wanted = placed
    room = int(_free(wanted, loaded, memory) * SHARE) - wanted.weights_bytes - wanted.compute_bytes - OVERHEAD
    if loaded and room < wanted.num_ctx * wanted.cache_bytes_per_token:
        return Wait() if drains else Evict(victim(loaded), "memory does not suffice for another model beside it")
    spec = _sized(wanted, room, limits, grows=grows)
    return Wait() if drains and spec != _sized(wanted, _PLENTY, limits, grows=grows) else Start(spec)


def _placed(
    wanted: RunnerSpec,
    parts: Parts,
    loaded: Sequence[RunnerState],
    memory: Memory,
    devices: Devices,
    limits: SchedulerLimits,
    *,
    grows: bool,
) -> Decision | RunnerSpec:
    """The same where there are GPUs: a model that would lie better without those that are loaded has one of them
    evicted, of those that hold memory where it would lie. A specification: not one layer is to lie on a GPU."""
    beside = msgspec.structs.replace(devices, gpus=tuple(_beside(gpu, loaded, memory) for gpu in memory.gpus))
    now = _best(wanted, parts, beside, limits, grows=grows)
    short = _short_of(now, _best(wanted, parts, devices, limits, grows=grows)) if loaded else set()
    holders = [index for index, state in enumerate(loaded) if short & {name for name, _ in state.held}]
    drains = any(state.draining for state in loaded)
    if holders:
        which = holders[victim([loaded[index] for index in holders])]
        names = ", ".join(sorted(short))
        return Wait() if drains else Evict(which, f"{names} has no room for another model beside it")
    assert now.placement is not None
    if not now.placement.shares:
        return msgspec.structs.replace(wanted, placement=now.placement)
    if loaded and int(memory.available * SHARE) < now.placement.host + OVERHEAD:
        return Wait() if drains else Evict(victim(loaded), "memory does not suffice for another model beside it")
    return Start(now)


def _best(wanted: RunnerSpec, parts: Parts, devices: Devices, limits: SchedulerLimits, *, grows: bool) -> RunnerSpec:
    """With pool and placement; with its grown context, too, where it `grows` and lies as well with that."""
    found = place(wanted, parts, devices, _pools(wanted, limits.pool_contexts))
    if not grows or wanted.grown_ctx <= wanted.num_ctx:
        return found
    longer = msgspec.structs.replace(wanted, num_ctx=wanted.grown_ctx)
    grown = place(longer, parts, devices, _pools(longer, limits.pool_contexts))
    return found if _short_of(grown, found) else grown


def replaced(spec: RunnerSpec, layers: int, memory: Memory, limits: SchedulerLimits, ratios: Ratios) -> RunnerSpec:
    """The specification with so many of its layers on GPUs, whether they seem to fit or not: what was estimated before
    was wrong. Other options stay."""
    assert spec.parts is not None
    devices = Devices(memory.gpus, limits.gpu_overhead, limits.spread, ratios)
    asked = place(msgspec.structs.replace(spec, num_gpu=layers), spec.parts, devices, [spec.pool])
    assert asked.placement is not None
    reason = asked.placement.reason.replace("as num_gpu asks for", "after the engine ran out of memory with more")
    return msgspec.structs.replace(spec, placement=msgspec.structs.replace(asked.placement, reason=reason, short=()))


def with_pool(spec: RunnerSpec, pool: int) -> RunnerSpec:
    """The specification as it was loaded: with a smaller pool than was planned, of which each device holds less."""
    placement = spec.placement
    if placement is not None and spec.pool:
        shares = tuple(_with_pool(spec, pool, share) for share in placement.shares)
        placement = msgspec.structs.replace(placement, shares=shares)
    return msgspec.structs.replace(spec, pool=pool, placement=placement)


def _with_pool(spec: RunnerSpec, pool: int, share: Share) -> Share:
    """The cache goes with the pool; of what computing takes, that which does."""
    held = share.bytes
    other = 0 if spec.parts is None else spec.parts.per_token // 2
    compute = held.compute * (other + pool) // (other + spec.pool)
    held = msgspec.structs.replace(held, cache=held.cache * pool // spec.pool, compute=compute)
    return msgspec.structs.replace(share, bytes=held)


def _short_of(now: RunnerSpec, alone: RunnerSpec) -> set[str]:
    """The devices of which a model would get more if it were alone; none where it would lie no better."""
    here, there = now.placement, alone.placement
    assert here is not None
    assert there is not None
    is_worse = (here.layers, -here.cpu_moe, -len(here.short)) < (there.layers, -there.cpu_moe, -len(there.short))
    return {share.device for share in there.shares} if is_worse else set()


def _beside(gpu: Gpu, loaded: Sequence[RunnerState], memory: Memory) -> Gpu:
    """A device without what loaded models hold of it; one without memory of its own has no more than is available."""
    held = sum(size for state in loaded for name, size in state.held if name == gpu.name)
    free = max(0, gpu.free - held)
    return msgspec.structs.replace(gpu, free=min(free, memory.available) if gpu.shared else free)


def _pools(spec: RunnerSpec, contexts: int) -> list[int]:
    """Sizes of the pool to try, from all contexts to one."""
    return [number * spec.num_ctx for number in range(pool_size(spec, _PLENTY, contexts) // spec.num_ctx, 0, -1)]


def _sized(wanted: RunnerSpec, room: int, limits: SchedulerLimits, *, grows: bool) -> RunnerSpec:
    """The specification with its pool, and with its grown context where it `grows`, as `room` bytes allow."""
    spec = grown(wanted, room) if grows else wanted
    return msgspec.structs.replace(spec, pool=pool_size(spec, room, limits.pool_contexts))


def grown(spec: RunnerSpec, room: int) -> RunnerSpec:
    """The same with its `grown_ctx`, or with as many steps of that as `room` bytes hold."""
    num_ctx = spec.grown_ctx
    if num_ctx * spec.cache_bytes_per_token > room:
        num_ctx = room // spec.cache_bytes_per_token // CONTEXT_STEP * CONTEXT_STEP
    return msgspec.structs.replace(spec, num_ctx=max(num_ctx, spec.num_ctx))


def _free(wanted: RunnerSpec, loaded: Sequence[RunnerState], memory: Memory) -> int:
    """Bytes that a model may be spread over: main memory, and GPUs as its layers may lie in either.

    The GPUs' free memory is that of the moment when they were looked for, so what loaded models take is left out of it,
    as if all of it lay there.
    """
    if not _uses_gpus(wanted):
        return memory.available
    taken = sum(loaded_size(state.spec) for state in loaded if _uses_gpus(state.spec))
    return memory.available + max(0, sum(gpu.free for gpu in memory.gpus) - taken)


def _uses_gpus(spec: RunnerSpec) -> bool:
    """Whether layers of the model may lie in GPU memory, where there is any."""
    return spec.num_gpu != 0 and (spec.placement is None or bool(spec.placement.shares))


def loaded_size(spec: RunnerSpec) -> int:
    """Bytes that a loaded model takes, by the estimates of its parts."""
    return spec.weights_bytes + spec.pool * spec.cache_bytes_per_token + spec.compute_bytes + OVERHEAD


def victim(loaded: Sequence[RunnerState]) -> int:
    """The index of the runner to unload: of the idle ones the one with the shortest keep-alive, else of all."""
    order = sorted(range(len(loaded)), key=lambda index: (loaded[index].keep_alive, loaded[index].spec.model))
    return next((index for index in order if loaded[index].users == 0), order[0])


def pool_size(spec: RunnerSpec, room: int, contexts: int) -> int:
    """Tokens of the shared KV cache: `contexts` full contexts, or as many as fit into `room` bytes, at least one."""
    contexts = min(max(1, contexts), spec.slots, max(1, MAX_POOL // spec.num_ctx))
    if spec.cache_bytes_per_token > 0:
        fitting = max(0, room) // (spec.cache_bytes_per_token * spec.num_ctx)
        contexts = max(1, min(contexts, fitting))
    return contexts * spec.num_ctx


def can_widen(spec: RunnerSpec, memory: Memory, limits: SchedulerLimits) -> bool:
    """Whether a loaded model may have a larger pool than it has, and there is memory for one context more."""
    if not spec.cache_bytes_per_token or spec.pool >= pool_size(spec, _PLENTY, limits.pool_contexts):
        return False
    more = spec.num_ctx * spec.cache_bytes_per_token
    names = {share.device for share in spec.placement.shares} if spec.placement is not None else set[str]()
    if not names:
        return more <= int(memory.available * SHARE)
    return more <= sum(int(gpu.free * SHARE) for gpu in memory.gpus if gpu.name in names)


def is_longer(wanted: RunnerSpec, loaded: RunnerSpec) -> bool:
    """Whether a loaded model is in the way of a request for the same one with a longer context."""
    return same_model(wanted, loaded) and not wanted.num_ctx_automatic and wanted.num_ctx > loaded.num_ctx


def smaller(spec: RunnerSpec, least_ctx: int) -> RunnerSpec | None:
    """The same model with less: a context that was given more than was asked for gets what was asked for; one whose
    length was left open gets the next tier; or the pool becomes smaller.

    Either has no larger batch for texts to embed than is used whatever the memory.
    """
    batch = min(spec.text_batch, TEXT_BATCH)
    if spec.num_ctx > least_ctx:
        return msgspec.structs.replace(spec, num_ctx=least_ctx, pool=least_ctx, text_batch=batch)
    if spec.num_ctx_automatic:
        for tier in CONTEXT_TIERS:
            if tier < spec.num_ctx:
                return msgspec.structs.replace(spec, num_ctx=tier, pool=tier, text_batch=batch)
    if spec.pool <= spec.num_ctx and spec.text_batch == batch:
        return None
    return msgspec.structs.replace(spec, pool=min(spec.pool, spec.num_ctx), text_batch=batch)
