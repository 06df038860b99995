"""Our client of registries as tests use it."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

from corral import names
from corral.messages import Progress
from corral.names import Name
from corral.sources.registry import Registry, TransferLimits
from tests.registry import RegistryServer


def make_registry(folder: Path, limits: TransferLimits | None = None) -> Registry:
    """A client without credentials, which keeps its keys in this folder."""
    return Registry(docker_config=folder / "config.json", key_folder=folder / "keys", limits=limits)


def tiny(server: RegistryServer) -> Name:
    """The name of the model that most tests pull."""
    return names.parse(f"{server.host}/library/tiny")


async def collect(steps: AsyncGenerator[Progress, None]) -> list[Progress]:
    """All steps of a job."""
    async with aclosing(steps):
        return [step async for step in steps]
