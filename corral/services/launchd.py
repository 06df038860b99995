"""An agent of the user, or a daemon of the system, of macOS. Source: launchd.plist(5), launchctl(1)."""

import plistlib
from pathlib import Path
from typing import Any

from corral.services.recipe import MARK, NAME, Definition, Recipe, step

LABEL = f"local.{NAME}.serve"
AGENTS = Path("Library") / "LaunchAgents"
"""Below the user's home folder."""
DAEMONS = Path("/Library/LaunchDaemons")


def recipe(definition: Definition, folder: Path, user_number: int) -> Recipe:
    """`user_number` names the user's session, to which an agent belongs."""
    file = folder / f"{LABEL}.plist"
    domain = "system" if definition.user else f"gui/{user_number}"
    out = step("launchctl", "bootout", f"{domain}/{LABEL}", may_fail=True)
    return Recipe(
        manager="launchd",
        file=file,
        data=_property_list(definition),
        start=(out, step("launchctl", "bootstrap", domain, str(file))),
        stop=(out,),
        forget=(),
        running=step("launchctl", "print", f"{domain}/{LABEL}"),
        log=f'tail -f "{definition.log}"',
    )


def _property_list(definition: Definition) -> bytes:
    values: dict[str, Any] = {
        "Label": LABEL,
        "ProgramArguments": list(definition.command),
        "EnvironmentVariables": dict(definition.environment),
        "RunAtLoad": True,
        "KeepAlive": True,
        "StandardOutPath": str(definition.log),
        "StandardErrorPath": str(definition.log),
    }
    if definition.user:
        values["UserName"] = definition.user
    head, line, rest = plistlib.dumps(values, sort_keys=False).partition(b"<plist")
    return head + f"<!-- {MARK} -->\n".encode() + line + rest
