"""The keyboard while nothing reads from it. An answer that streams would be mixed with what is typed meanwhile."""

import sys
from contextlib import AbstractContextManager

from corral.cli.display import terminal
from corral.system import consoles
from corral.system.consoles import is_posix

__all__ = ["is_posix", "quiet"]


def quiet() -> AbstractContextManager[consoles.Keyboard]:
    """For as long as the block takes, keys wait unseen for the one who reads them next, where that can be had."""
    return consoles.quiet_keyboard(takes_codes=terminal.can_draw(sys.stdout))
