"""Files in quarantine: which models are not loaded, and what can be done."""

from collections.abc import Iterator

from corral.config import Config
from corral.doctor.findings import Finding
from corral.doctor.store import SUBJECT
from corral.engine import choice
from corral.engine.llama.build import build
from corral.errors import StoreError
from corral.models.quarantine import Kept, Quarantine
from corral.store import Store


def examine(config: Config) -> Iterator[Finding]:
    """What is found in the models folder, judged; nothing where that cannot be read, which is said elsewhere."""
    try:
        found = Quarantine(Store(config.models), lambda: build(choice.current(config).program)).all()
    except (StoreError, OSError):
        return
    yield from map(judged, found)


def judged(one: Kept) -> Finding:
    names = ", ".join(map(str, one.models)) or str(one.digest)
    if one.released:
        return Finding(SUBJECT, "note", f"{names}: loaded all the same, although {one.reason}")
    first = one.models[0] if one.models else one.digest
    remedy = f"`corral rm {first}` removes it; `corral quarantine release {first}` loads it all the same"
    return Finding(SUBJECT, "wrong", f"{names}: in quarantine: {one.reason}", remedy)
