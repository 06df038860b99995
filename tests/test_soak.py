"""Many clients for two minutes, with the fake engine; `benchmarks/soak.py` does it for as long as one likes."""

import subprocess
import sys

from tests.conftest import ROOT


def test_every_client_gets_its_own_answer_and_nothing_is_left() -> None:
    """With clients that leave, change models and send nonsense, and at last with more than may wait."""
    options = "--minutes 1.5 --clients 40 --queue 60 --growth 25 --rough"
    run = subprocess.run(
        [sys.executable, "benchmarks/soak.py", *options.split()], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.endswith("nothing was wrong\n")
