"""The main program of a worker process: reads its configuration, loads one model, and ends when its parent does.

The configuration is one JSON line on standard input, `WorkerConfig`; the answer is one JSON line on standard output,
`Ready`. Everything llama.cpp prints goes to standard error. Standard input stays open: its end means that the parent
is gone. Which options a model is loaded with stands in `corral.engine.load_options`.
"""

import contextlib
import enum
import glob
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from corral import names
from corral.cage import Cage, Needs, enter
from corral.children import end_with_parent, take_standard_output
from corral.config import child_environment
from corral.engine import wheels
from corral.engine.base import RunnerSpec
from corral.engine.llama.log import FAILED, WorkerLog
from corral.engine.load_options import Setting, settings, spared
from corral.errors import ConfigError
from corral.system import mapped
from corral.system.current import IS_LINUX
from corral.system.processes import end_at_parents_end

FAILURE = "Failed to init server"
"""How the engine's exception for any failed load begins; it carries no cause."""

LOG_TIMEOUT = 2.0
"""Seconds that the engine has to print the last lines of a failed load; it takes thousandths of one."""


SPARE = "--spare"
"""The argument of a worker that is started before it is known what for: it imports the engine of the wheel at once."""


class WorkerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What to load, and how the worker is spoken to."""

    spec: RunnerSpec
    key: str
    """What clients of the worker have to send as their API key."""
    parent: int
    """The id of the process that the worker ends with."""
    program: str = ""
    """Path of a llama-server to run, or of a folder with another build of `xllamacpp`; empty: the package itself."""
    without: tuple[str, ...] = ()
    """Flags that this llama-server does not know, of `load_options.SPARED`."""
    log: str = ""
    """The file that standard error goes to; the first error of a failed load is read from it."""
    cache_ram_mib: int = 1024
    """Most main memory the prompt cache may take, in MiB."""
    slot_folder: str = ""
    """Where slots may be saved, with a separator at its end; empty: nowhere."""
    cage: Cage = Cage()


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """What the worker reports, once: where it listens, or why it failed."""

    port: int = 0
    """The port on loopback; 0: it failed."""
    ready: bool = False
    """Whether requests are served already; else `/health` says when."""
    error: str = ""
    """The first error of the load."""
    out_of_memory: bool = False


def main() -> None:
    report = take_standard_output()
    is_spare = SPARE in sys.argv
    if is_spare:
        end_at_parents_end()
        _import_engine()
    line = sys.stdin.buffer.readline()
    if not line:  # nobody needed it
        return
    config = msgspec.json.decode(line, type=WorkerConfig)
    if is_spare:
        _print_to(config.log)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if wheels.is_wheel(config.program):
        sys.path.insert(0, config.program)
    elif config.program:
        _exec_external(config, report)
    try:
        server = _start_builtin(config)
    except Exception as error:  # native code raises errors of any kind: the parent reports them
        _send(report, _failure(config, error))
        sys.exit(1)
    _send(report, Ready(port=int(server.listening_address.rsplit(":", 1)[1]), ready=True))
    _let_go_of_copied(config.spec)
    threading.Event().wait()


def _let_go_of_copied(spec: RunnerSpec) -> None:
    """Gives back what is mapped of weights that the engine has copied, in the order that this processor reads best:
    else a model's memory would be counted twice."""
    weights = mapped.mapped(tuple(_models(spec)))
    copied = mapped.own_memory() - spec.pool * spec.cache_bytes_per_token
    if copied > sum(one.size for one in weights) / 2:
        mapped.let_go(weights)


def _import_engine() -> None:
    """Loads the wheel's engine. What is wrong with it is said when a model is to be loaded."""
    with contextlib.suppress(Exception):
        import xllamacpp  # noqa: F401


def _print_to(path: str) -> None:
    """Sends all that is printed from now on to a log, which the parent has made."""
    log = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 2)
    os.dup2(log, 1)
    os.close(log)


def _send(channel: Any, report: Ready) -> None:
    channel.write(msgspec.json.encode(report) + b"\n")
    channel.close()


def _failure(config: WorkerConfig, error: Exception) -> Ready:
    """The report of a failed load. The exception says only that it failed; the cause is the engine's first error."""
    log = WorkerLog(Path(config.log))
    give_up = time.monotonic() + LOG_TIMEOUT
    while FAILURE in str(error) and FAILED not in log.last_line() and time.monotonic() < give_up:
        time.sleep(0.005)  # the engine writes its log from a thread of its own
    return Ready(
        error=log.first_error() or str(error) or type(error).__name__,
        out_of_memory=isinstance(error, MemoryError) or log.is_out_of_memory(),
    )


def _start_builtin(config: WorkerConfig) -> Any:
    """llama-server on a free loopback port, from the wheel."""
    import xllamacpp

    with _reserved_port() as port:
        _shut_in(config, port)
        return xllamacpp.Server(parameters(xllamacpp, config, port if IS_LINUX else 0))


