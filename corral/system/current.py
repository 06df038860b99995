"""Which system this is, for what has to be decided or said by it: where files lie, what a command is called."""

import sys

PLATFORM: str = sys.platform
"""As Python names it: `linux`, `darwin`, `win32`, …"""

IS_LINUX = PLATFORM == "linux"
IS_WINDOWS = PLATFORM == "win32"
