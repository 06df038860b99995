"""What every child process of ours does: it ends with its parent, and sees no secret of its parent's environment.

Knows nothing of what the children are for.
"""

import contextlib
import os
import re
import signal
import threading
from typing import BinaryIO

from corral.config import child_environment
from corral.system.processes import end_at_parents_end, has_lost_parent

_BEGINNINGS = (
    *("CUDA_", "GGML_", "GOMP_", "HIP_", "HSA_", "KMP_", "LC_", "LLAMA_ARG_", "MKL_", "NVIDIA_", "OMP_", "OPENBLAS_"),
    *("LIBGL_", "MESA_", "RADV_", "ROCR_", "SYCL_", "VK_", "ZE_"),
)
"""What the names of settings of engines, their numeric libraries and their devices begin with."""

_NAMES = frozenset(
    {
        *("HOME", "LANG", "PATH", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR", "TZ", "VIRTUAL_ENV"),
        *("LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "MALLOC_ARENA_MAX"),
        *("GPU_DEVICE_ORDINAL", "GPU_MAX_HEAP_SIZE", "ONEAPI_DEVICE_SELECTOR"),
        *("PYTHONPATH", "PYTHONHOME", "PYTHONUSERBASE", "PYTHONNOUSERSITE", "PYTHONPYCACHEPREFIX", "PYTHONUTF8"),
        *("PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED", "PYTHONMALLOC", "PYTHONWARNINGS", "PYTHONIOENCODING"),
    }
)

_SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|SDK_?KEY|AUTH")
"""What is found in the names of variables that hold secrets, whatever they begin with."""


def environment() -> dict[str, str]:
    """What a child may see of our environment: how to find its libraries and devices, no secret.

    A debugger that native code calls over its own corpse only delays the news.
    """
    kept = {name: value for name, value in child_environment().items() if _is_kept(name)}
    return {"GGML_NO_BACKTRACE": "1", **kept}


def _is_kept(name: str) -> bool:
    return (name in _NAMES or name.startswith(_BEGINNINGS)) and not _SECRET.search(name.upper())


def take_standard_output() -> BinaryIO:
    """The child's channel to its parent. What native code prints goes to standard error, so that it cannot get in."""
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return channel


def end_with_parent(parent: int) -> None:
    """Ends this process when the one with the id `parent` ends, however it does. Ctrl+C is left to the parent.

    Linux sends a signal, which also reaches native code that holds the interpreter; elsewhere a thread waits for
    standard input to close.
    """
    end_at_parents_end()
    if has_lost_parent(parent):
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
