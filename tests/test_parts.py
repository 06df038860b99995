"""Parts that run side by side: whatever fails is seen, and nothing is left running."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import parts, rings
from tests.conftest import ROOT
from tests.parts import Part
from tests.processes import wait_for_end

GOOD = [sys.executable, "-c", "print('all is well')"]
BAD = [sys.executable, "-c", "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"]


def test_all_run_to_their_end_and_each_that_fails_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    given = [Part("first", BAD), Part("second", GOOD), Part("third", BAD), Part("help", BAD, aid=True)]
    assert sorted(parts.run(given)) == ["first", "third"]
    shown = capfd.readouterr()
    assert [shown.out.count(text) for text in ("all is well\n", "out\n", "err\n")] == [1, 3, 2]
    assert shown.err == "err\n"
    endings = sorted(line.partition(" after ")[0] for line in shown.out.splitlines() if line.startswith("== "))
    assert endings == ["== first: ended with 3", "== help: ended with 3", "== second: passed", "== third: ended with 3"]


def test_who_ends_the_whole_sees_what_was_printed_and_leaves_nothing_running(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    os.mkfifo(begun)
    waits = f"import os; print('so far', flush=True); open({str(begun)!r}, 'w').write(str(os.getpid())); "
    waits += "import time; time.sleep(600)"
    program = "from tests import parts; parts.end_with_a_signal(); "
    program += f"parts.run([parts.Part('first', {GOOD!r}), parts.Part('second', {[sys.executable, '-c', waits]!r})])"
    whole = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    pid = int(begun.read_text())
    whole.terminate()
    shown, _ = whole.communicate(timeout=60)
    assert "so far\n" in shown
    assert "== second: ended with" in shown
    assert whole.returncode == 128 + signal.SIGTERM
    wait_for_end(pid)


def test_the_parts_are_everything_there_is() -> None:
    files = [argument for part in parts.tests() for argument in part.command if argument.endswith(".py")]
    assert sorted(files) == sorted(map(str, rings.modules().values()))
    assert [part.aid for part in (*parts.tests(), *parts.checks())] == [False, False, False, True, *[False] * 5]