def _shut_in(config: WorkerConfig, port: int) -> None:
    """What comes before a model is opened. The thread that watches the parent is started in the cage, as all are."""
    enter(config.cage, Needs(reads=_files(config), writes=_written(config), program=_program(config), port=port))
    end_with_parent(config.parent)


def _files(config: WorkerConfig) -> tuple[Path, ...]:
    """What a worker reads: its model's files, and its own log, to say why a load failed."""
    spec = config.spec
    given = [Path(path) for path in (*spec.projectors, *spec.adapters, config.log)]
    given += [Path(spec.draft_model)] if spec.draft_model else []
    return (*_models(spec), *given, *(other for path in given for other in _of_set(path)))


def _models(spec: RunnerSpec) -> Iterator[Path]:
    """The model's file, and the others where it has several."""
    yield Path(spec.model)
    yield from _of_set(Path(spec.model))


def _of_set(path: Path) -> Iterator[Path]:
    """The other parts of a model in several files, which the engine finds by their names."""
    if part := names.parse_split_part(path.name):
        yield from (other for other in path.parent.glob(f"{glob.escape(part.stem)}-*") if other.suffix == path.suffix)


def _written(config: WorkerConfig) -> tuple[Path, ...]:
    return (Path(config.slot_folder),) if config.slot_folder else ()


def _program(config: WorkerConfig) -> Path | None:
    """The program that this process becomes; a wheel's folder is read as all of `sys.path` is."""
    return Path(config.program) if config.program and not wheels.is_wheel(config.program) else None


@contextlib.contextmanager
def _reserved_port() -> Iterator[int]:
    """A free port of loopback, kept until the engine listens on it too: both sockets say that they share it."""
    with socket.socket() as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        yield kept.getsockname()[1]


def parameters(xllamacpp: Any, config: WorkerConfig, port: int = 0) -> Any:
    """The `CommonParams` of the built-in engine; `arguments` says the same to a program.

    One difference stays: fitting a model into memory is for GPUs and doubles the time of a load on the CPU, so it is
    turned off here where there is no GPU. Another program knows its own devices.
    """
    params = xllamacpp.CommonParams()
    params.port = port
    params.api_keys = [config.key]
    params.cache_ram_mib = config.cache_ram_mib
    params.slot_save_path = config.slot_folder
    params.fit_params = _has_gpu(xllamacpp)
    for setting in settings(config.spec):
        _set(xllamacpp, params, setting)
    return params


def _set(xllamacpp: Any, params: Any, setting: Setting) -> None:
    if not setting.parameter:
        return
    *path, name = setting.parameter.split(".")
    for part in path:
        params = getattr(params, part)
    current = getattr(params, name)
    value: Any = setting.value
    if name == "tensor_split":
        value = [*map(float, value), *current[len(value) :]]
    elif isinstance(value, tuple):
        value = [xllamacpp.CommonAdapterLoraInfo(path, 1.0) for path in value]
    elif isinstance(current, enum.Enum):
        value = _member(current, value)
    elif isinstance(current, list) and isinstance(value, str):
        value = [_member(current[0], value)]
    setattr(params, name, value)


def _member(one: enum.Enum, ending: str) -> enum.Enum:
    """The member of the same enumeration whose name ends so."""
    members = type(one).__members__
    return members[min((member for member in members if member.endswith(f"_{ending}".upper())), key=len)]


def _has_gpu(xllamacpp: Any) -> bool:
    cpu = xllamacpp.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU
    return any(device.get("type") != cpu for device in xllamacpp.get_device_info())


def _exec_external(config: WorkerConfig, report: Any) -> None:
    """Turns this process into another llama-server. The parent then asks its `/health` until it is ready."""
    with _reserved_port() as free:
        port = free
    environment = child_environment(LLAMA_API_KEY=config.key)
    if not os.access(config.program, os.X_OK):
        _send(report, Ready(error=f'"{config.program}" is no program that can be run'))
        sys.exit(1)
    try:
        _shut_in(config, port)
    except ConfigError as error:
        _send(report, Ready(error=str(error)))
        sys.exit(1)
    _send(report, Ready(port=port))
    os.execve(config.program, [config.program, *arguments(config, port)], environment)


def arguments(config: WorkerConfig, port: int) -> list[str]:
    """llama-server's command line; the same choices as `parameters` makes. The key is in the environment."""
    rows = [["--cache-ram", str(config.cache_ram_mib)]]
    if config.slot_folder:
        rows.append(["--slot-save-path", config.slot_folder])
    rows += [list(setting.arguments) for setting in settings(config.spec)]
    given = [argument for row in rows for argument in spared(row, config.without)]
    return ["--host", "127.0.0.1", "--port", str(port), *given]


if __name__ == "__main__":
    main()
