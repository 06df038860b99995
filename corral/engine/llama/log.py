"""A worker's log: where it lies, and what llama.cpp's lines mean. Knows no process.

A line of llama.cpp carries the time since start and a level, `0.00.003.274 E llama_model_load: error loading model: …`;
older programs and crashes print the text alone. What is handed on is the text without time, level and function.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from corral.engine.placement import Bytes

LOADED = b"initializing, n_slots"
"""What llama-server prints when all is loaded but the model's chat template, which it tries next."""

FAILED = "exiting due to model loading error"
"""What llama-server prints last after any failed load."""

KEPT_LOGS = 32
"""Logs of workers that are kept."""

_MOST = 4 << 20
"""Bytes of a log that are searched for its first error; a load prints some kilobytes."""

_LINE = re.compile(
    r"(?:\d+\.\d\d\.\d{3}\.\d{3} (?P<level>[A-Z]) )?"  # the clock and the level
    r"(?P<function>[a-z]{3,4} +[\w:~()]+: |[A-Za-z]\w*_[\w:~]*: )?"  # `srv    load_model: `, `ggml_aligned_malloc: `
    r"(?P<text>.*)"
)
_ERROR_WORDS = re.compile(
    r"\berror\b|^(?:failed|unable|insufficient|cannot|terminate called|GGML_ASSERT)\b|: GGML_ASSERT\("
    r"|Malloc failed: |memory allocation of size ",
    re.IGNORECASE,
)
"""How a text without a level is recognised as an error."""

_TEMPLATE_ERROR = re.compile(r"(?:common_chat_templates_init: error|^Error): (?:Jinja Exception: )?(.+)", re.MULTILINE)
"""Why a template does not parse; or, after lines that show where in the template, why it fails when it is tried."""

_BUFFER = re.compile(r"\s*(\S{1,64}) (model|KV|RS|compute|output) buffer size = +(\d{1,9}\.\d+) MiB\s*")
_KIND = {"model": "weights", "KV": "cache", "RS": "cache", "compute": "compute", "output": "compute"}
"""What llama.cpp says that it holds, and on which device; a loader of each kind may say so more than once."""

_DEVICE_LOST = re.compile(
    r"\bErrorDeviceLost\b|\bdevice (?:is )?lost\b|\bvk::\w+Error\b|\b(?:CUDA|ROCm|HIP|MUSA|SYCL|Metal) error\b"
    r"|ggml_(?:cuda|metal|vulkan|vk|sycl)\w*: .*(?:failed|error)",
    re.IGNORECASE,
)

_PART_FAILED = re.compile(r"failed to load (?:lora adapter|multimodal model),? '.*'")
"""Names the file of a model's part that cannot be loaded; the errors before it do not."""

_OUT_OF_MEMORY = re.compile(
    r"""
      (?:error\ loading\ model:\ |failed\ to\ initialize\ the\ context:\ |error:\ )?
      (?: failed\ to\ allocate\ (?:\S+\ )?buffer(?:\ of|,)\ size\b                            # ggml, its back ends
        | failed\ to\ allocate\ buffer\ for\ (?:kv\ cache|rs\ cache|lora\ adapter|control\ vector)
        | failed\ to\ allocate\ (?:compute\ (?:pp\ |tg\ )?buffers|output\ buffer\b|\ *[\d.]+\ MB|\d+\ bytes)
        | unable\ to\ allocate\ \S+\ buffer
        | insufficient\ memory\ \(attempted\ to\ allocate\b                                   # ggml_aligned_malloc
        | (?:allocating\ [\d.]+\ MiB\ on\ device\ \d+:\ )?(?:cuda|hip|musa)Malloc\ failed:\ out\ of\ memory
        | (?:CUDA|ROCm|MUSA)\ error:\ out\ of\ memory
        | (?:Device|Host)\ memory\ allocation\ of\ size\ \d+\ failed                          # Vulkan
        | .*\bErrorOutOf(?:Device|Host)Memory\b
        | (?:terminate\ called\ after\ throwing\ an\ instance\ of\ '|what\(\):\ +)?std::bad_alloc\b
      )""",
    re.VERBOSE,
)
"""The lines in which llama.cpp and ggml report that memory could not be had."""


