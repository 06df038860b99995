"""A real systemd of a user, in namespaces of its own. Needs root (or sudo), and the programs `systemd` and `unshare`.

It sees the machine's files, of which it can change none but those below one folder, and no other processes.
"""

import os
import shutil
import subprocess
from pathlib import Path

from tests.namespaces import as_root

PROGRAM = "/lib/systemd/systemd"

_PREPARE = r"""
set -eu
mount --bind "$FOLDER" "$FOLDER"
mount -o remount,ro,bind /
cd "$FOLDER"
mount -t tmpfs none /run
mkdir -p /run/systemd/system "/run/user/0"
chmod 700 /run/user/0
umount --recursive /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
export HOME="$FOLDER" XDG_RUNTIME_DIR=/run/user/0
unset XDG_CONFIG_HOME
"$PROGRAM" --user > "$FOLDER/systemd.log" 2>&1 &
for _ in $(seq 100); do
    systemctl --user is-system-running > /dev/null 2>&1 && break
    systemctl --user list-units > /dev/null 2>&1 && break
    sleep 0.1
done
set +e
"""


def run_under_systemd(folder: Path, script: str, **variables: str) -> str:
    """What a shell script prints that runs with a systemd of its own, whose home is `folder`.

    Fails where namespaces cannot be made, and says what is missing.
    """
    assert Path(PROGRAM).exists(), "install the package systemd"
    assert shutil.which("systemctl"), "install the package systemd"
    environment = {"PATH": os.environ["PATH"], "FOLDER": str(folder), "PROGRAM": PROGRAM, **variables}
    command = [*as_root(), "unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "bash", "-c"]
    done = subprocess.run(
        [*command, _PREPARE + script], env=environment, capture_output=True, text=True, timeout=120, cwd=folder
    )
    log = folder / "systemd.log"
    assert done.returncode == 0, done.stdout + done.stderr + (log.read_text() if log.exists() else "")
    return done.stdout
