"""Files as Ollama's registry has them, made of tiny models in the engine's own layout with the same weights.

Written from what is known of the published layouts, in the other direction than `corral.published` goes, and with none
of its code.
"""

from collections.abc import Callable
from pathlib import Path

from tests.published_models import gemma4, plain, reading, seeing
from tests.published_models.building import Twins
from tests.published_models.hybrid import HYBRID
from tests.published_models.later import LATER
from tests.published_models.parts import Parts

__all__ = ["FAMILIES", "Parts", "Twins"]

FAMILIES: dict[str, Callable[[Path], Twins]] = {
    "llama3": plain.llama3,
    "llava": seeing.llava,
    "gemma3": seeing.gemma3,
    "gptoss": plain.gptoss,
    "qwen25vl": seeing.qwen25vl,
    "mistral3": seeing.mistral3,
    "embeddinggemma": plain.embeddinggemma,
    **LATER,
    **HYBRID,
    "gemma4": gemma4.gemma4,
    "deepseekocr": reading.deepseekocr,
    "glmocr": reading.glmocr,
}
