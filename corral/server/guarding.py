"""What every load passes, wherever the model is loaded: its files may be loaded, and how it ends is noted."""

from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from corral.engine.base import Engine, LoadProgress, RunnerSpec
from corral.errors import EngineCrashed
from corral.models.quarantine import Quarantine
from corral.store import Store

Launch: TypeAlias = Callable[[RunnerSpec, str, LoadProgress], Coroutine[Any, Any, Engine]]
"""Loads a model, given its label and what is to say how far that is."""


def guarded(launching: Launch, store: Store, quarantine: Quarantine) -> Launch:
    """The same for files that may be loaded only; how the load ends is noted."""

    async def start(spec: RunnerSpec, label: str, progress: LoadProgress) -> Engine:
        files = (spec.model, *spec.projectors, *spec.adapters)
        drafts = (spec.draft_model,) if spec.draft_model else ()
        await store.run(store.check_files, (*files, *drafts))
        await store.run(quarantine.require_fit, spec.model, spec.projectors, spec.adapters, label)
        for draft in drafts:
            await store.run(quarantine.require_fit, draft, (), (), f"{label}, draft")
        try:
            engine = await launching(spec, label, progress)
        except EngineCrashed as error:
            if spec.placement is None or not spec.placement.shares:  # else it may be a driver's fault
                await store.run(quarantine.crashed, files, error)
            raise
        try:
            await store.run(quarantine.loaded, files)
        except BaseException:  # cancelled meanwhile: nobody else knows of the engine yet
            await engine.close()
            raise
        return engine

    return start
