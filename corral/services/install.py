"""Carries a recipe out: writes its file, runs its commands, and takes both back."""

import subprocess
from collections.abc import Callable, Sequence

from corral.errors import BadRequest, CorralError
from corral.services.recipe import MARK, Recipe, Step
from corral.store import disk

STEP_SECONDS = 60.0
Run = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]
"""Runs a command line to its end."""


def run(words: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    """`CorralError` when there is no such program, or it does not end."""
    try:
        return subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=STEP_SECONDS
        )
    except FileNotFoundError as error:
        raise CorralError(f"there is no program `{words[0]}`, which starts services on this kind of system") from error
    except subprocess.TimeoutExpired as error:
        raise CorralError(f"`{' '.join(words)}` did not end within {STEP_SECONDS:.0f} seconds") from error


def install(recipe: Recipe, run: Run = run) -> None:
    """Writes the file and starts the service; when that fails, the file that was there before is there again."""
    before = recipe.file.read_bytes() if is_installed(recipe) else None
    _write(recipe, recipe.data)
    try:
        for one in recipe.start:
            _do(one, run)
    except CorralError:
        if before is None:
            remove(recipe, run)
        else:
            _write(recipe, before)
        raise


def remove(recipe: Recipe, run: Run = run) -> bool:
    """Stops the service and deletes its file; whether there was one."""
    if not is_installed(recipe):
        return False
    for one in recipe.stop:
        _do(one, run)
    recipe.file.unlink(missing_ok=True)
    for one in recipe.forget:
        _do(one, run)
    return True


def is_installed(recipe: Recipe) -> bool:
    """Whether its file is there; `BadRequest` for one that somebody else wrote."""
    try:
        data = recipe.file.read_bytes()
    except FileNotFoundError:
        return False
    if MARK.encode() not in data and MARK.encode("utf-16-le") not in data:
        raise BadRequest(f'"{recipe.file}" was not made by `corral service install`: move it away first')
    return True


def is_running(recipe: Recipe, run: Run = run) -> bool:
    return run(recipe.running.words).returncode == 0


def _do(one: Step, run: Run) -> None:
    done = run(one.words)
    if done.returncode and not one.may_fail:
        reason = (done.stderr or done.stdout).strip() or f"it ended with {done.returncode}"
        raise CorralError(f"`{' '.join(one.words)}` failed: {reason}")


def _write(recipe: Recipe, data: bytes) -> None:
    recipe.file.parent.mkdir(parents=True, exist_ok=True)
    disk.write_whole(recipe.file, data, recipe.file.with_name(f".{recipe.file.name}.new"))
