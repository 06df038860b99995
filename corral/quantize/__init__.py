"""Quantising a model: its weights are rounded to fewer bits, as llama.cpp's own quantiser would. Knows no store.

`kinds` names what a model may become, `choice` says which type each tensor gets, `run` reads, quantises and writes,
`library` calls the engine's own quantising functions, `imatrix` reads how much each weight counts.
"""

from pathlib import Path

from corral.background import Report
from corral.gguf.output import Written
from corral.quantize.kinds import KINDS, kind_named

__all__ = ["KINDS", "kind_named", "quantize"]


def quantize(
    source: Path, target: Path, kind: str, *, threads: int, report: Report, imatrix: Path | None = None
) -> Written:
    """Writes the model in the GGUF `source` to `target` as one of `KINDS`; for a child process (`corral.job`).

    Floating-point tensors are quantised; what is quantised already stays. `threads` compute at once; progress counts
    the source's bytes. `imatrix` is an importance matrix, in GGUF or in the older format.

    `ModelFileError` for a source or a matrix that cannot be used, `StoreError` and `DiskFull` for the target, which is
    then left half-written: the caller removes it, since it also has to when the process was killed.
    """
    from corral.quantize.run import run  # loads numpy and the engine's library, which takes time and memory

    return run(source, target, kind, threads, report, imatrix)
