"""The cage: what the processes that open models cannot do on this system, and what is missing for that."""

from collections.abc import Iterator

from corral.cage import Cage, Support, support, wanted
from corral.cage.landlock import NETWORK_ABI, SCOPES_ABI
from corral.config import Config
from corral.doctor.findings import Finding, Level
from corral.system.current import IS_LINUX

SUBJECT = "Cage"


def examine(config: Config) -> Iterator[Finding]:
    """What is found on this machine, judged."""
    yield judged(wanted(config), support() if IS_LINUX else None)


def judged(cage: Cage, found: Support | None) -> Finding:
    """One sentence; `found` None: a system that Corral has no cage for."""
    if cage.mode == "off":
        text = "processes that open models may do all that you may: CORRAL_WORKER_CAGE is off"
        return Finding(SUBJECT, "note", text, "unset it, unless an engine does not work in a cage")
    if found is None:
        level: Level = "wrong" if cage.mode == "required" else "note"
        return Finding(SUBJECT, level, "there is no cage for processes that open models on this system: Linux only")
    open_ = "".join(f"; further folders: {folder}" for folder in [", ".join(cage.folders)] if folder)
    if missing := "; ".join(_missing(found)):
        level = "wrong" if cage.mode == "required" and found.lacking else "note"
        return Finding(
            SUBJECT,
            level,
            f"processes that open models are shut in only in part: {missing}{open_}",
            "a newer kernel has all of it; a container needs a profile that lets Landlock and seccomp through",
        )
    text = (
        "processes that open models read no file but the model's and the system's libraries, reach no other process "
        f"and make no connection (Landlock {found.landlock}, seccomp){open_}"
    )
    return Finding(SUBJECT, "ok", text)


def _missing(found: Support) -> Iterator[str]:
    if not found.landlock:
        yield "without Landlock they can read and write your files"
    elif found.landlock < NETWORK_ABI:
        yield f"Landlock {found.landlock} does not keep them from listening on other ports"
    if not found.seccomp:
        yield "without seccomp they can use sockets other than TCP's"
    if not found.seccomp and found.landlock < SCOPES_ABI:
        yield "they can signal your other processes"
