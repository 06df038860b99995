"""Settings: what cannot be read, and variables that look like settings and are none."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import fields

from corral import config
from corral.config import Config, Loaded
from corral.doctor.findings import Finding
from corral.errors import ConfigError

SUBJECT = "Settings"

WITHOUT_EFFECT = {
    **dict.fromkeys(("OLLAMA_VULKAN", "OLLAMA_IGPU_ENABLE", "OLLAMA_LLM_LIBRARY"), "the engine's build decides that"),
    **dict.fromkeys(
        ("OLLAMA_REMOTES", "OLLAMA_AUTH", "OLLAMA_EXPERIMENT", "OLLAMA_CLOUD_BASE_URL"),
        "Corral never asks the cloud of a vendor",
    ),
    "OLLAMA_MAX_TRANSFER_STREAMS": "models of that kind are not supported",
    "OLLAMA_DEBUG_LOG_REQUESTS": "requests are not logged",
    "OLLAMA_EDITOR": "it is read, but nothing follows from it yet",
    "OLLAMA_NO_CLOUD": "Corral never asks the cloud of a vendor",
}
"""Variables of Ollama's that change nothing here, and why (docs/compatibility.md)."""

NO_SETTINGS = ("CORRAL_CONFIG", config.API_KEY)


def examine(loaded: Loaded | None, unreadable: ConfigError | None) -> Iterator[Finding]:
    """`loaded` is None when the settings cannot be used, for the reason that is given then."""
    if unreadable is not None:
        remedy = "mend it: no command works before that. What follows is said of the default settings"
        yield Finding(SUBJECT, "wrong", str(unreadable), remedy)
    if loaded is not None:
        for name, remark in loaded.remarks.items():
            yield Finding(SUBJECT, "wrong", remark, f"`corral config` shows what {name} is now")
    yield from variables(config.given_variables())
    if loaded is not None and not loaded.remarks:
        given = sorted(name for name, origin in loaded.origins.items() if origin != "default")
        text = f"you have set {', '.join(given)}" if given else "all as they are by default"
        yield Finding(SUBJECT, "ok", f"{text} (`corral config`)")


def variables(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Those of the environment that begin like settings and are none, or have no effect."""
    known = {variable for setting in fields(Config) if (variable := setting.metadata["variable"])} | set(NO_SETTINGS)
    for name in sorted(environ):
        if name in WITHOUT_EFFECT:
            yield Finding(SUBJECT, "note", f"{name} has no effect: {WITHOUT_EFFECT[name]}")
        elif name.startswith(("OLLAMA_", "CORRAL_")) and name not in known:
            alike = difflib.get_close_matches(name, sorted(known), 1, 0.85)
            remedy = f"did you mean {alike[0]}?" if alike else "`corral config` lists all variables that mean something"
            yield Finding(SUBJECT, "wrong" if alike else "note", f"{name} means nothing to Corral", remedy)
