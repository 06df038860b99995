"""Has the event loop of a server watched (`watched_loops.py`), and costs all other programs nothing.

Python imports a module of this name at its start when the folder is in `PYTHONPATH`, so that servers are watched as
they are, however they are started. It does nothing but in a `corral serve` whose environment names the log.
"""

import os
import sys

LOG = "CORRAL_TEST_LOOP_LOG"
"""Variable with the path of the log."""
LIMIT = "CORRAL_TEST_LOOP_LIMIT"
"""Variable with the seconds a callback may take before it is written there."""

if os.environ.get(LOG) and {"serve", "start"} & set(sys.orig_argv) and sys.platform != "win32":
    from importlib import import_module
    from pathlib import Path

    watched_loops = import_module("watched_loops")  # from beside this file, whatever packages there are
    watched_loops.install(Path(os.environ[LOG]), float(os.environ.get(LIMIT, "0.1")))
