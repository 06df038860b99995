"""Waiting for a process that is no child of the test's."""

import os
import select

END_TIMEOUT = 60
"""Seconds after which a process that was to end is taken to hang."""


def wait_for_end(pid: int) -> None:
    """Returns when the process has ended, at once when it is gone already."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        ended, _, _ = select.select([descriptor], [], [], END_TIMEOUT)
    finally:
        os.close(descriptor)
    assert ended, f"process {pid} did not end within {END_TIMEOUT} seconds"
