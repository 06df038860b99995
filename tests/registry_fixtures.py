"""A real registry, and the proxy in front of it, for each module that names this one in its `pytest_plugins`."""

from collections.abc import Iterator

import pytest

from tests.registry import FaultProxy, RegistryServer, running_proxy, running_registry


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """An empty registry."""
    with running_registry(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture(scope="module")
def module_proxy(server: RegistryServer) -> Iterator[FaultProxy]:
    with running_proxy(server.url) as proxy:
        yield proxy


@pytest.fixture
def proxy(module_proxy: FaultProxy) -> FaultProxy:
    """The same registry through a proxy, which breaks nothing until it has rules."""
    module_proxy.rules()
    return module_proxy
