"""Go templates for models that name one of Ollama's built-in renderers and have no Jinja template (spec cli §16.4).

They write the turns of the model's family, in our own words where they say something; tools only where the calls of the
family are read here (`parsers`). A model that has a Jinja template is rendered by that.
"""

from functools import cache
from importlib import resources

_FILES = {
    "qwen3-vl-instruct": "chatml-json",
    "qwen3-vl-thinking": "chatml-json-thinking",
    "qwen3-coder": "chatml-xml",
    **dict.fromkeys(
        ("qwen3.5", "qwen3.8", "ornith", "nemotron-3-nano", "nemotron-3.5-nano"),
        "chatml-xml-thinking",
    ),
    **dict.fromkeys(("olmo3", "olmo3.1", "lfm2"), "chatml"),
    **dict.fromkeys(("olmo3-think", "olmo3-32b-think", "lfm2-thinking"), "chatml-thinking"),
    **dict.fromkeys(("deepseek3.1", "cogito"), "deepseek"),
    "glm-4.7": "glm",
}


def names() -> frozenset[str]:
    """The renderers that there is a template for."""
    return frozenset(_FILES)


def text_for(renderer: str, *, has_chatml: bool) -> str | None:
    """The text of the template for a renderer; for one that is not known, ChatML where the vocabulary has its marks."""
    name = _FILES.get(renderer, "chatml" if has_chatml else "")
    return _text(name) if name else None


@cache
def _text(name: str) -> str:
    return (resources.files(__name__) / f"{name}.gotmpl").read_bytes().decode()
