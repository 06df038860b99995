"""What a program prints when it is asked what it is. Knows no engine."""

import subprocess
from collections.abc import Sequence

from corral import children
from corral.errors import reason_of

MOST = 1 << 20
"""Bytes that are read of it."""


def printed(command: Sequence[str], seconds: float) -> tuple[list[str], str]:
    """The lines that a child process prints, and why they are of no use; empty where they are. Blocking."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            env=children.environment(),
        )
    except subprocess.TimeoutExpired:
        return [], f"it did not answer within {seconds:g} seconds"
    except OSError as error:
        return [], f"it cannot be started: {reason_of(error)}"
    lines = done.stdout[:MOST].decode("utf-8", "replace").splitlines()
    if not done.returncode:
        return lines, ""
    how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit status {done.returncode}"
    return lines, f"it ended with {how}"
