"""The child process's main: reads its orders from standard input, hosts one model, and ends when its parent does.

Orders are one JSON line, `Orders`. The answer is one JSON line on standard output, `Report`; everything llama.cpp
prints goes to standard error. Standard input stays open: its end means that the parent is gone.
"""

import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
from typing import Any

import msgspec

from corral.engine.base import RunnerSpec

HARMLESS_TEMPLATE = "chatml"
"""Stands in for the file's own where prompts are written by others; an engine runs what it finds while it loads."""


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What to host. `program`: another llama-server to become, empty for the one that comes with the package."""

    spec: RunnerSpec
    key: str
    parent: int
    program: str = ""
    cache_ram_mib: int = 1024
    slot_folder: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What became of it: the loopback port, and whether requests are served already; or why it failed."""

    port: int = 0
    ready: bool = False
    error: str = ""


def main() -> None:
    report = _take_standard_output()
    orders = msgspec.json.decode(sys.stdin.buffer.readline(), type=Orders)
    _die_with_parent(orders.parent)
    if orders.program:
        _become(orders, report)
    try:
        server = _host(orders)
    except Exception as error:  # whatever native code objects to is told to who asked for the load
        _tell(report, Report(error=str(error)))
        sys.exit(1)
    _tell(report, Report(port=int(server.listening_address.rsplit(":", 1)[1]), ready=True))
    threading.Event().wait()


def _tell(channel: Any, report: Report) -> None:
    channel.write(msgspec.json.encode(report) + b"\n")
    channel.close()


def _take_standard_output() -> Any:
    """The report's own channel; prints of native code are led to standard error so that they cannot get in between."""
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return channel


def _die_with_parent(parent: int) -> None:
    """Ends this process when the parent ends, however it does.

    Linux sends a signal, which also reaches native code that holds the interpreter while it loads; elsewhere a
    thread waits for standard input to close.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def _host(orders: Orders) -> Any:
    """llama-server on a free loopback port, from the wheel."""
    import xllamacpp

    return xllamacpp.Server(_params(xllamacpp, orders))


def _params(xllamacpp: Any, orders: Orders) -> Any:
    spec = orders.spec
    params = xllamacpp.CommonParams()
    params.model.path = spec.model
    params.port = 0
    params.api_keys = [orders.key]
    params.ui = False
    params.offline = True
    params.warmup = False  # costs as much as it saves: the first request warms the same pages
    params.fit_params = spec.num_gpu < 0 and _has_gpu(xllamacpp)  # the fit pass is for GPUs and doubles a CPU load
    params.n_ctx = spec.pool
    params.n_parallel = spec.slots
    params.kv_unified = True
    params.kv_unified_per_slot = spec.num_ctx
    params.ctx_shift = spec.mode == "generate"
    params.cache_ram_mib = orders.cache_ram_mib
    params.endpoint_slots = True
    params.slot_save_path = orders.slot_folder
    params.cache_type_k = params.cache_type_v = _member(xllamacpp.ggml_type, "GGML_TYPE_", spec.cache_type)
    attention = {"on": "ENABLED", "off": "DISABLED", "auto": "AUTO"}[spec.flash_attention]
    params.flash_attn_type = getattr(xllamacpp.llama_flash_attn_type, f"LLAMA_FLASH_ATTN_TYPE_{attention}")
    params.n_batch, params.n_ubatch = _batches(spec)
    _set_machine(xllamacpp, params, spec)
    if not spec.own_template:
        params.chat_template = HARMLESS_TEMPLATE
    if spec.projectors:
        params.mmproj.path = spec.projectors[0]
    if spec.image_min_tokens:
        params.image_min_tokens = spec.image_min_tokens
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path, 1.0) for path in spec.adapters]
    if spec.mode == "embed":
        params.embedding = True
        if spec.pooling == "mean":
            params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    return params


def _batches(spec: RunnerSpec) -> tuple[int, int]:
    """Tokens of a logical and a physical batch : by context unless given; an embedding fits into one (spec api §6)."""
    automatic = 2048 if spec.num_ctx > 32768 else 1024 if spec.num_ctx > 4096 else 512
    if spec.mode == "embed":
        automatic = min(2048, spec.num_ctx)
    physical = spec.num_batch or automatic
    return (max(physical, 512) if spec.mode == "generate" else physical), physical


def _set_machine(xllamacpp: Any, params: Any, spec: RunnerSpec) -> None:
    if spec.num_gpu >= 0:
        params.n_gpu_layers = spec.num_gpu
    if spec.main_gpu is not None:
        params.main_gpu = spec.main_gpu
    if spec.num_thread > 0:
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = spec.num_thread
    if spec.use_mmap is not None:
        mode = "MMAP" if spec.use_mmap else "NONE"
        params.load_mode = getattr(xllamacpp.llama_load_mode, f"LLAMA_LOAD_MODE_{mode}")


def _has_gpu(xllamacpp: Any) -> bool:
    cpu = xllamacpp.ggml_backend_dev_type.GGML_BACKEND_DEVICE_TYPE_CPU
    return any(device.get("type") != cpu for device in xllamacpp.get_device_info())


def _member(enumeration: Any, prefix: str, name: str) -> Any:
    return next(member for key, member in enumeration.__members__.items() if key.lower() == f"{prefix}{name}".lower())


def _become(orders: Orders, report: Any) -> None:
    """Turns this process into another llama-server; who started us asks its /health until it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environ = {**os.environ, "LLAMA_API_KEY": orders.key}
    if not os.access(orders.program, os.X_OK):
        _tell(report, Report(error=f'"{orders.program}" is no program that can be run'))
        sys.exit(1)
    _tell(report, Report(port=port))
    os.execve(orders.program, [orders.program, *arguments(orders.spec, port, orders.cache_ram_mib)], environ)


def arguments(spec: RunnerSpec, port: int, cache_ram_mib: int) -> list[str]:
    """llama-server's command line for a specification; the same choices as `_params` makes."""
    batch, physical_batch = _batches(spec)
    flags = ["--host", "127.0.0.1", "--port", str(port), "--model", spec.model, "--no-webui", "--offline"]
    flags += ["--ctx-size", str(spec.pool), "--parallel", str(spec.slots), "--kv-unified"]
    flags += ["--kv-unified-per-slot", str(spec.num_ctx), "--flash-attn", spec.flash_attention]
    flags += ["--cache-type-k", spec.cache_type, "--cache-type-v", spec.cache_type]
    flags += ["--embeddings"] if spec.mode == "embed" else ["--context-shift"]
    flags += ["--pooling", "mean"] if spec.pooling == "mean" else []
    flags += ["--batch-size", str(batch), "--ubatch-size", str(physical_batch)]
    flags += ["--cache-ram", str(cache_ram_mib), "--no-warmup"]
    for flag, value in (
        ("--gpu-layers", spec.num_gpu if spec.num_gpu >= 0 else None),
        ("--main-gpu", spec.main_gpu),
        ("--threads", spec.num_thread or None),
        ("--threads-batch", spec.num_thread or None),
    ):
        flags += [flag, str(value)] if value is not None else []
    flags += [] if spec.use_mmap is None else ["--mmap" if spec.use_mmap else "--no-mmap"]
    flags += [part for path in spec.projectors[:1] for part in ("--mmproj", path)]
    flags += ["--image-min-tokens", str(spec.image_min_tokens)] if spec.image_min_tokens else []
    flags += [part for path in spec.adapters for part in ("--lora", path)]
    flags += [] if spec.own_template else ["--chat-template", HARMLESS_TEMPLATE]
    return flags


if __name__ == "__main__":
    main()
