"""What a server has while it runs, from the store to the scheduler: put together at start, ended at the end."""

import asyncio
import contextlib
import hashlib
import logging
import os
import shutil
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

import msgspec

from corral import cage
from corral.config import Config
from corral.engine import choice
from corral.engine.base import Engine, Keeping, LoadProgress, RunnerSpec
from corral.engine.llama.build import build
from corral.engine.llama.launch import cache_ram_mib, launch
from corral.engine.llama.log import new_log
from corral.engine.llama.spare import DELAY, Spare
from corral.engine.tuned import Tunings
from corral.errors import CorralError
from corral.inference import Runtime
from corral.inference.drafting import Drafters
from corral.inference.elsewhere import Elsewhere
from corral.inference.recent import Recent
from corral.inference.runners import Runners
from corral.machine import Machine, processor
from corral.machine.memory import memory
from corral.machine.threads import threads_here
from corral.messages import Progress
from corral.models.derived import Deriver, EngineFiles
from corral.models.model import Models
from corral.models.quarantine import Quarantine
from corral.names import parse_digest
from corral.server.guarding import Launch, guarded
from corral.server.nodes import fleets
from corral.serving.decisions import SchedulerLimits
from corral.serving.figures import Figures
from corral.serving.scheduler import Scheduler, SchedulerEvents
from corral.serving.speculation import Speculation
from corral.sources.registry import Registry
from corral.store import Store
from corral.telemetry import Series

log = logging.getLogger(__name__)

SPARE_ROOM = 1 << 30
"""Bytes of memory that have to be free for a spare worker to be made."""


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
    limits = SchedulerLimits(
        max_loaded=config.max_loaded_models,
        max_queue=config.max_queue,
        pool_contexts=config.pool_contexts,
        first_contexts=config.num_parallel or 1,
        keep_alive=config.keep_alive,
        gpu_overhead=config.gpu_overhead,
        spread=config.sched_spread,
    )

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
    spare = Spare(_has_room_for_spare)
    if config.spare_worker and not choice.current(config).program:
        spare.prepare()
    launching = guarded(_launcher(config, store, deriver, spare), store, quarantine)
    figures = await asyncio.to_thread(Figures, config.state / "device-memory.json")

    async def look(held: Mapping[str, int]) -> None:
        await machine.look_again(held)
        figures.engine = await asyncio.to_thread(engine_build)

    events = _events(series)
    scheduler = Scheduler(launching, machine.memory, limits, events, look=look, figures=figures)
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
        await spare.close()
        await registry.close()
        await machine.close()
        models.close()


async def _startup_tasks(config: Config, store: Store, machine: Machine) -> None:
    """What is done at start while requests are served already: GPUs looked for, the store tidied (spec cli §2.2)."""
    await machine.look()
    try:
        await store.run_locking(store.prune, delete=not config.no_prune)
    except CorralError as error:
        log.warning("the store could not be tidied: %s", error)


def _has_room_for_spare() -> bool:
    return memory().available >= SPARE_ROOM


def _launcher(config: Config, store: Store, deriver: Deriver, spare: Spare) -> Launch:
    numbers = iter(range(1 << 30))
    remarks: set[str] = set()
    shut_in = cage.wanted(config)
    template_errors: dict[str, str] = {}
    """By weights' file, whose bytes never change: a template that could not be run is not tried at each load."""

    async def start(spec: RunnerSpec, label: str, progress: LoadProgress) -> Engine:
        def prepare(step: Progress) -> None:
            progress.preparing = (step.completed, step.total)

        files = await deriver.files(spec.model, spec.projectors, label, prepare)
        progress.preparing = None
        free = memory().available
        tuned_threads = spec.tuned.num_thread if spec.tuned else 0
        threads = spec.num_thread or tuned_threads or threads_here()
        chosen = await asyncio.to_thread(choice.current, config)
        if chosen.remark and chosen.remark not in remarks:
            log.warning("the engine of the wheel is used: %s", chosen.remark)
            remarks.add(chosen.remark)
        keeping = await store.run(_keeping, config, store, spec, files, chosen.program)
        try:
            engine = await launch(
                msgspec.structs.replace(spec, model=files.model, projectors=files.projectors, num_thread=threads),
                log=await asyncio.to_thread(new_log, config.state / "workers", f"{os.getpid()}-{next(numbers)}.log"),
                stall_timeout=config.load_timeout,
                program=chosen.program,
                cache_ram_mib=cache_ram_mib(free),
                template_error=template_errors.get(spec.model, ""),
                progress=progress,
                keeping=keeping,
                spare=spare,
                cage=shut_in,
                flags_cache=config.state / "engine-flags",
            )
        finally:  # a load that failed has taken the spare worker, too
            if config.spare_worker and not chosen.program:
                spare.prepare(DELAY)
        if engine.template_error and spec.model not in template_errors:
            log.warning("model %s: %s; only requests that do not need it are served", label, engine.template_error)
            template_errors[spec.model] = engine.template_error
        return engine

    return start


def _keeping(config: Config, store: Store, spec: RunnerSpec, files: EngineFiles, program: str) -> Keeping | None:
    """Where the conversations of a model are kept that `program` runs; None: nowhere. Blocks.

    Each way to load it has a folder of its own: what the engine has computed is of no use to another.
    """
    try:
        if not config.cache_bytes:
            shutil.rmtree(store.conversations.folder, ignore_errors=True)
        if not (config.cache_bytes and spec.resumable):
            return None
        store.conversations.trim(config.cache_bytes)
        way = (
            *(build(program), files.model, spec.adapters, spec.own_template, spec.num_ctx),
            *(spec.cache_type, spec.flash_attention, spec.num_gpu, spec.main_gpu),
            *(() if spec.placement is None else (spec.placement.split, spec.placement.cpu_moe)),
        )
        key = hashlib.sha256(repr(way).encode()).hexdigest()[:16]
        digest = parse_digest(Path(spec.model).name)
        folder = store.conversations.place(digest, key)
    except CorralError as error:
        log.info("conversations are not kept: %s", error)
        return None

    def written() -> None:
        if store.has_blob(digest):
            store.conversations.trim(config.cache_bytes)
        else:  # the model was deleted while it ended
            store.conversations.forget(digest)

    return Keeping(str(folder), config.cache_bytes, written)


def _events(series: Series) -> SchedulerEvents:
    def loaded(label: str, seconds: float) -> None:
        series.loads.labels(label).inc()
        series.load_time.labels(label).observe(seconds)

    return SchedulerEvents(loaded=loaded, evicted=lambda label, reason: series.evictions.labels(label).inc())
