"""Where other programs keep models: LM Studio, Hugging Face's libraries and llama.cpp, as they find their folders.

Sources: LM Studio's `lms`; `huggingface_hub/constants.py`; `fs_get_cache_directory` of llama.cpp's `common`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from corral.system.current import PLATFORM


@dataclass(frozen=True, slots=True)
class ToolFolders:
    """The folders of each program, which need not be there; no folder twice."""

    lm_studio: tuple[Path, ...] = ()
    hugging_face: tuple[Path, ...] = ()
    llama_cpp: tuple[Path, ...] = ()


def tool_folders(environ: Mapping[str, str], home: Path) -> ToolFolders:
    """By the variables that those programs read, and the user's home folder."""
    cache = _folder(environ, "XDG_CACHE_HOME") or home / ".cache"
    hugging_face = _folder(environ, "HF_HOME")
    hubs = [
        _folder(environ, "HF_HUB_CACHE") or _folder(environ, "HUGGINGFACE_HUB_CACHE"),
        hugging_face / "hub" if hugging_face else None,
        cache / "huggingface" / "hub",
    ]
    return ToolFolders(
        lm_studio=(home / ".lmstudio" / "models", home / ".cache" / "lm-studio" / "models"),
        hugging_face=tuple(dict.fromkeys(hub for hub in hubs if hub)),
        llama_cpp=(_folder(environ, "LLAMA_CACHE") or _llama_cpp(environ, home, cache),),
    )


def _llama_cpp(environ: Mapping[str, str], home: Path, cache: Path) -> Path:
    match PLATFORM:
        case "darwin":
            return home / "Library" / "Caches" / "llama.cpp"
        case "win32":
            return (_folder(environ, "LOCALAPPDATA") or home / "AppData" / "Local") / "llama.cpp"
        case _:
            return cache / "llama.cpp"


def _folder(environ: Mapping[str, str], variable: str) -> Path | None:
    """The folder that a variable names; None where it is not set, or names no home folder that there is."""
    text = environ.get(variable, "").strip()
    try:
        return Path(text).expanduser() if text else None
    except RuntimeError:  # the home of a user that does not exist
        return None
