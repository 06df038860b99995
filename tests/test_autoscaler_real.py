"""Nodes that come when a model is asked for and go when nobody needs them, by Ray's own autoscaler."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.cluster.manifest import Shape, for_models, manifest
from tests.conftest import add_model
from tests.ray_machines import NODE_MEMORY, Front, Machines, front, machines_alone

IDLE_SECONDS = 3.0


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory, starter_gguf: Path) -> Iterator[Machines]:
    folder = tmp_path_factory.mktemp("machines")
    with machines_alone(folder) as found:
        found.start_autoscaling_ray(most=2, idle_seconds=IDLE_SECONDS)
        add_model(folder / found.server / ".ollama" / "models", "smollm2", starter_gguf)
        yield found


def nodes(server: Front) -> list[str]:
    """The ids of the nodes that take models."""
    return [node["id"] for node in server.ask("/api/nodes")["nodes"] if node["alive"] and node["cpus"]]


def test_a_cluster_grows_when_a_model_is_asked_for_and_goes_when_nobody_asks(machines: Machines) -> None:
    variables = {
        "CORRAL_RAY_REPLICAS": "0..2",
        "CORRAL_RAY_MEMORY": str(NODE_MEMORY),
        "OLLAMA_NUM_PARALLEL": "1",
        "OLLAMA_KEEP_ALIVE": "2s",
    }
    with front(machines, **variables) as server:
        assert nodes(server) == []
        began = time.monotonic()
        assert server.generate("Hi")
        print(f"no node, and a model was asked for: answered after {time.monotonic() - began:.1f} s")
        assert len(nodes(server)) == 1
        with_context = server.ask("/api/ps")["models"][0]["context_length"]

        def ask(number: int) -> None:
            assert server.generate(f"Tell {number} stories", 20)

        def look() -> None:
            took = server.wait_until(lambda: len(server.loaded()) == 2)
            print(f"requests waited: a second node answers after {took:.1f} s")

        server.busy_until(4, ask, look)
        assert len(nodes(server)) == 2
        assert {model["context_length"] for model in server.ask("/api/ps")["models"]} == {with_context}

        took = server.wait_until(lambda: nodes(server) == [])
        print(f"nobody asks: both nodes are gone after {took:.1f} s, of which models were kept for 2 s")
        assert "gone" not in server.command("nodes")  # nobody misses them


def test_draining_the_only_node_brings_another_one(machines: Machines) -> None:
    with front(machines, CORRAL_RAY_REPLICAS="1..1", CORRAL_RAY_MEMORY=str(NODE_MEMORY)) as server:
        assert server.generate("Hi")
        (first,) = nodes(server)
        server.wait_until(lambda: len(server.loaded()) == 1)
        server.command("nodes", "drain", first)
        assert server.generate("Still there?")
        server.wait_until(lambda: len(nodes(server)) == 1)
        assert nodes(server) != [first]


def test_the_autoscaler_reads_the_manifest() -> None:
    import yaml  # type: ignore[import-untyped]
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    shape = Shape(cpus=8, memory=32, gpus=2, most=6)
    *_, cluster = yaml.safe_load_all(manifest(shape))
    cluster["metadata"]["namespace"] = "default"
    found = _derive_autoscaling_config_from_ray_cr(cluster)
    assert (found["max_workers"], found["idle_timeout_minutes"]) == (6, 5)
    kinds = found["available_node_types"]
    assert kinds["headgroup"]["resources"]["CPU"] == 0
    assert kinds["nodes"]["resources"] == {"CPU": 8, "GPU": 2, "memory": for_models(shape)}
    assert (kinds["nodes"]["min_workers"], kinds["nodes"]["max_workers"]) == (1, 6)
