"""Where a model is to lie: planned from its parts, the context, and what each device has free. Pure.

The order: whole on the device with most room, whole over several, whole but for experts of a mixture model, as many
layers as fit, main memory. A layer in main memory costs far more speed than a smaller pool does, so the pool is made
smaller first.
"""

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from corral.engine.base import RunnerSpec
from corral.engine.load_options import batches
from corral.engine.placement import Bytes, Parts, Placement, Ratios, Share
from corral.golang.units import byte_text
from corral.machine.gpus import Gpu

MARGIN, LEAST_MARGIN, MOST_MARGIN = 0.05, 128 << 20, 1 << 30
"""Part of a device's memory that is left to its driver and to errors of the estimate; bytes at least and at most."""

LEAST_HINT = 2048
"""Tokens of the shortest context that is proposed so that a model would fit."""


class Devices(Struct, frozen=True):
    """The devices a plan may use, and how."""

    gpus: tuple[Gpu, ...]
    """`free`: what is left beside other models, before overhead and margin."""
    overhead: int = 0
    """Bytes that the user wants left free on each."""
    spread: bool = False
    """Whether a model is spread over all even where one suffices."""
    ratios: Ratios = Ratios()
    unusable: str = ""
    """Why none may be used for this model now; empty: they may."""

    def room(self, gpu: Gpu) -> int:
        """Bytes of a device that a model may take."""
        margin = int(min(MOST_MARGIN, max(LEAST_MARGIN, MARGIN * gpu.total)))
        return max(0, gpu.free - max(margin, self.overhead))


