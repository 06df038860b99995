"""What a server has while it runs, from the store to the scheduler: put together at start, ended at the end."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Mapping

from corral import cage
from corral.config import Config
from corral.engine import choice
from corral.engine.llama.build import build
from corral.engine.tuned import Tunings
from corral.errors import CorralError
from corral.inference import Runtime
from corral.inference.drafting import Drafters
from corral.inference.elsewhere import Elsewhere
from corral.inference.recent import Recent
from corral.inference.runners import Runners
from corral.machine import Machine, processor
from corral.models.derived import Deriver
from corral.models.model import Models
from corral.models.quarantine import Quarantine
from corral.server.guarding import guarded
from corral.server.launching import Launcher
from corral.server.nodes import fleets
from corral.serving.decisions import SchedulerLimits
from corral.serving.figures import Figures
from corral.serving.scheduler import Scheduler, SchedulerEvents
from corral.serving.speculation import Speculation
from corral.sources.registry import Registry
from corral.store import Store
from corral.telemetry import Series

log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def runtime(config: Config) -> AsyncGenerator[Runtime, None]:
    """Everything a server needs, from the store to the scheduler; the workers are gone when the block is left.

    `ConfigError` for a cage that is required and cannot be had here.
    """
    cage.check(cage.wanted(config))
    store = Store(config.models)
    machine = Machine(
        lambda: choice.current(config).program, config.engine_indexes.keys() | config.engine_packages.keys()
    )
    startup = asyncio.ensure_future(_startup_tasks(config, store, machine))
    series = Series()

    def engine_build() -> str:
        return build(choice.current(config).program)

    quarantine = Quarantine(store, engine_build)
    deriver = Deriver(
        store,
        engine=engine_build,
        most_bytes=config.derived_bytes,
        in_use=lambda: {path for runner in runners.runners for path in (runner.spec.model, *runner.spec.projectors)},
        cage=cage.wanted(config),
    )
    launcher = Launcher(config, store, deriver)
    figures = await asyncio.to_thread(Figures, config.state / "device-memory.json")

    async def look(held: Mapping[str, int]) -> None:
        await machine.look_again(held)
        figures.engine = await asyncio.to_thread(engine_build)

    events = _events(series)
    scheduler = Scheduler(
        guarded(launcher.launch, store, quarantine), machine.memory, _limits(config), events, look=look, figures=figures
    )
    runners = Runners(scheduler)
    registry = Registry(docker_config=config.docker_config, key_folder=config.home)
    models = Models(store, config.go_template)
    drafters = Drafters(config.draft_models, models)
    tunings = Tunings(config.state, processor.name(), engine_build, on=config.tuned)
    elsewhere = Elsewhere(config.upstreams, config.upstream_timeout, runners, series)
    elsewhere.all()  # so that the first list knows what they say of themselves
    try:
        async with fleets(config, store, deriver, quarantine, scheduler, events) as runners.fleets:
            yield Runtime(
                *(config, models, runners, registry, series, machine, deriver, Recent(), quarantine),
                Speculation(),
                tunings,
                drafters,
                elsewhere,
            )
    finally:
        startup.cancel()
        await elsewhere.close()
        await scheduler.close()
        await launcher.close()
        await registry.close()
        await machine.close()
        models.close()


def _limits(config: Config) -> SchedulerLimits:
    return SchedulerLimits(
        max_loaded=config.max_loaded_models,
        max_queue=config.max_queue,
        pool_contexts=config.pool_contexts,
        first_contexts=config.num_parallel or 1,
        keep_alive=config.keep_alive,
        gpu_overhead=config.gpu_overhead,
        spread=config.sched_spread,
    )


async def _startup_tasks(config: Config, store: Store, machine: Machine) -> None:
    """What is done at start while requests are served already: GPUs looked for, the store tidied (spec cli §2.2)."""
    await machine.look()
    try:
        await store.run_locking(store.prune, delete=not config.no_prune)
    except CorralError as error:
        log.warning("the store could not be tidied: %s", error)


def _events(series: Series) -> SchedulerEvents:
    def loaded(label: str, seconds: float) -> None:
        series.loads.labels(label).inc()
        series.load_time.labels(label).observe(seconds)

    return SchedulerEvents(loaded=loaded, evicted=lambda label, reason: series.evictions.labels(label).inc())
