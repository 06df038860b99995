"""Many clients for a few seconds, with the fake engine; `benchmarks/soak.py` does it for as long as one likes."""

import subprocess
import sys

from tests.conftest import ROOT


def test_every_client_gets_its_own_answer_and_nothing_is_left() -> None:
    """With clients that leave, change models and send nonsense, and at last with more than may wait."""
    command = [sys.executable, "benchmarks/soak.py", "--minutes", "0.1", "--clients", "60", "--rough", "--growth", "25"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.endswith("nothing was wrong\n")
