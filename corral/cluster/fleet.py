"""The replicas of one model: which of them gets a request, how many there are, and how they move from node to node.

Each has a scheduler of its own that knows this one model: it loads it on a node when the first request comes, keeps it
for as long as it is used, and unloads it afterwards. So a replica that nobody needs costs nothing.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Sequence

from msgspec import Struct

from corral.cluster.launching import Site
from corral.cluster.remote import Health
from corral.engine.base import RunnerSpec
from corral.errors import CorralError, EngineDied, NotPlaced, ServerStopping
from corral.golang.durations import FOREVER_SECONDS
from corral.replicas.replica import Load, Prompt, Replica, choose
from corral.serving.place import Place
from corral.serving.runner import Runner
from corral.serving.scheduler import Scheduler

log = logging.getLogger(__name__)

LONGEST_PAUSE = 2.0
"""Seconds that a request waits for a replica that cannot be reached just now and may be in a moment."""

ROOM_TOKENS = 256
"""Tokens for which a replica has to have room to be given a request at once."""


class Seat:
    """One replica, loaded or not: its scheduler, what is known of it, and where it is."""

    def __init__(
        self,
        name: str,
        *,
        tier: int,
        may_go: bool,
        scheduler: "Callable[[Seat], Scheduler]",
        is_ours: Callable[[Runner], bool] = lambda runner: True,
    ) -> None:
        """`may_go`: whether it is unloaded when nobody has used it for a while. `is_ours` tells its model from others
        that the scheduler may have."""
        self.name = name
        self._is_ours = is_ours
        self.may_go = may_go
        self.on_gone: Callable[[], None] = lambda: None
        """Called when its worker has ended, whether that was wanted or not."""
        self.is_filled = False
        """Whether it is being loaded without a request that waits for it."""
        self.site: Site | None = None
        """None: it is not loaded, or on this machine."""
        self.scheduler = scheduler(self)
        self.replica = Replica(name, tier=tier, load=self._load)
        self.health = Health(self._answers, self._failed, self._gone)

    @property
    def runner(self) -> Runner | None:
        """The loaded model that takes requests; None while there is none."""
        return _taking(self._runners())

    @property
    def is_cold(self) -> bool:
        """Whether it has no model and none is being loaded."""
        return not (self.is_filled or self._runners() or self.scheduler.queued)

    def _runners(self) -> list[Runner]:
        return [runner for runner in self.scheduler.runners if self._is_ours(runner)]

    def _load(self) -> Load:
        """It has room where a request would be served at once, or once the model is loaded."""
        runners = self._runners()
        runner = _taking(runners)
        if runner is not None:
            has_room = runner.waiting == 0 and runner.pool.has_room(ROOM_TOKENS)
        else:
            has_room = self.scheduler.queued < (runners[0].spec.slots if runners else 1)
        return Load(runner is not None, has_room, sum(runner.pool.reserved for runner in runners))

    def _answers(self) -> None:
        if not self.replica.breaker.is_closed:
            log.info("%s answers again", self.name)
        self.replica.breaker.worked()

    def _failed(self, error: str) -> None:
        if self.replica.breaker.is_closed:
            log.warning("%s: %s", self.name, error)
        self.replica.breaker.failed(error)

    def _gone(self) -> None:
        """What it had is lost; what comes next is another worker, perhaps on another node."""
        self.site = None
        self.replica.prefixes.clear()
        self.replica.breaker.worked()
        self.on_gone()


def _taking(runners: Sequence[Runner]) -> Runner | None:
    """The one that takes requests."""
    return next((one for one in runners if one.loading is None and not one.draining), None)


class Moved(Struct, frozen=True):
    """What became of one replica when its node was drained: where it is now; empty: nowhere, for the `reason`."""

    model: str
    to: str = ""
    reason: str = ""


class Fleet:
    """The replicas of one model. `seat` makes another one, given its place in the list."""

    def __init__(self, label: str, weights: str, count: int, seat: Callable[[int], Seat]) -> None:
        self.label = label
        self.weights = weights
        self._seat = seat
        self._seats = [self._new(number) for number in range(count)]
        self._leaving: set[Seat] = set()
        self._spec: RunnerSpec | None = None
        """How the model was loaded last."""
        self._filling: set[asyncio.Task[None]] = set()

    def _new(self, number: int) -> Seat:
        seat = self._seat(number)
        seat.on_gone = self.fill
        return seat

    @property
    def seats(self) -> Sequence[Seat]:
        """All of them, also those that only finish what they have."""
        return (*self._seats, *self._leaving)

    @contextlib.asynccontextmanager
    async def runner(
        self,
        spec: RunnerSpec,
        label: str,
        keep_alive: float | None,
        place: Place | None,
        prompt: Prompt,
        routed: Callable[[str, str], None],
    ) -> AsyncGenerator[Runner, None]:
        """The loaded model of the replica that fits best, as `Scheduler.runner` gives one. One that cannot be loaded is
        replaced by the next; the last one's error is raised, `NotPlaced` where none can be reached. `routed` gets the
        name of each that is chosen, and why."""
        tried: list[Replica] = []
        async with contextlib.AsyncExitStack() as stack:
            while True:
                seat, reason = await self._chosen(prompt, tried, spec)
                routed(seat.name, reason)
                kept = keep_alive if seat.may_go else FOREVER_SECONDS
                block = contextlib.AsyncExitStack()
                try:
                    block.enter_context(seat.replica.serving(prompt))
                    runner = await block.enter_async_context(seat.scheduler.runner(spec, label, kept, place))
                    break
                except (NotPlaced, EngineDied, ServerStopping) as error:
                    await block.aclose()
                    tried.append(seat.replica)
                    self._could_not(seat, error)
                except BaseException:
                    await block.aclose()
                    raise
            await stack.enter_async_context(block)
            self._spec = runner.spec
            self.fill()
            yield runner
            seat.replica.breaker.worked()

    def fill(self) -> None:
        """Has the replicas loaded that are always to be there, once the model was asked for."""
        for seat in self._seats:
            if self._spec is not None and not seat.may_go:
                self._load_in_background(seat, self._spec)

    def _load_in_background(self, seat: Seat, spec: RunnerSpec) -> None:
        """Has a replica loaded that is not, without a request that waits for it."""
        if seat.is_cold and seat.replica.breaker.may_pass:
            task = asyncio.get_running_loop().create_task(self._load(seat, spec))
            seat.is_filled = True
            self._filling.add(task)
            task.add_done_callback(self._filling.discard)

    async def _load(self, seat: Seat, spec: RunnerSpec) -> None:
        try:
            async with seat.scheduler.runner(spec, self.label, None if seat.may_go else FOREVER_SECONDS):
                pass
        except ServerStopping:
            pass
        except CorralError as error:
            seat.replica.breaker.failed(str(error))
            log.warning("model %s: %s could not be loaded: %s", self.label, seat.name, error)
        finally:
            seat.is_filled = False

    def _could_not(self, seat: Seat, error: CorralError) -> None:
        """A replica could not be loaded: raises when there is no other one to ask."""
        if isinstance(error, ServerStopping) and not seat.replica.is_leaving:
            raise error
        if not isinstance(error, ServerStopping):
            seat.replica.breaker.failed(str(error))
        if all(other is seat or not other.replica.breaker.may_pass for other in self._seats):
            raise error

    async def _chosen(self, prompt: Prompt, tried: Sequence[Replica], spec: RunnerSpec) -> tuple[Seat, str]:
        """The replica that fits best, and why. Nobody waits for a node to be found or started, and a model to be loaded
        there, while a loaded replica takes requests: one that is not is loaded meanwhile, for those that come later."""
        for is_last in (False, True):
            found = self._choice(prompt, tried)
            if found is not None and found[0].runner is None:
                warm = self._choice(prompt, [*tried, *(seat.replica for seat in self._seats if seat.runner is None)])
                if warm is not None:
                    self._load_in_background(found[0], spec)
                    found = warm[0], "another one is being loaded"
            if found is not None:
                log.debug("model %s: %s, %s", self.label, found[0].name, found[1])
                return found
            waits = [seat.replica.breaker.wait for seat in self._seats if seat.replica not in tried]
            if is_last or not waits or min(waits) > LONGEST_PAUSE:
                break
            await asyncio.sleep(min(waits))
        errors = "\n".join(f"{seat.name}: {seat.replica.breaker.error}" for seat in self._seats)
        raise NotPlaced(f'no replica of the model "{self.label}" can be reached\n{errors}')

    def _choice(self, prompt: Prompt, without: Sequence[Replica]) -> tuple[Seat, str] | None:
        found = choose(prompt, [seat.replica for seat in self._seats], without)
        if found is None:
            return None
        replica, route = found
        return next(seat for seat in self._seats if seat.replica is replica), route.reason

    async def leave(self, node: str) -> list[Moved]:
        """Moves every replica away from a node: another one is loaded first where nodes have room, then the old one
        gets no new requests, and is unloaded after those it has. Returns when that is done."""
        for loading in [runner.loading for seat in self._seats for runner in seat.scheduler.runners]:
            if loading is not None:  # it may have been placed there before this began
                await asyncio.wait({loading})
        moved = []
        for number, seat in enumerate(self._seats):
            if seat.site is not None and seat.site.node == node and seat.runner is not None:
                moved.append(await self._move(number, seat, seat.runner))
        return moved

    async def _move(self, number: int, old: Seat, runner: Runner) -> Moved:
        new = self._new(number)
        reason = ""
        try:
            async with new.scheduler.runner(runner.spec, runner.label, runner.keep_alive):
                pass
        except CorralError as error:
            await new.scheduler.close()
            others = [seat for seat in self._seats if seat is not old and seat.runner is not None]
            if not others:
                return Moved(self.label, reason=str(error))
            new = self._new(number)  # the others do its work
            reason = str(error)
        self._seats[number] = new
        old.replica.is_leaving = True
        self._leaving.add(old)
        try:
            await old.scheduler.drain()
        finally:
            self._leaving.discard(old)
        return Moved(self.label, new.site.address if new.site is not None else "", reason)

    def forget(self) -> None:
        """Loads nothing until the model is asked for again."""
        self._spec = None

    async def close(self) -> None:
        """Loads nothing any more; the schedulers are closed by their owner."""
        self._spec = None
        for task in self._filling:
            task.cancel()
        await asyncio.gather(*self._filling, return_exceptions=True)
