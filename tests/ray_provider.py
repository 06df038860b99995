"""A cloud for Ray's autoscaler whose machines are this one: Ray's own stand-in, which forgets what memory nodes have.

The autoscaler imports it by its name.
"""

from typing import Any

from ray._private.node import Node
from ray._private.parameter import RayParams
from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider
from ray.autoscaler.tags import (
    NODE_KIND_WORKER,
    STATUS_UP_TO_DATE,
    TAG_RAY_NODE_KIND,
    TAG_RAY_NODE_NAME,
    TAG_RAY_NODE_STATUS,
    TAG_RAY_USER_NODE_TYPE,
)


class NodesHere(FakeMultiNodeProvider):
    """Each node is a real raylet."""

    def _create_node_with_resources_and_labels(
        self, node_config: Any, tags: dict[str, str], count: int, resources: dict[str, float], labels: dict[str, str]
    ) -> None:
        with self.lock:
            node_id: str = self._next_hex_node_id()  # type: ignore[no-untyped-call]
            kind = tags[TAG_RAY_USER_NODE_TYPE]
            params = RayParams(
                min_worker_port=0,
                max_worker_port=0,
                dashboard_port=None,
                dashboard_agent_listen_port=0,
                num_cpus=int(resources["CPU"]),
                memory=int(resources["memory"]),
                object_store_memory=int(resources["object_store_memory"]),
                labels=labels,
                node_ip_address=self.provider_config["node_ip_address"],
                redis_address=self._gcs_address,
                gcs_address=self._gcs_address,
                env_vars={
                    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": node_id,
                    "RAY_CLOUD_INSTANCE_ID": node_id,
                    "RAY_NODE_TYPE_NAME": kind,
                },
            )
            node = Node(params, head=False, shutdown_at_exit=False, spawn_reaper=False)
            known = {
                TAG_RAY_NODE_KIND: NODE_KIND_WORKER,
                TAG_RAY_USER_NODE_TYPE: kind,
                TAG_RAY_NODE_NAME: node_id,
                TAG_RAY_NODE_STATUS: STATUS_UP_TO_DATE,
            }
            entry: dict[str, Any] = {"tags": {**known, **tags}, "node": node}
            self._nodes[node_id] = entry
