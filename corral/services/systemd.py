"""A service of systemd: of the user's session, or of the system. Source: systemd.unit(5), systemd.service(5)."""

from pathlib import Path

from corral.errors import BadRequest
from corral.services.recipe import MARK, NAME, Definition, Recipe, step

SYSTEM_FOLDER = Path("/etc/systemd/system")
STOP_SECONDS = 30
"""How long answers that are being written may hold up the end of the service."""
_HARDENING = ("NoNewPrivileges=yes", "ProtectSystem=full", "ProtectControlGroups=yes", "ProtectKernelTunables=yes")
"""What a service of the system has no need to do; workers shut themselves in further."""


def recipe(definition: Definition, folder: Path) -> Recipe:
    """`folder`: where the manager of the user's session, or of the system, looks for units."""
    unit = f"{NAME}.service"
    is_system = bool(definition.user)
    systemctl = ("systemctl",) if is_system else ("systemctl", "--user")
    linger = "without a login it runs only while you are logged in; `loginctl enable-linger` changes that"
    return Recipe(
        manager="systemd",
        file=folder / unit,
        data=_unit(definition).encode(),
        start=(
            step(*systemctl, "daemon-reload"),
            step(*systemctl, "enable", unit),
            step(*systemctl, "restart", unit),
        ),
        stop=(step(*systemctl, "disable", "--now", unit, may_fail=True),),
        forget=(step(*systemctl, "daemon-reload"),),
        running=step(*systemctl, "is-active", "--quiet", unit),
        log=f"journalctl {'--unit' if is_system else '--user-unit'} {NAME}",
        remarks=() if is_system else (linger,),
    )


def _unit(definition: Definition) -> str:
    is_system = bool(definition.user)
    command = " ".join(_quoted(word).replace("$", "$$") for word in definition.command)
    environment = [f"Environment={_quoted(f'{name}={text}')}" for name, text in sorted(definition.environment.items())]
    service = [
        "Type=exec",
        f"ExecStart={command}",
        *environment,
        *([f"User={definition.user}", *_HARDENING] if is_system else []),
        "Restart=always",
        "RestartSec=3",
        f"TimeoutStopSec={STOP_SECONDS}",
    ]
    parts = {
        "Unit": ["Description=Corral, large language models on this machine", "After=network-online.target"],
        "Service": service,
        "Install": [f"WantedBy={'multi-user.target' if is_system else 'default.target'}"],
    }
    if is_system:
        parts["Unit"].append("Wants=network-online.target")
    sections = "\n".join("\n".join([f"[{name}]", *lines, ""]) for name, lines in parts.items())
    return f"# {MARK}; `corral service remove` takes it out\n{sections}"


def _quoted(word: str) -> str:
    """A word of a unit file, in which `%` begins a placeholder; `BadRequest` for one that holds a line's end."""
    if not word.isprintable():
        raise BadRequest(f"a service cannot have {word!r} in its command line or variables")
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'