def new_log(folder: Path, name: str, kind: str = "*.log") -> Path:
    """Where a new worker's prints go; those of the last workers are kept, of all that are named like `kind`. Blocks."""
    with contextlib.suppress(OSError):
        logs = sorted(folder.glob(kind), key=lambda log: log.stat().st_mtime)
        for old in logs[: max(0, len(logs) - KEPT_LOGS + 1)]:
            old.unlink()
    return folder / name


class WorkerLog:
    """The file that a worker prints to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._searched = 0
        self._has_loaded = False

    def size(self) -> int:
        """Bytes printed so far; 0 when there is no file."""
        return self.path.stat().st_size if self.path.exists() else 0

    def has_loaded(self) -> bool:
        """Whether everything but the chat template is loaded. Each byte is searched once, whatever is printed after."""
        while not self._has_loaded and (printed := self._read(self._searched, 1 << 20)):
            self._has_loaded = LOADED in printed
            if len(printed) < len(LOADED):
                break
            self._searched += len(printed) - len(LOADED) + 1  # the text may lie across two reads
        return self._has_loaded

    def first_error(self) -> str:
        """The first error, which is the cause; before it the adapter or projector it lies in. Empty without errors."""
        errors = list(_errors(self._read(0, _MOST)))
        if not errors:
            return ""
        part = next((found[0] for error in errors if (found := _PART_FAILED.match(error))), "")
        return errors[0] if not part or part in errors[0] else f"{part}: {errors[0]}"

    def is_out_of_memory(self) -> bool:
        """Whether the first error is that memory could not be had."""
        return _OUT_OF_MEMORY.match(next(_errors(self._read(0, _MOST)), "")) is not None

    def buffers(self) -> dict[str, Bytes]:
        """What the engine says it holds on each device, the CPU's buffers among them; blocks."""
        found: dict[str, dict[str, float]] = {}
        for line in self._read(0, _MOST).decode("utf-8", "replace").splitlines():
            text = _LINE.fullmatch(line.strip())
            if text is not None and (said := _BUFFER.fullmatch(text["text"])):
                held = found.setdefault(said[1], {})
                kind = _KIND[said[2]]
                held[kind] = held.get(kind, 0.0) + float(said[3])
        return {
            name: Bytes(**{kind: int(mib * (1 << 20)) for kind, mib in held.items()}) for name, held in found.items()
        }

    def device_error(self) -> str:
        """The last line that says that a device or its driver failed; empty without one."""
        for line in reversed(self._tail().decode("utf-8", "replace").splitlines()):
            if _DEVICE_LOST.search(line):
                found = _LINE.fullmatch(line.strip())
                return (found["text"] if found else line.strip())[:200]
        return ""

    def last_error(self) -> str:
        """The last error among the latest lines; empty without one."""
        return next(iter(reversed([*_errors(self._tail())])), "")

    def last_line(self) -> str:
        """The last line that is not empty, without its time."""
        lines = [_LINE.fullmatch(line.strip()) for line in self._tail().decode("utf-8", "replace").splitlines()]
        return next((line["text"] for line in reversed(lines) if line is not None and line["text"]), "")

    def template_error(self) -> str:
        """Why the engine's run of the model's chat template failed; empty when it does not say."""
        _, _, printed = self._read(0, _MOST).partition(LOADED)
        found = _TEMPLATE_ERROR.search(printed.decode("utf-8", "replace"))
        return found[1].strip() if found else ""

    def _tail(self) -> bytes:
        return self._read(max(0, self.size() - 4000), 4000)

    def _read(self, position: int, size: int) -> bytes:
        try:
            with open(self.path, "rb") as file:
                file.seek(position, os.SEEK_SET)
                return file.read(size)
        except OSError:
            return b""


def _errors(printed: bytes) -> Iterator[str]:
    for line in printed.decode("utf-8", "replace").splitlines():
        found = _LINE.fullmatch(line.strip())
        if found is None or FAILED in found["text"]:
            continue
        if found["level"] == "E" or (found["level"] is None and _ERROR_WORDS.search(found["text"])):
            yield found["text"]
