"""Runs one target until an input breaks it, or the time is over: `python -m tests.fuzz.fuzzer TARGET SECONDS FOLDER`.

In the folder lie the inputs that take new paths, and what has broken the target. Ends with 0 when nothing did.
"""

import importlib
import os
import sys
from pathlib import Path

import atheris

READERS = {
    "gguf": "corral.gguf",
    "modelfile": "corral.modelfile",
    "safetensors": "corral.convert.safetensors",
    "names": "corral.names",
    "manifest": "corral.store.manifest",
    "challenges": "corral.sources.registry.auth",
    "events": "corral.engine.llama.events",
    "archive": "corral.sources.archive",
    "llamafile": "corral.llamafile.bundles",
    "media": "corral.media",
}
"""What is watched as it runs, with all that it imports: the whole program would take ten seconds to prepare."""

with atheris.instrument_imports(include=["corral"], enable_loader_override=False):
    importlib.import_module(READERS[sys.argv[1]])

from tests.fuzz import targets  # noqa: E402
from tests.fuzz.seeds import write_seeds  # noqa: E402

HANG = 60
"""Seconds after which an input is given up that does not end; slow ones that end are found by `targets.SECONDS`."""


def main() -> None:
    target, seconds, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    corpus = folder / "corpus"
    write_seeds(target, corpus)
    options = [
        str(corpus),
        f"-max_total_time={seconds}",
        f"-timeout={HANG}",
        f"-rss_limit_mb={targets.MEGABYTES_OF.get(target, targets.MEGABYTES)}",
        "-max_len=16384",
        "-use_value_profile=1",
        f"-artifact_prefix={folder}/",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options], lambda data: targets.run(target, data))
    atheris.Fuzz()


def main_in_own_process() -> None:
    """The fuzzer asks the kernel for its peak of memory, and a process begins with the peak of the one that started it.

    A large test run would thus be taken for a broken reader. A fork of this small program begins with its own figure.
    """
    if (child := os.fork()) == 0:
        main()
    _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main_in_own_process()