class _Plan:
    """One model with one pool; costs in bytes, by the estimates and what is known of their errors."""

    def __init__(self, spec: RunnerSpec, parts: Parts, devices: Devices, pool: int) -> None:
        ratios = devices.ratios
        self.spec, self.parts, self.devices, self.pool = spec, parts, devices, pool
        count = max(1, len(parts.layers))
        self.cache = int(pool * spec.cache_bytes_per_token * ratios.cache) // count
        batch = batches(spec)[1]
        self.compute = int((batch * (parts.per_token + 2 * pool) + spec.compute_bytes) * ratios.compute)
        self.ratio = ratios.weights

    def bytes_of(self, layer: int, cpu_moe: int) -> Bytes:
        """Of one layer on a device; the last one is the output."""
        if layer == len(self.parts.layers):
            return Bytes(weights=int(self.parts.output * self.ratio))
        experts = self.parts.experts[layer] if layer >= cpu_moe else 0
        return Bytes(weights=int((self.parts.layers[layer] + experts) * self.ratio), cache=self.cache)

    def base(self, cpu_moe: int, *, whole: bool, first: bool) -> Bytes:
        """What a device holds beside its layers. One that computes for layers in main memory copies them in parts."""
        copied = max(self.parts.experts[:cpu_moe], default=0)
        if not whole:
            copied = max(copied, max(self.parts.layers, default=0), max(self.parts.experts, default=0))
        return Bytes(weights=self.parts.beside if first else 0, compute=self.compute + copied // 3)

    def filled(self, order: Sequence[tuple[int, Gpu]], layers: int, cpu_moe: int, *, force: bool) -> Placement | None:
        """The last `layers` over the devices in this order, each as full as may be; None where they do not fit.

        `force`: what does not fit is divided all the same, as the devices' room is.
        """
        count = self.parts.count
        whole = layers == count
        bases = [self.base(cpu_moe, whole=whole, first=place == 0) for place in range(len(order))]
        rooms = [self.devices.room(gpu) - base.total for (_, gpu), base in zip(order, bases, strict=True)]
        wanted = range(count - layers, count)
        sizes = [self.bytes_of(layer, cpu_moe) for layer in wanted]
        counts = _even(sizes, rooms) or _greedy(sizes, rooms) or (_by_room(layers, rooms) if force else None)
        if counts is None:
            return None
        shares, start, short = [], 0, []
        for (index, gpu), base, number in zip(order, bases, counts, strict=True):
            if number:
                held = [base, *sizes[start : start + number]]
                total = Bytes(*(sum(getattr(one, name) for one in held) for name in Bytes.__struct_fields__))
                shares.append(Share(gpu.name, index, number, total))
                if total.total > self.devices.room(gpu):
                    short.append(gpu.name)
            start += number
        return Placement(
            of=count,
            shares=tuple(shares),
            cpu_moe=cpu_moe,
            host=self.host(layers, cpu_moe),
            devices=len(self.devices.gpus),
            short=tuple(short),
        )

    def host(self, layers: int, cpu_moe: int) -> int:
        """Bytes that stay in main memory with so many of the last layers on devices."""
        here = [self.bytes_of(layer, 0).total for layer in range(self.parts.count - layers)]
        there = range(max(0, self.parts.count - layers), len(self.parts.layers))
        return sum(here) + sum(self.parts.experts[layer] for layer in there if layer < cpu_moe)

    def order(self) -> list[tuple[int, Gpu]]:
        """Devices by their room, the most first; before all the one that was asked for."""
        found = sorted(enumerate(self.devices.gpus), key=lambda row: (row[0] != self.spec.main_gpu, -row[1].free))
        return [row for row in found if self.devices.room(row[1]) > 0]

    def whole(self) -> Placement | None:
        """All layers on devices, on as few as may be."""
        order = self.order()
        ways = [order] if self.devices.spread else [order[:number] for number in range(1, len(order) + 1)]
        for some in ways:
            if some and (found := self.filled(some, self.parts.count, 0, force=False)) is not None:
                return found
        return None

    def without_experts(self) -> Placement | None:
        """All layers on devices, the experts of as few as may be in main memory."""
        layers = [number for number, size in enumerate(self.parts.experts) if size]
        return next(filter(None, (self._kept(self.parts.count, number + 1) for number in layers)), None)

    def partly(self) -> Placement | None:
        """As many layers as fit, all experts in main memory where there are any."""
        cpu_moe = len(self.parts.layers) if any(self.parts.experts) else 0
        layers = range(self.parts.count - 1, 0, -1)
        return next(filter(None, (self._kept(number, cpu_moe) for number in layers)), None)

    def _kept(self, layers: int, cpu_moe: int) -> Placement | None:
        order = self.order()
        return self.filled(order, layers, cpu_moe, force=False) if order else None


def _greedy(sizes: Sequence[Bytes], rooms: Sequence[int]) -> list[int] | None:
    """How many of the layers each device gets, filled up one after the other; None where they do not fit."""
    counts, place, left = [0] * len(rooms), 0, rooms[0] if rooms else 0
    for size in sizes:
        while place < len(rooms) and size.total > left:
            place += 1
            left = rooms[place] if place < len(rooms) else 0
        if place == len(rooms):
            return None
        counts[place] += 1
        left -= size.total
    return counts


def _even(sizes: Sequence[Bytes], rooms: Sequence[int]) -> list[int] | None:
    """The same in proportion to each device's room, so that each keeps some; None where one would not suffice."""
    counts = _by_room(len(sizes), rooms)
    start = 0
    for number, room in zip(counts, rooms, strict=True):
        if sum(size.total for size in sizes[start : start + number]) > max(0, room):
            return None
        start += number
    return counts


def _by_room(count: int, rooms: Sequence[int]) -> list[int]:
    """`count` layers in proportion to the room of each device; all on the first where none has any."""
    total = sum(max(0, room) for room in rooms)
    if total <= 0:
        return [count, *([0] * (len(rooms) - 1))]
    ends, seen = [], 0
    for room in rooms:
        seen += max(0, room)
        ends.append(round(count * seen / total))
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def place(spec: RunnerSpec, parts: Parts, devices: Devices, pools: Sequence[int]) -> RunnerSpec:
    """The specification with its pool and its placement. `pools`: sizes of the pool, the best first, the last one the
    least that is of use."""
    least = _Plan(spec, parts, devices, pools[-1])
    if spec.num_gpu == 0 or devices.unusable:
        return _done(spec, pools[-1], _on_cpu(least, devices.unusable or "num_gpu is 0"))
    if spec.num_gpu > 0:
        return _asked(spec, parts, devices, pools)
    for pool in pools:
        if found := _Plan(spec, parts, devices, pool).whole():
            return _done(spec, pool, _said(found, f"all {found.of} layers"))
    if found := least.without_experts():
        text = f"all {found.of} layers, the experts of {found.cpu_moe} of them in main memory: {_short(least)}"
        return _done(spec, pools[-1], _said(found, text))
    if found := least.partly():
        text = f"{found.layers} of {found.of} layers: {_short(least)}{_hint(spec, parts, devices)}"
        return _done(spec, pools[-1], _said(found, text))
    return _done(spec, pools[-1], _on_cpu(least, f"not one layer fits: {_short(least)}{_hint(spec, parts, devices)}"))


def _asked(spec: RunnerSpec, parts: Parts, devices: Devices, pools: Sequence[int]) -> RunnerSpec:
    """With the number of layers that was asked for, fitting or not, and the largest pool with which they fit."""
    layers = min(spec.num_gpu, parts.count)
    for pool in pools:
        plan = _Plan(spec, parts, devices, pool)
        order = plan.order() or list(enumerate(devices.gpus))[:1]
        found = plan.filled(order[:1], layers, 0, force=False) if not devices.spread else None
        found = found or plan.filled(order, layers, 0, force=pool == pools[-1])
        if found is not None:
            text = f"{layers} of {found.of} layers, as num_gpu asks for"
            return _done(spec, pool, _said(found, text + (f": {_short(plan)}" if found.short else "")))
    return _done(spec, pools[-1], _on_cpu(_Plan(spec, parts, devices, pools[-1]), "there is no device"))


def _done(spec: RunnerSpec, pool: int, placement: Placement) -> RunnerSpec:
    return msgspec.structs.replace(spec, pool=pool, placement=placement)


def _on_cpu(plan: _Plan, reason: str) -> Placement:
    host = plan.host(0, 0)
    return Placement(of=plan.parts.count, host=host, devices=len(plan.devices.gpus), reason=f"in main memory: {reason}")


def _said(placement: Placement, reason: str) -> Placement:
    where = ", ".join(
        share.device if len(placement.shares) == 1 else f"{share.device} ({share.layers})" for share in placement.shares
    )
    head, colon, tail = reason.partition(":")
    return msgspec.structs.replace(placement, reason=f"{head} on {where}{colon}{tail}")


def _short(plan: _Plan) -> str:
    """What is free where, and what the whole model would take."""
    devices = plan.devices
    free = "; ".join(
        f"{byte_text(gpu.free)} free of {byte_text(gpu.total)} on {gpu.name}"
        + (f" after {byte_text(devices.overhead)} overhead" if devices.overhead else "")
        for gpu in (msgspec.structs.replace(gpu, free=max(0, gpu.free - devices.overhead)) for gpu in devices.gpus)
    )
    whole = plan.host(0, 0) + plan.parts.beside + plan.compute
    return f"{free}; all of it takes {byte_text(whole)} with a context of {plan.spec.num_ctx}"


def _hint(spec: RunnerSpec, parts: Parts, devices: Devices) -> str:
    """The longest context, of halves of this one, with which the whole model would fit."""
    length = spec.num_ctx // 2
    while length >= LEAST_HINT:
        shorter = msgspec.structs.replace(spec, num_ctx=length)
        if _Plan(shorter, parts, devices, length).whole() is not None:
            return f"; a context of {length} instead of {spec.num_ctx} would fit all"
        length //= 2
    return ""
