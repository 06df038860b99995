"""What starts a cluster on Kubernetes: a RayCluster for the operator KubeRay, a service and a claim, as YAML.

The server runs in the head's pod, nodes are the pods of one group, which Ray's autoscaler adds and removes. A token is
shared by a secret that has to be there. Names and numbers are checked; nothing else comes from outside.
"""

import re

from msgspec import Struct

from corral.errors import BadRequest

_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}")


IMAGE = "corral-ray:latest"


class Shape(Struct, frozen=True, kw_only=True):
    """What a node has: cores, GiB of memory, GPUs; and how many there may be."""

    image: str = IMAGE
    cpus: int = 4
    memory: int = 16
    gpus: int = 0
    most: int = 4


def manifest(shape: Shape) -> str:
    """The YAML. `BadRequest` for a shape that no node can have."""
    if not _IMAGE.fullmatch(shape.image):
        raise BadRequest(f'"{shape.image}" is no name of an image')
    if shape.cpus < 1 or shape.memory < 1 or shape.gpus < 0 or shape.most < 1:
        raise BadRequest("a node has one core and one GiB of memory at least, and there is one node at least")
    return _TEXT.format(
        image=shape.image,
        cpus=shape.cpus,
        memory=shape.memory,
        for_models=for_models(shape),
        gpus=f", nvidia.com/gpu: {shape.gpus}" if shape.gpus else "",
        most=shape.most,
        ray_gpus=_RAY_GPUS.format(gpus=shape.gpus) if shape.gpus else "",
    )


def for_models(shape: Shape) -> int:
    """Bytes of a node's memory that models get: all but a GiB, or a quarter of a small node, which Ray itself takes."""
    return (shape.memory << 30) - min(1 << 30, shape.memory << 28)


_RAY_GPUS = """
              - {{name: CORRAL_RAY_GPUS, value: "{gpus}"}}"""

