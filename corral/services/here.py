"""Which recipe fits a machine."""

from pathlib import Path

from corral.errors import BadRequest
from corral.services import launchd, systemd, task_scheduler
from corral.services.recipe import Definition, Recipe


def recipe(platform: str, definition: Definition, *, home: Path, config: Path, state: Path, user_number: int) -> Recipe:
    """The recipe for a platform, as Python names it.

    `home`, `config` and `state`: the user's folders, of which a service of the system needs none on POSIX systems.
    """
    is_system = bool(definition.user)
    match platform:
        case "linux":
            return systemd.recipe(definition, systemd.SYSTEM_FOLDER if is_system else config / "systemd" / "user")
        case "darwin":
            return launchd.recipe(definition, launchd.DAEMONS if is_system else home / launchd.AGENTS, user_number)
        case "win32":
            return task_scheduler.recipe(definition, state)
    raise BadRequest(f'no service manager is known for "{platform}": have your system start `corral serve`')
