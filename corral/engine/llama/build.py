"""Which build of the engine there is, as a word for names of files. Starts nothing."""

import hashlib
import os
from pathlib import Path

from corral.engine import wheels
from corral.engine.choice import wheel_version


def build(program: str) -> str:
    """`xllamacpp-1.2.3` for the built-in engine; for another engine, digits that change with its file."""
    if not program:
        return f"xllamacpp-{wheel_version()}".removesuffix("-")
    try:
        file = wheels.library(program) if wheels.is_wheel(program) else None
        status = (file or Path(program)).stat()
        state = f"{program}\0{status.st_size}\0{status.st_mtime_ns}"
    except OSError:
        state = program
    return f"program-{hashlib.sha256(os.fsencode(state)).hexdigest()[:12]}"
