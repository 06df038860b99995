#!/usr/bin/env python3
"""The fake llama-server with GPUs: it lists devices, says what it holds on them, and fails as a file says.

`gpus.json` in the home folder: `devices`, rows of name, total and free MiB; `most`, the bytes of a pool in tokens and
of layers that still fit (`out_of_memory` beyond them); `lost`, the line of a driver that is printed before the end.
"""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
ORDERS = json.loads((Path(os.environ["HOME"]) / "gpus.json").read_text())


def value(name: str, default: str = "0") -> str:
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default


def list_devices() -> None:
    print("Available devices:")
    for name, total, free in ORDERS["devices"]:
        print(f"  {name}: A device of a test (rev 1) ({total} MiB, {free} MiB free)")


def load() -> None:
    names, layers, pool = value("--device", "none").split(","), int(value("--gpu-layers")), int(value("--ctx-size"))
    most = ORDERS.get("most", {})
    if layers and (pool > most.get("pool", pool) or layers > most.get("layers", layers)):
        print(f"ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9.00 MiB on device 0: {OUT}", file=sys.stderr)
        print(f"0.00.000.001 E alloc_tensor_range: failed to allocate {names[0]} buffer of size 9", file=sys.stderr)
        raise SystemExit(1)
    if layers and ORDERS.get("lost"):
        print(ORDERS["lost"], file=sys.stderr)
        if ORDERS.get("lost_at") == "load":
            os.abort()
    shares = [int(part) for part in value("--tensor-split", str(layers)).split(",")]
    for name, share in zip(names, shares, strict=True) if layers else ():
        for what, size in (("model", share), ("KV", 2 * share), ("compute", 1)):
            print(f"load_tensors: {name:>10} {what} buffer size = {size:8.2f} MiB", file=sys.stderr)
    sys.stderr.flush()


OUT = "cudaMalloc failed: out of memory"

if "--list-devices" in sys.argv:
    list_devices()
elif "--help" in sys.argv:
    import re

    text = (Path(__file__).resolve().parent.parent / "corral/engine/load_options.py").read_text()
    print(*sorted({*re.findall(r'"(--[a-z-]+)"', text), "--model", "--ctx-size"}), sep="\n")
else:
    load()
    import runpy

    given = iter(sys.argv[1:])
    kept = []
    for word in given:
        if word in ("--device", "--tensor-split", "--n-cpu-moe", "--verbosity"):
            next(given)
        elif word != "--no-mmproj-offload":
            kept.append(word)
    sys.argv[1:] = kept
    runpy.run_path(str(Path(__file__).resolve().parent / "fake_engine.py"), run_name="__main__")
