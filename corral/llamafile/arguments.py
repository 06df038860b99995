"""What a llamafile is started with, in Corral's words. Source: llama.cpp's `common/arg.cpp`, its names of flags."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct, field

MAX_SYSTEM = 32 << 10
"""Characters of a system prompt that are taken."""


class Arguments(Struct, frozen=True):
    """`model` and `projector` are names of members. `parameters` are options of a model by their names in Ollama's API.
    `ignored`: flags that change answers and have no counterpart here."""

    model: str = ""
    projector: str = ""
    system: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()


_FILES = {"-m": "model", "--model": "model", "--mmproj": "projector", "-mm": "projector"}
_SYSTEM = ("-sys", "--system-prompt")
_INTEGERS = {
    **dict.fromkeys(("-c", "--ctx-size"), "num_ctx"),
    **dict.fromkeys(("-n", "--predict", "--n-predict"), "num_predict"),
    **dict.fromkeys(("-s", "--seed"), "seed"),
    "--top-k": "top_k",
    "--repeat-last-n": "repeat_last_n",
    "--keep": "num_keep",
}
_NUMBERS = {
    **dict.fromkeys(("--temp", "--temperature"), "temperature"),
    "--top-p": "top_p",
    "--min-p": "min_p",
    **dict.fromkeys(("--typical", "--typical-p"), "typical_p"),
    "--repeat-penalty": "repeat_penalty",
    "--presence-penalty": "presence_penalty",
    "--frequency-penalty": "frequency_penalty",
}
_STOP = ("-r", "--reverse-prompt")
_UNKNOWN_HERE = ("--chat-template", "--chat-template-file", "--jinja", "--lora", "--grammar", "--grammar-file", "-p")
"""Flags whose meaning is lost, and said to be: the template is the model's own."""
_MEANINGLESS = {"num_ctx": (0,), "seed": (-1,)}
"""Values by which llama.cpp means "as the model says"."""


def parse(text: str) -> Arguments:
    """The lines of `.args`, a word each, up to `...`, where a user's own arguments would follow. What is unknown is
    passed over: most of it is about the program."""
    words = [line.strip() for line in text.splitlines()]
    words = words[: words.index("...")] if "..." in words else words
    texts: dict[str, str] = {}
    parameters: dict[str, Any] = {}
    ignored: list[str] = []
    for flag, value in _pairs(words):
        if flag in _FILES:
            texts[_FILES[flag]] = value
        elif flag in _SYSTEM:
            texts["system"] = value[:MAX_SYSTEM]
        elif flag in _STOP and value:
            parameters.setdefault("stop", []).append(value)
        elif flag in _UNKNOWN_HERE:
            ignored.append(flag)
        elif flag in _INTEGERS:
            _take(parameters, _INTEGERS[flag], value, int)
        elif flag in _NUMBERS:
            _take(parameters, _NUMBERS[flag], value, float)
    return Arguments(**texts, parameters=parameters, ignored=tuple(ignored))


def _pairs(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each word that is a flag, and the one behind it, which may be its value; `--flag=value` is both."""
    for place, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if word.startswith("-"):
            yield (flag, value) if equals else (word, words[place + 1] if place + 1 < len(words) else "")


def _take(parameters: dict[str, Any], name: str, value: str, kind: Callable[[str], float]) -> None:
    """A number that cannot be read is passed over, as one that means "as the model says"."""
    try:
        number = kind(value)
    except ValueError:
        return
    if math.isfinite(number) and abs(number) < 1 << 31 and number not in _MEANINGLESS.get(name, ()):
        parameters[name] = number


def encode(files: Sequence[str], system: str, parameters: Mapping[str, Any]) -> bytes:
    """The arguments by which a llamafile starts with a model and perhaps a projector, its members; `parse` reads them.

    Parameters that have no flag are left out, and a system prompt that `parse` would not take as one.
    """
    lines = ["-m", f"/zip/{files[0]}"]
    if len(files) > 1:
        lines += ["--mmproj", f"/zip/{files[1]}"]
    flags = {name: flag for flag, name in {**_INTEGERS, **_NUMBERS}.items() if flag.startswith("--")}
    for name, value in parameters.items():
        if name in flags and isinstance(value, int | float):
            lines += [flags[name], str(value)]
        elif name == "stop" and isinstance(value, list):
            for stop in value:
                lines += ["-r", stop] if isinstance(stop, str) and "\n" not in stop else []
    if system and "\n" not in system and len(system) <= MAX_SYSTEM:
        lines += ["-sys", system]
    return "".join(f"{line}\n" for line in [*lines, "..."]).encode()
