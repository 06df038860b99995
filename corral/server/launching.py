"""Loads models on this machine: with which engine, files and threads, and where their conversations are kept."""

import asyncio
import hashlib
import itertools
import logging
import os
import shutil
from pathlib import Path

import msgspec

from corral import cage
from corral.config import Config
from corral.engine import choice
from corral.engine.base import Keeping, LoadProgress, RunnerSpec
from corral.engine.llama.build import build
from corral.engine.llama.client import LlamaEngine
from corral.engine.llama.launch import cache_ram_mib, launch
from corral.engine.llama.log import new_log
from corral.engine.llama.spare import DELAY, Spare
from corral.errors import CorralError
from corral.machine.memory import memory
from corral.machine.threads import threads_here
from corral.messages import Progress
from corral.models.derived import Deriver, EngineFiles
from corral.names import parse_digest
from corral.store import Store

log = logging.getLogger(__name__)

SPARE_ROOM = 1 << 30
"""Bytes of memory that have to be free for a spare worker to be made."""


async def prepared(deriver: Deriver, spec: RunnerSpec, label: str, progress: LoadProgress) -> EngineFiles:
    """The files to load, made where they are missing; `progress` says how far that is."""

    def prepare(step: Progress) -> None:
        progress.preparing = (step.completed, step.total)

    files = await deriver.files(spec.model, spec.projectors, label, prepare)
    progress.preparing = None
    return files


class Launcher:
    """Starts the workers of a server. Where the configuration wants that, it has a spare one ready, which only the
    engine of the wheel can use."""

    def __init__(self, config: Config, store: Store, deriver: Deriver) -> None:
        self._config = config
        self._store = store
        self._deriver = deriver
        self._cage = cage.wanted(config)
        self._spare = Spare(lambda: memory().available >= SPARE_ROOM)
        self._numbers = itertools.count()
        self._remarks: set[str] = set()
        self._template_errors: dict[str, str] = {}
        """By weights' file, whose bytes never change: a template that could not be run is not tried at each load."""
        if config.spare_worker and not choice.current(config).program:
            self._spare.prepare()

    async def launch(self, spec: RunnerSpec, label: str, progress: LoadProgress) -> LlamaEngine:
        """A `guarding.Launch`."""
        files = await prepared(self._deriver, spec, label, progress)
        program = await self._program()
        keeping = await self._store.run(_keeping, self._config, self._store, spec, files, program)
        try:
            engine = await self._launch(spec, files, program, progress, keeping)
        finally:  # a load that failed has taken the spare worker, too
            if self._config.spare_worker and not program:
                self._spare.prepare(DELAY)
        if engine.template_error and spec.model not in self._template_errors:
            log.warning("model %s: %s; only requests that do not need it are served", label, engine.template_error)
            self._template_errors[spec.model] = engine.template_error
        return engine

    async def _launch(
        self, spec: RunnerSpec, files: EngineFiles, program: str, progress: LoadProgress, keeping: Keeping | None
    ) -> LlamaEngine:
        threads = spec.num_thread or (spec.tuned.num_thread if spec.tuned else 0) or threads_here()
        name = f"{os.getpid()}-{next(self._numbers)}.log"
        return await launch(
            msgspec.structs.replace(spec, model=files.model, projectors=files.projectors, num_thread=threads),
            log=await asyncio.to_thread(new_log, self._config.state / "workers", name),
            stall_timeout=self._config.load_timeout,
            program=program,
            cache_ram_mib=cache_ram_mib(memory().available),
            template_error=self._template_errors.get(spec.model, ""),
            progress=progress,
            keeping=keeping,
            spare=self._spare,
            cage=self._cage,
            flags_cache=self._config.state / "engine-flags",
        )

    async def _program(self) -> str:
        """The engine that is chosen now; a remark on that is logged once."""
        chosen = await asyncio.to_thread(choice.current, self._config)
        if chosen.remark and chosen.remark not in self._remarks:
            log.warning("the engine of the wheel is used: %s", chosen.remark)
            self._remarks.add(chosen.remark)
        return chosen.program

    async def close(self) -> None:
        """Ends the spare worker; those that were launched belong to who launched them."""
        await self._spare.close()


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
