"""The settings of a process and what else the environment says, read once and handed on as values.

Nothing outside this package reads the environment (tests/test_config.py sees to it).
"""

from corral.config.environment import (
    API_KEY,
    api_key,
    child_environment,
    config_folder,
    editor_command,
    given_variables,
    is_debugging,
    is_dumb_terminal,
    ray_auth_mode,
    sudo_user,
    tool_folders,
    user_folder,
    wants_no_colours,
)
from corral.config.reading import Loaded, load, variables_of
from corral.config.settings import Config

__all__ = [
    "API_KEY",
    "Config",
    "Loaded",
    "api_key",
    "child_environment",
    "config_folder",
    "editor_command",
    "given_variables",
    "is_debugging",
    "is_dumb_terminal",
    "load",
    "ray_auth_mode",
    "sudo_user",
    "tool_folders",
    "user_folder",
    "variables_of",
    "wants_no_colours",
]
