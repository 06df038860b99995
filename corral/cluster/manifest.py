"""What starts a cluster on Kubernetes: a RayCluster for the operator KubeRay, as YAML.

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
    gpus = f"\n                  nvidia.com/gpu: {shape.gpus}" if shape.gpus else ""
    return _TEXT.format(
        image=shape.image, cpus=shape.cpus, memory=shape.memory, gpus=gpus, most=shape.most, ray_gpus=_ray_gpus(shape)
    )


def _ray_gpus(shape: Shape) -> str:
    return f'\n              - {{name: CORRAL_RAY_GPUS, value: "{shape.gpus}"}}' if shape.gpus else ""


_TEXT = """\
# kubectl create secret generic corral-ray-token --from-literal=token="$(openssl rand -hex 32)"
# kubectl apply -f this-file
apiVersion: ray.io/v1
kind: RayCluster
metadata:
  name: corral
spec:
  enableInTreeAutoscaling: true
  autoscalerOptions:
    idleTimeoutSeconds: 300
  headGroupSpec:
    rayStartParams:
      num-cpus: "0"  # models run on the nodes below
      dashboard-host: 127.0.0.1
    template:
      spec:
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
              - {{name: RAY_health_check_failure_threshold, value: "5"}}
            volumeMounts:
              - {{name: ray, mountPath: /tmp/ray}}
            resources:
              requests: {{cpu: 1, memory: 2Gi}}
              limits: {{cpu: 2, memory: 4Gi}}
          - name: corral
            image: {image}
            command: [sh, -c, 'until ray health-check --address 127.0.0.1:6379; do sleep 1; done;
              exec corral serve --ray 127.0.0.1:6379']
            ports:
              - {{containerPort: 11434, name: corral}}
            env:
              - {{name: RAY_AUTH_MODE, value: token}}
              - name: RAY_AUTH_TOKEN
                valueFrom: {{secretKeyRef: {{name: corral-ray-token, key: token}}}}
              - {{name: OLLAMA_HOST, value: "0.0.0.0:11434"}}{ray_gpus}
            volumeMounts:
              - {{name: models, mountPath: /root/.ollama}}
              - {{name: ray, mountPath: /tmp/ray}}
        volumes:
          - {{name: models, emptyDir: {{}}}}  # better a claim that survives the pod
          - {{name: ray, emptyDir: {{}}}}
  workerGroupSpecs:
    - groupName: nodes
      replicas: 1
      minReplicas: 1
      maxReplicas: {most}
      rayStartParams: {{}}
      template:
        spec:
          containers:
            - name: ray-worker
              image: {image}
              env:
                - {{name: RAY_AUTH_MODE, value: token}}
                - name: RAY_AUTH_TOKEN
                  valueFrom: {{secretKeyRef: {{name: corral-ray-token, key: token}}}}
              resources:
                requests:
                  cpu: {cpus}
                  memory: {memory}Gi{gpus}
                limits:
                  cpu: {cpus}
                  memory: {memory}Gi{gpus}
"""
