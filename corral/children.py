"""What every child process of ours does: it ends with its parent, and sees no secret of its parent's environment.

Knows nothing of what the children are for.
"""

import contextlib
import ctypes
import os
import signal
import sys
import threading
from typing import BinaryIO

from corral.config import child_environment

_KEPT = (
    *("CUDA_", "DYLD_", "GGML_", "GOMP_", "GPU_", "HIP_", "HSA_", "LC_", "LD_", "LLAMA_ARG_", "OMP_", "PYTHON"),
    *("ROCR_", "VK_"),
)
_KEPT_WHOLE = ("HOME", "LANG", "PATH", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR", "VIRTUAL_ENV")


def environment() -> dict[str, str]:
    """What a child may see of our environment: how to find its libraries and devices, no secret.

    A debugger that native code calls over its own corpse only delays the news.
    """
    kept = {key: value for key, value in child_environment().items() if key.startswith(_KEPT) or key in _KEPT_WHOLE}
    return {"GGML_NO_BACKTRACE": "1", **kept}


def take_standard_output() -> BinaryIO:
    """The child's channel to its parent. What native code prints goes to standard error, so that it cannot get in."""
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return channel


def signal_at_parents_end(number: signal.Signals) -> None:
    """Has the kernel send this process a signal when its parent ends. On Linux only; elsewhere nothing happens."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, number)


def end_with_parent(parent: int) -> None:
    """Ends this process when the one with the id `parent` ends, however it does. Ctrl+C is left to the parent.

    Linux sends a signal, which also reaches native code that holds the interpreter; elsewhere a thread waits for
    standard input to close.
    """
    signal_at_parents_end(signal.SIGKILL)
    if sys.platform == "linux" and os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 4096):
                pass
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
