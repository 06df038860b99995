"""The nodes of a server that was started with `--ray`: joined at start, left at the end."""

import contextlib
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

import msgspec

from corral.config import Config
from corral.engine.base import Engine, LoadProgress, RunnerSpec
from corral.models.derived import Deriver
from corral.models.quarantine import Quarantine
from corral.server.guarding import guarded
from corral.server.launching import prepared
from corral.serving.decisions import SchedulerLimits
from corral.serving.scheduler import Scheduler, SchedulerEvents
from corral.store import Store

if TYPE_CHECKING:
    from corral.cluster.fleet import Seat
    from corral.cluster.fleets import Fleets


@contextlib.asynccontextmanager
async def fleets(
    config: Config,
    store: Store,
    deriver: Deriver,
    quarantine: Quarantine,
    local: Scheduler,
    events: SchedulerEvents,
) -> "AsyncGenerator[Fleets | None, None]":
    """None without `--ray`, and then nothing of Ray is imported. `ConfigError` when the cluster cannot be joined."""
    if not config.ray:
        yield None
        return
    from corral.cluster.fleets import Fleets
    from corral.cluster.ray_cluster import join

    contexts = config.num_parallel or 1
    limits = SchedulerLimits(
        max_loaded=1,
        max_queue=config.max_queue,
        pool_contexts=contexts,  # what Ray was asked for is not outgrown
        first_contexts=contexts,
        keep_alive=config.keep_alive,
    )
    found = Fleets(config, await join(config.ray, is_insecure=config.ray_insecure), limits, local, events)
    template_errors: dict[str, str] = {}
    """By weights' file: a template that could not be run is not tried at each load."""

    async def launch(spec: RunnerSpec, label: str, progress: LoadProgress, seat: "Seat") -> Engine:
        async def start(spec: RunnerSpec, label: str, progress: LoadProgress) -> Engine:
            files = await prepared(deriver, spec, label, progress)
            placed = msgspec.structs.replace(spec, model=files.model, projectors=files.projectors)
            engine = await found.load(placed, label, progress, seat, template_errors.get(spec.model, ""))
            template_errors[spec.model] = engine.template_error
            return engine

        return await guarded(start, store, quarantine)(spec, label, progress)

    await found.open(launch)
    try:
        yield found
    finally:
        await found.close()