# `ray-logs` is KubeRay's own name for the volume of this path, so that its autoscaler shares it. Service links would
# be variables such as CORRAL_PORT. The processes of the head's pod see each other, as Ray expects of one machine's.
# Containers of a cluster with version 2 of the autoscaler are not started again: the server's one does that by itself.
_TEXT = """\
# What this needs: the operator KubeRay 1.4 or newer, an image made by
#   podman build --build-arg EXTRAS=[ray] --tag {image} .
# and the secret by which the cluster tells friends from strangers:
#   kubectl create secret generic corral-ray-token --from-literal=token="$(openssl rand -hex 32)"
# Then `kubectl apply -f` this file. The server is at http://corral:11434 for those who have a key. The first one:
#   kubectl exec $(kubectl get pod -o name -l ray.io/cluster=corral,ray.io/node-type=head) -c corral -- \\
#     cat /var/lib/corral/.ollama/corral-key
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: corral
spec:
  accessModes: [ReadWriteOnce]
  resources: {{requests: {{storage: 100Gi}}}}  # models, keys, settings
---
apiVersion: v1
kind: Service
metadata:
  name: corral
spec:
  selector: {{ray.io/cluster: corral, ray.io/node-type: head}}
  ports:
    - {{name: http, port: 11434, targetPort: 11434}}
---
apiVersion: ray.io/v1
kind: RayCluster
metadata:
  name: corral
spec:
  enableInTreeAutoscaling: true
  autoscalerOptions:
    version: v2  # the first one does not know that a drained node takes nothing
    idleTimeoutSeconds: 300
    env:
      - {{name: RAY_AUTH_MODE, value: token}}
      - name: RAY_AUTH_TOKEN
        valueFrom: {{secretKeyRef: {{name: corral-ray-token, key: token}}}}
  headGroupSpec:
    rayStartParams:
      num-cpus: "0"  # models run on the nodes below
      object-store-memory: "100000000"
      dashboard-host: 127.0.0.1
    template:
      spec:
        enableServiceLinks: false
        shareProcessNamespace: true
        securityContext: {{fsGroup: 10001}}
        containers:
          - name: ray-head
            image: {image}
            env:
              - {{name: RAY_AUTH_MODE, value: token}}
              - name: RAY_AUTH_TOKEN
                valueFrom: {{secretKeyRef: {{name: corral-ray-token, key: token}}}}
              - {{name: RAY_health_check_initial_delay_ms, value: "2000"}}
              - {{name: RAY_health_check_period_ms, value: "1000"}}
              - {{name: RAY_health_check_timeout_ms, value: "1000"}}
              - {{name: RAY_health_check_failure_threshold, value: "4"}}
            readinessProbe: {{tcpSocket: {{port: 6379}}, periodSeconds: 5}}
            livenessProbe: {{tcpSocket: {{port: 6379}}, periodSeconds: 10, failureThreshold: 12}}
            volumeMounts:
              - {{name: ray-logs, mountPath: /tmp/ray}}
            resources:
              requests: {{cpu: 1, memory: 2Gi}}
              limits: {{cpu: 2, memory: 4Gi}}
          - name: corral
            image: {image}
            command:
              - sh
              - -c
              - |
                trap 'kill "$server"; wait "$server"; exit 0' TERM
                until ray health-check --address 127.0.0.1:6379; do sleep 1; done
                while :; do corral serve --ray 127.0.0.1:6379 & server=$!; wait "$server"; sleep 1; done
            ports:
              - {{containerPort: 11434, name: corral}}
            env:
              - {{name: RAY_AUTH_MODE, value: token}}
              - name: RAY_AUTH_TOKEN
                valueFrom: {{secretKeyRef: {{name: corral-ray-token, key: token}}}}
              - {{name: HOME, value: /var/lib/corral}}
              - {{name: OLLAMA_HOST, value: "0.0.0.0:11434"}}
              - {{name: CORRAL_RAY_REPLICAS, value: "0..{most}"}}  # all go when nobody asks, and then their nodes
              - {{name: CORRAL_RAY_PLACE_TIMEOUT, value: 15m}}  # a machine has to boot, and to fetch the image
              - {{name: CORRAL_RAY_CPUS, value: "{cpus}"}}
              - {{name: CORRAL_RAY_MEMORY, value: "{for_models}"}}{ray_gpus}
            readinessProbe: {{httpGet: {{path: /, port: 11434}}, periodSeconds: 5}}
            lifecycle: {{preStop: {{exec: {{command: [sleep, "5"]}}}}}}  # until nobody is sent here any more
            volumeMounts:
              - {{name: corral, mountPath: /var/lib/corral}}
              - {{name: ray-logs, mountPath: /tmp/ray}}
            resources:
              requests: {{cpu: 1, memory: 2Gi}}
        volumes:
          - {{name: corral, persistentVolumeClaim: {{claimName: corral}}}}
          - {{name: ray-logs, emptyDir: {{}}}}
  workerGroupSpecs:
    - groupName: nodes
      replicas: 1
      minReplicas: 1  # 0: nothing is paid for while nobody asks, and who asks first waits for a machine
      maxReplicas: {most}
      rayStartParams:
        memory: "{for_models}"
        object-store-memory: "100000000"
        node-manager-port: "6380"
      template:
        spec:
          enableServiceLinks: false
          securityContext: {{fsGroup: 10001}}
          containers:
            - name: ray-worker
              image: {image}
              env:
                - {{name: RAY_AUTH_MODE, value: token}}
                - name: RAY_AUTH_TOKEN
                  valueFrom: {{secretKeyRef: {{name: corral-ray-token, key: token}}}}
                - {{name: HOME, value: /var/lib/corral}}
              readinessProbe: {{tcpSocket: {{port: 6380}}, periodSeconds: 5}}
              livenessProbe: {{tcpSocket: {{port: 6380}}, periodSeconds: 10, failureThreshold: 12}}
              volumeMounts:
                - {{name: files, mountPath: /var/lib/corral}}
              resources:
                requests: {{cpu: {cpus}, memory: {memory}Gi{gpus}}}
                limits: {{cpu: {cpus}, memory: {memory}Gi{gpus}}}
          volumes:
            - {{name: files, emptyDir: {{}}}}  # models' files, as long as the node is there
"""
