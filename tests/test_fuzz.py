"""Some seconds of random bytes for every reader of files from strangers; `scripts/fuzz` gives them more."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import targets
from tests.fuzz.seeds import SEEDS

SECONDS = 3

pytestmark = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64") or sys.version_info >= (3, 14),
    reason="atheris has no wheels for this platform (see pyproject.toml)",
)


@pytest.mark.parametrize("target", targets.TARGETS)
def test_random_bytes_are_read_or_refused(tmp_path: Path, target: str) -> None:
    command = [sys.executable, "-m", "tests.fuzz.fuzzer", target, str(SECONDS), str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-4000:]
    executed = [line for line in run.stderr.splitlines() if line.startswith("stat::number_of_executed_units:")]
    assert int(executed[0].split()[-1]) > len(SEEDS[target])


def test_what_breaks_a_reader_is_found(tmp_path: Path) -> None:
    """A target that is broken on purpose: it cannot bear the bytes that it began with."""
    program = (
        f"import sys; sys.argv[1:] = ['gguf', '10', {str(tmp_path)!r}]\n"
        "from tests.fuzz import fuzzer, targets\n"
        "def broken(data):\n"
        "    if data.startswith(b'GGUF'): raise KeyError('found')\n"
        "targets.TARGETS['gguf'] = broken\n"
        "fuzzer.main()"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode != 0
    assert "KeyError: 'found'" in run.stdout + run.stderr
    assert list(tmp_path.glob("crash-*"))
