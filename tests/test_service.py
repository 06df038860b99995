"""`corral service`: what each system's service manager gets, and a real systemd that runs it."""

import plistlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest

from corral.errors import BadRequest, CorralError
from corral.services import here, install
from corral.services.recipe import Definition, Recipe
from tests.conftest import ROOT
from tests.systemd import run_under_systemd

AWKWARD = 'a "b" %h $HOME ${HOME} \\ \' #'
"""A value in which every character that a unit file treats specially stands for itself."""


def definition(user: str = "", **changes: object) -> Definition:
    values = {"command": ("/opt/my python", "-m", "corral"), "environment": {"OLLAMA_HOST": "h:1"}, "log": Path("/l")}
    return Definition(user=user, **{**values, **changes})  # type: ignore[arg-type]


def recipe(platform: str, wanted: Definition, folder: Path) -> Recipe:
    return here.recipe(platform, wanted, home=folder, config=folder / "config", state=folder / "state", user_number=501)


class Manager:
    """A service manager that writes down what it is asked, and fails at what it is told to."""

    def __init__(self, *fails: str) -> None:
        self.asked: list[str] = []
        self.fails = fails

    def __call__(self, words: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        line = " ".join(words)
        self.asked.append(line)
        fails = any(word in line for word in self.fails)
        return subprocess.CompletedProcess(words, int(fails), "", "it is a bad day" if fails else "")


def test_launchd_gets_a_property_list(tmp_path: Path) -> None:
    agent = recipe("darwin", definition(), tmp_path)
    assert agent.file == tmp_path / "Library/LaunchAgents/local.corral.serve.plist"
    values = plistlib.loads(agent.data)
    assert values["ProgramArguments"] == ["/opt/my python", "-m", "corral"]
    assert values["EnvironmentVariables"] == {"OLLAMA_HOST": "h:1"}
    assert values["KeepAlive"]
    assert values["RunAtLoad"]
    assert "UserName" not in values
    assert agent.start[-1].words == ("launchctl", "bootstrap", "gui/501", str(agent.file))
    daemon = recipe("darwin", definition("ann"), tmp_path)
    assert daemon.file.parent == Path("/Library/LaunchDaemons")
    assert plistlib.loads(daemon.data)["UserName"] == "ann"


def test_windows_gets_a_task(tmp_path: Path) -> None:
    task = recipe("win32", definition(command=(r"C:\a & b\python.exe", "-m", "corral")), tmp_path)
    root = ElementTree.fromstring(task.data.decode("utf-16").partition("?>")[2])
    space = {"t": "http://schemas.microsoft.com/windows/2004/02/mit/task"}
    assert root.findtext(".//t:Command", namespaces=space) == r"C:\a & b\python.exe"
    assert root.findtext(".//t:Arguments", namespaces=space) == "-m corral"
    assert root.find(".//t:LogonTrigger", space) is not None
    assert "setx" in task.remarks[0]
    assert "OLLAMA_HOST" in task.remarks[0]
    assert recipe("win32", definition("ann"), tmp_path).text.count("BootTrigger") == 2


def test_another_system_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match='no service manager is known for "freebsd14"'):
        recipe("freebsd14", definition(), tmp_path)


@pytest.mark.parametrize("user", ["", "root"])
def test_systemd_finds_nothing_wrong_with_a_unit(user: str, tmp_path: Path) -> None:
    file = tmp_path / "corral.service"
    file.write_bytes(recipe("linux", definition(user, command=(sys.executable, "-c", "x % y")), tmp_path).data)
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", file], capture_output=True, text=True)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "corral" in line]) == (0, [])


def test_a_line_end_cannot_get_into_a_unit(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="a service cannot have"):
        recipe("linux", definition(environment={"OLLAMA_ORIGINS": "x\nExecStartPre=/bin/evil"}), tmp_path)


def test_the_file_is_put_back_when_the_service_does_not_start(tmp_path: Path) -> None:
    old, new = (recipe("linux", definition(environment={"A": text}), tmp_path) for text in "12")
    with pytest.raises(CorralError, match=r"`systemctl --user enable corral.service` failed: it is a bad day"):
        install.install(old, Manager("enable"))
    assert not old.file.exists()
    install.install(old, Manager())
    with pytest.raises(CorralError):
        install.install(new, Manager("restart"))
    assert old.file.read_bytes() == old.data
    assert [path.name for path in old.file.parent.iterdir()] == ["corral.service"]


def test_the_file_of_somebody_else_stays(tmp_path: Path) -> None:
    ours = recipe("linux", definition(), tmp_path)
    ours.file.parent.mkdir(parents=True)
    ours.file.write_text("[Service]\nExecStart=/bin/true\n")
    for change in (install.install, install.remove):
        with pytest.raises(BadRequest, match="was not made by"):
            change(ours, Manager())
    assert ours.file.read_text().startswith("[Service]")


def test_removing_is_no_fault_where_it_had_stopped(tmp_path: Path) -> None:
    ours, manager = recipe("darwin", definition(), tmp_path), Manager()
    install.install(ours, manager)
    assert install.remove(ours, Manager("bootout"))
    assert not ours.file.exists()
    assert not install.remove(ours, manager)


def test_a_real_systemd_runs_what_is_installed(tmp_path: Path) -> None:
    """Words and variables arrive as they are; the server answers, and comes back when it is killed."""
    (tmp_path / "echo.py").write_text("import os, sys\nprint(sys.argv[1:], os.environ['AWKWARD'])\n")
    echo = definition(command=(sys.executable, str(tmp_path / "echo.py"), AWKWARD), environment={"AWKWARD": AWKWARD})
    unit = recipe("linux", echo, tmp_path).text.replace(
        "Type=exec", f"Type=oneshot\nStandardOutput=file:{tmp_path}/said"
    )
    units = tmp_path / ".config" / "systemd" / "user"
    units.mkdir(parents=True)
    (units / "echo.service").write_text(unit.replace("Restart=always\n", ""))
    script = """
        systemctl --user daemon-reload
        systemctl --user start echo.service
        corral() { "$PYTHON" -m corral service "$@" 2>&1; }
        answers() { until corral status | grep "answers  yes"; do sleep 0.1; done; }
        corral install < /dev/null | tail -1
        corral install --yes | tail -1
        answers
        kill -9 $(systemctl --user show --value --property MainPID corral.service)
        while corral status > /dev/null; do sleep 0.05; done
        answers
        systemctl --user is-enabled corral.service
        corral remove --yes | tail -1
        systemctl --user is-active corral.service
        corral status
        true
    """
    lines = run_under_systemd(
        tmp_path, script, PYTHON=sys.executable, PYTHONPATH=str(ROOT), OLLAMA_HOST="127.0.0.1:11999"
    ).splitlines()
    assert (tmp_path / "said").read_text() == f"{[AWKWARD]} {AWKWARD}\n"
    assert lines == [
        "Error: nobody is there to be asked: give --yes to do it, or --dry-run to only look",
        "installed; what the server logs: journalctl --user-unit corral",
        "answers  yes, on 127.0.0.1:11999",
        "answers  yes, on 127.0.0.1:11999",
        "enabled",
        "removed",
        "inactive",
        "Error: no service is installed; `corral service install` does that",
    ]
