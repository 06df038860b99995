"""`nodes`: the machines that a server's models run on. What is asked of the server; a manifest is only written."""

import sys
from collections.abc import Sequence

import click

from corral.cli import connection
from corral.cli.display import terminal
from corral.cli.display.tables import print_table, table
from corral.cli.display.text import printable
from corral.cli.framework.commands import Arguments, Count, command, program_name
from corral.cli.framework.flags import Flag
from corral.client.nodes import Node
from corral.errors import BadRequest, CorralError
from corral.golang.units import byte_text

ACTIONS = {
    "list": "Show the nodes and the models on each",
    "drain": "Move every model away from a node, without a failed request",
    "resume": "Let a drained node have models again",
    "manifest": "Print what starts a cluster on Kubernetes, for KubeRay",
}

HELP = """\
List, drain and describe the machines that models run on, of a server started with --ray

  {program} nodes [list]        Show the nodes and the models on each
  {program} nodes drain NODE    Move every model away from a node, without a failed request
  {program} nodes resume NODE   Let a drained node have models again
  {program} nodes manifest      Print what starts a cluster on Kubernetes, for KubeRay"""


@command(
    "nodes [ACTION] [NODE]",
    HELP,
    count=Count(least=0, most=2),
    completes=("actions",),
    actions=ACTIONS,
    flags=[
        Flag("--image", kind="string", sentence="With manifest: the container image with Corral and Ray in it"),
        Flag("--cpus", kind="int", sentence="With manifest: cores of a node; 4 if not given"),
        Flag("--memory", kind="int", sentence="With manifest: GiB of memory of a node; 16 if not given"),
        Flag("--gpus", kind="int", sentence="With manifest: GPUs of a node; none if not given"),
        Flag("--most", kind="int", sentence="With manifest: how many nodes there may be; 4 if not given"),
    ],
)
def nodes(arguments: Arguments, image: str, cpus: int, memory: int, gpus: int, most: int) -> None:
    action, *names = arguments or ("list",)
    if action not in ACTIONS:
        raise BadRequest(f'no action "{action}": there are {", ".join(ACTIONS)}')
    if action in ("list", "manifest") and names:
        raise BadRequest(f'"{names[0]}" is one argument too many')
    if action in ("drain", "resume") and not names:
        raise BadRequest(f"requires the address of a node: {program_name()} nodes {action} NODE")
    if action != "manifest" and (image or cpus or memory or gpus or most):
        raise BadRequest("--image, --cpus, --memory, --gpus and --most belong to `nodes manifest`")
    match action:
        case "list":
            _list(connection.connect().nodes())
        case "drain":
            _drain(names[0])
        case "resume":
            connection.connect().resume_node(names[0])
            click.echo(f"node {printable(names[0])} takes models again")
        case "manifest":
            from corral.cluster.manifest import IMAGE, Shape, manifest

            shape = Shape(image=image or IMAGE, cpus=cpus or 4, memory=memory or 16, gpus=gpus, most=most or 4)
            click.echo(manifest(shape), nl=False)


def _list(found: Sequence[Node]) -> None:
    print_table(nodes_table(found, terminal.width(sys.stdout)))
    for node in found:
        if _state(node) == "unfit":
            click.echo(f"\n{printable(node.address)} is asked last: {printable(node.unfit)}")


def _drain(name: str) -> None:
    is_drained, moved = connection.connect().drain_node(name)
    for one in moved:
        where = f"now on {printable(one.to)}" if one.to else "nowhere else"
        click.echo(f"{printable(one.model)}: {where}")
        if one.reason:
            click.echo(f"  {printable(one.reason)}")
    if not is_drained:
        raise CorralError(f'node "{name}" goes on: a model on it has no other place')
    click.echo(f"node {printable(name)} is drained; `{program_name()} nodes resume {printable(name)}` ends that")


HEADERS = ("NODE", "STATE", "CORES", "MEMORY", "GPUS", "MODEL", "USERS", "SIZE", "TOKENS/S")
SPARE = ("GPUS", "SIZE", "USERS", "CORES")
"""Those that a narrow window need not show, the first of them first."""


def nodes_table(found: Sequence[Node], width: int | None) -> str:
    """A row for each model on a node, and one for a node without any."""
    rows: list[tuple[str, ...]] = []
    for node in found:
        used = f"{node.cpus - node.free_cpus:g}/{node.cpus:g}"
        held = f"{byte_text(node.memory - node.free_memory)}/{byte_text(node.memory)}"
        head: tuple[str, ...] = (node.address, _state(node), used, held, f"{node.gpus:g}" if node.gpus else "-")
        for replica in node.replicas:
            what = replica.model if replica.state == "loaded" else f"{replica.model} ({replica.state})"
            size = byte_text(replica.memory) if replica.memory else "-"
            rows.append((*head, what, str(replica.users), size, f"{replica.generated_rate:.1f}"))
            head = ("",) * len(head)
        if not node.replicas:
            rows.append((*head, "-", "-", "-", "-"))
    return table(HEADERS, rows, width=width, spare=SPARE)


def _state(node: Node) -> str:
    return "gone" if not node.is_alive else "drained" if node.is_drained else "unfit" if node.unfit else "ready"
