"""Go templates for models that name one of Ollama's built-in renderers and have no Jinja template (spec cli §16.4).

They write the turns, tools, calls and results of the model's family, in our own words where they say something. A model
that has a Jinja template is rendered by that.
"""

from functools import cache
from importlib import resources

_FILES: dict[str, tuple[str, ...]] = {
    "qwen3-vl-instruct": ("chatml-json",),
    "qwen3-vl-thinking": ("chatml-json-thinking",),
    "qwen3-coder": ("chatml-xml", "plain-value"),
    **dict.fromkeys(
        ("qwen3.5", "qwen3.8", "ornith", "nemotron-3-nano", "nemotron-3.5-nano"),
        ("chatml-xml-thinking", "plain-value"),
    ),
    **dict.fromkeys(("olmo3", "olmo3.1"), ("olmo3", "python-calls")),
    **dict.fromkeys(("olmo3-think", "olmo3-32b-think"), ("chatml-thinking",)),
    "lfm2": ("lfm2", "python-calls"),
    "lfm2-thinking": ("lfm2-thinking", "python-calls"),
    "deepseek3.1": ("deepseek",),
    "cogito": ("cogito",),
    "glm-4.7": ("glm", "plain-value"),
    "glm-ocr": ("glm-ocr", "plain-value"),
    "laguna": ("laguna", "plain-value"),
    "poolside-v1": ("poolside", "plain-value"),
    "cohere": ("cohere",),
    "glimmer": ("glimmer", "plain-value"),
    "gemma4-small": ("gemma4-small", "gemma-notation"),
    "gemma4-large": ("gemma4-large", "gemma-notation"),
    "functiongemma": ("functiongemma", "gemma-notation"),
}
"""The files that a renderer's template consists of: the turns, then what they use."""


def names() -> frozenset[str]:
    """The renderers that there is a template for."""
    return frozenset(_FILES)


def resolved(renderer: str, *, model: str, parameters: int) -> str:
    """The renderer that a name stands for: that of Gemma 4 depends on the model's name and size (spec cli §16.4)."""
    if renderer != "gemma4":
        return renderer
    is_large = parameters >= LARGE_GEMMA or any(size in model.lower() for size in ("12b", "26b", "31b"))
    return "gemma4-large" if is_large else "gemma4-small"


LARGE_GEMMA = 12_000_000_000
"""Parameters from which on a Gemma 4 is told in every prompt that it is not to think, where it is not."""


def text_for(renderer: str, *, has_chatml: bool) -> str | None:
    """The text of the template for a renderer; for one that is not known, ChatML where the vocabulary has its marks."""
    files = _FILES.get(renderer, ("chatml",) if has_chatml else ())
    return "".join(map(_text, files)).replace(*_QUOTES.get(renderer, ("", ""))) if files else None


_QUOTES = {"functiongemma": ('<|"|>', "<escape>")}
"""What stands around texts in the notation of Gemma's calls, where that is not Gemma 4's."""


@cache
def _text(name: str) -> str:
    return (resources.files(__name__) / f"{name}.gotmpl").read_bytes().decode()
