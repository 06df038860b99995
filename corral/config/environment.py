"""The environment of this process, and what is read of it beside the settings: folders, terminal, key, who called."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from corral.config.values import OFF, parse_path
from corral.errors import ConfigError

if TYPE_CHECKING:
    from corral.config.settings import Config
    from corral.config.tools import ToolFolders

API_KEY = "OLLAMA_API_KEY"
"""The variable of the key that clients send, Ollama's own among them."""


def current(environ: Mapping[str, str] | None = None) -> Mapping[str, str]:
    """The environment of this process, unless another is given."""
    return os.environ if environ is None else environ


def user_folder() -> Path:
    """The user's home folder. `ConfigError` when it is not known."""
    try:
        return Path.home()
    except RuntimeError as error:  # a container may run under a user number without a name
        raise ConfigError("your home folder is not known; set HOME") from error


def state_folder(environ: Mapping[str, str] | None = None) -> Path:
    """`$XDG_STATE_HOME`, or where that is by default; a relative one counts for nothing (XDG's specification)."""
    base = Path((environ or {}).get("XDG_STATE_HOME", ""))
    return (base if base.is_absolute() else user_folder() / ".local" / "state") / "corral"


def engines_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Below `$XDG_DATA_HOME`, or where that is by default; a relative one counts for nothing, as for the state."""
    base = Path((environ or {}).get("XDG_DATA_HOME", ""))
    return (base if base.is_absolute() else user_folder() / ".local" / "share") / "corral" / "engines"


def home_folder() -> Path:
    return user_folder() / ".ollama"


def models_folder() -> Path:
    return home_folder() / "models"


def docker_config_file() -> Path:
    return user_folder() / ".docker" / "config.json"


def is_debugging() -> bool:
    """Whether `OLLAMA_DEBUG` is on, for when not even the settings may be readable."""
    return unquoted(os.environ, "OLLAMA_DEBUG").lower() not in ("", *OFF)


def given_variables() -> dict[str, str]:
    """The variables that look like settings of ours or of Ollama's."""
    return {name: text for name, text in os.environ.items() if name.startswith(("OLLAMA_", "CORRAL_"))}


def tool_folders(environ: Mapping[str, str] | None = None) -> "ToolFolders":
    """Where other programs keep models. `ConfigError` when the home folder is not known."""
    from corral.config import tools

    return tools.tool_folders(current(environ), user_folder())


def sudo_user(environ: Mapping[str, str] | None = None) -> str:
    """Who called `sudo` for this program; empty when nobody did."""
    return current(environ).get("SUDO_USER", "")


def api_key(environ: Mapping[str, str] | None = None) -> str:
    """The key that commands send to the server. No setting, since those are shown."""
    return unquoted(current(environ), API_KEY)


def ray_auth_mode(environ: Mapping[str, str] | None = None) -> str:
    """How Ray tells friends from strangers, as its own variable says: `token`, or anything else for not at all."""
    return unquoted(current(environ), "RAY_AUTH_MODE").lower()


def wants_no_colours() -> bool:
    """Whether the user asks every program for output without colours (https://no-color.org)."""
    return bool(os.environ.get("NO_COLOR"))


def is_dumb_terminal() -> bool:
    """Whether the terminal only takes lines: nothing that stands there can be drawn over."""
    return os.environ.get("TERM") == "dumb"


def editor_command(config: "Config", environ: Mapping[str, str] | None = None) -> str:
    """The command line of the editor that the user likes: the setting, else `$VISUAL`, `$EDITOR`, or vi."""
    environ = current(environ)
    return config.editor or environ.get("VISUAL", "").strip() or environ.get("EDITOR", "").strip() or "vi"


def child_environment(**changes: str) -> dict[str, str]:
    """The variables for a child process: all of this process, with changes."""
    return {**os.environ, **changes}


def unquoted(environ: Mapping[str, str], variable: str) -> str:
    """A variable's text without blanks and quotes around it; empty when it is not set (spec cli §13)."""
    return environ.get(variable, "").strip().strip("\"'")


def config_file(environ: Mapping[str, str]) -> Path:
    """`$CORRAL_CONFIG`, else `corral.toml` in the user's configuration folder."""
    if named := environ.get("CORRAL_CONFIG"):
        try:
            return parse_path(named)
        except ValueError as error:
            raise ConfigError(f'CORRAL_CONFIG names no file: "{named}"') from error
    return config_folder(environ) / "corral" / "corral.toml"


def config_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Where programs keep the user's configuration."""
    environ = current(environ)
    return Path(environ.get("XDG_CONFIG_HOME") or user_folder() / ".config")
